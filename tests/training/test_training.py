"""The loop learns, stops, recovers, and a resumed training is the undisturbed one, bit for bit."""

import multiprocessing
import os
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_blobs

from cxrlib.errors import CheckpointError, ConfigError, DataError, TrainingError
from cxrlib.training.augment import Augment
from cxrlib.training.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    NonFiniteRecovery,
    TensorBoard,
)
from cxrlib.training.checkpoints import load_checkpoint, save_checkpoint
from cxrlib.training.inference import load_model, predict
from cxrlib.training.store import train_or_load
from cxrlib.training.trainer import TrainConfig, Trainer, default_callbacks

QUICK = TrainConfig(model="lenet", epochs=3, batch_size=16, dropout=0.2, augment=Augment(), average_decay=0.9)


def quiet(out_dir=None, **options):
    return default_callbacks(out_dir, progress=False, tensorboard=False, **options)


def weights(trainer):
    return {k: v.clone() for k, v in trainer.state()["model"].items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


class StopAt(Callback):
    """Raises in the middle of an epoch, as a power cut would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        if trainer.step == self.step:
            raise RuntimeError("power cut")


def test_binary_cross_entropy_is_the_formula():
    logits = torch.tensor([2.0, -1.0, 0.5])
    targets = torch.tensor([1.0, 0.0, 0.0])
    p = 1 / (1 + np.exp(-logits.numpy()))
    by_hand = -np.mean([np.log(p[0]), np.log(1 - p[1]), np.log(1 - p[2])])
    assert F.binary_cross_entropy_with_logits(logits, targets).item() == pytest.approx(by_hand, rel=1e-6)


def test_class_weights_make_both_classes_count_alike(blob_cohort):
    trainer = Trainer(TrainConfig(model="lenet", epochs=1, class_weighted=True), callbacks=[])
    trainer.fit(blob_cohort)
    labels = blob_cohort.split("train").labels
    assert trainer.positive_weight.item() * labels.sum() == pytest.approx((1 - labels).sum())


def test_an_untrained_network_knows_nothing(blob_cohort):
    trainer = Trainer(TrainConfig(model="residual", epochs=1, learning_rate=1e-12), callbacks=[])
    history = trainer.fit(blob_cohort)
    assert history["val_loss"].iloc[-1] == pytest.approx(np.log(2), abs=0.1)


def test_it_learns_and_its_history_says_so(blob_cohort):
    history = Trainer(TrainConfig(model="lenet", epochs=12, batch_size=16), callbacks=[]).fit(blob_cohort)
    assert history["val_auc"].iloc[-1] > 0.9
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert list(history.columns) == [
        "epoch", "step", "train_loss", "train_auc", "train_accuracy", "val_loss", "val_auc", "val_accuracy",
        "learning_rate", "images_per_second", "seconds",
    ]  # fmt: skip


def test_check_ins_inside_an_epoch(blob_cohort):
    config = TrainConfig(model="lenet", epochs=2, batch_size=16, check_ins=3)
    history = Trainer(config, callbacks=[]).fit(blob_cohort)
    assert len(history) == 6
    assert history["epoch"].iloc[2] == 1.0
    assert history["step"].is_monotonic_increasing


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(blob_cohort):
    runs = []
    for seed in (0, 0, 1):
        trainer = Trainer(TrainConfig(**{**vars(QUICK), "seed": seed, "epochs": 1}), callbacks=[])
        trainer.fit(blob_cohort)
        runs.append(weights(trainer))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.fixture(scope="module")
def whole(blob_cohort, tmp_path_factory):
    """A training that nothing disturbed, and its history."""
    out = tmp_path_factory.mktemp("whole")
    trainer = Trainer(QUICK, callbacks=[EarlyStopping(), *quiet(out)], out_dir=out)
    return trainer, trainer.fit(blob_cohort)


@pytest.mark.parametrize("cut", [1, 5, 9, 13, 20])
def test_resumed_after_an_error_at_any_step_it_ends_bit_for_bit_the_same(blob_cohort, whole, tmp_path, cut):
    undisturbed, history = whole
    folder = tmp_path / "cut"
    with pytest.raises(RuntimeError, match="power cut"):
        Trainer(
            QUICK, callbacks=[Checkpoint(every_steps=2), EarlyStopping(), StopAt(cut)], out_dir=folder
        ).fit(blob_cohort)
    again = Trainer(
        QUICK, callbacks=[Checkpoint(every_steps=2), EarlyStopping(), NonFiniteRecovery()], out_dir=folder
    )
    resumed = again.fit(blob_cohort, resume=True)
    assert same(weights(again), weights(undisturbed))
    assert same(again.state()["averaged"], undisturbed.state()["averaged"])
    timings = ["images_per_second", "seconds"]
    assert resumed.drop(columns=timings).equals(history.drop(columns=timings))


def _train(folder, begun):
    """What a process does that is killed."""
    torch.set_num_threads(1)
    trainer = Trainer(QUICK, callbacks=[Checkpoint(every_steps=1)], out_dir=folder)
    begun.set()
    trainer.fit(make_blobs(), resume=True)


@pytest.mark.skipif(os.name == "nt", reason="killing is tested on Unix")
def test_killed_at_random_moments_and_resumed_it_ends_bit_for_bit_the_same(tmp_path):
    # Each process is forked off one that has imported torch and done nothing: that takes seconds a time.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["cxrlib.training.trainer"])

    def run(folder, kill_after=None):
        begun = processes.Event()
        process = processes.Process(target=_train, args=(folder, begun))
        process.start()
        assert begun.wait(120)
        if kill_after is not None:
            time.sleep(kill_after)
            process.kill()
        process.join()
        return process.exitcode

    assert run(tmp_path / "whole") == 0
    for delay in (0.4, 0.7, 1.0):
        run(tmp_path / "killed", kill_after=delay)
    assert run(tmp_path / "killed") == 0
    whole, killed = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "killed"))
    assert same(whole["model"], killed["model"])
    assert {p.name for p in (tmp_path / "killed").iterdir()} == {"last.pt", "best.pt"}


def test_a_finished_training_may_be_given_more_epochs(blob_cohort, tmp_path):
    Trainer(QUICK, callbacks=quiet(tmp_path), out_dir=tmp_path).fit(blob_cohort)
    longer = Trainer(TrainConfig(**{**vars(QUICK), "epochs": 5}), callbacks=quiet(tmp_path), out_dir=tmp_path)
    assert longer.fit(blob_cohort, resume=True)["epoch"].tolist() == [1, 2, 3, 4, 5]


def test_the_best_validation_loss_is_remembered_across_runs(blob_cohort, tmp_path):
    Trainer(QUICK, callbacks=quiet(tmp_path), out_dir=tmp_path).fit(blob_cohort)
    best = (tmp_path / "best.pt").read_bytes()
    worse = TrainConfig(model="lenet", epochs=1, batch_size=16, learning_rate=1e-9)
    Trainer(worse, callbacks=quiet(tmp_path), out_dir=tmp_path).fit(blob_cohort)
    assert (tmp_path / "best.pt").read_bytes() == best


def test_logs_and_checkpoints_without_a_folder_are_refused(blob_cohort):
    for callback, error in ((TensorBoard(), ConfigError), (Checkpoint(), CheckpointError)):
        with pytest.raises(error, match="nowhere to go"):
            Trainer(QUICK, callbacks=[callback]).fit(blob_cohort)


def test_resuming_another_training_is_refused(blob_cohort, tmp_path):
    Trainer(QUICK, callbacks=quiet(tmp_path), out_dir=tmp_path).fit(blob_cohort)
    other = Trainer(TrainConfig(model="residual", batch_size=16), callbacks=quiet(tmp_path), out_dir=tmp_path)
    with pytest.raises(CheckpointError, match="model: 'lenet' there, 'residual' here"):
        other.fit(blob_cohort, resume=True)


def test_early_stopping_ends_with_the_best_weights(blob_cohort):
    stopping = EarlyStopping(patience=2)
    config = TrainConfig(model="lenet", epochs=60, batch_size=16, learning_rate=1e-2, schedule="constant")
    trainer = Trainer(config, callbacks=[stopping])
    # A fifth of the labels are wrong: there is something to memorise, and memorising it costs.
    flipped = np.random.default_rng(0).random(len(blob_cohort)) < 0.2
    noisy = blob_cohort.with_columns(label=np.where(flipped, 1 - blob_cohort.labels, blob_cohort.labels))
    history = trainer.fit(noisy)
    assert len(history) < 60
    assert len(history) - 1 - history["val_loss"].idxmin() == 2
    val = noisy.split("val")
    p = predict(trainer.model, val.images).astype(float)
    loss = -np.mean(np.where(val.labels == 1, np.log(p), np.log(1 - p)))
    assert loss == pytest.approx(history["val_loss"].min(), rel=1e-3)


class Poison(Callback):
    """Makes the network's bias NaN before the given steps, once each."""

    def __init__(self, *steps, always=False):
        self.steps, self.always = set(steps), always

    def on_step_end(self, trainer):
        if trainer.step in self.steps or self.always:
            self.steps.discard(trainer.step)
            trainer.raw_model.network[-1].bias.data.fill_(float("nan"))


def test_a_non_finite_loss_goes_back_and_halves_the_rate(blob_cohort):
    trainer = Trainer(QUICK, callbacks=[NonFiniteRecovery(), Poison(10)])
    history = trainer.fit(blob_cohort)
    assert trainer.learning_rate_factor == 0.5
    assert len(history) == 3
    assert np.isfinite(history["val_loss"]).all()


def test_after_three_recoveries_it_gives_up_with_an_error(blob_cohort):
    with pytest.raises(TrainingError, match="after 3 recoveries"):
        Trainer(QUICK, callbacks=[NonFiniteRecovery(), Poison(always=True)]).fit(blob_cohort)


def test_without_recovery_a_non_finite_loss_is_an_error(blob_cohort):
    with pytest.raises(TrainingError, match="NonFiniteRecovery"):
        Trainer(QUICK, callbacks=[Poison(4)]).fit(blob_cohort)


def test_a_split_with_one_class_is_refused(blob_cohort):
    healthy = blob_cohort.take((blob_cohort.table["split"] != "val").to_numpy() | (blob_cohort.labels == 0))
    with pytest.raises(DataError, match=r"val split .* 0 of them with pneumonia"):
        Trainer(QUICK, callbacks=[]).fit(healthy)


def test_a_loaded_model_predicts_as_the_trained_one(blob_cohort, tmp_path):
    trainer = Trainer(QUICK, callbacks=quiet(tmp_path), out_dir=tmp_path)
    trainer.fit(blob_cohort)
    model, facts = load_model(tmp_path / "last.pt")
    assert np.array_equal(predict(model, blob_cohort.images), predict(trainer.model, blob_cohort.images))
    assert facts["config"]["model"] == "lenet"
    assert facts["config"] == asdict(QUICK)


def test_predictions_do_not_depend_on_how_many_images_fit_a_batch(blob_cohort, tmp_path, monkeypatch):
    model, _ = train_or_load(blob_cohort, QUICK, store=tmp_path, callbacks=[])
    at_once = predict(model, blob_cohort.images)
    monkeypatch.setattr("cxrlib.training.inference._PIXELS", 7 * blob_cohort.images[0].size)
    assert np.allclose(predict(model, blob_cohort.images), at_once, atol=1e-6)


def test_train_or_load_trains_once(blob_cohort, tmp_path):
    first, history = train_or_load(blob_cohort, QUICK, store=tmp_path, callbacks=None)
    started = time.perf_counter()
    second, again = train_or_load(blob_cohort, QUICK, store=tmp_path, callbacks=None)
    assert np.array_equal(predict(first, blob_cohort.images), predict(second, blob_cohort.images))
    assert history.equals(again)
    assert history["seconds"].iloc[-1] > 0 and time.perf_counter() > started


@pytest.mark.parametrize("damage", ["truncate", "garbage", "pickle", "empty"])
def test_a_damaged_checkpoint_is_refused_by_name_and_runs_nothing(tmp_path, damage):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": {"w": torch.zeros(100)}})
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "garbage":
        path.write_bytes(b"no checkpoint")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        import pickle

        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "pwned"), "w"))

        path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        load_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


