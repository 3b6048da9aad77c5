"""A stratum whose healthy patients are taken from training, and remedies for it."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from cxrlib.cohort import Cohort
from cxrlib.errors import DataError
from cxrlib.plots import strata as plots
from cxrlib.studies import harmonised as remedies
from cxrlib.studies import missing_stratum as missing


@pytest.fixture(scope="module")
def cohort():
    """Images with a bright square in the ill; the stratum is darker at its top."""
    rng = np.random.default_rng(0)
    n = 240
    label, stratum = rng.random(n) < 0.5, rng.random(n) < 0.4
    images = rng.integers(60, 120, (n, 32, 32)).astype(np.uint8)
    images[label, 12:20, 12:20] += 60
    images[stratum, :6] = 5
    table = pd.DataFrame({
        "image_id": [f"i{k}" for k in range(n)], "patient_id": [f"p{k // 2}" for k in range(n)],
        "label": label.astype(int), "stratum": stratum,
    })  # fmt: skip
    table["split"] = np.where(np.arange(n) % 10 < 6, "train", np.where(np.arange(n) % 10 < 8, "val", "test"))
    return Cohort(images, table, name="toy")


def test_the_patients_asked_about_are_no_others_and_the_official_test_is_left_out(cohort):
    here = missing.asked(cohort)
    official = set(cohort.table.loc[cohort.table["split"] == "test", "image_id"])
    assert not official & set(here.table["image_id"])
    by_patient = here.table.groupby("patient_id")["split"].agg(lambda parts: "test" in set(parts))
    asked = here.table["split"] == "test"
    assert asked.equals(here.table["patient_id"].map(by_patient))
    assert 0.25 < asked.mean() < 0.42


def test_only_the_stratums_healthy_go_and_more_of_them_with_a_larger_share(cohort):
    here = missing.asked(cohort)
    kept = [set(missing.without_healthy(here, share).table["image_id"]) for share in (0, 0.5, 0.9, 1)]
    assert kept[0] == set(here.table["image_id"])
    assert kept[0] > kept[1] > kept[2] > kept[3]
    gone = here.table[here.table["image_id"].isin(kept[0] - kept[3])]
    assert gone["stratum"].all() and not gone["label"].any() and not (gone["split"] == "test").any()
    left = missing.without_healthy(here, 1).table
    assert not ((left["split"] != "test") & left["stratum"] & (left["label"] == 0)).any()
    with pytest.raises(DataError, match="no healthy patient"):
        missing.without_healthy(here.with_columns(stratum=False), 1)


def test_right_calls_are_counted_in_the_stratum_and_outside(cohort):
    part = missing.asked(cohort).split("test")
    inside = part.table["stratum"].to_numpy()
    perfect = part.labels.astype(float)
    fooled = np.where(inside, 0.9, perfect)
    found = missing.measured(part, [perfect, fooled], replicates=20)
    assert found["healthy.stratum.specificity"].values.tolist() == [1, 0]
    assert found["ill.stratum.sensitivity"].values.tolist() == [1, 1]
    assert found["healthy.others.specificity"].values.tolist() == [1, 1]
    assert found["stratum.test_auc"].values.tolist() == [1, 0.5]


def test_the_study_trains_at_each_share_and_its_figure_shows_them(cohort):
    found = missing.missing_stratum(cohort, "smoke", (0, 1), shares=(0, 1), progress=False, replicates=20)
    assert found.runs[["share", "seed"]].to_numpy().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    numbers = found.numbers
    drop = (
        numbers["missing_100.healthy.stratum.specificity"].value
        - numbers["missing_0.healthy.stratum.specificity"].value
    )
    assert numbers["missing_100_minus_0.healthy.stratum.specificity"].value == pytest.approx(drop)
    assert numbers["asked.healthy.stratum"].value > 5
    assert len(plots.missing({"letter": found, "contrast": found}).axes) == 2


def test_the_contrasty_are_those_whose_greys_spread_most(cohort):
    inside = missing.contrasty(cohort)
    training = (cohort.table["split"] != "test").to_numpy()
    assert inside[training].mean() == pytest.approx(0.2, abs=0.01)
    spread = cohort.images.reshape(len(cohort), -1).std(axis=1)
    assert spread[inside].min() >= spread[~inside].max()


def test_phantoms_have_a_stratum_of_both_classes():
    cohort = missing.phantoms("smoke", 32)
    stratum = cohort.table["stratum"].to_numpy()
    assert 0.2 < stratum.mean() < 0.4
    assert {0, 1} == set(cohort.labels[stratum])


@pytest.fixture(scope="module")
def pictures(cohort):
    masks = np.zeros((len(cohort), 64, 64), np.uint8)
    masks[:, 16:48, 16:48] = 1
    large = cohort.with_images(cohort.images.repeat(2, 1).repeat(2, 2), lung_masks=masks)
    return remedies.Pictures(cohort, large, large)


@pytest.mark.parametrize("name", [name for name, arm in remedies.ARMS.items() if arm.images])
def test_each_change_of_images_keeps_their_number_size_and_kind(pictures, name):
    made = remedies.ARMS[name].images(pictures)
    assert made.shape == pictures.small.images.shape and made.dtype == np.uint8
    assert not np.array_equal(made, pictures.small.images) or name == "letters"


def test_matched_images_all_have_the_same_greys(pictures):
    made = remedies.matched(pictures).reshape(len(pictures.small), -1)
    assert (np.sort(made, axis=1) == np.sort(made[0])).all()
    row = pictures.small.images[0].ravel()
    assert (np.diff(made[0][np.argsort(row, kind="stable")].astype(int)) >= 0).all()


def test_the_best_arm_is_chosen_by_its_score_and_both_see_the_official_test(pictures):
    arms = ("matched", "histograms", "balanced", "adversarial")
    found = remedies.harmonised(
        pictures, "smoke", (0, 1), arms=arms, choosing=(0,), progress=False, replicates=20
    )
    numbers, names = found.numbers, {"plain", "together", *arms}
    assert set(found.runs["arm"]) == names
    chosen = [name for name in names if numbers[f"{name}.chosen"].value]
    assert len(chosen) == 1 and chosen != ["plain"]
    best = max((name for name in names if name != "plain"), key=lambda name: numbers[f"{name}.score"].value)
    assert numbers[f"{chosen[0]}.score"].value == numbers[f"{best}.score"].value
    change = numbers["best.test_specificity"].value - numbers["plain.test_specificity"].value
    assert numbers["best_minus_plain.test_specificity"].value == pytest.approx(change)
    assert len(plots.harmonised(found).axes) == 2


def test_the_best_two_are_one_of_the_images_and_one_of_the_training():
    score = {"plain": 0.99, "crop": 0.4, "clahe": 0.6, "mixstyle": 0.7, "balanced": 0.5}
    assert remedies.best_two(score) == ["clahe", "mixstyle"]
    arm = remedies.together(["clahe", "balanced"])
    assert arm.images is remedies.ARMS["clahe"].images and arm.drop and not arm.changes
    assert isinstance(remedies.ARMS["adversarial"].changes[0], partial)


def test_where_the_stratum_is_left_out_no_network_sees_it(pictures, monkeypatch):
    seen = []
    monkeypatch.setattr(remedies, "fan_out", lambda *_: None)
    monkeypatch.setattr(
        remedies, "_train", lambda cohort, *_: seen.append(cohort) or type("T", (), {"last": 0})
    )
    remedies.trained(pictures.small, remedies.ARMS["balanced"], "smoke", (0,))
    left = seen[0].table
    assert not (left["stratum"] & (left["split"] != "test")).any()
    assert (left["stratum"] & (left["split"] == "test")).any()
