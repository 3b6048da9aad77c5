"""Label errors: planted ones are found, and agreement is counted as by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cxrlib.errors import ConfigError, DataError
from cxrlib.evaluation.label_errors import agreement, hardest, plant, suspects, undecided


def test_the_hardest_row_is_the_one_whose_label_got_least():
    table = hardest([1, 0, 1], [0.9, 0.7, 0.2], ["a", "b", "c"])
    assert table["image_id"].tolist() == ["c", "b", "a"]
    assert table["given_to_label"].tolist() == pytest.approx([0.2, 0.3, 0.9])
    assert table["loss"].iloc[0] == pytest.approx(-np.log(0.2))


def test_undecided_are_nearest_the_threshold_in_log_odds():
    assert undecided([0, 1, 0], [0.9, 0.35, 0.05], threshold=0.3).tolist()[0] == 1


def test_planted_errors_are_among_the_suspects_of_a_good_network():
    rng = np.random.default_rng(0)
    labels = (rng.random(1000) < 0.4).astype(int)
    probabilities = np.where(labels == 1, 0.95, 0.05) + rng.normal(0, 0.01, 1000)
    given, wrong = plant(labels, 0.1, seed=1)
    found = suspects(given, probabilities)
    assert (given != labels).tolist() == wrong.tolist()
    assert (found["suspected"] == wrong).mean() > 0.99
    assert found["quality"][wrong].max() < found["quality"][~wrong].min()


@pytest.mark.parametrize("seed", range(12))
def test_cleanlab_suspects_the_same_labels(seed):
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    rng = np.random.default_rng(seed)
    labels = (rng.random(401) < rng.uniform(0.05, 0.6)).astype(int)
    p = 1 / (1 + np.exp(-rng.normal(rng.uniform(0, 4) * (2 * labels - 1) - rng.uniform(0, 2), 1.5)))
    given, _ = plant(labels, rng.uniform(0, 0.3), seed=seed)
    both = np.stack([1 - p, p], axis=1)
    found = suspects(given, p)
    assert (found["suspected"] == find_label_issues(given, both, n_jobs=1)).all()
    assert np.allclose(found["quality"], get_label_quality_scores(given, both))


def test_suspicion_of_random_scores_is_worth_nothing():
    rng = np.random.default_rng(0)
    labels = (rng.random(2000) < 0.5).astype(int)
    given, wrong = plant(labels, 0.2, seed=1)
    found = suspects(given, rng.random(2000))
    lift = agreement(found["suspected"], wrong, replicates=300)["lift"]
    assert lift.low < 0 < lift.high


def test_planting_turns_whole_patients_and_about_as_many_as_asked():
    labels = np.repeat(np.arange(2), 3000)
    patients = np.repeat(np.arange(2000), 3)
    given, wrong = plant(labels, 0.1, patients, seed=0)
    assert wrong.reshape(-1, 3).all(axis=1).tolist() == wrong.reshape(-1, 3).any(axis=1).tolist()
    assert wrong.mean() == pytest.approx(0.1, abs=0.02)
    assert (given != labels).sum() == wrong.sum()


def test_agreement_counts_as_by_hand():
    suspected = [1, 1, 1, 0, 0, 0, 0, 0]
    wrong = [1, 1, 0, 1, 0, 0, 0, 0]
    labels = [0, 0, 1, 0, 1, 1, 1, 0]
    found = agreement(suspected, wrong, labels, replicates=100)
    assert found["precision"].value == pytest.approx(2 / 3)
    assert found["recall"].value == pytest.approx(2 / 3)
    assert found["base"].value == pytest.approx(3 / 8)
    assert found["unsuspected"].value == pytest.approx(1 / 5)
    assert found["lift"].value == pytest.approx(2 / 3 - 3 / 8)
    assert (found["precision"].n, found["unsuspected"].n, found["recall"].n) == (3, 5, 3)
    assert found["label_0.precision"].value == 1
    assert found["label_1.base"].value == 0
    assert "label_1.recall" not in found  # no label 1 is wrong


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(DataError, match="both classes"):
        suspects([1, 1], [0.2, 0.8])
    with pytest.raises(DataError, match="no probabilities"):
        hardest([0, 1], [-3.0, 2.0])
    with pytest.raises(ConfigError, match="half"):
        plant([0, 1], 0.5)
