"""Several findings: looked at once, corrected together, each with a page, and none lost in silence."""

import numpy as np
import pytest

from cxrlib.audit import several as module
from cxrlib.audit.several import audit_findings, folder_of, labelled, write_all
from cxrlib.audit.together import alone, together
from cxrlib.errors import DataError
from cxrlib.phantom.latents import PhantomConfig
from cxrlib.phantom.phantom import cohort_of, render
from cxrlib.studies.study_stats import holm

QUICK = {"permutations": 19, "workers": 1, "progress": False}


def _steps(p_values, log):
    corrected = yield p_values
    log.append(corrected.tolist())
    again = yield p_values[:1]
    return again.tolist()


def test_p_values_of_one_step_are_corrected_together():
    log = []
    ends = together([_steps([0.01, 0.5], log), _steps([0.02], log), _steps([0.03, 0.9, 1.0], log)])
    expected = holm([0.01, 0.5, 0.02, 0.03, 0.9, 1.0]).tolist()
    assert log == [expected[:2], expected[2:3], expected[3:]]
    assert [end[0] for end in ends] == holm([0.01, 0.02, 0.03]).tolist()
    assert alone(_steps([0.04], [])) == [0.04]


@pytest.fixture(scope="module")
def phantoms():
    config = PhantomConfig().unconfounded()
    return cohort_of(render(60, image_size=64, seed=900_320, config=config), 900_320, config)


@pytest.fixture(scope="module")
def labels(phantoms):
    """A column that equals the label; one known for the first 50 images; one of three images."""
    rng = np.random.default_rng(0)
    half = np.where(np.arange(60) < 50, rng.random(60) < 0.5, np.nan).astype(float)
    return {"by ward": rng.permutation(60) % 2 * 1.0, "half <b>": half, "rare": (np.arange(60) < 3) * 1.0}


@pytest.fixture(scope="module")
def found(phantoms, labels, tmp_path_factory):
    out = tmp_path_factory.mktemp("several")
    cohort = phantoms.with_columns(ward=np.where(labels["by ward"] == 1, "A", "B"))
    return audit_findings(cohort, labels, out=out, **QUICK), cohort, out


def test_each_finding_is_audited_on_the_images_that_have_it(found):
    audits = found[0].audits
    assert list(audits) == ["by ward", "half <b>"]
    assert [audit.facts["images"] for audit in audits.values()] == [60, 50]
    assert [audit.facts["name"] for audit in audits.values()] == list(audits)
    assert audits["by ward"]["column_ward"].detail["disguise"]
    assert found[0].limits == (
        "Finding 'rare' was not audited: 3 images have it and 57 have not; 20 of each are needed.",
    )


def test_corrected_p_values_are_holms_over_all_findings(found):
    probes = [f for audit in found[0].audits.values() for f in audit.findings if f.p_value is not None]
    assert [f.p_holm for f in probes] == holm([f.p_value for f in probes]).tolist()


def test_images_are_looked_at_once(phantoms, labels, tmp_path, monkeypatch):
    looked = []
    describe = module.describe
    monkeypatch.setattr(module, "describe", lambda *a, **b: looked.append(1) or describe(*a, **b))
    monkeypatch.setattr("cxrlib.audit.run.describe", None)
    audit_findings(phantoms, {"a": labels["by ward"], "b": 1 - labels["by ward"]}, **QUICK)
    assert looked == [1]


def test_resuming_takes_images_and_probes_over(found, labels):
    _, cohort, out = found
    again = audit_findings(cohort, labels, out=out, resume=True, **QUICK)
    for name, audit in again.audits.items():
        assert all(f.reused for f in audit.findings if f.auc is not None)
        assert [f.p_holm for f in audit.findings] == [f.p_holm for f in found[0].audits[name].findings]


def test_a_page_links_to_each_findings_page_and_escapes_its_name(found, labels, tmp_path):
    several, cohort, _ = found
    cohorts = {name: labelled(cohort, name, labels[name]) for name in several.audits}
    write_all(several, cohorts, tmp_path, pictures=False)
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "half &lt;b&gt;" in page and "<b>half" not in page and "http" not in page.replace("http-equiv", "")
    for number, name in enumerate(several.audits, 1):
        assert f'href="{folder_of(number, name)}/audit.html"' in page
        assert (tmp_path / folder_of(number, name) / "audit.html").is_file()
    assert "was not audited" in page


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "…", "CON", "x" * 300, "\x00"])
def test_a_findings_folder_can_be_written_anywhere(name):
    folder = folder_of(7, name)
    assert folder.startswith("7-") and len(folder) < 50 and folder.replace("-", "").isalnum()


def test_where_no_finding_can_be_audited_each_is_named(phantoms):
    with pytest.raises(DataError, match=r"None of 1 findings(.|\n)*'none'"):
        audit_findings(phantoms, {"none": np.zeros(60)}, **QUICK)


def test_a_finding_whose_ill_are_one_patient_is_left_out_by_name(phantoms):
    people = ["one"] * 25 + [f"p{i}" for i in range(35)]
    cohort = phantoms.with_columns(split="train", patient_id=people)
    values = {"of one": (np.arange(60) < 25) * 1.0, "of many": np.arange(60) % 2 * 1.0}
    found = audit_findings(cohort, values, **QUICK)
    assert list(found.audits) == ["of many"]
    assert "'of one' was not audited" in found.limits[0] and "patients" in found.limits[0]
