"""The recipes are what they say for each preset, and a comparison measures the networks it trained."""

import numpy as np
import pytest

from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import accuracy, auc, bootstrap_mean, choose_threshold
from cxrlib.training.callbacks import Checkpoint, NonFiniteRecovery
from cxrlib.training.inference import predict
from cxrlib.training.recipes import AUGMENT, MILD_AUGMENT, PRESETS, compare, recipe
from cxrlib.training.store import train_or_load


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("model", ["lenet", "double_conv", "residual", "resnet18"])
def test_a_recipe_is_of_its_network_and_seed_and_weighs_the_classes(model, preset):
    config = recipe(model, preset, seed=7)
    assert (config.model, config.seed, config.class_weighted) == (model, 7, True)


def test_presets_below_full_take_small_batches_and_mild_augmentation():
    for preset in ("smoke", "course"):
        config = recipe("residual", preset)
        assert (config.batch_size, config.augment, config.learning_rate) == (32, MILD_AUGMENT, 2e-3)
    full = recipe("residual", "full")
    assert (full.batch_size, full.augment, full.learning_rate) == (64, AUGMENT, 3e-3)
    assert [recipe(model, "full").learning_rate for model in ("lenet", "double_conv")] == [1e-3, 2e-3]


def test_smoke_is_one_epoch_and_no_preset_is_shorter_than_it():
    for model in ("lenet", "double_conv", "residual"):
        epochs = {preset: recipe(model, preset).epochs for preset in PRESETS}
        assert epochs["smoke"] == 1 < min(epochs["course"], epochs["full"])


def test_the_wide_network_is_halved_below_full():
    assert [recipe("double_conv", preset).width for preset in PRESETS] == [4, 4, 8]
    assert recipe("lenet", "course").width is None


def test_a_network_without_a_recipe_takes_that_of_residual_at_a_smaller_rate():
    own, borrowed = recipe("residual", "full"), recipe("resnet18", "full")
    assert (borrowed.epochs, borrowed.dropout) == (own.epochs, own.dropout)
    assert borrowed.learning_rate == 1e-3


def test_changes_come_last():
    config = recipe("double_conv", "course", epochs=2, width=5, augment=None)
    assert (config.epochs, config.width, config.augment) == (2, 5, None)


def test_an_unknown_preset_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match=r"'quick'(.|\n)*smoke, course, full"):
        recipe("lenet", "quick")


def test_a_setting_that_does_not_exist_is_an_error():
    with pytest.raises(TypeError, match="epoch_count"):
        recipe("lenet", epoch_count=3)


QUIET = [NonFiniteRecovery(), Checkpoint()]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def found(blob_cohort, store):
    return compare(
        blob_cohort, ["lenet"], preset="smoke", seeds=(0, 1), store=store, callbacks=QUIET, epochs=2
    )


def test_a_comparison_has_a_history_and_scores_for_each_seed(found, blob_cohort):
    assert list(found.histories) == list(found.test_scores) == list(found.val_scores) == ["lenet"]
    assert len(found.histories["lenet"]) == 2
    for part, scores in (("val", found.val_scores), ("test", found.test_scores)):
        assert scores["lenet"].shape == (2, len(blob_cohort.split(part)))
    assert not np.array_equal(*found.test_scores["lenet"])


def test_the_numbers_are_means_over_seeds_with_intervals_by_patient(found, blob_cohort):
    for part, scores in (("val", found.val_scores["lenet"]), ("test", found.test_scores["lenet"])):
        data = blob_cohort.split(part)
        number = found.numbers[f"lenet.{part}_auc"]
        assert number.value == pytest.approx(np.mean([auc(data.labels, row) for row in scores]))
        assert number == bootstrap_mean(data.labels, list(scores), data.patients)["auc"]
        assert number.low < number.value < number.high and (number.n, number.seeds) == (len(data), 2)
        at_half = found.numbers[f"lenet.{part}_accuracy"].value
        assert at_half == pytest.approx(np.mean([accuracy(data.labels, row) for row in scores]))


def test_thresholds_are_chosen_on_validation_images_one_a_seed(found, blob_cohort):
    val, test = blob_cohort.split("val"), blob_cohort.split("test")
    called = [
        row >= choose_threshold(val.labels, chosen_on, rule="youden")
        for row, chosen_on in zip(found.test_scores["lenet"], found.val_scores["lenet"], strict=True)
    ]
    expected = {
        "accuracy": np.mean([(one == test.labels).mean() for one in called]),
        "sensitivity": np.mean([one[test.labels == 1].mean() for one in called]),
        "specificity": np.mean([(~one[test.labels == 0]).mean() for one in called]),
    }
    for metric, value in expected.items():
        assert found.numbers[f"lenet.test_{metric}_at_val_threshold"].value == pytest.approx(value)


def test_training_numbers_are_the_last_of_each_history_with_their_range(found):
    last = [history["train_auc"].iloc[-1] for history in found.histories["lenet"]]
    number = found.numbers["lenet.train_auc"]
    assert (number.value, number.low, number.high) == pytest.approx((np.mean(last), min(last), max(last)))
    assert (number.n, number.seeds) == (None, 2)
    assert found.numbers["lenet.train_seconds"].low > 0


def test_a_comparison_asked_again_reads_the_store(found, blob_cohort, store):
    again = compare(
        blob_cohort, ["lenet"], preset="smoke", seeds=(0, 1), store=store, callbacks=QUIET, epochs=2
    )
    assert again.numbers == found.numbers  # the seconds, too
    config = recipe("lenet", "smoke", seed=1, epochs=2)
    model, _ = train_or_load(blob_cohort, config, store, QUIET)
    assert np.array_equal(predict(model, blob_cohort.split("test").images), found.test_scores["lenet"][1])


def test_one_seed_gives_a_range_of_no_width(blob_cohort, store):
    alone = compare(blob_cohort, ["lenet"], preset="smoke", store=store, callbacks=QUIET, epochs=2)
    number = alone.numbers["lenet.train_auc"]
    assert number.low == number.value == number.high and number.seeds == 1
    assert alone.numbers["lenet.test_auc"].low < alone.numbers["lenet.test_auc"].high


def test_without_callbacks_the_usual_ones_train_the_same_network(found, blob_cohort, tmp_path, capfd):
    usual = compare(blob_cohort, ["lenet"], preset="smoke", seeds=(0, 1), store=tmp_path, epochs=2)
    assert np.allclose(usual.test_scores["lenet"], found.test_scores["lenet"])
