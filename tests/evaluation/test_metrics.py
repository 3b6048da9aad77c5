"""Metrics agree with hand counts, with scikit-learn and with published numbers; intervals go by patient."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from cxrlib.errors import ConfigError, CxrError, CxrWarning, DataError
from cxrlib.evaluation.metrics import (
    METRICS,
    Estimate,
    accuracy,
    auc,
    average_precision,
    bootstrap,
    bootstrap_difference,
    bootstrap_mean,
    choose_threshold,
    delong,
    evaluate,
    over_seeds,
    proportion,
    sensitivity,
    specificity,
)
from cxrlib.evaluation.operating_points import mean_curve

LABELS = np.array([0, 0, 1, 1, 0, 1])
SCORES = np.array([0.1, 0.4, 0.4, 0.8, 0.5, 0.9])


def clustered(n_patients=60, seed=0, shift=1.0):
    """Rows of patients with one to six images whose label and half of whose score they share."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), rng.integers(1, 7, n_patients))
    labels = (rng.random(n_patients) < 0.4).astype(int)[patients]
    scores = rng.normal(size=n_patients)[patients] + 0.5 * rng.normal(size=len(patients)) + shift * labels
    return labels, scores.round(1), np.array([f"p{patient:03d}" for patient in patients])


@pytest.fixture(scope="module")
def asah():
    return pd.read_csv(Path(__file__).with_name("asah_ranks.csv"), comment="#")


# Point values


def test_auc_counts_pairs_and_halves_ties():
    # 3 × 3 pairs: 0.4 beats 0.1, ties 0.4, loses to 0.5; 0.8 and 0.9 beat all three.
    assert auc(LABELS, SCORES) == pytest.approx((1 + 0.5 + 3 + 3) / 9)


def test_average_precision_by_hand():
    # Recall rises by 1/3 at precision 1/1, 2/2, and then 3/5, where the tie brings a negative along.
    assert average_precision(LABELS, SCORES) == pytest.approx((1 + 1 + 3 / 5) / 3)


def test_a_score_at_the_threshold_is_positive():
    assert sensitivity(LABELS, SCORES, 0.5) == pytest.approx(2 / 3)
    assert specificity(LABELS, SCORES, 0.5) == pytest.approx(2 / 3)
    assert accuracy(LABELS, SCORES, 0.5) == pytest.approx(4 / 6)


def test_constant_scores_are_worth_a_coin():
    assert auc([0, 1, 1, 0, 1], np.full(5, 0.3)) == 0.5
    assert average_precision([0, 1, 1, 0, 1], np.full(5, 0.3)) == pytest.approx(3 / 5)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=60))
@settings(max_examples=150, deadline=None)
def test_agrees_with_scikit_learn_ties_included(rows):
    labels, scores = np.array(rows).T
    if len(set(labels)) == 1:
        with pytest.raises(DataError):
            auc(labels, scores)
        return
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))


def test_a_higher_threshold_calls_fewer_positive():
    assert sensitivity(LABELS, SCORES, 0.85) == pytest.approx(1 / 3)
    assert specificity(LABELS, SCORES, 0.85) == 1
    assert accuracy(LABELS, SCORES, 0.85) == pytest.approx(4 / 6)
    assert [measure(LABELS, SCORES) for measure in (sensitivity, specificity, accuracy)] == [
        measure(LABELS, SCORES, 0.5) for measure in (sensitivity, specificity, accuracy)
    ]


# The bootstrap


