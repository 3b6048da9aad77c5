"""What happens around the training loop: progress, logs, checkpoints, stopping, recovery."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Generator, Tensor

from cxrlib.errors import CheckpointError, ConfigError, TrainingError
from cxrlib.parallel import progress_bar
from cxrlib.training.checkpoints import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    from cxrlib.cohort import Cohort
    from cxrlib.training.trainer import Trainer


class Callback:
    """Hooks of the loop, in the order in which they are called. Override the ones you need."""

    def on_fit_start(self, trainer: Trainer) -> None:
        """The network is built; nothing is trained or resumed yet."""

    def on_train_start(self, trainer: Trainer) -> None:
        """What there was to resume is resumed; the first step comes next."""

    def training_rows(self, trainer: Trainer, epoch: int, rows: np.ndarray) -> np.ndarray:
        """Rows of ``trainer.train_part`` in the order of this epoch; returns as many, maybe others."""
        return rows

    def training_images(self, trainer: Trainer, images: Tensor, generator: Generator) -> Tensor:
        """A batch, augmented, float (B, 1, H, W), 0–255; returns what the network is shown instead.

        With several processes this is ``trainer.share`` of the batch: draw with ``trainer.share.draw``.
        """
        return images

    def training_loss(self, trainer: Trainer, losses: Tensor, rows: np.ndarray, loss: Tensor) -> Tensor:
        """Each image's loss (B,), its row, and the loss of the step so far; returns what is minimised."""
        return loss

    def on_non_finite_loss(self, trainer: Trainer, loss: float) -> None:
        """The loss was NaN or infinite; the weights were not changed. The step is tried again after this."""

    def on_step_end(self, trainer: Trainer) -> None:
        """The weights changed; ``trainer.step`` counts this step."""

    def on_check_in(self, trainer: Trainer) -> None:
        """``trainer.history`` has a new last row."""

    def on_interrupt(self, trainer: Trainer) -> None:
        """Ctrl-C was pressed; the interruption goes on after this."""

    def on_fit_close(self, trainer: Trainer) -> None:
        """Training is over, well or not: close what is open."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """Training ended well."""

    def state(self) -> dict:
        """What must survive a resume: tensors, numbers, strings, lists, dicts."""
        return {}

    def load_state(self, state: dict) -> None:
        """Become the callback that :meth:`state` described."""


class TrainingChange(Callback, ABC):
    """A callback that changes what is learnt, and so belongs to the name under which a training is kept."""

    @abstractmethod
    def key(self, cohort: Cohort) -> str:
        """A folder name that differs where the change does."""


class ProgressBar(Callback):
    """A bar over the steps with the last check-in beside it."""

    bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer) -> None:
        shown = trainer.fabric.global_rank == 0
        self.bar = progress_bar(
            trainer.total_steps, trainer.config.model, shown, unit="step", initial=trainer.step
        )

    def on_step_end(self, trainer: Trainer) -> None:
        if self.bar is not None:
            self.bar.update(trainer.step - self.bar.n)

    def on_check_in(self, trainer: Trainer) -> None:
        if self.bar is None:
            return
        last = trainer.history.iloc[-1]
        self.bar.set_postfix_str(f"val loss {last['val_loss']:.3f}, AUC {last['val_auc']:.3f}")

    def on_fit_close(self, trainer: Trainer) -> None:
        if self.bar is not None:
            self.bar.close()


class TensorBoard(Callback):
    """Writes every check-in to ``out_dir/tensorboard``: open it with ``tensorboard --logdir``."""

    writer: SummaryWriter | None = None

    def on_train_start(self, trainer: Trainer) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if trainer.out_dir is None:
            raise ConfigError("TensorBoard's logs have nowhere to go.", remedy="Give the Trainer an out_dir.")
        if trainer.fabric.global_rank == 0:
            self.writer = SummaryWriter(trainer.out_dir / "tensorboard", purge_step=trainer.step or None)

    def on_check_in(self, trainer: Trainer) -> None:
        if self.writer is None:
            return
        row = trainer.history.iloc[-1]
        for name in ("loss", "auc", "accuracy"):
            values = {part: row[f"{part}_{name}"] for part in ("train", "val")}
            for part, value in values.items():
                self.writer.add_scalar(f"{name}/{part}", value, trainer.step)
        for name in ("learning_rate", "images_per_second"):
            self.writer.add_scalar(f"speed/{name}", row[name], trainer.step)

    def on_fit_close(self, trainer: Trainer) -> None:
        if self.writer is not None:
            self.writer.close()


class Checkpoint(Callback):
    """Keeps ``last.pt``, to resume from, and ``best.pt``, of the lowest validation loss seen.

    The best is remembered across runs: a second training into the same folder replaces ``best.pt`` only where
    it does better on the same images. ``every_steps``: write ``last.pt`` so often too; 0 for check-ins only.
    """

    def __init__(self, every_steps: int = 0):
        self.every_steps = every_steps
        self.best_val_loss = float("inf")

    def on_fit_start(self, trainer: Trainer) -> None:
        if trainer.out_dir is None:
            raise CheckpointError("Checkpoints have nowhere to go.", remedy="Give the Trainer an out_dir.")
        self.best_val_loss = float("inf")
        best = trainer.out_dir / "best.pt"
        if best.exists():
            try:
                earlier = load_checkpoint(best)
                if earlier["cohort"] == trainer.cohort_facts:
                    self.best_val_loss = float(earlier["callbacks"]["Checkpoint"]["best_val_loss"])
            except (CheckpointError, KeyError, TypeError, ValueError):
                return  # damaged: this run's first check-in replaces it

    def on_step_end(self, trainer: Trainer) -> None:
        if self.every_steps and trainer.step % self.every_steps == 0:
            self._save(trainer, "last.pt")

    def on_check_in(self, trainer: Trainer) -> None:
        val_loss = float(trainer.history["val_loss"].iloc[-1])
        if val_loss < self.best_val_loss:
            self.best_val_loss = val_loss
            self._save(trainer, "best.pt")
        self._save(trainer, "last.pt")

    def on_interrupt(self, trainer: Trainer) -> None:
        self._save(trainer, "last.pt")

    def on_fit_end(self, trainer: Trainer) -> None:
        self._save(trainer, "last.pt")

    def _save(self, trainer: Trainer, name: str) -> None:
        if trainer.fabric.global_rank == 0:
            assert trainer.out_dir is not None  # on_fit_start has seen to it
            save_checkpoint(trainer.out_dir / name, trainer.state())

    def state(self) -> dict:
        return {"best_val_loss": self.best_val_loss}

    def load_state(self, state: dict) -> None:
        self.best_val_loss = min(self.best_val_loss, state.get("best_val_loss", float("inf")))


class EarlyStopping(Callback):
    """Ends training when the validation loss has not fallen for a while, and goes back to its best weights.

    ``patience``: check-ins without improvement that are borne.
    """

    best_val_loss: float
    waited: int
    best_weights: dict[str, Tensor]

    def __init__(self, patience: int = 5):
        self.patience = patience
        self._forget()

    def on_fit_start(self, trainer: Trainer) -> None:
        self._forget()

    def on_check_in(self, trainer: Trainer) -> None:
        val_loss = float(trainer.history["val_loss"].iloc[-1])
        if val_loss < self.best_val_loss:
            self.best_val_loss, self.waited = val_loss, 0
            self.best_weights = {k: v.detach().cpu().clone() for k, v in trainer.model.state_dict().items()}
        else:
            self.waited += 1
            trainer.should_stop = self.waited >= self.patience

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.best_weights:
            trainer.model.load_state_dict(self.best_weights)

    def state(self) -> dict:
        return {"best_val_loss": self.best_val_loss, "waited": self.waited, "best_weights": self.best_weights}

    def load_state(self, state: dict) -> None:
        if state:
            self.best_val_loss, self.waited = state["best_val_loss"], state["waited"]
            self.best_weights = state["best_weights"]

    def _forget(self) -> None:
        self.best_val_loss, self.waited, self.best_weights = float("inf"), 0, {}


class NonFiniteRecovery(Callback):
    """Answers a NaN or infinite loss: back to the last good check-in, at half the learning rate.

    After ``attempts`` recoveries the next non-finite loss is an error.
    """

    def __init__(self, attempts: int = 3):
        self.attempts = attempts
        self.recoveries = 0

    def on_fit_start(self, trainer: Trainer) -> None:
        self.recoveries = 0

    def on_train_start(self, trainer: Trainer) -> None:
        self._good = copy.deepcopy(trainer.state())

    def on_check_in(self, trainer: Trainer) -> None:
        self._good = copy.deepcopy(trainer.state())

    def on_non_finite_loss(self, trainer: Trainer, loss: float) -> None:
        self.recoveries += 1
        if self.recoveries > self.attempts:
            raise TrainingError(
                f"The loss is {loss} at step {trainer.step}, after {self.attempts} recoveries at half the "
                "learning rate each.",
                remedy="Lower learning_rate, and check that the images are not constant.",
            )
        factor, recoveries = trainer.learning_rate_factor / 2, self.recoveries
        trainer.load_state(copy.deepcopy(self._good))
        self.recoveries, trainer.learning_rate_factor = recoveries, factor

    def state(self) -> dict:
        return {"recoveries": self.recoveries}

    def load_state(self, state: dict) -> None:
        self.recoveries = state.get("recoveries", 0)
