"""Figures on remedies: each takes a study of :mod:`cxrlib.studies.remedies` or ``crop_study``."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cxrlib.cohort import Cohort
from cxrlib.plots.common import differences
from cxrlib.plots.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, picture
from cxrlib.studies.crop_study import LEFT, TITLES
from cxrlib.studies.remedies import REMEDIES
from cxrlib.studies.study import Study

PANELS = {
    "in_distribution_auc": "AUC, as trained",
    "worst_group": "worst group",
    "flip_rate": "calls that flip",
    "external_auc": "AUC elsewhere",
}


def remedies(study: Study) -> Figure:
    """One row an arm, one panel a measure, 95% intervals; lines at the naive and the reference network."""
    runs = study.runs.drop_duplicates("arm").set_index("arm")
    arms = list(runs.index)
    heights = dict(zip(arms, range(len(arms) - 1, -1, -1), strict=True))
    numbers = study.numbers
    panels = {key: title for key, title in PANELS.items() if f"naive.{key}" in numbers}
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.6 + 1.8 * len(panels), 1.6 + 0.4 * len(arms)), layout="constrained",
        sharey=True,
    )  # fmt: skip
    for ax, (key, title) in zip(axes, panels.items(), strict=True):
        for arm, style in (("naive", ":"), ("reference", "--")):
            ax.axvline(numbers[f"{arm}.{key}"].value, color=GREY, linestyle=style, linewidth=1.2)
        for arm, height in heights.items():
            e, (colour, marker) = numbers[f"{arm}.{key}"], _look(arm, bool(runs.loc[arm, "knows"]))
            ax.plot([e.low, e.high], [height] * 2, "-", color=colour, linewidth=2)
            ax.plot(e.value, height, marker, color=colour, markersize=7, markeredgecolor="white", zorder=4)
        if key in ("worst_group", "flip_rate"):
            ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.set_title(title, fontsize=11)
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(list(heights.values()), [REMEDIES[arm].title for arm in arms])
    axes[0].set_ylim(-0.6, len(arms) - 0.4)
    chosen = runs.index[runs["chosen"]]
    for label in axes[0].get_yticklabels():
        if len(chosen) and label.get_text() == REMEDIES[chosen[0]].title:
            label.set_fontweight("bold")
    marks = [
        Line2D([], [], marker=marker, linestyle="", color=colour, markersize=7, label=name)
        for colour, marker, name in (
            (VERMILLION, "s", "naive (dotted line)"),
            (GREEN, "D", "no shortcut in training (dashed)"),
            (BLUE, "o", "remedy"),
            (ORANGE, "^", "remedy that has to know where the marker is"),
        )
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=2)
    return figure


def explorer(study: Study) -> Figure:
    """Each test patient's answer without the letter and with it, for the explorer's two networks."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.4), layout="constrained", sharey=True)
    titles = {"naive": "A: the letter went with the disease", "lungs": "B: the lungs alone"}
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        runs, flips = study.runs[study.runs["network"] == name], study.numbers[f"{name}.flip_rate"]
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="-")
        ax.axhline(0.5, color=GREY, linewidth=1, linestyle=":")
        ax.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
        for label, word, colour, marker in ((0, "healthy", BLUE, "o"), (1, "ill", VERMILLION, "^")):
            some = runs[runs["label"] == label]
            ax.plot(some["without"], some["with_letter"], marker, color=colour, markersize=3.5, alpha=0.5,
                    label=word, linestyle="")  # fmt: skip
        ax.set_title(f"{title}\n{flips.value:.1%} of the calls flip", fontsize=11)
        ax.set_xlabel("probability of “ill”, no letter")
        ax.set_aspect("equal")
    axes[0].set_ylabel("the same chest with the letter")
    axes[1].legend(title="in truth", loc="lower right")
    return figure


def _look(arm: str, knows: bool) -> tuple[str, str]:
    if arm in ("naive", "reference"):
        return (VERMILLION, "s") if arm == "naive" else (GREEN, "D")
    return (ORANGE, "^") if knows else (BLUE, "o")


def steps(views: dict[str, Cohort], rows: Sequence[int]) -> Figure:
    """The same images through each remedy's steps: a row of pictures a view, a column an image."""
    figure, axes = plt.subplots(
        len(views), len(rows), figsize=(1.5 * len(rows) + 1.4, 1.5 * len(views)), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for line, (name, cohort) in zip(axes, views.items(), strict=True):
        for ax, row in zip(line, rows, strict=True):
            picture(ax, cohort.images[row])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    return figure


def crop(study: Study) -> Figure:
    """Each way of looking against the whole image: paired differences in validation and test.

    Filled where Holm's p is below 0.05.
    """
    arms = [arm for arm in study.runs["arm"].unique() if arm != "whole" and arm not in LEFT]
    return differences(
        study.estimates,
        {TITLES[arm]: f"{arm}_minus_whole" for arm in arms},
        {"val_auc": "Validation AUC", "test_auc": "Test AUC", "test_accuracy": "Test accuracy at ½"},
        "difference to the whole image (95%)",
    )
