"""The studies of overfitting measure what they say, and keep what they have trained."""

from dataclasses import replace

import numpy as np
import pytest

from cxrlib.errors import ConfigError, DataError
from cxrlib.studies import overfitting, study
from cxrlib.studies.study import Budget, cut, for_steps, nested_subsets, train
from cxrlib.studies.study_stats import Draws, draws, fit_power_law, holm, over_splits, pooled
from cxrlib.training.callbacks import Callback

TINY = Budget(60, 3, 2, 6, 3, (1, 2), 40, 20, 2, None, 6, 1.0, study.MILD_AUGMENT, 0.8)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(study.BUDGETS, "smoke", TINY)


def train_ids(cohort):
    return set(cohort.split("train").table["image_id"])


def test_a_power_law_is_found_again():
    n = np.repeat([50, 100, 200, 400], 3)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.02, len(n)))
    law = fit_power_law(n, 2.0 * n**-0.45 * noise)
    assert law.b == pytest.approx(0.45, abs=0.03)
    assert law.a == pytest.approx(2.0, rel=0.15)
    assert law.exponent().low < 0.45 < law.exponent().high
    assert float(law(1600)) == pytest.approx(2.0 * 1600**-0.45, rel=0.08)


def test_the_prediction_interval_holds_the_new_runs_as_often_as_it_says():
    rng, hits = np.random.default_rng(1), 0
    n = np.repeat([50, 100, 200, 400], 3)
    for _ in range(400):
        law = fit_power_law(n, n**-0.5 * np.exp(rng.normal(0, 0.1, len(n))))
        new = np.exp(np.mean(np.log(1600**-0.5) + rng.normal(0, 0.1, 3)))
        expected = law.predict(1600, runs=3)
        hits += expected.low <= new <= expected.high
    assert 0.92 < hits / 400 < 0.98


def test_a_floor_under_the_error_shows_above_the_extrapolation():
    n = np.array([50, 100, 200, 400, 50, 100, 200, 400])
    law = fit_power_law(n, 2.0 * n**-0.8 + 0.02)
    assert law.predict(6400).high < 2.0 * 6400**-0.8 + 0.02


def test_a_power_law_needs_two_sizes():
    with pytest.raises(DataError, match="cannot be fitted"):
        fit_power_law([100, 100, 100], [0.1, 0.2, 0.1])


def test_holm_by_hand():
    # 0.01·4, 0.02·3 = 0.06, 0.03·2 = 0.06, 0.5
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])


def test_over_splits_is_nadeau_and_bengios_interval():
    found = over_splits([0.1, 0.2, 0.3], test_share=0.25)
    half = 4.302653 * np.sqrt(0.01 * (1 / 3 + 0.25))  # t with two degrees of freedom
    assert (found.low, found.value, found.high) == pytest.approx((0.2 - half, 0.2, 0.2 + half))


def test_an_interval_of_areas_ends_at_one():
    assert over_splits([0.8, 0.99], 0.3, bounds=(0, 1)).high == 1


def test_one_seed_has_the_spread_of_patients_only_and_three_have_both():
    rng = np.random.default_rng(0)
    replicates = rng.normal(0, 0.01, (4000, 1))
    one = Draws(np.array([0.8]), 0.8 + replicates, 100).estimate()
    assert one.high - one.value == pytest.approx(1.96 * 0.01, rel=0.05)
    values = np.array([0.79, 0.80, 0.81])
    three = Draws(values, values + replicates, 100).estimate()
    assert three.high - three.value > one.high - one.value


def test_seeds_that_happen_to_agree_do_not_make_an_interval_narrow():
    rng = np.random.default_rng(0)
    missed = {False: 0, True: 0}
    for _ in range(400):
        family = {}
        for arm in range(7):  # no arm differs; seeds spread by 0.008, the draw of patients by 0.0025
            values = rng.normal(rng.normal(0, 0.0025), 0.008, 2)
            family[str(arm)] = Draws(values, values + rng.normal(0, 0.0025, (200, 1)), 500)
        for together, members in ((False, family), (True, pooled(family))):
            missed[together] += sum(
                one.estimate().low > 0 or one.estimate().high < 0 for one in members.values()
            )
    assert missed[False] / 2800 > 0.08
    assert missed[True] / 2800 == pytest.approx(0.05, abs=0.02)


def test_a_network_against_itself_does_not_differ():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 80), rng.random((3, 80))
    same = draws(labels, scores) - draws(labels, scores)
    assert same.estimate().low == same.estimate().high == 0
    assert same.p_value() == 1


def test_subsets_nest_and_keep_patients_whole(blob_cohort):
    subsets = nested_subsets(blob_cohort, [20, 40, 80], seed=3)
    parts = [train_ids(subset) for subset in subsets.values()]
    assert parts[0] < parts[1] < parts[2]
    assert [len(part) for part in parts] == list(subsets)
    whole = blob_cohort.split("train").table.groupby("patient_id").size()
    for subset in subsets.values():
        found = subset.split("train").table.groupby("patient_id").size()
        assert (found == whole[found.index]).all()
        assert len(subset.split("test")) == len(blob_cohort.split("test"))


