"""Splits from elsewhere and rare kinds of image are found; random ones and redrawn labels are not."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.audit import kinds
from cxrlib.audit.made import MADE
from cxrlib.audit.page import sentence
from cxrlib.audit.probes import Probes
from cxrlib.audit.rules import PROBES, column_probe
from cxrlib.audit.splits import between
from cxrlib.audit.study import clean_alarms
from cxrlib.cohort import Cohort, split_by_patient

N = 600


@pytest.fixture
def cohort():
    rng = np.random.default_rng(0)
    patients = [f"p{i // 2:03}" for i in range(N)]
    table = pd.DataFrame({"image_id": [f"{i:03}" for i in range(N)], "patient_id": patients})
    table["label"] = rng.permutation(np.arange(N) % 2)
    table["split"] = split_by_patient(patients, (0.5, 0.25, 0.25))
    return Cohort(np.zeros((N, 8, 8), np.uint8), table, name="made")


def asked(cohort, folder, shift=None, more=()):
    """What :func:`between` says where the test's healthy have another texture."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    probes = Probes(cohort, folder, 199, 0, False)
    moved = shift if shift is not None else np.zeros(N, bool)
    for probe in (PROBES["texture"], PROBES["exposure"], *more):
        values = rng.normal(size=(N, 4)) + 1.5 * moved[:, None] * (probe.name == "texture")
        if probe in more:
            values = (cohort.table["split"] == "test").to_numpy(float)[:, None]
        probes.ask(probe, lambda values=values: values)
        probes.attributes[probe.name] = (lambda values=values: values, None)
    return between(probes, {})


def test_a_test_from_elsewhere_is_a_warning_that_says_in_which_class(cohort, tmp_path):
    shift = ((cohort.table["split"] == "test") & (cohort.labels == 0)).to_numpy()
    found, limits = asked(cohort, tmp_path / "w", shift, more=[column_probe("archive")])
    by_name = {one.probe.name: one for one in found}
    assert limits == [] and by_name["split_val"].severity == "fine"
    test = by_name["split_test"]
    assert test.severity == "warning" and test.auc.low > 0.7
    best = test.detail["rows"][0]
    assert (best["probe"], best["class"]) == ("texture", "healthy")
    assert set(best["telling"][:4]) <= set(cohort.table["image_id"][shift])
    assert "among the healthy" in sentence(test)
    last = {row["severity"] for row in test.detail["rows"] if row["probe"] == "column_archive"}
    assert last == {"note"}  # the split in other words


def test_random_splits_are_not_told_apart_and_small_ones_are_not_asked(cohort, tmp_path):
    found, _ = asked(cohort, tmp_path / "a")
    assert {one.severity for one in found} == {"fine"}
    assert sentence(found[0]) == "None of 4 questions told the two parts apart."
    few = np.where(np.arange(N) >= 590, "test", "train")
    found, limits = asked(cohort.with_columns(split=few), tmp_path / "b")
    assert found == []
    assert len(limits) == 2 and all("test was not compared with train" in one for one in limits)


def described(seed=2):
    """Features of images that are alike, but for a twentieth with a letter of another machine."""
    rng = np.random.default_rng(seed)
    odd = np.arange(N) % 20 == 0
    widths = {"texture": 6, "compression": 4, "grey_levels": 3, "border": 5, "exposure": 8, "strokes": 256}
    features = {name: rng.normal(size=(N, width)) for name, width in widths.items()}
    features["strokes"] = np.abs(features["strokes"]) * 0.05
    features["strokes"][odd, 16:22] += 0.8
    features["texture"][odd] += 4
    return features, odd


def test_a_rare_kind_that_is_nearly_all_ill_is_found_and_its_images_are_named(cohort):
    features, odd = described()
    labels = np.where(odd, 1, cohort.labels)
    codes, away = kinds.grouped(features)
    found = kinds.uneven(codes, away, labels, cohort.patients, 999, 0)
    assert found[0].p < 0.05 and found[0].ill == len(found[0].rows)
    assert odd[found[0].rows].mean() > 0.9 and odd[found[0].rows].sum() > 0.8 * odd.sum()
    detail, shown = kinds.told(found, cohort.table["image_id"].to_numpy(str), labels.mean())
    first = detail["levels"]["kind of image"][0]
    assert first["share_ill"] == 1 and set(first["examples"]) <= set(cohort.table["image_id"][odd])
    assert set(shown[:4]) <= set(first["examples"])


def test_kinds_raise_no_alarm_where_labels_are_dealt_to_patients_by_lot(cohort):
    features, _ = described()
    codes, away = kinds.grouped(features)
    alarms = 0
    for draw in range(40):
        patients = np.random.default_rng([draw, 5]).integers(0, 2, N // 2)
        labels = np.repeat(patients, 2)
        alarms += kinds.uneven(codes, away, labels, cohort.patients, 199, draw)[0].p < 0.05
    assert alarms <= 6  # two are expected; more than six have a chance of 1 in 70


def test_alarms_on_clean_images_are_counted_by_probe(cohort, tmp_path):
    features, _ = described()
    rng = np.random.default_rng(4)
    features["mirrored"] = rng.normal(size=(N, 128))
    numbers = clean_alarms(cohort, features, tmp_path, cohorts=2)
    assert {one.n for name, one in numbers.items() if name != "clean.splits.alarms"} == {2}
    assert {"clean.any.alarms", "clean.kinds.alarms", "clean.splits.alarms"} <= set(numbers)


def test_images_that_are_alike_in_all_respects_are_one_kind():
    features = {name: np.zeros((50, 3)) for name in (*MADE, "border", "exposure", "strokes")}
    codes, away = kinds.grouped(features)
    assert set(codes) == {0} and not away.any()
    labels = np.arange(50) % 2
    assert kinds.uneven(codes, away, labels, np.arange(50).astype(str), 199, 0)[0].p > 0.05
