"""Subgroups: values by hand, intervals by patient, and gaps that are there or not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import bootstrap
from cxrlib.evaluation.subgroups import age_band, by_subgroup, by_subtype, divisions, estimates, subset_draws


@pytest.fixture
def cohort():
    rng = np.random.default_rng(1)
    n = 600
    labels = (rng.random(n) < 0.4).astype(int)
    site = rng.choice(["north", "south"], n)
    noise = np.where(site == "south", 3.0, 0.5)  # the network is blind in the south
    scores = 1 / (1 + np.exp(-(rng.normal(0, noise) + 2 * labels - 1)))
    table = pd.DataFrame(
        {"site": site, "sex": rng.choice(["F", "M"], n), "age": rng.integers(0, 95, n).astype(float)}
    )
    return labels, scores, table, rng.integers(0, 250, n)


def test_values_are_those_of_the_groups_rows(cohort):
    labels, scores, table, patients = cohort
    found = by_subgroup(labels, [scores], table[["site"]], patients, replicates=50)
    south = (table["site"] == "south").to_numpy()
    row = found[(found["group"] == "south") & (found["measure"] == "auc")].iloc[0]
    assert row["value"] == pytest.approx(roc_auc_score(labels[south], scores[south]))
    assert row["gap"] == pytest.approx(row["value"] - roc_auc_score(labels[~south], scores[~south]))
    assert (row["n"], row["positives"]) == (south.sum(), labels[south].sum())
    row = found[(found["group"] == "north") & (found["measure"] == "specificity")].iloc[0]
    assert row["value"] == pytest.approx((scores[~south & (labels == 0)] < 0.5).mean())


def test_a_planted_gap_is_seen_and_no_other(cohort):
    labels, scores, table, patients = cohort
    found = by_subgroup(labels, [scores], table[["site", "sex"]], patients, replicates=400)
    auc = found[found["measure"] == "auc"].set_index("group")
    assert auc.loc["south", "gap_high"] < 0 < auc.loc["north", "gap_low"]
    assert auc.loc["F", "gap_low"] < 0 < auc.loc["F", "gap_high"]


def test_a_group_of_all_rows_has_the_bootstraps_interval(cohort):
    labels, scores, _, patients = cohort
    drawn = subset_draws(
        labels, [scores], {"all": np.ones(len(labels), dtype=bool)}, patients, replicates=300
    )
    peer = bootstrap(labels, scores, patients, ("auc",), replicates=300)["auc"]
    low, high = np.quantile(drawn["all"]["auc"][1:], [0.025, 0.975])
    assert (drawn["all"]["auc"][0], low, high) == pytest.approx((peer.value, peer.low, peer.high))


def test_a_group_of_one_class_has_no_auc_and_keeps_its_sensitivity(cohort):
    labels, scores, table, patients = cohort
    odd = table["site"].where(~((table["sex"] == "F") & (labels == 1)), "only ill")
    found = by_subgroup(labels, [scores], odd.to_frame("site"), patients, replicates=30)
    assert found[found["group"] == "only ill"]["measure"].tolist() == ["sensitivity"]


def test_each_subtype_meets_all_healthy_images(cohort):
    labels, scores, _, patients = cohort
    rng = np.random.default_rng(2)
    kinds = np.where(labels == 1, rng.choice(["bacteria", "virus"], len(labels)), "normal")
    found = by_subtype(labels, [scores, scores**2], kinds, patients, replicates=50)
    rows = (labels == 0) | (kinds == "virus")
    row = found[(found["group"] == "virus") & (found["measure"] == "auc")].iloc[0]
    assert row["value"] == pytest.approx(roc_auc_score(labels[rows], scores[rows]))
    assert row["n"] == rows.sum()
    assert set(found["group"]) == {"bacteria", "virus"}
    numbers = estimates(found)
    assert numbers["subtype.virus.auc_gap"].value == pytest.approx(-numbers["subtype.bacteria.auc_gap"].value)
    assert numbers["subtype.virus.auc"].seeds == 2


def test_ill_rows_without_a_subtype_are_refused():
    with pytest.raises(DataError, match="subtype"):
        by_subtype([0, 1, 1], [[0.1, 0.2, 0.3]], ["", "", None])


def test_ages_fall_into_the_band_that_names_them():
    bands = age_band(pd.Series([0, 17, 18, 39.9, 40, 80, np.nan]))
    assert bands.astype(object).fillna("?").tolist() == [
        "0–17",
        "0–17",
        "18–39",
        "18–39",
        "40–59",
        "75+",
        "?",
    ]
    assert "60–74" not in bands.cat.categories


def test_columns_that_divide_nobody_are_left_out():
    table = pd.DataFrame(
        {"sex": ["F", "M"], "view": ["PA", "PA"], "age": [20.0, 60.0], "subtype": ["a", "b"]}
    )
    assert list(divisions(table)) == ["sex", "age_band"]


def test_a_group_that_is_all_right_has_wilsons_interval_and_differs_only_if_it_is_large():
    rng = np.random.default_rng(0)
    labels, groups = np.zeros(400, int), np.repeat(["few", "many"], [4, 396])
    labels[::3] = 1
    scores = np.where(labels == 1, 0.9, np.where(rng.random(400) < 0.2, 0.8, 0.1))
    scores[:4] = labels[:4]
    found = by_subgroup(labels, [scores], pd.DataFrame({"ward": groups}), replicates=200)
    row = found[(found["group"] == "few") & (found["measure"] == "specificity")].iloc[0]
    assert row["value"] == row["high"] == 1
    assert row["low"] < 0.5
    assert row["gap"] > 0 > row["gap_low"]
    auc_row = found[(found["group"] == "few") & (found["measure"] == "auc")].iloc[0]
    assert np.isnan(auc_row["low"])
    assert estimates(found)["ward.few.auc"].low is None


def test_groups_of_another_length_or_without_a_value_are_refused(cohort):
    labels, scores, table, patients = cohort
    with pytest.raises(DataError, match="599 rows"):
        by_subgroup(labels, [scores], table[["site"]].iloc[1:], patients)
    with pytest.raises(DataError, match="'site' is empty"):
        by_subgroup(labels, [scores], table[["site"]].assign(site=None), patients)
    assert len(by_subgroup(labels, [scores], table["site"], patients, replicates=10))
