"""Studies of overfitting: how large the gap is, what it depends on, and what closes it.

Each study takes a Cohort, a preset and seeds, and returns a :class:`Study` of tidy tables. Every training is
kept in the artefact store: asked again, a study reads what is there and goes on where it was cut off.
Nothing is chosen on test images. Leakage and selection, which break that rule, are in
:mod:`cxrlib.studies.leakage`; what all studies share is in :mod:`cxrlib.studies.study`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort
from cxrlib.evaluation.metrics import Estimate, auc
from cxrlib.io.cache import progress_bar
from cxrlib.studies.study import (
    MEMORISED,
    PLAIN,
    Study,
    Trained,
    budget,
    cut,
    for_steps,
    nested_subsets,
    spread,
    study_of,
    train,
    train_all,
)
from cxrlib.studies.study_stats import Draws, PowerLaw, draws, fit_power_law, pooled
from cxrlib.training.config import TrainConfig
from cxrlib.training.inference import predict
from cxrlib.training.models import Classifier, count_parameters

EARLY = "early stopping"


def gap(
    cohort: Cohort, preset: str = "course", seeds: Sequence[int] = (0,), *,
    store: str | Path | None = None, progress: bool | None = None, replicates: int = 1000,
) -> Study:  # fmt: skip
    """Training against validation over the epochs, without regularisers; early stopping's answer.

    - Returns: Study: ``runs`` has a row for each check-in (the history and ``seed``); ``estimates`` the epoch
      at which each training accuracy of ``MEMORISED`` is reached, the gap at the end, the epoch of the lowest
      validation loss, and the test AUC and accuracy there and at the end, with the difference.
    """
    spend = budget(preset)
    small = cut(cohort, spend.images)
    configs = [replace(PLAIN, epochs=spend.gap_epochs, seed=seed) for seed in seeds]
    with progress_bar(len(seeds), "gap", progress, unit="training") as bar:
        runs = dict(zip(seeds, train_all([(small, each) for each in configs], store, bar), strict=True))
    table = pd.concat([run.history.assign(seed=s) for s, run in runs.items()])
    val, test = small.split("val"), small.split("test")
    numbers: dict[str, Estimate] = {"train_images": Estimate(int((small.table["split"] == "train").sum()))}
    for level in MEMORISED:
        numbers |= _reached({s: run.history for s, run in runs.items()}, level, "epoch")
    ends = pd.DataFrame([run.history.iloc[-1] for run in runs.values()])
    for metric in ("auc", "accuracy", "loss"):
        for part, size in (("train", None), ("val", len(val))):
            numbers[f"last.{part}_{metric}"] = spread(ends[f"{part}_{metric}"], size)
        numbers[f"last.gap_{metric}"] = spread(ends[f"train_{metric}"] - ends[f"val_{metric}"])
    numbers["early_stopping.epoch"] = spread([run.best_row["epoch"] for run in runs.values()])
    scores = {
        arm: [predict(getattr(run, which), test.images) for run in runs.values()]
        for arm, which in (("last", "last"), ("early_stopping", "best"))
    }
    p = {}
    for metric in ("auc", "accuracy"):
        found = {
            arm: draws(test.labels, rows, test.patients, metric, replicates=replicates)
            for arm, rows in scores.items()
        }
        numbers |= {f"{arm}.test_{metric}": drawn.estimate() for arm, drawn in found.items()}
        difference = found["early_stopping"] - found["last"]
        numbers[f"early_stopping.gain_{metric}"] = difference.estimate()
        p[f"early_stopping.gain_{metric}"] = difference.p_value()
    return study_of(table, numbers, [p])


def dataset_size(
    cohort: Cohort, preset: str = "course", seeds: Sequence[int] = (0, 1, 2), *, part: str = "test",
    held_out: int = 2, store: str | Path | None = None, progress: bool | None = None,
) -> Study:  # fmt: skip
    """AUC against the number of training images, each size with the same steps; a power law and its test.

    Each seed draws its own nested subsets (:func:`nested_subsets`) and weights. A training is taken at its
    lowest validation loss, since small sets overfit within the steps that large ones need. The power law is
    fitted to 1 − AUC of all but the ``held_out`` largest sizes and then asked about those.

    - Returns: Study: ``runs`` with a row for each training: ``size`` (asked for), ``images``, ``seed``,
      ``best_epoch``, ``train_auc``, ``val_auc``, ``test_auc``, ``error`` (1 − AUC of ``part``), ``fitted``
      (bool).
    """
    spend = budget(preset)
    total = int((cohort.table["split"] == "train").sum())
    sizes = [max(total >> k, 1) for k in range(spend.halvings + 1)][::-1]
    measured = {name: cohort.split(name) for name in ("val", "test")}
    rows = []
    with progress_bar(len(sizes) * len(seeds), "dataset size", progress, "training") as bar:
        for seed in seeds:
            subsets = nested_subsets(cohort, sizes, seed)
            plain = replace(PLAIN, schedule="cosine", seed=seed)
            trainings = [(subset, for_steps(plain, n, spend.steps)) for n, subset in subsets.items()]
            trained = train_all(trainings, store, bar)
            for size, images, run in zip(sizes, subsets, trained, strict=True):
                row = {"size": size, "images": images, "seed": seed, "best_epoch": run.best_row["epoch"]}
                row["train_auc"] = run.best_row["train_auc"]
                for name, data in measured.items():
                    row[f"{name}_auc"] = auc(data.labels, predict(run.best, data.images))
                rows.append(row)
    runs = pd.DataFrame(rows)
    floor = 0.5 / float(np.prod(np.bincount(measured[part].labels)))  # half a wrongly ordered pair
    runs["error"] = (1 - runs[f"{part}_auc"]).clip(lower=floor)
    runs["fitted"] = ~runs["size"].isin(sizes[len(sizes) - held_out :])
    law = power_law_of(runs)
    numbers = {f"size_{size}.{part}_auc": spread(group[f"{part}_auc"], len(measured[part]))
               for size, group in runs.groupby("size")}  # fmt: skip
    numbers |= {"power_law.a": Estimate(law.a), "power_law.b": law.exponent()}
    for unseen, group in runs[~runs["fitted"]].groupby("size"):
        numbers[f"size_{unseen}.predicted_error"] = law.predict(group["images"].mean(), len(group))
        numbers[f"size_{unseen}.error"] = spread(group["error"], len(measured[part]))
    return study_of(runs, numbers)


def power_law_of(runs: pd.DataFrame) -> PowerLaw:
    """The power law of the ``fitted`` rows of :func:`dataset_size`'s runs."""
    fitted = runs[runs["fitted"]]
    return fit_power_law(fitted["images"], fitted["error"])


