"""Train a network on a Cohort: the loop, its settings, and what it remembers.

    trainer = Trainer(TrainConfig(model="lenet", epochs=5), out_dir="runs/lenet")
    history = trainer.fit(cohort)
    from cxrlib.training.inference import predict
    probabilities = predict(trainer.model, cohort.split("test").images)

Every random draw of a step (its batch, its augmentation, its dropout) follows from the seed and the step's
number alone. That is what makes a resumed training end with the weights of an undisturbed one, and a training
by several processes (:mod:`cxrlib.training.distributed`) with those of one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from cxrlib.cohort import Cohort, Rows
from cxrlib.errors import CheckpointError, DataError, TrainingError
from cxrlib.evaluation.metrics import auc
from cxrlib.parallel import keep_freed_memory
from cxrlib.training.callbacks import Callback, Checkpoint, NonFiniteRecovery, ProgressBar, TensorBoard
from cxrlib.training.checkpoints import load_checkpoint
from cxrlib.training.config import FIXED_ON_RESUME, TrainConfig
from cxrlib.training.distributed import (
    end_others,
    gathered,
    is_lost_process,
    launch,
    mean_of_all,
    spread_layers,
)
from cxrlib.training.inference import predict_logits
from cxrlib.training.models import Averaged, Classifier, averaged, build
from cxrlib.training.share import Share


class Trainer:
    """Trains one network on one cohort.

    ``callbacks``: what happens around the loop; None for :func:`default_callbacks`. ``out_dir``: where
    checkpoints and TensorBoard logs go; None keeps nothing on disk.
    """

    # What :meth:`fit` sets up.
    raw_model: Classifier
    averaged: Averaged | None
    optimizer: torch.optim.Optimizer
    _order: tuple[int, np.ndarray]  # an epoch, and the rows of the training part in its order
    _rows: list[dict[str, float]]  # of the history
    _seconds: float
    _interval_images: int
    _interval_seconds: float

    def __init__(
        self,
        config: TrainConfig | None = None,
        callbacks: Sequence[Callback] | None = None,
        out_dir: str | Path | None = None,
    ):
        self.config = config or TrainConfig()
        self.out_dir = None if out_dir is None else Path(out_dir)
        callbacks = default_callbacks(self.out_dir) if callbacks is None else callbacks
        # A checkpoint holds what the others remember, so it is written after they have looked.
        self.callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint))
        self.step = 0
        self.learning_rate_factor = 1.0  # halved by each recovery from a non-finite loss
        self.should_stop = False

    def fit(self, cohort: Cohort, *, resume: bool = False) -> pd.DataFrame:
        """Train on the cohort's ``train`` images, measuring on its ``val`` images.

        - ``resume``: go on from ``out_dir/last.pt`` where there is one.
        - Returns: DataFrame with a row for each check-in: epoch, step, train_loss, train_auc, train_accuracy,
          val_loss, val_auc, val_accuracy (threshold ½), learning_rate, images_per_second, seconds.
        - Raises DataError: a split without images or with one class only.
        - Raises TrainingError, CheckpointError: the loss is not finite and no callback mends it; ``last.pt``
          is damaged or of another training.
        """
        keep_freed_memory(most=2**30, largest=2**28)
        self._set_up(cohort)
        try:
            self._call("on_fit_start")
            if resume and self.out_dir is not None and (self.out_dir / "last.pt").exists():
                self._resume(self.out_dir / "last.pt")
            self._call("on_train_start")
            while self.step < self.total_steps and not self.should_stop:
                loss = self._train_step()
                if not math.isfinite(loss):
                    self._call("on_non_finite_loss", loss)
                    continue
                self._call("on_step_end")
                if self._is_check_in():
                    self._check_in()
                    self._call("on_check_in")
        except KeyboardInterrupt:
            self._call("on_interrupt")
            raise
        except Exception as error:
            end_others(self.fabric)
            if self.share.step > 1 and is_lost_process(error):
                raise TrainingError(
                    f"Another of the {self.share.step} processes of this training has ended.",
                    remedy="Read its message above; then go on from the last checkpoint with --resume.",
                ) from error
            raise
        finally:
            self._call("on_fit_close")
        self._call("on_fit_end")
        self.fabric.barrier()  # what the first process wrote is there when any of them goes on
        return self.history

    def _train_step(self) -> float:
        """One batch forward and back. Where the loss is not finite the weights stay as they are."""
        config, started = self.config, time.perf_counter()
        images, targets, rows = self._batch(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        torch.manual_seed(_seed(config.seed, 2, self.step))  # dropout
        self.wrapped.train()  # a callback may have predicted with it
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.wrapped(images)
        losses = F.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=self.positive_weight, reduction="none"
        )
        # Gradients are averaged over processes, whose shares may differ by one image.
        loss = losses.mean() * (len(rows) * self.share.step / self.share.total)
        for callback in self.callbacks:
            loss = callback.training_loss(self, losses, rows, loss)
        value = mean_of_all(self.fabric, loss.detach())
        if math.isfinite(value):
            self.fabric.backward(loss)
            self.optimizer.step()
            self.step += 1
            if self.averaged is not None:
                self.averaged.update_parameters(self.raw_model)
        elif not any(type(c).on_non_finite_loss is not Callback.on_non_finite_loss for c in self.callbacks):
            raise TrainingError(
                f"The loss is {value} at step {self.step}.",
                remedy="Lower learning_rate, or add the NonFiniteRecovery callback.",
            )
        self._interval_images += self.share.total
        self._interval_seconds += time.perf_counter() - started
        return value

    def _batch(self, step: int) -> tuple[Tensor, Tensor, np.ndarray]:
        """This device's share of the step's images (float, (B, 1, H, W), 0–255), their targets and rows."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            order = np.random.default_rng([self.config.seed, 1, epoch]).permutation(len(self._train))
            for callback in self.callbacks:
                order = callback.training_rows(self, epoch, order)
            self._order = (epoch, order)
        rows = self._order[1][position * self.config.batch_size :][: self.config.batch_size]
        rows = self.share.of(np.sort(rows))  # a memory map likes order
        images = torch.from_numpy(np.ascontiguousarray(self._train.images[rows])).unsqueeze(1)
        images, targets = self.fabric.to_device((images, self._train_targets[rows]))
        images = images.float()
        if self.config.augment is not None:
            seed = _seed(self.config.seed, 3, step, 0)
            images = self.config.augment(images, torch.Generator().manual_seed(seed), self.share)
        for number, callback in enumerate(self.callbacks):
            seed = _seed(self.config.seed, 4, step, 0, number)
            images = callback.training_images(self, images, torch.Generator().manual_seed(seed))
        smoothing = self.config.label_smoothing
        return images, targets * (1 - smoothing) + smoothing / 2, rows

    def learning_rate(self) -> float:
        """The rate of the current step."""
        progress = self.step / self.total_steps
        rate = self.config.learning_rate * self.learning_rate_factor
        if progress < self.config.warmup:
            return rate * (self.step + 1) / (self.config.warmup * self.total_steps + 1)
        if self.config.schedule == "cosine":
            past = (progress - self.config.warmup) / (1 - self.config.warmup)
            return rate * (1 + math.cos(math.pi * past)) / 2
        return rate

    def _is_check_in(self) -> bool:
        per_step = self.config.check_ins / self.steps_per_epoch
        passed = math.floor(self.step * per_step + 1e-9) - math.floor((self.step - 1) * per_step + 1e-9)
        return passed > 0 or self.step == self.total_steps

    def _check_in(self) -> None:
        """Measure the network on the training sample and the validation images, the same way on both."""
        started = time.perf_counter()
        row = {"epoch": self.step / self.steps_per_epoch, "step": self.step}
        for part, sample in (("train", self._sample), ("val", self._val)):
            share = Share(self.share.first, self.share.step, len(sample))
            mine = Rows(sample.images, share.of(np.arange(len(sample))))
            logits = gathered(self.fabric, predict_logits(self.model, mine), share)
            row |= {f"{part}_{name}": value for name, value in self._measure(logits, sample.labels).items()}
        row["learning_rate"] = self.learning_rate()
        row["images_per_second"] = self._interval_images / max(self._interval_seconds, 1e-9)
        row["seconds"] = self._seconds + (self._interval_seconds + time.perf_counter() - started)
        # What callbacks decide on must be the same everywhere, the clock included.
        row = self.fabric.broadcast(row)
        self._seconds = row["seconds"]
        self._rows.append(row)
        self._interval_images = self._interval_seconds = 0

    def _measure(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        weight = None if self.positive_weight is None else self.positive_weight.cpu()
        loss = F.binary_cross_entropy_with_logits(
            torch.tensor(logits), torch.tensor(labels, dtype=torch.float32), pos_weight=weight
        )
        right = float(np.mean((logits > 0) == labels))
        return {"loss": float(loss), "auc": auc(labels, logits), "accuracy": right}

    @property
    def model(self) -> Classifier:
        """The network to predict with: the averaged one where ``average_decay`` is set."""
        return self.raw_model if self.averaged is None else self.averaged.module

    @property
    def train_part(self) -> Cohort:
        """The images that are trained on; rows that callbacks are given count from its first."""
        return self._train

    @property
    def history(self) -> pd.DataFrame:
        """A row for each check-in; see :meth:`fit`."""
        return pd.DataFrame(self._rows)

    def state(self) -> dict:
        """All that a resumed training needs: tensors, numbers, strings, lists and dicts only."""
        return {
            "model": self.raw_model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "total_steps": self.total_steps,
            "learning_rate_factor": self.learning_rate_factor,
            "should_stop": self.should_stop,
            "history": [dict(row) for row in self._rows],
            "seconds": self._seconds,
            "interval": [self._interval_images, self._interval_seconds],
            "config": asdict(self.config),
            "cohort": self.cohort_facts,
            "callbacks": {type(c).__name__: c.state() for c in self.callbacks},
        }

    def load_state(self, state: dict) -> None:
        """Become the trainer that :meth:`state` described."""
        self.raw_model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.learning_rate_factor = state["learning_rate_factor"]
        # A training that early stopping ended stays ended, unless it is given more epochs.
        self.should_stop = state["should_stop"] and state["total_steps"] >= self.total_steps
        self._rows = [dict(row) for row in state["history"]]
        self._seconds = state["seconds"]
        self._interval_images, self._interval_seconds = state["interval"]
        for callback in self.callbacks:
            callback.load_state(state["callbacks"].get(type(callback).__name__, {}))

    def _resume(self, path: Path) -> None:
        state = load_checkpoint(path)
        try:
            self._take_up(path, state)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} does not hold a training: {type(error).__name__}, {error}",
                remedy="Train into another folder, or remove it.",
            ) from error

    def _take_up(self, path: Path, state: dict) -> None:
        mine = asdict(self.config)
        differing = [f"{k}: {state['config'].get(k)!r} there, {mine[k]!r} here" for k in FIXED_ON_RESUME
                     if state["config"].get(k) != mine[k]]  # fmt: skip
        if state["cohort"]["content_hash"] != self.cohort_facts["content_hash"]:
            differing.append(
                f"training and validation images: {state['cohort']['name']} with other content there"
            )
        if differing:
            raise CheckpointError(
                f"{path} is of another training.",
                offenders=differing,
                remedy="Train into another folder, or give the settings that it was started with.",
            )
        self.load_state(state)

    def _set_up(self, cohort: Cohort) -> None:
        config = self.config
        self._train, self._val = (cohort.split(name, lazy=True) for name in ("train", "val"))
        for name, part in (("train", self._train), ("val", self._val)):
            if len(np.unique(part.labels)) < 2:
                raise DataError(
                    f"The {name} split of {cohort.name} has {len(part)} images, "
                    f"{int(part.labels.sum())} of them with pneumonia.",
                    remedy="Training needs both classes in train and val: check labels, splits and limit.",
                )
        self.steps_per_epoch = max(1, len(self._train) // config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch
        every = math.ceil(len(self._train) / config.train_sample)
        self._sample = self._train.take(np.arange(0, len(self._train), every))
        self._train_targets = torch.tensor(self._train.labels, dtype=torch.float32)
        size = int(cohort.images.shape[1])
        self.cohort_facts = {
            "name": cohort.name,
            "image_size": size,
            "content_hash": self._train.content_hash() + self._val.content_hash(),
        }
        self.fabric = launch(config)
        self.share = Share(
            self.fabric.global_rank, self.fabric.world_size, min(config.batch_size, len(self._train))
        )
        self._order = (-1, np.empty(0, np.int64))
        torch.manual_seed(_seed(config.seed, 0))
        self.raw_model = build(
            config.model, width=config.width, dropout=config.dropout, weights=config.weights, image_size=size
        )
        self.raw_model.normalise_by(self._sample.images)
        if self.share.step > 1:
            self.raw_model = spread_layers(self.raw_model, self.share, self.fabric.device)
        optimizer = torch.optim.AdamW(
            self.raw_model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.wrapped, self.optimizer = self.fabric.setup(self.raw_model, optimizer)
        self.averaged = averaged(self.raw_model, config.average_decay)
        self.positive_weight = None
        if config.class_weighted:
            positives = int(self._train.labels.sum())
            weight = torch.tensor((len(self._train) - positives) / positives)
            self.positive_weight = self.fabric.to_device(weight)
        self.step, self.learning_rate_factor, self.should_stop = 0, 1.0, False
        self._rows, self._seconds, self._interval_images, self._interval_seconds = [], 0.0, 0, 0.0

    def _call(self, hook: str, *args: object) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, *args)


def default_callbacks(
    out_dir: str | Path | None = None, *, progress: bool = True, tensorboard: bool = True
) -> list[Callback]:
    """Recovery and a progress bar; with a folder, checkpoints and TensorBoard logs in it."""
    callbacks: list[Callback] = [NonFiniteRecovery()]
    if progress:
        callbacks.append(ProgressBar())
    if out_dir is not None:
        callbacks += [TensorBoard()] if tensorboard else []
        callbacks.append(Checkpoint())
    return callbacks


def _seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, so that neighbouring steps share no stream."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
