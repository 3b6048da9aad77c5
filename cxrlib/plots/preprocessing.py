"""Figures of preprocessing: site tests, and how good lung masks are."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlib.evaluation.metrics import Estimate
from cxrlib.plots.style import BLACK, BLUE, GREY, VERMILLION, dots, rows_on


def dice_by_image(study: pd.DataFrame, numbers: Mapping[str, Estimate], names: Mapping[str, str]) -> Figure:
    """Every image's Dice (the mean over seeds), a row for each training, and the mean with its interval.

    From :func:`cxrlib.lungs.study.dice_study` and :func:`cxrlib.lungs.study.dice_numbers`; ``names``: row →
    what to call it.
    """
    figure, ax = plt.subplots(figsize=(9, 1.2 + 1.05 * len(names)), layout="constrained")
    rng = np.random.default_rng(0)
    heights = np.arange(len(names))[::-1]
    floor = 0.7
    for height, row in zip(heights, names, strict=True):
        values = study[study["row"] == row].groupby("image_id")["dice"].mean().to_numpy()
        shift = rng.uniform(-0.16, 0.16, len(values))
        seen = values >= floor
        ax.plot(values[seen], height + shift[seen], ".", color=BLUE, markersize=3.5, alpha=0.45)
        ax.plot(np.full((~seen).sum(), floor), height + shift[~seen], "<", color=BLUE, markersize=4)
        mean = numbers[f"{row}.dice"]
        ax.plot([mean.value] * 2, [height - 0.27, height + 0.27], "-", color=BLACK, linewidth=2)
        worst = numbers[f"{row}.dice_worst_decile"]
        ax.annotate(
            f"mean {mean:.3f}; worst tenth {worst.value:.3f}; lowest {values.min():.2f}",
            (floor + 0.004, height + 0.3),
            fontsize=9.5,
        )
    rows_on(ax, heights, list(names.values()), top=0.65)
    ax.set(title="Lung masks on a hospital not trained on", xlabel="Dice's coefficient of an image")
    ax.set_xlim(floor - 0.006, 1.0)
    return figure


def site_auc(
    tests: Mapping[str, Mapping[str, Estimate]],
    ax: Axes | None = None,
    title: str = "How well hospitals can be told apart",
) -> Axes:
    """AUC of a site predictor after each step, a marker for each region of the image.

    ``tests``: region (such as "whole image") → step → Estimate.
    """
    steps = list(next(iter(tests.values())))
    ax = ax or plt.subplots(figsize=(7.6, 1.6 + 0.5 * len(steps)), layout="constrained")[1]
    heights = np.arange(len(steps))[::-1]
    looks = zip(tests.items(), (BLUE, VERMILLION, GREY), ("o", "s", "^"), strict=False)
    for position, ((region, by_step), colour, marker) in enumerate(looks):
        at = heights + 0.14 * ((len(tests) - 1) / 2 - position)
        dots(ax, [by_step[step] for step in steps], at, colour, marker, region)
    ax.axvline(0.5, color=GREY, linestyle=":", linewidth=1.2)
    ax.annotate("chance", (0.5, -0.45), (3, 0), textcoords="offset points", fontsize=9, color=GREY)
    rows_on(ax, heights, steps, top=0.5)
    shown = [e for by_step in tests.values() for e in by_step.values()]
    lowest = min(e.value if e.low is None else e.low for e in shown)
    ax.set(title=title, xlabel="AUC of telling the sites apart", xlim=(min(0.45, lowest - 0.02), 1.01))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return ax