def capacity(
    cohort: Cohort, preset: str = "course", seeds: Sequence[int] = (0,), *,
    store: str | Path | None = None, progress: bool | None = None,
) -> Study:  # fmt: skip
    """Training and test AUC against the width of the network, every width with the same steps.

    - Returns: Study: ``runs`` with a row for each training: ``width``, ``parameters``, ``seed``,
      ``train_auc``, ``train_accuracy``, ``val_auc``, ``val_loss``, ``test_auc``, all at the last step.
    """
    spend = budget(preset)
    small = cut(cohort, spend.images)
    test, images = small.split("test"), int((small.table["split"] == "train").sum())
    rows, numbers, found = [], {}, []
    with progress_bar(len(spend.widths) * len(seeds), "capacity", progress, "training") as bar:
        for width in spend.widths:
            scores, wide = [], replace(PLAIN, width=width)
            configs = [for_steps(replace(wide, seed=seed), images, spend.steps, looks=4) for seed in seeds]
            runs = train_all([(small, config) for config in configs], store, bar)
            for seed, run in zip(seeds, runs, strict=True):
                scores.append(predict(run.last, test.images))
                keep = ("train_auc", "train_accuracy", "train_loss", "val_auc", "val_loss")
                rows.append(
                    {"width": width, "parameters": count_parameters(run.last)}
                    | {"seed": seed, **run.history.iloc[-1][list(keep)]}
                    | {"test_auc": auc(test.labels, scores[-1])}
                )
            found.append(draws(test.labels, scores, test.patients))
            numbers[f"width_{width}.test_auc"] = found[-1].estimate()
            mine = pd.DataFrame(rows[-len(seeds) :])
            numbers[f"width_{width}.train_auc"] = spread(mine["train_auc"], images)
    numbers["widest_minus_narrowest.test_auc"] = (found[-1] - found[0]).estimate()
    return study_of(pd.DataFrame(rows), numbers)


