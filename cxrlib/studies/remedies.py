"""Remedies against a shortcut, each alone and together, on phantoms in which the shortcut is known.

``planted_for`` makes the patients, ``remedies`` trains and measures::

    planted = planted_for("course", image_size=96)
    study = remedies(planted, "course", seeds=(0,))

Every remedy is measured on the same test patients, all of them rendered with the marker and without it, so
that the rare groups are as large as the others. Nothing is chosen on them: the best remedy is the best on the
validation patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxrlib.errors import ConfigError, DataError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.io.cache import progress_bar
from cxrlib.studies.attribution import attribute, inside_share
from cxrlib.studies.planting import Pairs, Twins, pairs
from cxrlib.studies.study import Study, Trained, of_preset, study_of, train
from cxrlib.studies.study_stats import Draws, draws, mean_draws, pooled, ratio_draws, worst_draws
from cxrlib.training.callbacks import TrainingChange
from cxrlib.training.config import TrainConfig
from cxrlib.training.inference import predict
from cxrlib.training.models import Classifier
from cxrlib.training.recipes import MILD_AUGMENT, recipe
from cxrlib.training.robust import GroupBalanced, GroupDRO, RandomMarks, retrain_last_layer

if TYPE_CHECKING:
    from tqdm import tqdm

RANDOMISED = replace(MILD_AUGMENT, erase=0.5)
LUNGS = ("inpaint", "crop", "mask")
#: Flips of the prediction that a remedy may leave, on validation patients, to be called the best.
FEW_FLIPS = 0.02


@dataclass(frozen=True)
class Remedy:
    """One way to train.

    - ``title``: for figures.
    - ``steps``: what is done to every image, in training and after: some of
      :data:`cxrlib.studies.planting.STEPS`.
    - ``settings``: of :class:`~cxrlib.training.config.TrainConfig` that differ.
    - ``changes``: confounder -> what changes in the training itself.
    - ``last_layer``: take the naive network and retrain its last layer on the validation images, balanced.
    - ``knows``: whether one has to know, image by image, where the confounder is.
    """

    title: str
    steps: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    changes: Callable[[str], Sequence[TrainingChange]] = lambda column: ()
    last_layer: bool = False
    knows: bool = False


_EVEN = {"class_weighted": False}  # groups that are balanced have balanced classes
REMEDIES: dict[str, Remedy] = {
    "naive": Remedy("naive"),
    "reference": Remedy("no shortcut in training"),
    "inpaint": Remedy("letters inpainted", steps=("inpaint",)),
    "crop": Remedy("cropped to the lungs' box", steps=("crop",)),
    "mask": Remedy("all but the lungs black", steps=("mask",)),
    "lungs": Remedy("inpainted, cropped, masked", steps=LUNGS),
    "randomise": Remedy(
        "random marks and exposure",
        settings={"augment": RANDOMISED},
        changes=lambda column: (RandomMarks(),),
    ),
    "balanced": Remedy(
        "groups sampled alike", settings=_EVEN, changes=lambda column: (GroupBalanced(column),), knows=True
    ),
    "group_dro": Remedy(
        "group DRO",
        settings=_EVEN | {"weight_decay": 0.1},
        changes=lambda column: (GroupDRO(column),),
        knows=True,
    ),
    "last_layer": Remedy("last layer retrained", last_layer=True, knows=True),
    "lungs_randomise": Remedy(
        "lungs and random marks",
        steps=LUNGS,
        settings={"augment": RANDOMISED},
        changes=lambda column: (RandomMarks(),),
    ),
    "everything": Remedy(
        "all, with groups alike",
        steps=LUNGS,
        settings=_EVEN | {"augment": RANDOMISED},
        changes=lambda column: (GroupBalanced(column), RandomMarks()),
        knows=True,
    ),
}


@dataclass(frozen=True)
class Budget:
    """How much a preset spends: images here and elsewhere, whether lungs are found or known, epochs, images a
    step, arms besides naive and reference, and images whose attribution is looked at."""

    images: int
    external: int
    find_lungs: bool
    epochs: int
    batch_size: int
    arms: tuple[str, ...]
    attributed: int


_ALL = tuple(name for name in REMEDIES if name not in ("naive", "reference"))
BUDGETS = {
    "smoke": Budget(160, 40, False, 1, 16, ("crop", "balanced"), 6),
    "course": Budget(1000, 300, False, 16, 16, ("crop", "balanced", "last_layer", "lungs_randomise"), 24),
    "full": Budget(4000, 1000, True, 12, 32, _ALL, 64),
}


def budget(preset: str) -> Budget:
    """What a preset spends: smoke, course or full."""
    return of_preset(BUDGETS, preset)


def planted_for(preset: str, image_size: int = 128, seed: int = 0, **options: Any) -> Pairs:
    """The patients that a preset asks for; options as for :func:`cxrlib.studies.planting.pairs`."""
    spend = budget(preset)
    return pairs(
        spend.images, image_size, seed, external=spend.external, find_lungs=spend.find_lungs, **options
    )


def settings_of(remedy: Remedy, preset: str, seed: int) -> TrainConfig:
    """The naive recipe with what the remedy changes: LeNet, which sees where things are, plainly trained."""
    spend = budget(preset)
    plain = recipe("lenet", "full", epochs=spend.epochs, batch_size=spend.batch_size, augment=None, seed=seed)
    return replace(plain, check_ins=1 / spend.epochs, **remedy.settings)


def remedies(
    planted: Pairs, preset: str = "course", seeds: Sequence[int] = (0,), *,
    arms: Sequence[str] | None = None, store: str | Path | None = None, progress: bool | None = None,
    replicates: int = 1000,
) -> Study:  # fmt: skip
    """Each remedy against the naive network and the one that never met the shortcut.

    - ``planted``: of :func:`planted_for`.
    - ``arms``: some of :data:`REMEDIES`; None for the preset's. ``naive`` and ``reference`` are always there.
    - Returns: Study. ``runs`` has a row for each network: ``arm``, ``seed``, ``knows``, ``chosen`` (the best
      on validation patients), and, for the test patients (and as ``val_…`` for the others): -
      ``in_distribution_auc``, the confounder going along with the disease as in training; -
      ``uncorrelated_auc``, on all patients with it and without it; - ``worst_group``, the lowest accuracy at
      ½ of ill and healthy with and without it; - ``flip_rate``, the share of patients whose call at ½ changes
      when it is put in or taken out; - ``external_auc`` at the other hospital; - ``inside_lungs``, the share
      of what speaks for disease (integrated gradients) that lies in the lungs of ill patients with the
      confounder. ``estimates`` are these as ``<arm>.…``, and ``<arm>.gap_closed`` (of the worst group's
      distance between naive and reference), ``<arm>.auc_cost`` (naive minus arm, in distribution),
      ``<arm>.auc_cost_to_reference`` (reference minus arm, uncorrelated); for the chosen one as ``best.…``
      too. Where naive and reference do not differ at all there is no ``gap_closed``. p-values of the gain in
      the worst group and of the cost in AUC are Holm's over the arms.
    """
    names = ["naive", "reference", *(budget(preset).arms if arms is None else arms)]
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in REMEDIES]
    if unknown:
        raise ConfigError(f"There is no remedy {unknown[0]!r}.", remedy=f"Use some of {', '.join(REMEDIES)}.")
    attributed = budget(preset).attributed
    measured, views = {}, {}
    in_turn = sorted(names, key=lambda name: REMEDIES[name].steps)  # each way of looking is made once
    with progress_bar(len(names) * len(seeds), "remedies", progress, "training") as bar:
        for name in in_turn:
            remedy = REMEDIES[name]
            if remedy.steps not in views:
                views = {remedy.steps: planted.seen(remedy.steps)}  # one at a time: they are large
            view = views[remedy.steps]
            models = [_network(name, view, preset, seed, store, bar) for seed in seeds]
            measured[name] = measure(models, view, "test", replicates, attributed)
            on_val = measure(models, view, "val", replicates)
            measured[name] |= {f"val_{key}": found for key, found in on_val.items() if "ext" not in key}
    return _study({name: measured[name] for name in names}, seeds)


def _network(
    name: str, view: Pairs, preset: str, seed: int, store: str | Path | None, bar: tqdm
) -> Classifier:
    remedy, column = REMEDIES[name], view.column
    if remedy.last_layer:
        model = _network("naive", view, preset, seed, store, bar)
        return retrain_last_layer(model, view.confounded.split("val"), column, seed=seed)
    cohort = view.reference if name == "reference" else view.confounded
    run: Trained = train(
        cohort, settings_of(remedy, preset, seed), store, bar, changes=remedy.changes(column)
    )
    return run.last


def measure(
    models: Sequence[Classifier], view: Pairs, part: str = "test", replicates: int = 1000,
    attributed: int = 0,
) -> dict[str, Draws]:  # fmt: skip
    """What networks, one a seed, do on patients with and without the confounder; see :func:`remedies`."""
    rows = (view.off.table["split"] == part).to_numpy()
    off, on = view.off.take(rows), view.on.take(rows)
    labels, patients, present = off.labels, off.patients, view.present[rows]
    without, with_it = (np.stack([predict(m, c.images) for m in models]) for c in (off, on))
    twins = Twins(labels, patients, without, with_it, present, replicates)
    groups = [
        draws(labels, scores, patients, kind, replicates=replicates)
        for kind in ("specificity", "sensitivity")
        for scores in (without, with_it)
    ]
    found = {
        "in_distribution_auc": twins.auc("holds"),
        "uncorrelated_auc": twins.auc("absent"),
        "worst_group": worst_draws(groups),
        "flip_rate": twins.flips(),
    }
    if part == "test":
        far = view.external
        scores = [predict(model, far.images) for model in models]
        found["external_auc"] = draws(far.labels, scores, far.patients, replicates=replicates)
    if attributed:
        some = on.take(np.flatnonzero(labels == 1)[:attributed])
        lungs = some.lung_masks
        if lungs is None:
            raise DataError("There are no lung masks.", remedy="Give Pairs of planted_for, which have them.")
        shares = [
            inside_share(attribute(model, some.images, "integrated_gradients", steps=16), lungs)
            for model in models
        ]
        found["inside_lungs"] = mean_draws(np.nan_to_num(shares), some.patients, replicates=replicates)
    return found


def choose(measured: Mapping[str, Mapping[str, Draws]]) -> str:
    """The remedy of the best worst group among those with few flips, on validation patients."""
    val = {
        name: (found["val_flip_rate"].values.mean(), found["val_worst_group"].values.mean())
        for name, found in measured.items()
        if name not in ("naive", "reference")
    }
    steady = [name for name, (flips, _) in val.items() if flips <= FEW_FLIPS]
    if not steady:
        return min(val, key=lambda name: val[name][0])
    return max(steady, key=lambda name: val[name][1])


def _study(measured: Mapping[str, dict[str, Draws]], seeds: Sequence[int]) -> Study:
    naive, reference = measured["naive"], measured["reference"]
    best = choose(measured) if len(measured) > 2 else ""
    arms = [name for name in measured if name not in ("naive", "reference")]
    gap = reference["worst_group"] - naive["worst_group"]
    numbers = {"naive.gap": gap.estimate()}
    for arm, found in measured.items():
        numbers |= {f"{arm}.{name}": drawn.estimate() for name, drawn in found.items()}
    families = {
        "worst_group_gain": {arm: measured[arm]["worst_group"] - naive["worst_group"] for arm in arms},
        "auc_cost": {
            arm: naive["in_distribution_auc"] - measured[arm]["in_distribution_auc"] for arm in arms
        },
        "auc_cost_to_reference": {
            arm: reference["uncorrelated_auc"] - measured[arm]["uncorrelated_auc"] for arm in arms
        },
        "external_gain": {arm: measured[arm]["external_auc"] - naive["external_auc"] for arm in arms},
    }
    if gap.values.mean():
        families["gap_closed"] = {arm: ratio_draws(families["worst_group_gain"][arm], gap) for arm in arms}
    tests = []
    for name, family in families.items():
        changes = {f"{arm}.{name}": drawn for arm, drawn in pooled(family).items()}
        numbers |= {key: drawn.estimate() for key, drawn in changes.items()}
        if name in ("worst_group_gain", "auc_cost"):
            tests.append({key: drawn.p_value() for key, drawn in changes.items()})
    if best:
        mine = [name for name in numbers if name.startswith(f"{best}.")]
        numbers |= {f"best.{name.removeprefix(f'{best}.')}": numbers[name] for name in mine}
        numbers[f"{best}.chosen"] = Estimate(1.0)
    rows = [
        {"arm": arm, "seed": seed, "knows": REMEDIES[arm].knows, "chosen": arm == best}
        | {name: drawn.values[k] for name, drawn in found.items()}
        for arm, found in measured.items()
        for k, seed in enumerate(seeds)
    ]
    return study_of(pd.DataFrame(rows), numbers, tests)
