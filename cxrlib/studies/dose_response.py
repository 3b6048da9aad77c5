"""Planted shortcuts: how much of one a network takes, and which of six it takes first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cxrlib.cohort import Cohort
from cxrlib.datasets import load
from cxrlib.evaluation.metrics import Estimate, auc, choose_threshold
from cxrlib.io.cache import progress_bar
from cxrlib.phantom.latents import CONFOUNDERS, PhantomConfig
from cxrlib.studies.planting import Twins, flags, planted, twins
from cxrlib.studies.region_study import NETWORKS
from cxrlib.studies.study import Study, Trained, of_preset, spread, study_of, train, train_all
from cxrlib.studies.study_stats import Draws, pooled
from cxrlib.training.callbacks import Callback
from cxrlib.training.config import TrainConfig
from cxrlib.training.inference import predict
from cxrlib.training.trainer import Trainer

PLANTED = 0.95
"""Agreement of each confounder in :func:`order_of_learning`."""

#: The network of both studies: LeNet, which has dense layers and so can know where things are.
_SMALL = NETWORKS["course"]
_LARGE = replace(_SMALL, learning_rate=2e-3, epochs=8, check_ins=1)


@dataclass(frozen=True)
class Doses:
    """What a preset spends.

    - ``phantoms``: images of :func:`unconfounded`.
    - ``agreements``: of :func:`dose_response`.
    - ``network``: the settings of every training; :func:`order_of_learning` changes what follows.
    - ``epochs``, ``check_ins``: of :func:`order_of_learning`, at a constant rate, and its measurements an
      epoch.
    """

    phantoms: int
    agreements: tuple[float, ...]
    network: TrainConfig
    epochs: int
    check_ins: float


DOSES = {
    "smoke": Doses(120, (0.5, 1.0), NETWORKS["smoke"], 1, 1),
    "course": Doses(640, (0.5, 0.7, 0.9, 1.0), _SMALL, 4, 2),
    "full": Doses(3000, (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0), _LARGE, 6, 2),
}


def unconfounded(preset: str = "course", image_size: int = 64, seed: int = 0, **loading: Any) -> Cohort:
    """Phantoms in which no confounder has anything to do with the disease; as many as the preset studies."""
    spend = of_preset(DOSES, preset)
    config = PhantomConfig().unconfounded()
    return load("phantom", n=spend.phantoms, image_size=image_size, seed=seed, config=config, **loading)


def dose_response(
    cohort: Cohort, preset: str = "course", seeds: Sequence[int] = (0,), *, confounder: str = "marker",
    agreements: Sequence[float] | None = None, store: str | Path | None = None,
    progress: bool | None = None, replicates: int = 1000,
) -> Study:  # fmt: skip
    """A confounder whose agreement with the disease rises in training and validation, tested three ways.

    - ``cohort``: phantoms, best :func:`unconfounded`. Patients, lesions and everything else stay as they are
      at every dose.
    - ``agreements``: shares of ill images that have the confounder, and of healthy ones that do not; None for
      the preset's.
    - Returns: Study: ``runs`` with ``agreement``, ``seed``, ``val_auc``, ``auc_holds``, ``auc_absent``,
      ``auc_reversed`` (1 − agreement), ``flips`` (threshold ½), ``flips_at_val_threshold`` (Youden's on
      validation images); ``estimates`` of the same, named ``<confounder>_95.auc_reversed`` for an agreement
      of 0.95, with ``<confounder>_95.flips_towards_ill`` and, against the lowest agreement,
      ``<confounder>_95.cost``: what ``auc_absent`` has lost (p-values are Holm's over the agreements).
    """
    spend = of_preset(DOSES, preset)
    agreements = sorted(spend.agreements if agreements is None else agreements)
    test = cohort.split("test")
    pair = twins(test, confounder)
    learning = cohort.take((cohort.table["split"] != "test").to_numpy())
    rows: list[dict[str, float]] = []
    numbers: dict[str, Estimate] = {}
    costs: dict[str, Draws] = {}
    with progress_bar(len(agreements) * len(seeds), "doses", progress, "training") as bar:
        for agreement in agreements:
            dosed = planted(learning, confounder, flags(learning, agreement))
            trainings = [(dosed, replace(spend.network, seed=seed)) for seed in seeds]
            runs = train_all(trainings, store, bar, shelf="shortcuts")
            found = _tested(runs, test, pair, flags(test, agreement), replicates)
            val = dosed.split("val")
            cuts = [choose_threshold(val.labels, predict(run.best, val.images)) for run in runs]
            drawn = {f"auc_{where}": found.auc(where) for where in ("holds", "absent", "reversed")}
            drawn |= {"flips": found.flips(), "flips_at_val_threshold": found.flips(cuts)}
            key = f"{confounder}_{100 * agreement:.0f}"
            numbers |= {f"{key}.{name}": one.estimate() for name, one in drawn.items()}
            numbers[f"{key}.flips_towards_ill"] = found.towards_ill().estimate()
            if agreement == agreements[0]:
                lowest = drawn["auc_absent"]
            else:
                costs[f"{key}.cost"] = lowest - drawn["auc_absent"]
            for k, (seed, run) in enumerate(zip(seeds, runs, strict=True)):
                row = {"agreement": agreement, "seed": seed, "val_auc": run.best_row["val_auc"]}
                rows.append(row | {name: one.values[k] for name, one in drawn.items()})
    costs = pooled(costs)
    numbers |= {key: cost.estimate() for key, cost in costs.items()}
    return study_of(pd.DataFrame(rows), numbers, [{key: cost.p_value() for key, cost in costs.items()}])


def _tested(
    runs: Sequence[Trained],
    test: Cohort,
    pair: tuple[np.ndarray, np.ndarray],
    present: np.ndarray,
    replicates: int,
) -> Twins:
    without, with_it = (np.stack([predict(run.best, images) for run in runs]) for images in pair)
    return Twins(test.labels, test.patients, without, with_it, present, replicates)


class Probe(Callback):
    """Keeps what the network says of some images at every check-in, also across a resume.

    - ``images``: name to uint8 (N, H, W).
    """

    def __init__(self, images: Mapping[str, np.ndarray]):
        self.images = dict(images)
        self.steps: list[int] = []
        self.epochs: list[float] = []
        self._scores: list[dict[str, torch.Tensor]] = []

    def on_check_in(self, trainer: Trainer) -> None:
        row = trainer.history.iloc[-1]
        self.steps.append(int(row["step"]))
        self.epochs.append(float(row["epoch"]))
        self._scores.append({k: torch.from_numpy(predict(trainer.model, v)) for k, v in self.images.items()})

    def scores(self, name: str) -> np.ndarray:
        """Probabilities of the images of this name, float32, (check-ins, N)."""
        return np.stack([seen[name].numpy() for seen in self._scores])

    def state(self) -> dict:
        return {"steps": list(self.steps), "epochs": list(self.epochs), "scores": list(self._scores)}

    def load_state(self, state: dict) -> None:
        self.steps, self.epochs = list(state.get("steps", [])), list(state.get("epochs", []))
        self._scores = list(state.get("scores", []))

    @property
    def key(self) -> str:
        """Changes with the images."""
        digest = hashlib.sha256()
        for name, images in self.images.items():
            digest.update(f"{name}{images.shape}".encode())
            digest.update(images.tobytes())
        return digest.hexdigest()[:12]


def order_of_learning(
    cohort: Cohort, preset: str = "course", seeds: Sequence[int] = (0,), *,
    confounders: Sequence[str] = CONFOUNDERS, agreement: float = PLANTED,
    store: str | Path | None = None, progress: bool | None = None, replicates: int = 500,
) -> Study:  # fmt: skip
    """Each confounder planted alone at the same agreement: how soon does the network go by it?

    At every check-in the test images are shown without and with the confounder. ``pull`` is the AUC where the
    correlation holds minus that where it is reversed, between patients who are otherwise the same: 0 for a
    network that does not look at the confounder.

    - Returns: Study: ``runs`` with a row for each check-in: ``confounder``, ``seed``, ``step``, ``epoch``,
      ``flips`` (threshold ½), ``auc_holds``, ``auc_reversed``, ``pull``; ``estimates``:
      ``<confounder>.flips``, ``.auc_reversed`` and ``.pull`` at the last step; ``<confounder>.mean_pull``
      over all check-ins; ``<confounder>.steps_to_half``: the first check-in at which the pull reached half of
      the largest possible, where every seed's did; and ``<confounder>.rank``, by those steps (1: learned
      first), and by the mean pull among those of the same step and those that never got there.
    """
    spend, test = of_preset(DOSES, preset), cohort.split("test")
    # A constant rate: with one that falls, what comes late would be learned slowly because it comes late.
    config = replace(spend.network, epochs=spend.epochs, check_ins=spend.check_ins, schedule="constant")
    learning = cohort.take((cohort.table["split"] != "test").to_numpy())
    present = flags(test, agreement)
    largest = _largest_pull(test.labels, present)
    tables, numbers, place = [], {}, {}
    total = len(confounders) * len(seeds)
    with progress_bar(total, "confounders", progress, "training") as bar:
        for confounder in confounders:
            dosed = planted(learning, confounder, flags(learning, agreement))
            pair = dict(zip(("without", "present"), twins(test, confounder), strict=True))
            probes = [Probe(pair) for _ in seeds]
            shelf = f"watched-{probes[0].key}"
            for seed, probe in zip(seeds, probes, strict=True):
                train(dosed, replace(config, seed=seed), store, bar, watch=[probe], shelf=shelf)
            table, pulls, last = _course(probes, seeds, test, present, replicates)
            tables.append(table.assign(confounder=confounder))
            numbers[f"{confounder}.flips"] = last.flips().estimate()
            numbers[f"{confounder}.auc_reversed"] = last.auc("reversed").estimate()
            numbers[f"{confounder}.pull"] = pulls[-1].estimate()
            numbers[f"{confounder}.mean_pull"] = _mean(pulls).estimate()
            firsts = [run.loc[run["pull"] >= largest / 2, "step"] for _, run in table.groupby("seed")]
            steps = [float(first.iloc[0]) if len(first) else np.inf for first in firsts]
            if np.isfinite(steps).all():
                numbers[f"{confounder}.steps_to_half"] = spread(steps)
            place[confounder] = (np.mean(steps), -numbers[f"{confounder}.mean_pull"].value)
    ranked = sorted(place, key=lambda name: place[name])
    numbers |= {f"{name}.rank": Estimate(number + 1) for number, name in enumerate(ranked)}
    runs = pd.concat(tables, ignore_index=True)
    return study_of(runs[["confounder", *runs.columns.drop("confounder")]], numbers)


def _course(
    probes: Sequence[Probe], seeds: Sequence[int], test: Cohort, present: np.ndarray, replicates: int
) -> tuple[pd.DataFrame, list[Draws], Twins]:
    """A row for each check-in and seed; the pull at each check-in; and the last check-in's twins."""
    rows, pulls = [], []
    for point, step in enumerate(probes[0].steps):
        without, with_it = (np.stack([p.scores(k)[point] for p in probes]) for k in ("without", "present"))
        seen = Twins(test.labels, test.patients, without, with_it, present, replicates)
        holds, turned = seen.auc("holds"), seen.auc("reversed")
        pulls.append(holds - turned)
        flipped = ((without >= 0.5) != (with_it >= 0.5)).mean(axis=1)
        for k, seed in enumerate(seeds):
            row = {"seed": seed, "step": step, "epoch": probes[k].epochs[point], "flips": flipped[k]}
            row |= {"auc_holds": holds.values[k], "auc_reversed": turned.values[k]}
            rows.append(row | {"pull": pulls[-1].values[k]})
    return pd.DataFrame(rows), pulls, seen


def _mean(several: Sequence[Draws]) -> Draws:
    values = np.mean([one.values for one in several], axis=0)
    return Draws(values, np.mean([one.replicates for one in several], axis=0), several[0].n)


def _largest_pull(labels: np.ndarray, present: np.ndarray) -> float:
    """That of a network which sees nothing but the confounder."""
    return auc(labels, present.astype(float)) - auc(labels, 1.0 - present)