def regulariser_configs(preset: str) -> dict[str, TrainConfig]:
    """Arm → settings. Early stopping has none of its own: it is ``none`` at its lowest validation loss."""
    spend = budget(preset)
    one: dict[str, dict[str, Any]] = {
        "weight decay": {"weight_decay": spend.weight_decay},
        "dropout": {"dropout": 0.5},
        "augmentation": {"augment": spend.augment},
        "label smoothing": {"label_smoothing": 0.1},
        "averaging": {"average_decay": spend.average_decay},
    }
    plain = replace(PLAIN, epochs=spend.regulariser_epochs)
    arms = {"none": plain} | {name: replace(plain, **changes) for name, changes in one.items()}
    together = {key: value for changes in one.values() for key, value in changes.items()}
    return arms | {"all": replace(plain, **together)}


def regulariser_runs(
    cohort: Cohort,
    preset: str,
    seeds: Sequence[int],
    store: str | Path | None = None,
    progress: bool | None = None,
) -> Iterator[tuple[str, list[Trained], list[Classifier]]]:
    """Each arm of :func:`regularisers` with its trainings and the networks that it would use, by seed."""
    arms = regulariser_configs(preset)
    small = cut(cohort, budget(preset).images)
    with progress_bar(len(arms) * len(seeds), "regularisers", progress, "training") as bar:
        for arm, config in arms.items():
            runs = train_all([(small, replace(config, seed=seed)) for seed in seeds], store, bar)
            yield arm, runs, [run.best if arm == "all" else run.last for run in runs]
            if arm == "none":
                yield EARLY, runs, [run.best for run in runs]


