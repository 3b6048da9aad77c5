"""What the studies of overfitting share: what a preset spends, subsets, one training, and their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.io.storage import cache_root
from cxrlib.parallel import fan_out
from cxrlib.studies.study_stats import holm
from cxrlib.training.augment import Augment
from cxrlib.training.callbacks import Callback, Checkpoint, NonFiniteRecovery, TrainingChange
from cxrlib.training.config import TrainConfig
from cxrlib.training.inference import load_model
from cxrlib.training.models import Classifier
from cxrlib.training.recipes import AUGMENT, MILD_AUGMENT
from cxrlib.training.store import artefact_folder, train_or_load
from cxrlib.training.trainer import Trainer

if TYPE_CHECKING:
    from tqdm import tqdm

Choice = TypeVar("Choice")

#: LeNet without any regulariser and with a constant rate: it learns a few hundred images by heart in
#: seconds, and learns more from them than a small residual network does.
PLAIN = TrainConfig(
    model="lenet",
    width=6,
    batch_size=32,
    learning_rate=1e-3,
    schedule="constant",
    weight_decay=0.0,
    train_sample=1000,
)
MEMORISED = (0.95, 0.99)


@dataclass(frozen=True)
class Budget:
    """How much a preset spends.

    - ``images``: training images of ``gap``, ``capacity`` and ``regularisers``, whole patients; None for all.
    - ``gap_epochs``, ``regulariser_epochs``: passes over them.
    - ``steps``: of each training in ``dataset_size`` and ``capacity``.
    - ``halvings``: sizes of ``dataset_size``: all training images, half of them, …; so many times halved.
    - ``widths``: of ``capacity``.
    - ``noise_images``, ``noise_epochs``: of ``random_labels``: images, and the most epochs they are given.
    - ``splits``, ``split_images``, ``split_steps``: of ``leakage``: random splits, images in all (None for
      all), steps of each training.
    - ``weight_decay``, ``augment``, ``average_decay``: of ``regularisers``, of a strength that shows within
      the steps there are.
    """

    images: int | None
    gap_epochs: int
    regulariser_epochs: int
    steps: int
    halvings: int
    widths: tuple[int, ...]
    noise_images: int
    noise_epochs: int
    splits: int
    split_images: int | None
    split_steps: int
    weight_decay: float
    augment: Augment
    average_decay: float


BUDGETS = {
    "smoke": Budget(64, 2, 1, 4, 4, (2, 4), 48, 3, 2, 240, 4, 1.0, MILD_AUGMENT, 0.8),
    "course": Budget(200, 30, 16, 120, 4, (1, 2, 4, 8, 16), 200, 80, 3, 400, 240, 1.0, MILD_AUGMENT, 0.95),
    "full": Budget(None, 30, 12, 600, 6, (1, 2, 4, 8, 16), 1000, 100, 10, None, 600, 0.5, AUGMENT, 0.99),
}


@dataclass(frozen=True, eq=False)
class Study:
    """What a study found.

    - ``runs``: a row for each training, or each check-in of one.
    - ``estimates``: a row for each number: ``name``, ``value``, ``low``, ``high``, ``n``, ``seeds``, and
      where it was tested ``p`` and ``p_holm``.
    """

    runs: pd.DataFrame
    estimates: pd.DataFrame

    @property
    def numbers(self) -> dict[str, Estimate]:
        """Name to Estimate, as :func:`.record` takes it; undefined numbers are left out."""
        found = {}
        for row in self.estimates.to_dict("records"):
            if np.isfinite(row["value"]):
                low, high, n, seeds = (
                    None if pd.isna(row[key]) else row[key] for key in ("low", "high", "n", "seeds")
                )
                counts = (None if count is None else int(count) for count in (n, seeds))
                found[row["name"]] = Estimate(row["value"], low, high, *counts)
            if np.isfinite(row.get("p_holm", np.nan)):
                found[f"{row['name']}.p_holm"] = Estimate(row["p_holm"])
        return found


def study_of(
    runs: pd.DataFrame, numbers: Mapping[str, Estimate | float], families: Sequence[Mapping[str, float]] = ()
) -> Study:
    """Tables from estimates. Each family holds p-values of tests, by name, that Holm adjusts together."""
    p = {name: value for family in families for name, value in family.items()}
    adjusted = {
        name: value
        for family in families
        for name, value in zip(family, holm(list(family.values())), strict=True)
    }
    rows = []
    for name, number in numbers.items():
        e = number if isinstance(number, Estimate) else Estimate(float(number))
        rows.append(
            {"name": name, "value": e.value, "low": e.low, "high": e.high, "n": e.n, "seeds": e.seeds}
            | {"p": p.get(name, np.nan), "p_holm": adjusted.get(name, np.nan)}
        )
    table = pd.DataFrame(rows).astype({key: float for key in ("low", "high", "n", "seeds")})
    return Study(runs.reset_index(drop=True), table)


def budget(preset: str) -> Budget:
    """What a preset spends: smoke, course or full."""
    return of_preset(BUDGETS, preset)


def of_preset(choices: Mapping[str, Choice], preset: str) -> Choice:
    """What a study has prepared for a preset; an unknown one is named."""
    if preset not in choices:
        raise ConfigError(
            f"There is no preset called {preset!r}.", remedy=f"Use one of {', '.join(choices)}."
        )
    return choices[preset]


def nested_subsets(cohort: Cohort, sizes: Iterable[int], seed: int = 0) -> dict[int, Cohort]:
    """The cohort with its training part cut to about these sizes; val and test stay whole.

    Patients are put in an order drawn from the seed, mixed so that every stretch of it has the classes in
    about their usual shares, and taken from its start. So patients stay whole, smaller subsets lie inside
    larger ones, and the order of the rows has no influence.

    - Returns: Actual number of training images to cohort, smallest first.
    """
    in_train = (cohort.table["split"] == "train").to_numpy()
    table = cohort.table[in_train].sort_values("patient_id")
    patients = table.groupby("patient_id").agg(ill=("label", "max"), images=("label", "size"))
    patients = patients.iloc[np.random.default_rng([seed, 11]).permutation(len(patients))]
    by_class = patients.groupby("ill")["images"]
    place = (by_class.cumcount() + 0.5) / by_class.transform("size")
    patients = patients.iloc[np.argsort(place.to_numpy(), kind="stable")]
    reached = patients["images"].cumsum().to_numpy()
    subsets = {}
    for size in sorted(sizes):
        count = min(int(np.searchsorted(reached, size)) + 1, len(patients))
        chosen = in_train & cohort.table["patient_id"].isin(patients.index[:count]).to_numpy()
        subsets[int(chosen.sum())] = cohort.take(chosen | ~in_train)
    return subsets


def for_steps(config: TrainConfig, images: int, steps: int, looks: int = 8) -> TrainConfig:
    """The config with as many epochs as make about these steps, and so many check-ins in all."""
    per_epoch = max(1, images // config.batch_size)
    epochs = max(1, round(steps / per_epoch))
    return replace(config, epochs=epochs, check_ins=looks / epochs)


@dataclass(frozen=True, eq=False)
class Trained:
    """A training: the network at its end, the one of its lowest validation loss, and the history."""

    last: Classifier
    best: Classifier
    history: pd.DataFrame

    @property
    def best_row(self) -> pd.Series:
        """The check-in of the lowest validation loss."""
        return self.history.iloc[self.history["val_loss"].argmin()]


class StopWhenMemorised(Callback):
    """Ends training once the accuracy on the training sample is reached."""

    def __init__(self, accuracy: float):
        self.accuracy = accuracy

    def on_check_in(self, trainer: Trainer) -> None:
        if trainer.history["train_accuracy"].iloc[-1] >= self.accuracy:
            trainer.should_stop = True


class _Tell(Callback):
    """Shows each check-in beside the study's bar."""

    def __init__(self, bar: tqdm):
        self.bar = bar

    def on_check_in(self, trainer: Trainer) -> None:
        self.bar.set_postfix_str(f"step {trainer.step} of {trainer.total_steps}", refresh=True)