def test_intervals_are_those_of_a_loop_over_scikit_learn():
    labels, scores, patients = clustered()
    estimates = bootstrap(labels, scores, patients, replicates=1500, seed=3)
    rows_of = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
    rng = np.random.default_rng(11)
    loop = []
    for _ in range(1500):
        rows = np.concatenate([rows_of[k] for k in rng.integers(0, len(rows_of), len(rows_of))])
        y, s = labels[rows], scores[rows]
        called = s >= 0.5
        loop.append(
            (
                roc_auc_score(y, s),
                average_precision_score(y, s),
                called[y == 1].mean(),
                (~called[y == 0]).mean(),
                (called == y).mean(),
            )
        )
    limits = np.quantile(loop, [0.025, 0.975], axis=0)
    for column, name in enumerate(METRICS):
        width = estimates[name].high - estimates[name].low
        assert estimates[name].low == pytest.approx(limits[0, column], abs=0.1 * width), name
        assert estimates[name].high == pytest.approx(limits[1, column], abs=0.1 * width), name


def test_a_replicate_is_the_metric_of_the_repeated_rows():
    from cxrlib.evaluation.resampling import Ranked, draw_patients, patient_codes

    labels, scores, patients = clustered(n_patients=12, seed=4)
    codes, n_patients = patient_codes(labels, scores[None], patients)
    ranked = Ranked.of(labels, scores, codes, 0.5)
    for counts in draw_patients(n_patients, len(labels), 40, seed=0):
        assert (counts.sum(axis=1) == n_patients).all()
        for row, got in zip(counts, ranked.measure(counts, ("auc", "average_precision")), strict=True):
            y, s = np.repeat(labels, row[codes]), np.repeat(scores, row[codes])
            if 0 < y.mean() < 1:
                assert got[0] == pytest.approx(roc_auc_score(y, s))
                assert got[1] == pytest.approx(average_precision_score(y, s))


def test_row_order_does_not_matter():
    labels, scores, patients = clustered()
    order = np.random.default_rng(5).permutation(len(labels))
    for who in (patients, None):
        shuffled = None if who is None else who[order]
        assert bootstrap(labels, scores, who, replicates=200) == bootstrap(
            labels[order], scores[order], shuffled, replicates=200
        )


