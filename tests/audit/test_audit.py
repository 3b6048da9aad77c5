"""The audit finds planted shortcuts, names them, and is silent where there is nothing."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxrlib.audit import signs
from cxrlib.audit.asked import blocks, taken
from cxrlib.audit.features import SIGNS, Rows, describe
from cxrlib.audit.models import Classifiers
from cxrlib.audit.page import content, page, sentence, write
from cxrlib.audit.plots import detected
from cxrlib.audit.ridge import reduced
from cxrlib.audit.rules import PROBES, judged, judged_count
from cxrlib.audit.run import audit_cohort
from cxrlib.audit.stats import sample_patients
from cxrlib.audit.study import own_folder, skewed
from cxrlib.cohort import Cohort
from cxrlib.datasets import load
from cxrlib.errors import CacheError, DataError
from cxrlib.evaluation.metrics import Estimate, auc
from cxrlib.evaluation.results import Record, read_record
from cxrlib.phantom.latents import CONFOUNDERS, Confounder, PhantomConfig
from cxrlib.phantom.phantom import cohort_of, draw_latents, render, render_latents

QUICK = {"permutations": 299, "workers": 1, "progress": False}
SEED = 900_200


@pytest.fixture(scope="module")
def phantoms():
    """300 phantoms with known lungs whose confounders are independent of the label, each in half of them."""
    config = PhantomConfig(**{name: Confounder(0.5, 0.5) for name in CONFOUNDERS})
    made = render(300, image_size=128, seed=SEED, config=config)
    return cohort_of(made, SEED, config)


@pytest.fixture(scope="module")
def bare(phantoms):
    """The same with nothing in the table but ids, label and split."""
    return phantoms.with_images(
        phantoms.images, table=phantoms.table[["image_id", "patient_id", "label", "split"]]
    )


@pytest.fixture(scope="module")
def features(bare, tmp_path_factory):
    return describe(bare, tmp_path_factory.mktemp("features"), workers=1, progress=False)


@pytest.fixture(scope="module")
def clean(bare, features):
    return audit_cohort(bare, features=features, **QUICK)


def _labelled(cohort, flags, agreement=0.95, seed=0):
    """The cohort with labels that agree with flags, whatever the disease."""
    agree = np.random.default_rng(seed).random(len(cohort)) < agreement
    return cohort.with_columns(label=np.where(agree, flags, ~flags).astype(int))


def test_a_clean_cohort_has_nothing_severe_and_its_disease_is_a_note(clean):
    assert clean.severe == ()
    assert clean["whole"].severity == "note"
    assert clean["whole"].auc.low > 0.55


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("marker", "marker"),
        ("portable", "text"),
        ("collimation", "border"),
        ("exposure", "exposure"),
        ("devices", "devices"),
        ("projection", "projection"),
    ],
)
def test_a_label_that_goes_with_a_confounder_has_that_confounder_named(phantoms, bare, features, flag, name):
    flags = phantoms.table[flag].to_numpy()
    planted = _labelled(bare, flags)
    found = audit_cohort(planted, features=features, **QUICK)
    assert name in found.severe
    # Text and AP are drawn together in these phantoms, and so are devices in part.
    together = {"text", "projection", "devices"} if name in ("text", "projection", "devices") else {name}
    assert set(found.severe) & set(SIGNS) <= together


def test_signs_do_not_look_at_disease(phantoms):
    latents = draw_latents(40, SEED, PhantomConfig(severity=1.5))

    ill, healthy = (
        render_latents([replace(one, label=label) for one in latents], image_size=128, seed=SEED)
        for label in (1, 0)
    )
    for function in (signs.borders, lambda image: np.concatenate(signs.writing(image)[:2])):
        a, b = (np.stack([function(image) for image in one.images]) for one in (ill, healthy))
        assert np.median(np.abs(a - b)) == 0
    a, b = (
        np.concatenate(
            [
                signs.projection(signs.around_lungs(i, m))
                for i, m in zip(one.images, one.lung_masks, strict=True)
            ]
        )
        for one in (ill, healthy)
    )
    assert auc(np.repeat([1, 0], 40), np.concatenate([a, b])) == pytest.approx(0.5, abs=0.12)


def test_letters_and_text_are_told_apart(phantoms):
    found = [signs.writing(image) for image in phantoms.images]
    table = phantoms.table
    letters, text = (np.array([one[k][0] for one in found]) for k in (0, 1))
    assert auc(table["marker"].astype(int), letters) > 0.75
    assert auc(table["portable"].astype(int), text) > 0.85
    assert abs(auc(table["marker"].astype(int), text) - 0.5) < 0.12


def test_negatives_that_go_with_the_label_are_named(bare):
    part = bare.take(np.arange(160))
    images = np.where(part.labels[:, None, None] == 1, 255 - part.images, part.images)
    found = audit_cohort(part.with_images(images), **QUICK)
    assert found["polarity"].severity == "severe"
    assert found["polarity"].auc.value > 0.95


def test_metadata_are_asked_column_by_column(bare, features):
    rng = np.random.default_rng(0)
    ward = np.where(rng.random(300) < 0.15 + 0.7 * bare.labels, "ICU", "clinic")
    table = bare.with_columns(
        ward=ward, age=rng.normal(50, 10, 300), diagnosis=np.where(bare.labels, "P", "N")
    )
    found = audit_cohort(table, features=features, **QUICK)
    assert found["column_ward"].severity == "severe"
    assert found["column_age"].severity == "fine"
    assert found["column_diagnosis"].severity == "warning" and found["column_diagnosis"].detail["disguise"]
    assert found["metadata"].auc.value < 0.95  # the diagnosis is not in it
    levels = {one["level"]: one["share_ill"] for one in found["column_ward"].detail["levels"]["ward"]}
    assert levels["ICU"] > 0.6 > 0.3 > levels["clinic"]


def test_a_source_is_severe_where_labels_differ_and_pixels_show_it(phantoms, bare, features):
    site = phantoms.table["collimation"].map({True: "A", False: "B"})
    skewed = _labelled(bare, phantoms.table["collimation"].to_numpy(), 0.85).with_columns(site=site)
    found = audit_cohort(skewed, features=features, **QUICK)["source"]
    assert found.severity == "severe"
    assert found.detail["told_from_pixels"]["A"]["value"] > 0.9
    alone = bare.with_columns(site=np.where(bare.labels == 1, "A", "B"))
    apart = audit_cohort(alone, features=features, **QUICK)["source"]
    assert apart.severity == "severe" and apart.detail["whole_within_sources"] is None
    assert "cannot be told apart" in sentence(apart)
    balanced = audit_cohort(bare.with_columns(site=site), features=features, **QUICK)["source"]
    assert balanced.severity == "note"


def test_copies_are_counted_by_what_they_spoil(bare):
    part = bare.take(np.arange(120))
    copies = part.take(np.arange(6))
    table = pd.concat([part.table, copies.table.assign(
        image_id=[f"copy{i}" for i in range(6)], patient_id=[f"other{i}" for i in range(6)],
        label=1 - copies.labels, split=np.where(copies.table["split"] == "train", "test", "train"),
    )])  # fmt: skip
    masks = np.concatenate([part.lung_masks, copies.lung_masks])
    spoilt = Cohort(np.concatenate([part.images, copies.images]), table, masks)
    found = audit_cohort(spoilt, **QUICK)
    assert found["duplicates"].images == 12 and found["duplicates"].detail["exact"] == 6
    for name in ("duplicate_labels", "duplicate_patients", "duplicate_splits"):
        assert found[name].severity == "severe", name


def test_patients_in_two_splits_are_counted(bare, features):

    split = np.where(np.arange(300) % 2, "train", "test")
    leaky = replace(bare, table=bare.table.assign(split=split), allow_shared_patients=True)
    found = audit_cohort(leaky, features=features, **QUICK)
    parts = pd.Series(split).groupby(bare.patients).nunique()
    assert found["patients"].severity == "severe"
    assert found["patients"].detail["patients"] == (parts > 1).sum()


def test_without_patients_or_split_it_says_what_cannot_be_checked(bare, features):
    alone = bare.with_columns(patient_id=bare.table["image_id"])
    found = audit_cohort(alone, features=features, has_split=False, **QUICK)
    assert any("No patients are known" in limit for limit in found.limits)
    assert any("No split" in limit for limit in found.limits)
    assert "patients" not in {f.probe.name for f in found.findings}


def test_one_class_or_a_tiny_data_set_is_an_error_that_says_so(bare):
    with pytest.raises(DataError, match="all images have the label 0"):
        audit_cohort(bare.with_columns(label=0), **QUICK)
    with pytest.raises(DataError, match=r"only \d+ of 30"):
        audit_cohort(bare.take(np.arange(30)), **QUICK)


def test_the_order_of_rows_changes_nothing(bare, features, clean):
    order = np.random.default_rng(1).permutation(len(bare))
    mixed = audit_cohort(
        bare.take(order), features={name: values[order] for name, values in features.items()}, **QUICK
    )
    assert [(f.probe.name, f.auc, f.p_value) for f in mixed.findings] == [
        (f.probe.name, f.auc, f.p_value) for f in clean.findings
    ]


def test_the_number_of_processes_changes_nothing(phantoms, features, tmp_path, monkeypatch):
    monkeypatch.setattr("cxrlib.audit.asked.SMALL", 0)
    rng = np.random.default_rng(0)
    table = phantoms.table[["image_id", "patient_id", "label", "split", "age", "sex", "site"]]
    scores = pd.DataFrame({"network": phantoms.labels + rng.normal(size=len(phantoms))})
    given = Classifiers(scores, {"network": 0.5})
    found = []
    for workers in (1, 2):
        options = QUICK | {"workers": workers, "out": tmp_path / str(workers)}
        cohort = phantoms.with_images(phantoms.images, table=table)
        made = content(audit_cohort(cohort, features=features, classifiers=given, **options))
        found.append({name: values for name, values in made.items() if name != "provenance"})
    assert found[0] == found[1] and found[0]["attributes"] and len(found[0]["findings"]) > 25
    kept = [sorted(file.name for file in (tmp_path / str(n)).rglob("probe-*.npz")) for n in (1, 2)]
    assert kept[0] == kept[1] and kept[0]


def test_features_in_blocks_are_those_at_hand(features, monkeypatch):
    monkeypatch.setattr("cxrlib.audit.asked.ROWS", 64)
    rows, whole = np.arange(0, 300, 2), features["whole"]
    some = blocks(Rows(features, rows), "whole")
    assert [len(part) for part in some] == [64, 64, 22]
    np.testing.assert_array_equal(np.concatenate(list(some)), whole[rows])
    np.testing.assert_array_equal(taken(blocks(features, "whole"), rows), whole[rows])
    backwards = blocks(Rows(features, rows[::-1]), "whole")
    np.testing.assert_array_equal(backwards, whole[rows[::-1]])
    for read, at_hand in ((some, whole[rows]), (blocks(features, "blur"), features["blur"])):
        one, other = reduced(read), reduced(at_hand)  # more columns than rows, and fewer
        np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-8)  # an axis has either sign


def test_resume_takes_finished_probes_and_images_over(bare, tmp_path):
    part = bare.take(np.arange(100))
    first = audit_cohort(part, out=tmp_path, **QUICK)
    kept = sorted((tmp_path / "work").rglob("images-*.npz"))
    stamps = [file.stat().st_mtime_ns for file in kept]
    next((tmp_path / "work").rglob("probe-*.npz")).unlink()  # as if it had been cut off before this one
    again = audit_cohort(part, out=tmp_path, resume=True, **QUICK)
    reused = [f.reused for f in again.findings if f.auc]
    assert sum(not one for one in reused) == 1
    assert [file.stat().st_mtime_ns for file in kept] == stamps
    assert [f.auc for f in again.findings] == [f.auc for f in first.findings]
    other = audit_cohort(part.with_columns(label=1 - part.labels), out=tmp_path, resume=True, **QUICK)
    assert not any(f.reused for f in other.findings)


def test_features_need_masks_and_a_folder_that_keeps_its_files(bare, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="has no lung masks"):
        describe(replace(bare, lung_masks=None), tmp_path, progress=False)
    monkeypatch.setattr("cxrlib.audit.features.run_jobs", lambda *_, **__: [])
    with pytest.raises(CacheError, match="gone or damaged"):
        describe(bare, tmp_path, progress=False)


def test_a_sample_takes_whole_patients_and_is_always_the_same(bare):
    rows = sample_patients(bare.patients, 100, seed=3)
    assert 100 <= rows.sum() < 112
    assert not set(bare.patients[rows]) & set(bare.patients[~rows])
    order = np.random.default_rng(0).permutation(300)
    assert (sample_patients(bare.patients[order], 100, seed=3) == rows[order]).all()
    assert (sample_patients(bare.patients, 100, seed=4) != rows).any()
    assert sample_patients(bare.patients, None).all()


def test_severity_follows_the_written_rule():
    sure, weak = Estimate(0.7, 0.65, 0.75), Estimate(0.57, 0.53, 0.61)
    assert judged(PROBES["marker"], sure, 0.01, 0.5) == "severe"
    assert judged(PROBES["marker"], sure, 0.01, 0.2) == "warning"  # little of what the whole image gives
    assert judged(PROBES["marker"], weak, 0.01, 0.5) == "warning"
    assert judged(PROBES["marker"], sure, 0.06, 0.5) == "fine"
    assert judged(PROBES["blur"], sure, 0.01, 0.9) == "note"
    assert judged(PROBES["file_size"], sure, 0.01, 0.9) == "warning"
    assert judged_count(PROBES["patients"], 1, 200) == "warning"
    assert judged_count(PROBES["patients"], 2, 200) == "severe"


def test_audit_json_is_read_as_a_record_and_follows_its_schema(bare, clean, tmp_path):
    path, _ = write(clean, bare, tmp_path, pictures=False, command="cxr audit x --labels y", seconds=1.0)
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["audit_schema"] == 3 and stored["verdict"] == clean.verdict
    assert stored["provenance"]["content_hash"] == stored["cohort"]["content_hash"]
    assert {"name", "severity", "auc", "p_holm", "share", "shown", "found", "advice"} <= set(
        stored["findings"][0]
    )
    record = read_record(path)
    assert record.estimate("whole.auc").low == clean["whole"].auc.low
    assert record.estimate("duplicates.images").value == 0


def test_the_page_runs_nothing_asks_for_nothing_and_escapes_names(bare, features, tmp_path):
    evil = '"><script>alert(1)</script><img src=//x.y/z onerror=a>'
    n = len(bare)
    hostile = bare.with_columns(
        image_id=[f"{evil}{i}.png" for i in range(n)],
        **{f"<b onclick=x>{evil}": np.where(bare.labels, evil, "<i>")},
    )
    found = audit_cohort(hostile, features=features, **QUICK)
    text = page(found, hostile)
    assert "<script" not in text and "<b onclick" not in text and "<img src=//" not in text
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    shown = [f for f in found.findings if f.severity != "fine" and f.auc and f.probe.group != "table"]
    assert text.count("data:image/png") == 3 + 8 * len(shown)
    assert "data:image/png" not in page(found, None)
    json.dumps(content(found), allow_nan=False)


def test_the_detection_curve_puts_the_planted_strengths_in_order():
    share = Estimate(0.5, 0.2, 0.8, 10)
    names = ("marker.agreement_100", "marker", "marker.agreement_55", "portable")
    record = Record("audit", {f"{name}.found_share": share for name in names}, {}, None)
    assert [agreement for agreement, _ in detected(record, "marker")] == [0.55, 0.9, 1.0]


def test_a_written_folder_has_the_faults_it_says(phantoms, tmp_path):
    csv = pd.read_csv(own_folder(phantoms.take(np.arange(80)), tmp_path, copies=3))
    assert len(csv) == 83 and all((tmp_path / name).is_file() for name in csv["image"])
    assert (csv["split"][80:] == "test").all()
    care = (csv["ward"] == "intensive care").groupby(csv["label"]).mean()
    assert care[1] > care[0] + 0.2


def test_skewing_moves_the_label_into_the_largest_source(phantoms):
    pooled = phantoms.with_columns(site=np.where(np.arange(300) % 3, "A", "B"))
    ill = skewed(pooled).table.groupby("site")["label"].mean()
    assert ill["A"] > 0.6 and ill["B"] < 0.3
    with pytest.raises(DataError, match="'hospital'"):
        skewed(pooled, "hospital")


@pytest.mark.real_data
def test_on_kermany_frame_and_corners_are_severe(data_root):
    cohort = load("kermany", data_dir=data_root / "kermany224", image_size=128, limit=300, progress=False)
    found = audit_cohort(cohort, permutations=199, progress=False)
    assert {"frame", "corners"} <= set(found.severe)
    assert found["frame"].auc.low > 0.7


@pytest.mark.real_data
def test_on_two_pooled_hospitals_a_skewed_source_is_severe(data_root):
    cohort = load("lung_masks", data_dir=data_root / "lung-masks", image_size=128, progress=False)
    found = audit_cohort(skewed(cohort), permutations=199, progress=False)
    assert found["source"].severity == "severe"
    told = found["source"].detail["told_from_pixels"]
    assert min(one["low"] for one in told.values()) > 0.9


@pytest.mark.real_data
def test_the_template_of_phantoms_tells_ap_from_pa_on_radiographs(data_root):
    from cxrlib.lungs.masks import segment

    cohort = segment(
        load("nih", data_dir=data_root / "nih-subset", image_size=128, limit=250, progress=False)
    )
    scores = np.concatenate(
        [
            signs.projection(signs.around_lungs(i, m))
            for i, m in zip(cohort.images, cohort.lung_masks, strict=True)
        ]
    )
    known = np.isfinite(scores)
    assert auc((cohort.table["view"] == "AP").astype(int)[known], scores[known]) > 0.7