def test_subsets_do_not_depend_on_the_order_of_rows(blob_cohort):
    mixed = blob_cohort.take(np.random.default_rng(0).permutation(len(blob_cohort)))
    (one,), (two,) = (nested_subsets(c, [30], seed=1).values() for c in (blob_cohort, mixed))
    assert train_ids(one) == train_ids(two)


def test_shuffled_labels_keep_class_counts_and_leave_validation_and_test_alone(blob_cohort):
    shuffled = overfitting.shuffled_labels(blob_cohort, seed=1)
    for part in ("train", "val", "test"):
        before, after = blob_cohort.split(part).labels, shuffled.split(part).labels
        assert before.sum() == after.sum()
        assert (before == after).all() == (part != "train")


def test_every_size_gets_the_same_steps(blob_cohort):
    config = replace(study.PLAIN, batch_size=16)
    for images in (16, 40, 100):
        planned = for_steps(config, images, 60)
        assert planned.epochs * max(1, images // 16) == pytest.approx(60, abs=6)


class PowerCut(Callback):
    def __init__(self, after):
        self.left = after

    def on_check_in(self, trainer):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("power cut")


def test_a_killed_study_keeps_its_finished_runs_and_ends_the_same(blob_cohort, tmp_path, monkeypatch):
    undisturbed = overfitting.capacity(blob_cohort, "smoke", store=tmp_path / "a", progress=False)
    original, trained = study.train_or_load, []

    def cut_off(cohort, config, store, callbacks):
        if config.width == 2:
            callbacks = [*callbacks, PowerCut(1)]
        return original(cohort, config, store, callbacks)

    monkeypatch.setattr(study, "train_or_load", cut_off)
    with pytest.raises(RuntimeError, match="power cut"):
        overfitting.capacity(blob_cohort, "smoke", store=tmp_path / "b", progress=False)

    class Counted(Callback):
        def on_step_end(self, trainer):
            trained.append(trainer.config.width)

    monkeypatch.setattr(study, "train_or_load", lambda c, g, s, b: original(c, g, s, [*b, Counted()]))
    resumed = overfitting.capacity(blob_cohort, "smoke", store=tmp_path / "b", progress=False)
    assert set(trained) == {2}
    assert len(trained) < for_steps(study.PLAIN, 60, TINY.steps).epochs
    assert resumed.runs.equals(undisturbed.runs)


def test_training_until_it_is_learnt_by_heart_stops_there(blob_cohort, tmp_path):
    config = replace(study.PLAIN, epochs=60, batch_size=16)
    run = train(cut(blob_cohort, 40), config, tmp_path, until=0.95)
    accuracy = run.history["train_accuracy"]
    assert accuracy.iloc[-1] >= 0.95
    assert (accuracy.iloc[:-1] < 0.95).all()
    assert len(run.history) < 60


def test_noise_takes_longer_to_learn_than_truth(blob_cohort, tmp_path, monkeypatch):
    monkeypatch.setitem(study.BUDGETS, "smoke", replace(TINY, noise_epochs=80))
    found = overfitting.random_labels(blob_cohort, "smoke", seeds=(0,), store=tmp_path, progress=False)
    assert found.numbers["random.train_accuracy"].value > 0.9
    ends = found.runs.groupby("labels")["step"].max()
    assert ends["random"] > ends["true"]


def test_the_best_network_is_the_one_of_the_lowest_validation_loss(blob_cohort, tmp_path):
    run = train(blob_cohort, replace(study.PLAIN, epochs=4, batch_size=16), tmp_path)
    val = blob_cohort.split("val")
    logits = overfitting.predict(run.best, val.images)
    loss = -np.mean(np.where(val.labels == 1, np.log(logits), np.log(1 - logits)))
    assert loss == pytest.approx(run.history["val_loss"].min(), rel=1e-4)


def test_every_study_gives_numbers_that_can_be_recorded(blob_cohort, tmp_path):
    for name in ("gap", "dataset_size", "regularisers"):
        kwargs = {"held_out": 1} if name == "dataset_size" else {}
        found = getattr(overfitting, name)(
            blob_cohort, "smoke", (0, 1), store=tmp_path, progress=False, **kwargs
        )
        assert all(np.isfinite(number.value) for number in found.numbers.values())
        assert len(found.runs)
    arms = {"none", "early stopping", "weight decay", "dropout", "augmentation", "label smoothing"}
    assert set(found.runs["arm"]) == arms | {"averaging", "all"}


def test_an_unknown_preset_is_named():
    with pytest.raises(ConfigError, match="huge"):
        study.budget("huge")
