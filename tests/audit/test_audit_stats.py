"""The audit's statistics: AUCs of held-out patients, p-values uniform under chance, what explains what."""

import numpy as np
import pytest

from cxrlib.audit import stats
from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import auc


def _null(seed, n=160, images=2):
    """Features and labels that have nothing to do with each other, both alike within a patient."""
    rng = np.random.default_rng(seed)
    patients = np.repeat([f"p{i}" for i in range(n // images)], images)
    features = np.repeat(rng.normal(size=(n // images, 5)), images, axis=0) + 0.3 * rng.normal(size=(n, 5))
    labels = np.repeat(rng.integers(0, 2, n // images), images)
    return features, labels, patients


def test_columns_of_aucs_are_those_of_the_metric():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, (50, 3)), rng.integers(0, 6, (50, 3)).astype(float)
    expected = [auc(labels[:, k], scores[:, k]) for k in range(3)]
    np.testing.assert_allclose(stats.aucs(labels, scores), expected)


def _uneven(seed, patients=90):
    """The same, of patients with one to many images."""
    rng = np.random.default_rng([seed, 1])
    counts = np.minimum(rng.geometric(0.5, patients), 9)
    own = rng.normal(size=(patients, 5)), rng.integers(0, 2, patients)
    features, labels = (np.repeat(values, counts, axis=0) for values in own)
    noisy = features + 0.3 * rng.normal(size=features.shape)
    return noisy, labels, np.repeat([f"p{i}" for i in range(patients)], counts)


@pytest.mark.parametrize("drawn", [_null, _uneven])
def test_without_an_effect_p_values_are_uniform_although_patients_have_several_images(drawn):
    p_values = [
        stats.held_out(*drawn(seed), permutations=99, replicates=5, seed=seed).p_value for seed in range(120)
    ]
    # Binomial(120, x) at x = 0.1, 0.5 and 0.9, with room of three standard errors.
    for level in (0.1, 0.5, 0.9):
        share = np.mean(np.array(p_values) <= level)
        assert abs(share - level) < 3 * np.sqrt(level * (1 - level) / 120) + 0.01


def test_what_goes_with_how_many_images_a_patient_has_is_found():
    rng = np.random.default_rng(0)
    counts = np.arange(1, 81)  # no patient has as many as another
    bedside = np.repeat(counts > 40, counts).astype(float)
    labels = (rng.random(len(bedside)) < 0.1 + 0.2 * bedside).astype(int)
    patients = np.repeat([f"p{n}" for n in counts], counts)
    assert stats.held_out(bedside, labels, patients, permutations=199).p_value < 0.02


def test_without_an_effect_the_auc_is_not_pulled_below_one_half():
    values = [stats.held_out(*_null(s), permutations=1, replicates=5, seed=s).auc.value for s in range(100)]
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)


def test_an_effect_is_found_and_its_scores_rank_as_the_labels():
    features, labels, patients = _null(1, 400)
    features[:, 2] += 1.5 * labels
    held = stats.held_out(features, labels, patients, permutations=199)
    assert held.p_value == pytest.approx(1 / 200)
    assert held.auc.low > 0.7
    assert held.auc.value == pytest.approx(auc(labels, held.scores))


def test_more_features_than_images_do_no_harm():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 120)
    features = rng.normal(size=(120, 900))
    features[:, :300] += 0.8 * labels[:, None]
    assert stats.held_out(features, labels, np.arange(120), permutations=19, replicates=50).auc.low > 0.9


def test_a_permutation_gives_whole_patients_labels_of_a_patient_with_as_many_images():
    patients = np.array(["a", "b", "b", "c", "c", "d"])
    labels = np.array([1, 0, 0, 1, 1, 0])
    (block,) = stats.permuted(labels, patients, 50, [0, 77])
    assert (block[1] == block[2]).all() and (block[3] == block[4]).all()
    assert (block[1] + block[3] == 1).all() and (block[0] + block[5] == 1).all()
    assert len(np.unique(block, axis=1).T) == 4


def test_permutations_stop_at_the_twentieth_that_is_as_good():
    blocks = iter([np.full(10, 0.9), np.concatenate([np.zeros(5), np.full(95, 0.9)]), None])
    assert stats.sequential_p(0.5, blocks) == 20 / 25
    assert stats.sequential_p(0.5, [np.zeros(99)]) == 1 / 100


def test_what_another_score_explains_is_gone_within_its_strata():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    cause = labels + 0.8 * rng.normal(size=4000)
    echo, own = cause + 0.1 * rng.normal(size=4000), labels + rng.normal(size=4000)
    assert auc(labels, echo) > 0.8
    assert stats.within(labels, echo, np.digitize(cause, np.quantile(cause, np.arange(0.02, 1, 0.02)))) < 0.6
    assert stats.within(labels, own, cause) > 0.7


def test_missing_and_constant_features_are_taken():
    features, labels, patients = _null(4)
    features[:, 0], features[3, 1], features[:, 2] = np.nan, np.nan, 7.0
    assert np.isfinite(stats.held_out(features, labels, patients, permutations=9, replicates=5).scores).all()


def test_a_single_patient_of_a_class_is_too_few():
    with pytest.raises(DataError, match="too few"):
        stats.held_out(np.zeros((20, 1)), np.arange(20) == 0, np.arange(20))
