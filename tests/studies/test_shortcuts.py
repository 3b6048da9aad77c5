"""The pixel-free classifier finds what a table gives away, and nothing where there is nothing."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.datasets import nih_tables
from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import bootstrap
from cxrlib.studies import shortcuts


def _table(n=2000, strength=0.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    ap = rng.random(n) < 0.5 + strength * (labels - 0.5)
    return pd.DataFrame(
        {
            "image_id": [f"i{i:05d}" for i in range(n)],
            "patient_id": [f"p{i // 2:05d}" for i in range(n)],
            "label": labels,
            "view": np.where(ap, "AP", "PA"),
            "age": rng.normal(50, 15, n),
        }
    )


@pytest.fixture(scope="module")
def nih():
    return nih_tables.metadata()


@pytest.fixture(scope="module")
def blind(nih):
    return shortcuts.pixel_free(nih, replicates=200, shuffles=1)


def test_nih_metadata_alone_reach_the_auc_of_the_first_published_network(blind):
    # Wang et al. 2017 report 0.633 for pneumonia, with pixels.
    assert blind.auc.low < 0.65 and blind.auc.high > 0.62
    assert blind.auc.n == 112_120


def test_shuffling_the_follow_up_number_costs_most_and_the_sex_nothing(blind):
    assert max(blind.importance, key=blind.importance.get) == "follow_up"
    assert abs(blind.importance["sex"]) < 0.01


def test_no_patient_is_scored_by_a_model_that_saw_them(nih, blind):
    per_patient = pd.Series(blind.folds).groupby(nih["patient_id"].to_numpy()).nunique()
    assert (per_patient == 1).all()
    assert np.bincount(blind.folds).min() > 0.15 * len(nih)


def test_a_column_that_differs_by_forty_points_gives_the_auc_it_should():
    # P(AP | 1) = 0.7 and P(AP | 0) = 0.3: a binary score's AUC is (1 + 0.7 − 0.3) / 2.
    found = shortcuts.pixel_free(_table(20_000, 0.4), ("view",), replicates=100)
    assert found.auc.value == pytest.approx(0.7, abs=0.01)


def test_columns_without_information_stay_at_chance():
    values = [
        shortcuts.pixel_free(_table(seed=s), ("view", "age"), folds=2, replicates=10).auc.value
        for s in range(5)
    ]
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)


def test_labels_shuffled_between_patients_are_not_predictable(nih):
    table = nih.head(30_000).copy()
    table["label"] = np.random.default_rng(0).permutation(table["label"])
    assert shortcuts.pixel_free(table, replicates=10).auc.value == pytest.approx(0.5, abs=0.05)


def test_row_order_changes_neither_scores_nor_interval():
    table = _table(strength=0.3)
    mixed = table.sample(frac=1.0, random_state=5)
    ours = shortcuts.pixel_free(table, ("view", "age"), folds=2, replicates=50)
    theirs = shortcuts.pixel_free(mixed, ("view", "age"), folds=2, replicates=50)
    assert ours.auc == theirs.auc
    np.testing.assert_array_equal(ours.scores[mixed.index], theirs.scores)


def test_a_nonlinear_effect_of_age_is_found():
    table = _table(6000)
    rng = np.random.default_rng(1)
    table["label"] = (rng.random(6000) < np.where((table["age"] - 50).abs() > 15, 0.8, 0.2)).astype(int)
    assert shortcuts.pixel_free(table, ("age",), replicates=10).auc.value > 0.75


def test_missing_values_are_a_level_of_their_own():
    table = _table(4000)
    gone = np.random.default_rng(2).random(4000) < np.where(table["label"] == 1, 0.7, 0.2)
    table["view"] = table["view"].mask(gone)
    table["age"] = table["age"].mask(gone)
    for column in ("view", "age"):
        assert shortcuts.pixel_free(table, (column,), folds=2, replicates=10).auc.value > 0.7


def test_a_columns_importance_is_what_shuffling_it_costs():
    table, asked = _table(strength=0.8), {"folds": 2, "replicates": 10, "shuffles": 2}
    found = shortcuts.pixel_free(table, ("view", "age"), **asked)
    assert found.auc.value - 0.55 < found.importance["view"] < found.auc.value - 0.45
    assert abs(found.importance["age"]) < 0.02
    assert found.importance == shortcuts.pixel_free(table, ("view", "age"), **asked).importance
    assert shortcuts.pixel_free(table, ("view",), folds=2, replicates=10).importance == {}


def test_scores_are_log_odds_over_the_prevalence_of_patients_held_out_together():
    table = _table(strength=0.8)
    found = shortcuts.pixel_free(table, ("view",), folds=3, replicates=10, seed=4)
    assert np.array_equal(found.folds, shortcuts.patient_folds(table["patient_id"], 3, seed=4))
    bedside = (table["view"] == "AP").to_numpy()
    expected = np.log(0.9 / 0.1)  # nine in ten of those with AP are ill, of as many ill as healthy
    assert np.allclose(found.scores, np.where(bedside, expected, -expected), atol=0.4)
    options = {"metrics": ("auc",), "replicates": 10, "seed": 4}
    assert found.auc == bootstrap(table["label"], found.scores, table["patient_id"], **options)["auc"]


def test_a_column_that_never_changes_says_nothing():
    found = shortcuts.pixel_free(_table(400).assign(age=50.0), ("age",), folds=2, replicates=10)
    assert abs(found.auc.value - 0.5) < 0.06


def test_numbers_stay_numbers_and_the_rest_become_categories():
    table = pd.DataFrame({"age": [1, 2, 3], "bedside": [True, False, True], "view": ["AP", None, "PA"]})
    encoded = shortcuts.encode(table, ("age", "bedside", "view"))
    assert encoded["age"].dtype == float
    assert list(encoded["bedside"].cat.categories) == ["False", "True"]
    assert list(encoded["view"]) == ["AP", "missing", "PA"]


def test_feature_by_feature_has_each_column_and_all_together():
    result = shortcuts.feature_by_feature(_table(strength=0.4), ("view", "age"), folds=2, replicates=10)
    assert list(result) == ["metadata", "view", "age"]
    assert result["view"].auc.value > result["age"].auc.value
    assert all(found.folds.max() == 1 for found in result.values())


def test_without_patient_ids_each_row_is_a_patient():
    table = _table(strength=0.4).drop(columns=["patient_id"])
    assert shortcuts.pixel_free(table, ("view",), replicates=10).auc.value > 0.6


def test_bad_requests_are_named_with_what_to_do():
    table = _table(200)
    with pytest.raises(DataError, match="'site'") as caught:
        shortcuts.pixel_free(table, ("site",))
    assert (
        caught.value.remedy == "Name some of its columns: 'image_id', 'patient_id', 'label', 'view', 'age'."
    )
    with pytest.raises(DataError, match="No columns") as caught:
        shortcuts.pixel_free(table.assign(**{f"c{i:02}": 0 for i in range(20)}), ())
    assert caught.value.remedy.endswith("'c05', 'c06'.")  # the first twelve
    with pytest.raises(DataError, match=r"fold 1 of 5 holds only one class\.\n.*Use fewer folds, or a table"):
        shortcuts.pixel_free(table.assign(label=0), ("view",))
    with pytest.raises(DataError, match=r"1 folds leave nothing to train on\.\n.*Use 2 or more"):
        shortcuts.pixel_free(table, ("view",), folds=1)


def test_a_known_table_gives_the_numbers_it_gave():
    """Folds, choices, both classifiers and the score.

    Other processors' BLAS changes scores in their last bits, and with them the order of near ties: each
    turned pair of patients is 1.5e-5 of the AUC.
    """
    table = _table(900, strength=0.3, seed=5)
    older = np.abs(table["age"] - 50) + 25 * table["label"]
    table["age"] = older.where(np.arange(900) % 7 != 0)
    found = shortcuts.pixel_free(table, ["view", "age"], replicates=20)
    assert found.columns == ("view", "age")
    assert found.chosen == ("logistic", "trees", "logistic", "logistic", "logistic")
    assert np.bincount(found.folds).tolist() == [204, 188, 162, 144, 202]
    assert found.auc.value == pytest.approx(0.96181, abs=2e-4)
    assert found.scores[[0, 1, 7, 450, 899]].tolist() == pytest.approx(
        [0.77446, 3.21229, -0.65915, -4.87424, 3.75269], abs=1e-4
    )
    features = shortcuts.encode(table, ("view", "age"))
    expected = {
        "logistic": [0.712603, 0.992268, 0.000471, 0.969552],
        "trees": [0.685329, 0.959723, 0.018047, 0.959723],
    }
    for kind, said in expected.items():
        model = shortcuts.fit(kind, features, table["label"].to_numpy())
        assert model.predict_proba(features[:4])[:, 1].tolist() == pytest.approx(said, abs=1e-5)


def test_a_score_is_zero_where_the_model_says_the_prevalence():
    class Model:
        def predict_proba(self, features):
            return np.stack([1 - features, features], axis=1)

    scores = shortcuts._score(Model(), np.array([0.1, 0.5, 0.0, 1.0]), 0.1)
    surely = np.log((1 - 1e-6) / 1e-6)
    assert np.allclose(scores, np.array([np.log(1 / 9), 0, -surely, surely]) - np.log(1 / 9))


def test_a_number_that_is_missing_counts_as_the_median_and_as_missing():
    values = pd.Series([1.0, 2.0, 4.0, 8.0, 100.0, np.nan])
    told = shortcuts._spline(values).fit_transform(values.to_frame())
    assert told[5, :-1] == pytest.approx(told[2, :-1]) and told[:, -1].tolist() == [0, 0, 0, 0, 0, 1]
    assert told[:, :-1].mean(0) == pytest.approx(0) and told[:, :-1].std(0) == pytest.approx(1)
    # no value at all, and one value alone
    for empty in (pd.Series([np.nan] * 4), pd.Series([3.0, 3.0, np.nan])):
        told = shortcuts._spline(empty).fit_transform(empty.to_frame())
        assert np.isfinite(told).all() and told[:, -1].tolist() == empty.isna().tolist()


def test_the_simpler_classifier_where_there_is_too_little_to_choose_by():
    rng = np.random.default_rng(0)
    age = rng.normal(size=400)
    features = pd.DataFrame({"age": age, "other": rng.normal(size=400)})
    labels = (age * features["other"] > 0).astype(int).to_numpy()  # of both together: trees are better
    inner = np.arange(400) % 4 == 0
    assert shortcuts._choose(features, labels, inner) == "trees"
    few = np.where(inner, labels, 0)
    few[np.flatnonzero(~inner)[:4]] = 1  # four ill to train on
    assert min(few[inner].sum(), (1 - few[inner]).sum()) > 5
    assert shortcuts._choose(features, few, inner) == "logistic"
    assert shortcuts._choose(features, np.where(inner, 0, labels), inner) == "logistic"
