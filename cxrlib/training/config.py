"""The settings of a training, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

from cxrlib.errors import ConfigError
from cxrlib.training.augment import Augment

#: What must be the same when a training is resumed; the rest (epochs, devices, …) may change.
FIXED_ON_RESUME = ("model", "width", "dropout", "batch_size", "seed", "average_decay")


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a training, with defaults that suit the embedded cohort.

    - ``model``, ``width``, ``dropout``, ``weights``: as in :func:`cxrlib.training.models.build`.
    - ``epochs``: passes over the training images. A resumed training may be given more.
    - ``batch_size``: images a step, over all devices together.
    - ``learning_rate``, ``schedule``, ``warmup``, ``weight_decay``: AdamW's rate and decay (Loshchilov &
      Hutter 2019). ``schedule`` is "cosine" (down to zero over all steps) or "constant"; ``warmup`` is the
      share of the steps over which the rate rises linearly.
    - ``class_weighted``: weigh the loss so that both classes count alike.
    - ``label_smoothing``: pull the targets from 0 and 1 towards ½ by this much.
    - ``augment``: None shows every image as it is.
    - ``average_decay``: above 0: predict with an exponential moving average of the weights (0.99 forgets over
      100 steps).
    - ``check_ins``: how often an epoch the network is measured on the validation images; below 1, ¼ say, only
      every fourth epoch. It always is after the last step.
    - ``train_sample``: how many training images are measured with them, so that both curves mean the same.
    - ``seed``: of the weights, the order of images, augmentation and dropout.
    - ``accelerator``, ``devices``, ``num_nodes``, ``precision``: as in Lightning Fabric: "auto", 1, 1,
      "32-true".
    """

    model: str = "residual"
    width: int | None = None
    dropout: float = 0.0
    weights: str | None = None
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 2e-3
    schedule: str = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.02
    class_weighted: bool = False
    label_smoothing: float = 0.0
    augment: Augment | None = None
    average_decay: float = 0.0
    check_ins: float = 1
    train_sample: int = 1000
    seed: int = 0
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: str = "32-true"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "train_sample", "devices", "num_nodes"):
            if not _whole(getattr(self, name)) or getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}.", remedy="Give 1 or more, whole.")
        if not _whole(self.seed) or not (self.width is None or _whole(self.width)):
            raise ConfigError(f"seed is {self.seed!r}, width {self.width!r}.", remedy="Give whole numbers.")
        for name in ("learning_rate", "check_ins", "weight_decay", "dropout", "warmup", "label_smoothing",
                     "average_decay"):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or value <= -1e9 or not value < 1e9:
                raise ConfigError(f"{name} is {value!r}.", remedy="Give a number.")
        for name in ("learning_rate", "check_ins"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}.", remedy="Give a positive number.")
        if self.schedule not in ("cosine", "constant"):
            raise ConfigError(f"There is no schedule {self.schedule!r}.", remedy="Use cosine or constant.")
        for name in ("warmup", "label_smoothing", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", remedy="Give a number from 0 up to 1.")


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
