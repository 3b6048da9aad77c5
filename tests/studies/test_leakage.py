"""A patient on both sides of a split, or a choice made on the test set: a model looks better than it is."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from cxrlib.cohort import Cohort
from cxrlib.studies import leakage, study
from cxrlib.studies.leakage import selection_optimism, split_by_image_and_by_patient


def twins(patients=60, copies=5, seed=0):
    """Patients whose images are nearly copies of one noise image, with labels that no image tells."""
    rng = np.random.default_rng(seed)
    faces = rng.normal(110, 45, (patients, 16, 16)).repeat(2, axis=1).repeat(2, axis=2)
    owners = np.repeat(np.arange(patients), copies)
    images = faces[owners] + rng.normal(0, 6, (len(owners), 32, 32))
    table = pd.DataFrame(
        {
            "image_id": [f"i{i:04d}" for i in range(len(owners))],
            "patient_id": [f"p{p:03d}" for p in owners],
            "label": rng.integers(0, 2, patients)[owners],
            "split": "train",
        }
    )
    return Cohort(images.clip(0, 255).astype(np.uint8), table, name="twins")


def test_the_two_splits_have_the_same_sizes_and_prevalences():
    for one, other in [split_by_image_and_by_patient(twins(), seed) for seed in range(5)]:
        first, second = (c.table.groupby(["split", "label"]).size() for c in (one, other))
        assert first.equals(second)
        assert other.table.groupby("patient_id")["split"].nunique().max() == 1
        assert one.table.groupby("patient_id")["split"].nunique().max() > 1
        assert (other.table["split"] == "test").mean() == pytest.approx(0.25, abs=0.04)


def test_the_two_splits_of_a_cohort_are_the_same_everywhere():
    # Golden: a change of these is a change of every recorded leakage study.
    by_image, by_patient = split_by_image_and_by_patient(twins(8, 3), seed=0)
    assert "".join(part[1] for part in by_patient.table["split"]) == "rrrrrreeeaaaaaarrrrrreee"
    assert "".join(part[1] for part in by_image.table["split"]) == "aarrreraeeerarreararerrr"
    assert by_image.allow_shared_patients and not by_patient.allow_shared_patients


def test_a_split_by_image_inflates_the_auc_and_a_split_by_patient_does_not(tmp_path, monkeypatch):
    budget = replace(study.BUDGETS["smoke"], splits=3, split_images=None, split_steps=90)
    monkeypatch.setitem(study.BUDGETS, "smoke", budget)
    fresh = twins(seed=99)
    found = leakage.leakage(twins(), "smoke", fresh=fresh, store=tmp_path, progress=False)
    numbers = found.numbers
    assert numbers["by_image.test_auc"].value > 0.85
    assert abs(numbers["by_patient.test_auc"].value - 0.5) < 0.25  # fifteen patients a test
    assert numbers["inflation"].low > 0
    assert numbers["by_image.true_auc"].value == pytest.approx(0.5, abs=0.12)
    assert numbers["by_image.shared"].value > 0.95
    assert numbers["by_patient.shared"].value == 0


def expected_maximum(k):
    return quad(lambda x: x * k * norm.pdf(x) * norm.cdf(x) ** (k - 1), -8, 8)[0]


def test_picking_among_noise_gains_the_expected_maximum_of_k_normals():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 300)
    found = []
    for repeat in range(12):  # models that know nothing, and others, so that one lucky set decides nothing
        scores = rng.random((32, 600))
        found.append(selection_optimism(labels, scores, ks=(1, 4, 16), draws=25, seed=repeat))
    gains = pd.concat(found).groupby("k")["optimism"].mean()
    sd = np.sqrt((150 + 150 + 1) / (12 * 150 * 150))  # of the AUC on half of them
    assert gains[1] == pytest.approx(0, abs=1e-12)
    for k in (4, 16):
        assert gains[k] == pytest.approx(expected_maximum(k) * sd, rel=0.15)


def test_a_choice_among_models_that_truly_differ_is_no_illusion():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 400)
    scores = np.stack([labels * strength + rng.normal(0, 1, 800) for strength in (0, 1, 2, 3)])
    best = selection_optimism(labels, scores, ks=(4,), draws=50)
    assert best["gain_fresh"].mean() > 0.15
    assert abs(best["optimism"].mean()) < 0.01


def test_with_fresh_images_the_gain_is_measured_there():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    scores = rng.random((8, 200))
    perfect = np.tile(labels, (8, 1)).astype(float)
    found = selection_optimism(labels, scores, ks=(8,), draws=10, fresh=(labels, perfect))
    assert (found["gain_fresh"] == 0).all()
    assert (found["gain_selected"] > 0).all()