def regularisers(
    cohort: Cohort, preset: str = "course", seeds: Sequence[int] = (0, 1, 2), *,
    store: str | Path | None = None, progress: bool | None = None, replicates: int = 1000,
) -> Study:  # fmt: skip
    """The gap and the test AUC without a regulariser, with each alone, and with all of them.

    ``all`` includes early stopping. Every arm has the same images, epochs and seeds, and is compared with
    ``none`` on the same resampled patients, seed by seed. p-values are Holm's over all arms, for the test
    AUC and for the gap apart; the spread over seeds is that of all arms (:func:`study_stats.pooled`).

    - Returns: Study: ``runs`` with ``arm``, ``seed``, ``train_auc``, ``test_auc``, ``gap``,
      ``train_accuracy``, ``test_accuracy``; ``estimates`` named ``<arm>.test_auc``, ``<arm>.gap``,
      ``<arm>.test_auc_gain`` and ``<arm>.gap_closed``, blanks in arms written as ``_``.
    """
    small = cut(cohort, budget(preset).images)
    seen, test = small.split("train"), small.split("test")
    every = -(-len(seen) // PLAIN.train_sample)
    seen = seen.take(np.arange(0, len(seen), every))
    rows, found = [], {}
    for arm, _, models in regulariser_runs(cohort, preset, seeds, store, progress):
        on_train = [predict(model, seen.images) for model in models]
        on_test = [predict(model, test.images) for model in models]
        tested = draws(test.labels, on_test, test.patients, replicates=replicates)
        learnt = draws(seen.labels, on_train, seen.patients, replicates=replicates, seed=1)
        found[arm] = {"test_auc": tested, "gap": learnt - tested}
        for seed, a, b, x, y in zip(seeds, learnt.values, tested.values, on_train, on_test, strict=True):
            rows.append(
                {"arm": arm, "seed": seed, "train_auc": a, "test_auc": b, "gap": a - b}
                | {"train_accuracy": np.mean((x > 0.5) == seen.labels)}
                | {"test_accuracy": np.mean((y > 0.5) == test.labels)}
            )
    numbers: dict[str, Estimate] = {}
    changes: dict[str, dict[str, Draws]] = {"test_auc_gain": {}, "gap_closed": {}}
    plain = found["none"]
    for arm, by_metric in found.items():
        key = arm.replace(" ", "_")
        numbers |= {f"{key}.{metric}": drawn.estimate() for metric, drawn in by_metric.items()}
        if arm != "none":
            changes["test_auc_gain"][f"{key}.test_auc_gain"] = by_metric["test_auc"] - plain["test_auc"]
            changes["gap_closed"][f"{key}.gap_closed"] = plain["gap"] - by_metric["gap"]
    families = [pooled(family) for family in changes.values()]
    for family in families:
        numbers |= {name: change.estimate() for name, change in family.items()}
    tests = [{name: change.p_value() for name, change in family.items()} for family in families]
    return study_of(pd.DataFrame(rows), numbers, tests)


def shuffled_labels(cohort: Cohort, seed: int = 0) -> Cohort:
    """The cohort with its training labels dealt anew among the training images; class counts stay."""
    in_train = (cohort.table["split"] == "train").to_numpy()
    labels = cohort.labels.copy()
    labels[in_train] = np.random.default_rng([seed, 12]).permutation(labels[in_train])
    return cohort.with_columns(label=labels)


def random_labels(
    cohort: Cohort, preset: str = "course", seeds: Sequence[int] = (0, 1), *,
    store: str | Path | None = None, progress: bool | None = None,
) -> Study:  # fmt: skip
    """How fast the same network learns true labels and shuffled ones by heart (Zhang et al. 2017).

    Zhang et al., Understanding deep learning requires rethinking generalization, doi:10.1145/3446776.
    A training ends at 99% training accuracy or after the preset's epochs.

    - Returns: Study: ``runs`` with the histories, ``labels`` (true, random) and ``seed``; ``estimates`` with
      the steps to each of ``MEMORISED``, the share of seeds that reached it, and the test AUC at the end.
    """
    spend = budget(preset)
    small = cut(cohort, spend.noise_images)
    images = int((small.table["split"] == "train").sum())
    plain = replace(PLAIN, epochs=spend.noise_epochs, train_sample=images)
    test, tables, numbers = small.split("test"), [], {"train_images": Estimate(images)}
    with progress_bar(2 * len(seeds), "random labels", progress, "training") as bar:
        for kind in ("true", "random"):
            histories, scores = {}, []
            for seed in seeds:
                cohort_of_kind = small if kind == "true" else shuffled_labels(small, seed)
                run = train(cohort_of_kind, replace(plain, seed=seed), store, bar, until=MEMORISED[-1])
                histories[seed] = run.history
                scores.append(predict(run.last, test.images))
                tables.append(run.history.assign(labels=kind, seed=seed))
            for level in MEMORISED:
                reached = _reached(histories, level, "step")
                numbers |= {f"{kind}.{name}": number for name, number in reached.items()}
            last = spread([h["train_accuracy"].iloc[-1] for h in histories.values()], images)
            numbers[f"{kind}.train_accuracy"] = last
            numbers[f"{kind}.test_auc"] = draws(test.labels, scores, test.patients).estimate()
    for percent in (f"{100 * level:.0f}" for level in MEMORISED):
        noise, truth = (numbers.get(f"{kind}.step_to_{percent}") for kind in ("random", "true"))
        if noise and truth:
            numbers[f"slower_to_{percent}"] = Estimate(noise.value / truth.value, seeds=len(seeds))
    return study_of(pd.concat(tables), numbers)


def _reached(histories: Mapping[int, pd.DataFrame], level: float, unit: str) -> dict[str, Estimate]:
    """``<unit>_to_<level>``: mean first check-in at that training accuracy; and the share that got there."""
    firsts = [h.loc[h["train_accuracy"] >= level, unit] for h in histories.values()]
    there = [float(first.iloc[0]) for first in firsts if len(first)]
    name = f"{100 * level:.0f}"
    found = {f"share_to_{name}": Estimate(len(there) / len(firsts), seeds=len(firsts))}
    return ({f"{unit}_to_{name}": spread(there)} if there else {}) | found
