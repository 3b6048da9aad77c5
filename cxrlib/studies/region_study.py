"""What a network reaches that is shown a part of the image: the frame, the corners, all but the lungs, …

The same network is trained and tested on each of :data:`.VIEWS`. Where a view without lungs
reaches much of what the whole image does, the whole image's accuracy says little about lungs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.images.regions import VIEWS, shown
from cxrlib.io.cache import progress_bar
from cxrlib.lungs.masks import segment
from cxrlib.studies.study import Study, cut, of_preset, study_of, train_all
from cxrlib.studies.study_stats import draws, pooled, ratio_draws
from cxrlib.training.augment import Augment
from cxrlib.training.config import TrainConfig
from cxrlib.training.inference import predict

#: Exposure alone: a turn, a shift or a zoom would carry the frame's content inwards and the lungs' out, and
#: a mirror image would exchange the corners.
EXPOSURE = Augment(rotate=0, translate=0, scale=0, brightness=0.05, contrast=0.1, gamma=0.1)

_SMALL = TrainConfig(
    model="lenet", width=6, batch_size=32, learning_rate=1e-3, dropout=0.2, class_weighted=True,
    augment=EXPOSURE, train_sample=200,
)  # fmt: skip

#: The network of all studies of shortcuts, one a preset.
NETWORKS = {
    "smoke": replace(_SMALL, epochs=1),
    "course": replace(_SMALL, epochs=8, check_ins=0.5),
    "full": replace(
        _SMALL, model="residual", width=16, batch_size=64, learning_rate=3e-3, epochs=12, train_sample=500
    ),
}

#: Training images of :func:`regions`, whole patients; None for all.
IMAGES = {"smoke": 64, "course": 760, "full": None}

#: Without lung tissue, or without any place: what such a part tells depends most on the recipe.
PARTS = ("lung_shape", "lungs_removed", "frame", "corners", "histogram")
MASKED = ("lungs_only", "lung_shape", "lungs_removed")


def network(preset: str) -> TrainConfig:
    """The training settings of a preset: smoke, course or full."""
    return of_preset(NETWORKS, preset)


def regions(
    cohort: Cohort, preset: str = "course", seeds: Sequence[int] = (0,), *,
    views: Sequence[str] = tuple(VIEWS), config: TrainConfig | None = None, last: bool = False,
    store: str | Path | None = None, progress: bool | None = None, replicates: int = 1000,
) -> Study:  # fmt: skip
    """Train and test the same network on each view of the same images.

    Views are compared with ``whole`` on the same resampled patients, seed by seed.

    - ``cohort``: without lung masks it gets those of :func:`cxrlib.lungs.masks.segment` if a view needs them.
    - ``views``: some of :data:`cxrlib.images.regions.VIEWS`; ``whole`` is always among them.
    - ``config``: another recipe than the preset's.
    - ``last``: test each network as it is at the end of its training, not as it was at its lowest validation
      loss.
    - Returns: Study: ``runs`` with ``view``, ``seed``, ``epoch``, ``val_auc``, ``test_auc``,
      ``test_accuracy`` (threshold ½); ``estimates`` named ``<view>.test_auc``, ``<view>.test_accuracy``,
      ``<view>.auc_minus_whole`` and ``<view>.accuracy_minus_whole`` (p-values are Holm's over the views), and
      ``<view>.share_of_whole``: the part of the whole image's AUC above ½ that the view reaches, left out
      where the whole image's interval holds ½. ``larger_class.test_accuracy`` is what calling every test
      image the same reaches at best. ``frame.lung_share``, ``corners.lung_share``: how much of what is shown
      of the test images is lung, by the masks.
    - Raises ConfigError: there is no such view or preset.
    """
    views = tuple(dict.fromkeys(("whole", *views)))
    unknown = [view for view in views if view not in VIEWS]
    if unknown:
        raise ConfigError(f"There is no view {unknown[0]!r}.", remedy=f"Use some of {', '.join(VIEWS)}.")
    shelf = "shortcuts" if config is None else None
    config = network(preset) if config is None else config
    cohort = cut(cohort, IMAGES[preset])
    if cohort.lung_masks is None and set(views) & set(MASKED):
        cohort = segment(cohort, progress=progress)
    rows, found = [], {}
    with progress_bar(len(views) * len(seeds), "views", progress, unit="training") as bar:
        for view in views:
            seen = shown(cohort, view)
            test = seen.split("test")
            trainings = [(seen, replace(config, seed=seed)) for seed in seeds]
            runs = train_all(trainings, store, bar, shelf=shelf)
            scores = [predict(run.last if last else run.best, test.images) for run in runs]
            found[view] = {
                metric: draws(test.labels, scores, test.patients, metric, replicates=replicates)
                for metric in ("auc", "accuracy")
            }
            for k, (seed, run) in enumerate(zip(seeds, runs, strict=True)):
                taken = run.history.iloc[-1] if last else run.best_row
                rows.append(
                    {"view": view, "seed": seed, "epoch": taken["epoch"], "val_auc": taken["val_auc"]}
                    | {f"test_{metric}": drawn.values[k] for metric, drawn in found[view].items()}
                )
    share_ill = float(test.labels.mean())
    numbers, families = {"larger_class.test_accuracy": Estimate(max(share_ill, 1 - share_ill))}, []
    if cohort.lung_masks is not None:
        numbers |= lung_shares(cohort.split("test"), [v for v in ("frame", "corners") if v in views], config)
    whole = found["whole"]
    for metric in ("auc", "accuracy"):
        numbers |= {f"{view}.test_{metric}": drawn[metric].estimate() for view, drawn in found.items()}
        changes = pooled({
            f"{view}.{metric}_minus_whole": found[view][metric] - whole[metric]
            for view in views if view != "whole"
        })  # fmt: skip
        numbers |= {key: change.estimate() for key, change in changes.items()}
        families.append({key: change.p_value() for key, change in changes.items()})
    least = numbers["whole.test_auc"].low
    if least is not None and least > 0.5:
        for view in views[1:]:
            share = ratio_draws(found[view]["auc"], whole["auc"], nothing=0.5)
            numbers[f"{view}.share_of_whole"] = share.estimate()
    return study_of(pd.DataFrame(rows), numbers, families)


def lung_shares(part: Cohort, views: Sequence[str], config: TrainConfig) -> dict[str, Estimate]:
    """How much of what a view shows is lung, by the masks, which may miss some, above all in the ill.

    ``<view>.lung_share`` as painted; where the recipe turns and shifts images, also
    ``<view>.lung_share_augmented`` after it has done so with the painted image, as in training.
    """
    assert part.lung_masks is not None and config.augment is not None
    move, numbers = replace(config.augment, brightness=0, contrast=0, gamma=0, noise=0, erase=0), {}
    for view in views:
        area = shown(part.with_images(np.full_like(part.images, 255)), view).images
        lungs = area * (part.lung_masks > 0)
        numbers[f"{view}.lung_share"] = Estimate(float(lungs.sum() / area.sum()))
        if not (move.rotate or move.translate or move.scale):
            continue
        seen, lung = (
            float(move(torch.tensor(each).float()[:, None], torch.Generator().manual_seed(0)).sum())
            for each in (area, lungs)
        )
        numbers[f"{view}.lung_share_augmented"] = Estimate(lung / seen)
    return numbers


def both_recipes(shifted: Study, still: Study) -> dict[str, Estimate]:
    """What each view tells at least: the better of two recipes, by the mean validation AUC over the seeds.

    - ``shifted``, ``still``: of :func:`regions` with a recipe that turns and shifts images, and with one that
      leaves every pixel in its place and stops early. Shifts help the whole image; a frame loses its places.
    - Returns: ``shifted``'s numbers; ``still``'s as ``still.…``; and of each view of both, by the better one,
      ``most.<view>.test_auc`` and ``.test_accuracy``, with ``most.<view>.is_still`` 1 or 0.
    """
    numbers = shifted.numbers | {f"still.{name}": e for name, e in still.numbers.items()}
    moved, kept = (study.runs.groupby("view")["val_auc"].mean() for study in (shifted, still))
    for view in kept.index:
        better = bool(kept[view] > moved[view])
        numbers[f"most.{view}.is_still"] = Estimate(float(better))
        for metric in ("test_auc", "test_accuracy"):
            numbers[f"most.{view}.{metric}"] = (still if better else shifted).numbers[f"{view}.{metric}"]
    return numbers