def test_the_seed_decides():
    labels, scores, patients = clustered()
    first, again, other = (bootstrap(labels, scores, patients, replicates=200, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first["auc"].value == other["auc"].value
    assert first["auc"].low != other["auc"].low


def test_repeating_each_patients_images_does_not_narrow_the_interval():
    labels, scores, patients = clustered()
    once = bootstrap(labels, scores, patients, ("auc",))["auc"]
    thrice = bootstrap(np.tile(labels, 3), np.tile(scores, 3), np.tile(patients, 3), ("auc",))["auc"]
    by_row = bootstrap(np.tile(labels, 3), np.tile(scores, 3), None, ("auc",))["auc"]
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert by_row.high - by_row.low < 0.75 * (once.high - once.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    truth = 0.7602  # P(normal + 1 > normal) = Φ(1/√2)
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        labels = np.repeat([0, 1], 60)
        found = bootstrap(labels, rng.normal(size=120) + labels, None, ("auc",), replicates=400)["auc"]
        inside += found.low <= truth <= found.high
    assert 180 <= inside <= 200


def test_replicates_of_one_class_are_left_out_and_said():
    labels, scores = np.array([1, 0, 0, 0, 0, 0]), np.array([0.9, 0.1, 0.95, 0.2, 0.3, 0.4])
    with pytest.warns(CxrWarning, match="only one class"):
        found = bootstrap(labels, scores, list("abcdef"), ("auc",), replicates=300)["auc"]
    assert 0 <= found.low <= found.value <= found.high <= 1
    accuracy_only = bootstrap(labels, scores, list("abcdef"), ("accuracy",), replicates=300)  # no warning
    assert accuracy_only["accuracy"].value == pytest.approx(5 / 6)


def test_seeds_are_measured_on_the_same_patients():
    labels, scores, patients = clustered()
    same = bootstrap_mean(labels, [scores, scores, scores], patients, replicates=300)
    alone = bootstrap(labels, scores, patients, replicates=300)
    for name in METRICS:
        assert same[name].seeds == 3
        assert (same[name].value, same[name].low, same[name].high) == pytest.approx(
            (alone[name].value, alone[name].low, alone[name].high)
        )


def test_mean_over_seeds_takes_a_threshold_for_each():
    thresholds = [0.3, 0.6]
    found = bootstrap_mean(LABELS, [SCORES, SCORES], None, ("accuracy",), thresholds, replicates=20)
    expected = np.mean([accuracy(LABELS, SCORES, t) for t in thresholds])
    assert found["accuracy"].value == pytest.approx(expected)


def test_a_model_does_not_differ_from_itself():
    labels, scores, patients = clustered()
    found = bootstrap_difference(labels, scores, scores, patients, ("auc",), replicates=100)["auc"]
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_evaluate_gives_all_five():
    labels, scores, patients = clustered()
    assert tuple(evaluate(labels, scores, patients, replicates=50)) == METRICS


def test_evaluate_hands_its_threshold_and_options_on():
    labels, scores, patients = clustered()
    options = {"replicates": 50, "seed": 3}
    assert evaluate(labels, scores, patients, 1.2, **options) == bootstrap(
        labels, scores, patients, METRICS, 1.2, **options
    )
    assert evaluate(labels, scores, patients, **options) == evaluate(labels, scores, patients, 0.5, **options)


def test_every_estimate_says_over_how_many_rows():
    labels, scores, patients = clustered()
    found = [
        bootstrap(labels, scores, patients, ("auc",), replicates=20),
        bootstrap_mean(labels, [scores], patients, ("auc",), replicates=20),
        bootstrap_difference(labels, scores, -scores, patients, ("auc",), replicates=20),
    ]
    assert [one["auc"].n for one in found] == [len(labels)] * 3


def test_a_metric_that_needs_one_class_has_an_interval_where_there_is_one():
    assert bootstrap([1, 1, 1], [0.2, 0.6, 0.7], metrics=("sensitivity",), replicates=50)[
        "sensitivity"
    ].value == pytest.approx(2 / 3)
    with pytest.raises(ConfigError, match="0 replicates"):
        bootstrap(LABELS, SCORES, replicates=0)
    assert bootstrap(LABELS, SCORES, metrics=("accuracy",), replicates=1)["accuracy"].n == 6


@pytest.mark.parametrize("kind", ["roc", "precision_recall"])
def test_the_band_holds_the_curve(kind):
    labels, scores, patients = clustered(n_patients=200)
    band = mean_curve(labels, [scores], patients, kind, replicates=200)
    grid, low, high = (band[name].to_numpy() for name in ("x", "low", "high"))
    assert (low <= high).all()
    if kind == "roc":
        fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
        curve = np.interp(grid, fpr, tpr)
        assert ((low[1:] <= curve[1:] + 1e-9) & (curve[1:] <= high[1:] + 1e-9)).all()
        assert low[-1] == high[-1] == 1
    else:
        assert low[-1] <= labels.mean() * 1.5  # at full recall, precision falls to about the prevalence


# DeLong


@pytest.mark.parametrize(
    ("a", "b", "z", "p", "low", "high"),
    [  # printed by R's pROC for its data set aSAH (tests/testthat/test-roc.test.R)
        ("wfns", "s100b", 2.20898359144091, 0.0271757822291882, 0.0104061769564846, 0.174214419249478),
        ("wfns", "ndka", 2.79777591868904, 0.00514557970691098, 0.0634011709339876, 0.3600405634833566),
        ("ndka", "s100b", -1.39077002573558, 0.164295175223054, -0.2876917446341914, 0.0488706064228094),
    ],
)
def test_delong_gives_the_published_test_of_the_subarachnoid_haemorrhage_markers(asah, a, b, z, p, low, high):
    test = delong(asah.poor_outcome, asah[f"{a}_rank"], asah[f"{b}_rank"])
    assert (test.z, test.p_value, test.low, test.high) == pytest.approx((z, p, low, high), rel=1e-9)


def test_aucs_of_the_subarachnoid_haemorrhage_markers_are_the_published_ones(asah):
    published = {"wfns": 0.8237, "s100b": 0.7314, "ndka": 0.6120}  # Robin et al. 2011
    for marker, value in published.items():
        assert auc(asah.poor_outcome, asah[f"{marker}_rank"]) == pytest.approx(value, abs=5e-5)


def test_delong_agrees_with_the_definition_over_all_pairs():
    rng = np.random.default_rng(7)
    labels = (rng.random(90) < 0.4).astype(int)
    a, b = (rng.normal(size=90) + 0.8 * labels).round(1), (rng.normal(size=90) + 0.3 * labels).round(1)
    kernels = []
    for scores in (a, b):
        x, y = scores[labels == 1], scores[labels == 0]
        kernels.append(np.array([[(p > q) + 0.5 * (p == q) for q in y] for p in x]))
    areas = [kernel.mean() for kernel in kernels]
    by_positive = np.cov([kernel.mean(axis=1) for kernel in kernels]) / kernels[0].shape[0]
    by_negative = np.cov([kernel.mean(axis=0) for kernel in kernels]) / kernels[0].shape[1]
    contrast = np.array([1, -1])
    error = np.sqrt(contrast @ (by_positive + by_negative) @ contrast)
    test = delong(labels, a, b)
    assert (test.auc_a, test.auc_b) == pytest.approx(areas)
    assert test.z == pytest.approx((areas[0] - areas[1]) / error)


def test_delong_agrees_with_a_permutation_test(asah):
    """Swapping the two models' ranks row by row is exact under exchangeability."""
    labels, a, b = (asah[c].to_numpy() for c in ("poor_outcome", "wfns_rank", "ndka_rank"))
    rng = np.random.default_rng(0)
    observed = abs(auc(labels, a) - auc(labels, b))
    swapped = []
    for _ in range(2000):
        swap = rng.random(len(labels)) < 0.5
        swapped.append(auc(labels, np.where(swap, b, a)) - auc(labels, np.where(swap, a, b)))
    p_value = np.mean(np.abs(swapped) >= observed - 1e-12)
    assert p_value == pytest.approx(delong(labels, a, b).p_value, abs=0.01)


def test_delong_agrees_with_the_paired_bootstrap(asah):
    test = delong(asah.poor_outcome, asah.wfns_rank, asah.s100b_rank)
    found = bootstrap_difference(asah.poor_outcome, asah.wfns_rank, asah.s100b_rank, None, ("auc",))["auc"]
    assert found.value == pytest.approx(test.difference)
    assert (found.low, found.high) == pytest.approx((test.low, test.high), abs=0.015)


def test_delong_of_a_model_with_itself():
    test = delong(LABELS, SCORES, SCORES)
    assert (test.difference, test.z, test.p_value) == (0, 0, 1)


def test_delong_of_two_certain_and_opposite_models():
    test = delong([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    assert (test.difference, test.z, test.p_value) == (1, np.inf, 0)


# Thresholds


def test_youden_takes_the_best_sum_of_sensitivity_and_specificity():
    labels, scores = np.array([0, 0, 0, 1, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    # 0.4 and up: 1 + 3/4; 0.6 and up: 2/3 + 1.
    assert choose_threshold(labels, scores, "youden") == pytest.approx(0.35)


def test_fixed_sensitivity_is_reached_at_the_best_specificity():
    labels, scores, _ = clustered(n_patients=300)
    for wanted in (0.5, 0.8, 0.95, 1.0):
        threshold = choose_threshold(labels, scores, "sensitivity", at=wanted)
        assert sensitivity(labels, scores, threshold) >= wanted
        stricter = np.unique(scores[scores > threshold])
        assert all(
            sensitivity(labels, scores, t) < wanted
            or specificity(labels, scores, t) == specificity(labels, scores, threshold)
            for t in stricter
        )


def test_no_threshold_is_more_accurate():
    labels, scores, _ = clustered()
    best = accuracy(labels, scores, choose_threshold(labels, scores, "accuracy"))
    assert best == max(accuracy(labels, scores, t) for t in [*np.unique(scores), np.inf])


def test_where_calling_nothing_positive_is_most_accurate_nothing_is_called():
    labels, scores = np.array([0, 0, 0, 0, 1]), np.array([0.5, 0.6, 0.7, 0.8, 0.1])
    assert sensitivity(labels, scores, choose_threshold(labels, scores, "accuracy")) == 0


@pytest.mark.parametrize(
    ("rule", "at"), [("best", None), ("sensitivity", None), ("sensitivity", 1.2), ("youden", 0.9)]
)
def test_a_rule_that_does_not_exist_or_does_not_fit_is_refused(rule, at):
    with pytest.raises(ConfigError):
        choose_threshold(LABELS, SCORES, rule, at)


def test_no_threshold_is_learnt_from_one_class():
    with pytest.raises(DataError, match="all 3 labels are 1"):
        choose_threshold([1, 1, 1], [0.1, 0.2, 0.3])


# Over seeds, proportions, estimates


def test_over_numbers_the_limits_are_the_range():
    assert over_seeds([0.9, 0.94, 0.95]) == Estimate(pytest.approx(0.93), 0.9, 0.95, None, 3)


def test_over_estimates_the_limits_are_averaged():
    found = over_seeds([Estimate(0.9, 0.8, 0.95, 100), Estimate(0.94, 0.9, 0.97, 100)])
    assert found == Estimate(pytest.approx(0.92), pytest.approx(0.85), pytest.approx(0.96), 100, 2)


def test_over_no_seeds_or_a_failed_one_is_an_error():
    with pytest.raises(DataError, match="no run"):
        over_seeds([])
    with pytest.raises(DataError, match="nan"):
        over_seeds([0.9, float("nan")])


def test_wilson_interval_of_a_textbook_example():
    # Newcombe, Statistics in Medicine 17:857, 1998, table I, method 3: 81 of 263, 0 of 20.
    found = proportion(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert proportion(0, 20).low == 0
    assert proportion(0, 20).high == pytest.approx(0.1611, abs=5e-5)


@pytest.mark.parametrize(("successes", "total"), [(-1, 5), (6, 5), (0, 0), (0, -1)])
def test_what_is_no_share_is_refused(successes, total):
    with pytest.raises(DataError, match=f"{successes} of {total}"):
        proportion(successes, total)


def test_one_of_one_is_a_share():
    found = proportion(1, 1)  # Wilson: low = 1 / (1 + z²)
    assert (found.value, found.low, found.high, found.n) == (1, pytest.approx(1 / (1 + 1.959964**2)), 1, 1)


def test_an_estimate_reads_as_one_writes_it():
    assert str(Estimate(0.9812, 0.9701, 0.9899, 624)) == "0.981 (0.970–0.990)"
    assert f"{Estimate(0.9341, 0.912, 0.951):.1%}" == "93.4% (91.2%–95.1%)"
    assert f"{Estimate(0.01, -0.008, 0.028):+.3f}" == "+0.010 (−0.008 to +0.028)"
    assert str(Estimate(183.24)) == "183.2"
    assert Estimate(0.5, n=7).as_dict() == {"value": 0.5, "n": 7}
    whole = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 7, "seeds": 3}
    assert Estimate(**whole).as_dict() == whole


# Bad input


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        ([0, 1, 1], [0.1, np.nan, 0.3], "row 1: nan"),
        ([0, 1, 1], [0.1, 0.3], "shape"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "row 2"),
        ([0, 0, 0], [0.1, 0.2, 0.3], "all 3 labels are 0"),
        ([], [], "no labels"),
        (["no", "yes"], [0.1, 0.2], "not numbers"),
    ],
)
@pytest.mark.parametrize("measure", [auc, bootstrap, choose_threshold])
def test_bad_input_is_named(measure, labels, scores, says):
    with pytest.raises(CxrError, match=says):
        measure(labels, scores)


def test_sensitivity_needs_no_negative():
    assert sensitivity([1, 1], [0.2, 0.7]) == 0.5
    with pytest.raises(DataError, match="specificity"):
        specificity([1, 1], [0.2, 0.7])


def test_one_patient_says_nothing_of_others():
    with pytest.raises(DataError, match="one patient"):
        bootstrap(LABELS, SCORES, ["a"] * 6)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ConfigError, match="f2"):
        bootstrap(LABELS, SCORES, metrics=("f2",))


@pytest.mark.real_data
def test_aucs_of_a_chexnet_reproduction_are_the_published_ones(data_root):
    folder = data_root / "chexnet-predictions"
    if not (folder / "preds.csv").exists():
        pytest.skip("CXRLIB_DATA has no chexnet-predictions")
    from cxrlib.datasets.nih_tables import metadata

    predictions = pd.read_csv(folder / "preds.csv")
    rows = predictions.merge(metadata(), left_on="Image Index", right_on="image_id", validate="1:1")
    assert len(rows) == 22_433
    published = pd.read_csv(folder / "aucs.csv").set_index("label")["auc"]
    for finding, value in published.items():
        assert auc(rows[finding], rows[f"prob_{finding}"]) == pytest.approx(value, abs=1e-9), finding


def test_a_difference_is_resampled_by_patient_and_from_the_seed():
    rng = np.random.default_rng(3)
    labels, patients = np.repeat(rng.integers(0, 2, 60), 5), np.repeat(np.arange(60), 5)
    a = np.repeat(rng.normal(size=60), 5) + labels  # five images that agree are one piece of evidence
    b = rng.normal(size=300)
    asked = {"metrics": ("auc",), "replicates": 400}
    clustered = bootstrap_difference(labels, a, b, patients, **asked)["auc"]
    alone = bootstrap_difference(labels, a, b, **asked)["auc"]
    assert clustered.value == alone.value
    assert clustered.high - clustered.low > 1.3 * (alone.high - alone.low)
    assert clustered == bootstrap_difference(labels, a, b, patients, **asked)["auc"]
    assert clustered != bootstrap_difference(labels, a, b, patients, seed=1, **asked)["auc"]


def test_a_threshold_that_calls_all_is_the_least_score_and_one_that_calls_none_is_above_the_largest():
    assert choose_threshold([1, 1, 0, 1], [0.2, 0.4, 0.4, 0.9], "sensitivity", at=1) == 0.2
    none = choose_threshold([0, 0, 1, 0, 0], [0.2, 0.4, 0.6, 0.8, 0.9], "accuracy")
    assert 0.9 < none < 0.9 + 1e-12


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            lambda: choose_threshold(LABELS, SCORES, "best"),
            "Use one of ('youden', 'sensitivity', 'accuracy').",
        ),
        (lambda: over_seeds([]), "Give one number or Estimate for each seed."),
        (lambda: over_seeds([0.5, float("nan")]), "Leave out the runs that failed."),
        (lambda: delong([1, 0, 0], [1, 2, 3], [1, 2, 3]), "Give it two or more of each."),
        (lambda: bootstrap(LABELS, SCORES, replicates=0), "Draw at least 1, better 2000."),
        (
            lambda: bootstrap(LABELS, SCORES, metrics=("f1",)),
            "Use any of ('auc', 'average_precision', 'sensitivity', 'specificity', 'accuracy').",
        ),
    ],
)
def test_what_to_do_is_said(broken, said):
    with pytest.raises(CxrError) as caught:
        broken()
    assert caught.value.remedy == said


def test_an_estimate_says_only_what_it_has():
    assert Estimate(0.5).as_dict().get("n") is None and str(Estimate(0.5)) == "0.500"
    assert over_seeds([Estimate(0.5, n=10), Estimate(0.6, n=10)]).n == 10
    assert over_seeds([Estimate(0.5, n=10), Estimate(0.6, n=20)]).n is None