def train(
    cohort: Cohort,
    config: TrainConfig,
    store: str | Path | None = None,
    bar: tqdm | None = None,
    until: float | None = None,
    *,
    watch: Sequence[Callback] = (),
    changes: Sequence[TrainingChange] = (),
    shelf: str | None = "overfitting",
) -> Trained:
    """One training from the store or made now; ``until`` stops it at that training accuracy.

    ``shelf``: a folder of the store; None for that of :func:`~cxrlib.training.store.train_or_load`, so that a
    network that another study or chapter trained is not trained again.
    ``watch``: callbacks that look on. What they saw comes back with a stored training, so they need a
    ``shelf`` (folder of the store) of their own, which says what they watch. ``changes`` are kept apart in
    the store by their keys.
    """
    store = Path(store) if store is not None else cache_root() / "models"
    if until is not None:
        shelf = f"{shelf or 'models'}-until-{until:g}"
    store = store / (shelf or "")
    store = store.joinpath(*(change.key(cohort) for change in changes))
    callbacks: list[Callback] = [NonFiniteRecovery(), Checkpoint(), *watch, *changes]
    callbacks += [StopWhenMemorised(until)] if until is not None else []
    callbacks += [_Tell(bar)] if bar is not None else []
    last, history = train_or_load(cohort, config, store, callbacks)
    best, _ = load_model(artefact_folder(cohort, config, store) / "best.pt")
    if bar is not None:
        bar.update()
    return Trained(last, best, history)


def train_all(
    trainings: Sequence[tuple[Cohort, TrainConfig]],
    store: str | Path | None = None,
    bar: tqdm | None = None,
    *,
    shelf: str | None = "overfitting",
) -> list[Trained]:
    """:func:`train` each; several at a time where :func:`~cxrlib.parallel.fan_out` is asked to."""
    one = partial(train, store=cache_root() / "models" if store is None else store, shelf=shelf)
    fan_out(one, trainings)
    return [one(cohort, config, bar=bar) for cohort, config in trainings]


def spread(values: ArrayLike, n: int | None = None) -> Estimate:
    """The mean over seeds with their range, which is no confidence interval."""
    values = np.asarray(values, dtype=float)
    return Estimate(float(values.mean()), float(values.min()), float(values.max()), n, len(values))


def cut(cohort: Cohort, images: int | None) -> Cohort:
    """The cohort with at most so many training images, of whole patients; the same for every seed."""
    total = int((cohort.table["split"] == "train").sum())
    if images is None or images >= total:
        return cohort
    return next(iter(nested_subsets(cohort, [images]).values()))
