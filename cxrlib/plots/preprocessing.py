"""The figures of the notebook 02_preprocessing: steps, site tests, lung masks and how good they are."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlib.evaluation.metrics import Estimate
from cxrlib.plots.style import BLACK, BLUE, GREY, VERMILLION


def before_after(before: np.ndarray, after: np.ndarray, title: str = "") -> Figure:
    """Images above and below, one column each, and the histogram of all of them beside each row.

    ``before``, ``after``: uint8, (N, H, W) and (N, H', W'), a handful of images.
    """
    count = len(before)
    figure, axes = plt.subplots(
        2,
        count + 1,
        figsize=(1.55 * count + 2.6, 3.9),
        layout="constrained",
        width_ratios=[1] * count + [1.5],
    )
    for row, (name, images) in enumerate((("before", before), ("after", after))):
        for column, image in enumerate(images):
            ax = axes[row, column]
            ax.imshow(image, cmap="gray", vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
        axes[row, 0].set_ylabel(name)
        ax = axes[row, count]
        ax.hist(images.ravel(), bins=np.arange(0, 257, 8), color=BLUE, density=True)
        ax.set(yticks=[], xlim=(0, 256), xticks=(0, 128, 255))
        if row:
            ax.set_xlabel("grey value")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12.5)
    return figure


def dice_by_image(
    study: pd.DataFrame,
    numbers: Mapping[str, Estimate],
    names: Mapping[str, str],
) -> Figure:
    """Every image's Dice (the mean over seeds), a row for each training, and the mean with its interval.

    Parameters
    ----------
    study
        Of :func:`cxrlib.lungs.study.dice_study`.
    numbers
        Of :func:`cxrlib.lungs.study.dice_numbers`.
    names
        Row → what to call it.
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
    ax.set_yticks(heights, [names[row] for row in names])
    ax.set(
        title="Lung masks on a hospital not trained on",
        xlabel="Dice's coefficient of an image",
        xlim=(floor - 0.006, 1.0),
    )
    ax.set_ylim(-0.5, len(names) - 0.35)
    ax.grid(axis="y", visible=False)
    return figure


def site_auc(
    tests: Mapping[str, Mapping[str, Estimate]],
    ax: Axes | None = None,
    title: str = "How well the site is told",
) -> Axes:
    """AUC of a site predictor after each step, a marker for each region of the image.

    ``tests``: region (such as "whole image") → step → Estimate.
    """
    steps = list(next(iter(tests.values())))
    ax = ax or plt.subplots(figsize=(7.6, 1.6 + 0.5 * len(steps)), layout="constrained")[1]
    heights = np.arange(len(steps))[::-1]
    looks = zip(tests.items(), (BLUE, VERMILLION, GREY), ("o", "s", "^"), strict=False)
    for position, ((region, by_step), colour, marker) in enumerate(looks):
        values = [by_step[step] for step in steps]
        limits = [_limits(e) for e in values]
        spread = np.array(
            [[e.value - low, high - e.value] for e, (low, high) in zip(values, limits, strict=True)]
        ).T
        at = heights + 0.14 * ((len(tests) - 1) / 2 - position)
        ax.errorbar(
            [e.value for e in values],
            at,
            xerr=spread.clip(0),
            fmt=marker,
            color=colour,
            capsize=3,
            label=region,
        )
    ax.axvline(0.5, color=GREY, linestyle=":", linewidth=1.2)
    ax.annotate("chance", (0.5, -0.45), (3, 0), textcoords="offset points", fontsize=9, color=GREY)
    ax.set_yticks(heights, steps)
    lowest = min(_limits(e)[0] for by_step in tests.values() for e in by_step.values())
    ax.set(title=title, xlabel="AUC of telling the sites apart", xlim=(min(0.45, lowest - 0.02), 1.01))
    ax.set_ylim(-0.6, len(steps) - 0.5)
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return ax


def _limits(estimate: Estimate) -> tuple[float, float]:
    """The estimate's interval; one without ends where it begins."""
    if estimate.low is None or estimate.high is None:
        return estimate.value, estimate.value
    return estimate.low, estimate.high
