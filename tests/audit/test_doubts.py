"""Labels that were turned round stand first among the doubted ones, where the judge knows the label."""

import json

import numpy as np
import pandas as pd
import pytest

from cxrlib.audit.doubts import doubts, probabilities
from cxrlib.cohort import Cohort
from cxrlib.evaluation.calibration import reliability
from cxrlib.evaluation.label_errors import plant
from cxrlib.evaluation.results import project_root


@pytest.fixture
def known():
    """800 images of 400 patients, 5% of them with the wrong label; and a score that knows the right ones."""
    rng = np.random.default_rng(0)
    truth = np.repeat((rng.random(400) < 0.4).astype(int), 2)
    patients = np.repeat([f"p{i}" for i in range(400)], 2)
    given, wrong = plant(truth, 0.05, patients, seed=1)
    table = pd.DataFrame({"image_id": [f"i{i}" for i in range(800)], "patient_id": patients, "label": given})
    cohort = Cohort(np.zeros((800, 2, 2), np.uint8), table.assign(split="test"))
    return cohort, wrong, rng.normal(6 * truth, 1) * 40 - 7


def test_turned_labels_are_listed_first_with_what_speaks_against_them(known):
    cohort, wrong, score = known
    found = doubts(cohort, {"net": score})
    rows = [int(one.image[1:]) for one in found.found]
    assert found.judges == {"net": len(rows)} and found.limits == ()
    assert wrong[rows].mean() > 0.9 and wrong[rows].sum() > 0.85 * wrong.sum()
    suspicion = [one.suspicion["net"] for one in found.found]
    assert suspicion == sorted(suspicion, reverse=True) and min(suspicion) > 0.5
    assert [one.label for one in found.found] == cohort.labels[rows].tolist()


def test_what_two_judges_suspect_stands_before_what_one_does(known):
    cohort, _, score = known
    other = score + np.random.default_rng(2).normal(0, 40, 800)
    number = [len(one.suspicion) for one in doubts(cohort, {"net": score, "other": other}).found]
    assert number == sorted(number, reverse=True) and set(number) == {1, 2}


def test_a_judge_that_knows_little_is_not_asked_and_that_is_said(known):
    cohort, _, _ = known
    found = doubts(cohort, {"coin": np.random.default_rng(0).random(800), "same": np.zeros(800)})
    assert found.found == () and len(found.limits) == 2 and "coin" in found.limits[0]


def test_scores_become_probabilities_whatever_their_unit_and_of_other_patients(known):
    cohort, _, score = known
    p = probabilities(score, cohort.labels, cohort.patients)
    assert np.allclose(p, probabilities(1000 * score + 3, cohort.labels, cohort.patients), atol=1e-3)
    assert abs(p.mean() - cohort.labels.mean()) < 0.03
    assert len(reliability(cohort.labels, p))
    turned = cohort.labels.copy()
    mine = cohort.patients == cohort.patients[0]
    turned[mine] = 1 - turned[mine]
    assert np.allclose(p[mine], probabilities(score, turned, cohort.patients)[mine])


def test_separated_classes_are_no_error(known):
    cohort, _, _ = known
    assert doubts(cohort, {"perfect": cohort.labels * 2.0 - 1}).found == ()


def test_the_docs_table_is_the_recorded_one():
    root = project_root()
    numbers = json.loads((root / "benchmarks" / "audit_labels.json").read_text(encoding="utf-8"))["numbers"]
    docs = (root / "docs" / "audit.md").read_text(encoding="utf-8")
    for rate in (2, 5, 10):
        row = numbers[f"clear.flipped_{rate:02d}.listed_share"]
        cells = [f"{rate}% of patients", f"{row['value']:.0%}"]
        for name in ("precision", "recall", "first_20.precision"):
            one = numbers[f"clear.flipped_{rate:02d}.{name}"]
            cells.append("{value:.0%} ({low:.0%}–{high:.0%})".format(**one))
        assert f"| {' | '.join(cells)} |" in docs
    assert all(numbers[f"usual.flipped_{rate}.listed_share"]["value"] == 0 for rate in ("02", "05", "10"))
