"""Figures about trainings: networks side by side, from their curves to the test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from cxrlib.evaluation.metrics import Estimate
from cxrlib.plots.style import COLOURS, MARKERS, limits, rows_on

#: What the project that this course grew from reported, as accuracies.
ORIGINAL = {"original, training": 0.95, "original, validation": 0.82}


def network_comparison(
    histories: Mapping[str, Sequence[pd.DataFrame]],
    numbers: Mapping[str, Estimate],
    references: Mapping[str, float] = ORIGINAL,
) -> Figure:
    """Losses and AUCs over the epochs above test AUC and accuracy with intervals, a colour for each network.

    - ``histories``: network → histories, one for each seed; lines are means, bands the range of validation.
    - ``numbers``: ``<network>.test_auc`` and ``<network>.test_accuracy``, as :func:`.compare` gives.
    - ``references``: accuracies to draw as vertical lines.
    """
    figure, axes = plt.subplots(
        2, 2, figsize=(9.5, 6.4), layout="constrained", height_ratios=(3, 0.6 + 0.55 * len(histories))
    )
    looks = dict(zip(histories, zip(COLOURS, MARKERS, strict=False), strict=False))
    for ax, quantity, label in zip(
        axes[0], ("loss", "auc"), ("binary cross-entropy (nats)", "area under the ROC curve"), strict=True
    ):
        for name, runs in histories.items():
            colour, by_epoch = looks[name][0], pd.concat(runs).groupby("epoch")
            ax.plot(by_epoch[f"train_{quantity}"].mean(), "--", color=colour, linewidth=1.2)
            ax.plot(by_epoch[f"val_{quantity}"].mean(), "-", color=colour, linewidth=1.8)
            band = by_epoch[f"val_{quantity}"].agg(["min", "max"])
            ax.fill_between(band.index, band["min"], band["max"], color=colour, alpha=0.15, linewidth=0)
        ax.set(xlabel="epoch", ylabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set(title="Loss", yscale="log")
    axes[0, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[0, 0].yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes[0, 0].yaxis.set_minor_formatter(NullFormatter())
    axes[0, 1].set(title="AUC", ylim=(max(0.4, _lowest(histories, "auc") - 0.02), 1.005))
    axes[0, 1].plot([], [], "-", color="0.3", label="validation, mean and range")
    axes[0, 1].plot([], [], "--", color="0.3", linewidth=1.2, label="training, mean")
    for name, (colour, _) in looks.items():
        axes[0, 1].plot([], [], "-", color=colour, label=name)
    axes[0, 1].legend(loc="lower right")
    heights = np.arange(len(histories))[::-1]
    for ax, metric, title in zip(
        axes[1], ("test_auc", "test_accuracy"), ("Test AUC", "Test accuracy at ½"), strict=True
    ):
        spec = ".3f" if metric == "test_auc" else ".1%"
        for height, name in zip(heights, histories, strict=True):
            estimate, (colour, marker) = numbers[f"{name}.{metric}"], looks[name]
            low, high = limits([estimate])
            spread = [estimate.value - low, high - estimate.value]
            ax.errorbar(estimate.value, height, xerr=spread, fmt=marker, color=colour, capsize=3)
            ax.annotate(f"{estimate:{spec}}", (estimate.value, height), (0, 7), textcoords="offset points",
                        ha="center", fontsize=9)  # fmt: skip
        rows_on(ax, heights, [name if ax is axes[1, 0] else "" for name in histories], top=0.7)
        xlabel = "area under the ROC curve" if metric == "test_auc" else "share of test images"
        ax.set(title=title, xlabel=xlabel)
        ax.margins(x=0.15)
    for (name, value), line in zip(references.items(), (":", "--"), strict=False):
        axes[1, 1].axvline(value, color="0.35", linestyle=line, linewidth=1.2, label=f"{name} {value:.0%}")
    axes[1, 1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=2, fontsize=9)
    axes[1, 1].xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    axes[1, 1].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def _lowest(histories: Mapping[str, Sequence[pd.DataFrame]], quantity: str) -> float:
    return min(
        run[[f"train_{quantity}", f"val_{quantity}"]].min().min()
        for runs in histories.values()
        for run in runs
    )