def test_no_augmentation_changes_nothing_and_a_flip_mirrors():
    images = torch.rand(4, 1, 16, 16) * 255
    generator = torch.Generator().manual_seed(0)
    nothing = Augment(rotate=0, translate=0, scale=0, brightness=0, contrast=0, gamma=0)
    assert torch.equal(nothing(images, generator), images)
    assert torch.allclose(replace(nothing, flip=1.0)(images, generator), images.flip(-1), atol=1e-3)


def test_rotation_is_by_at_most_the_asked_degrees():
    # A line through the centre turns with the image; its end tells the angle.
    image = torch.zeros(1, 1, 129, 129)
    image[..., 64, 65:] = 255
    only_turn = Augment(rotate=20, translate=0, scale=0, brightness=0, contrast=0, gamma=0)
    for seed in range(5):
        turned = only_turn(image, torch.Generator().manual_seed(seed))[0, 0]
        y, x = (turned[:, 120] * torch.arange(129)).sum() / turned[:, 120].sum() - 64, 120 - 64
        assert abs(np.degrees(np.arctan2(float(y), x))) <= 20.5


@pytest.mark.parametrize(
    "setting", [{"epochs": 0}, {"learning_rate": -1}, {"schedule": "magic"}, {"warmup": 1.0}]
)
def test_senseless_settings_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting)) if "schedule" not in setting else "magic"):
        TrainConfig(**setting)
