"""Operating points: costs and predictive values by hand, and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from cxrlib.errors import ConfigError, DataError
from cxrlib.evaluation.metrics import proportion
from cxrlib.evaluation.operating_points import (
    cost_threshold,
    estimates,
    mean_curve,
    predictive_values,
    thresholds,
    transfer,
)


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.3).astype(int)
    return labels, np.clip(rng.normal(0.4 + 0.2 * labels, 0.15), 0, 1)


@pytest.mark.parametrize(("miss_cost", "prevalence"), [(1, None), (10, None), (10, 0.01), (0.2, 0.5)])
def test_cost_threshold_is_as_cheap_as_any(scored, miss_cost, prevalence):
    labels, scores = scored
    share = labels.mean() if prevalence is None else prevalence

    def cost(cut):
        missed = (scores[labels == 1] < cut).mean()
        alarmed = (scores[labels == 0] >= cut).mean()
        return miss_cost * share * missed + (1 - share) * alarmed

    found = cost_threshold(labels, scores, miss_cost, prevalence)
    assert cost(found) == pytest.approx(min(cost(cut) for cut in [*scores, 2.0]))


def test_a_dear_miss_alarms_everybody_and_a_cheap_one_nobody(scored):
    labels, scores = scored
    assert (scores >= cost_threshold(labels, scores, 1e9)).all() or (
        scores[labels == 1] >= cost_threshold(labels, scores, 1e9)
    ).all()
    assert (scores < cost_threshold(labels, scores, 1e-9)).all() or (
        scores[labels == 0] < cost_threshold(labels, scores, 1e-9)
    ).all()


def test_equal_costs_at_equal_shares_are_youdens(scored):
    labels, scores = scored
    chosen = thresholds(labels, scores)
    assert cost_threshold(labels, scores, 1.0, 0.5) == pytest.approx(chosen["youden"])
    assert (scores[labels == 1] >= chosen["sensitivity"]).mean() >= 0.95


def test_a_cost_of_nothing_is_refused(scored):
    with pytest.raises(ConfigError, match="above 0"):
        cost_threshold(*scored, miss_cost=0)


def test_predictive_values_by_bayes():
    # Sensitivity 80% and specificity 90%; of 1,000 with 1% ill, 8 + 99 are alarmed and 2 are missed.
    labels = np.repeat([1, 0], [10, 10])
    scores = np.concatenate([np.repeat([1, 0], [8, 2]), np.repeat([1, 0], [1, 9])]).astype(float)
    row = predictive_values(labels, [scores], [0.5], {"here": 0.01}, replicates=50).loc["here"]
    assert row["alarms"] == pytest.approx(107)
    assert row["missed"] == pytest.approx(2)
    assert row["ppv"] == pytest.approx(8 / 107)
    assert row["npv"] == pytest.approx(891 / 893)
    assert row["ppv_low"] <= row["ppv"] <= row["ppv_high"]


def test_at_the_sets_own_prevalence_ppv_is_the_precision(scored):
    labels, scores = scored
    row = predictive_values(labels, [scores], [0.5], [labels.mean()], replicates=20).iloc[0]
    assert row["ppv"] == pytest.approx(labels[scores >= 0.5].mean())


def test_mean_curves_of_one_model_are_scikit_learns(scored):
    labels, scores = scored
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    roc = mean_curve(labels, [scores], kind="roc", replicates=20)
    assert roc["y"].to_numpy() == pytest.approx(np.interp(roc["x"], fpr, tpr))
    assert (roc["low"] <= roc["high"]).all()
    precision, recall, _ = precision_recall_curve(labels, scores)
    found = mean_curve(labels, [scores], kind="precision_recall", grid=recall[recall > 0][:-1], replicates=5)
    for x, y in zip(found["x"], found["y"], strict=True):
        assert np.isclose(precision[np.isclose(recall, x)], y).any()


def test_transfer_keeps_its_promise_on_validation_and_measures_the_test(scored):
    labels, scores = scored
    shifted = 0.8 * scores  # the test patients all score lower
    points = transfer(labels, [scores], labels, [shifted], replicates=100)
    found = points["sensitivity"]
    assert found.numbers["val_sensitivity"].value >= 0.95
    assert found.numbers["test_sensitivity"].value < found.numbers["val_sensitivity"].value
    cut = found.thresholds[0]
    assert found.numbers["test_specificity"].value == pytest.approx((shifted[labels == 0] < cut).mean())
    cost = 10 * ((shifted < cut) & (labels == 1)).mean() + ((shifted >= cut) & (labels == 0)).mean()
    assert found.numbers["test_cost"].value == pytest.approx(cost)


def test_every_seed_has_thresholds_of_its_own(scored):
    labels, scores = scored
    points = transfer(labels, [scores, scores / 2], labels, [scores, scores / 2], replicates=20)
    first, second = points["youden"].thresholds
    assert second == pytest.approx(first / 2)
    assert points["youden"].numbers["test_sensitivity"].seeds == 2


def test_what_is_recorded_has_dotted_names(scored):
    labels, scores = scored
    points = transfer(labels, [scores], labels, [scores], replicates=20)
    table = predictive_values(labels, [scores], [0.5], {"screening": 0.01}, replicates=20)
    numbers = estimates(points, table)
    assert numbers["youden.screening.ppv"].value == pytest.approx(table.loc["screening", "ppv"])
    assert numbers["cost.test_cost"].n == len(labels)


def test_all_found_is_no_certainty(scored):
    labels, _ = scored
    perfect = labels.astype(float)
    numbers = transfer(labels, [perfect], labels, [perfect], replicates=20)["youden"].numbers
    assert numbers["val_sensitivity"].value == 1
    assert numbers["val_sensitivity"].low == pytest.approx(proportion(labels.sum(), labels.sum()).low)


def test_percent_and_logits_are_refused(scored):
    labels, scores = scored
    with pytest.raises(ConfigError, match=r"0\.16 for"):
        predictive_values(labels, [scores], [0.5], [16])
    with pytest.raises(DataError, match="no probabilities"):
        transfer(labels, [scores], labels, [10 * scores])
