"""Figures of the chapter on spurious correlations: each takes what a study of shortcuts found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from cxrlib.cohort import Cohort
from cxrlib.evaluation.metrics import Estimate
from cxrlib.images.regions import VIEWS, shown
from cxrlib.plots.style import (
    BLACK,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    PURPLE,
    STYLES,
    VERMILLION,
    as_text,
    limits,
    picture,
    rows_on,
)
from cxrlib.studies.hospitals import word
from cxrlib.studies.study import Study

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType

#: Behind a number, so that a line does not cross it.
_PLATE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.6}

MARKERS = ("o", "D", "s", "^", "v", "X")

#: View -> what to call it, and whether the lungs are in it.
TITLES = {
    "whole": ("whole image", True),
    "lungs_only": ("lungs only", True),
    "lung_shape": ("lung outline", False),
    "lungs_removed": ("lungs removed", False),
    "frame": ("outer tenth", False),
    "corners": ("corners", False),
    "blur": ("16 × 16 blur", True),
    "histogram": ("greys alone", True),
}


def what_is_seen(
    cohort: Cohort, rows: Sequence[int] | None = None, views: Sequence[str] = tuple(VIEWS)
) -> Figure:
    """A healthy and an ill image (or the rows given) as each view shows them."""
    if rows is None:
        rows = [int(np.flatnonzero(cohort.labels == label)[0]) for label in (0, 1)]
    few = cohort.take(np.asarray(rows))
    size = (1.45 * len(views), 1.5 * len(rows) + 0.45)
    figure, axes = plt.subplots(len(rows), len(views), figsize=size, squeeze=False, layout="constrained")
    for column, view in zip(axes.T, views, strict=True):
        for ax, image in zip(column, shown(few, view).images, strict=True):
            picture(ax, image)
        column[0].set_title(TITLES[view][0], fontsize=10, loc="center", pad=4)
    for ax, label in zip(axes[:, 0], few.labels, strict=True):
        ax.set_ylabel("with disease" if label else "without", fontsize=10)
    return figure


def regions(
    found: Study | Mapping[str, Estimate], *, references: Mapping[str, float] | None = None, title: str = ""
) -> Figure:
    """Test AUC and accuracy of each view, with intervals; hollow below, by the recipe that shifts nothing.

    ``found``: of :func:`.region_study.regions`, or the numbers of :func:`.region_study.both_recipes`.
    ``references``: vertical lines among the accuracies, such as a published one.
    """
    numbers = found.numbers if isinstance(found, Study) else found
    both = "still.whole.test_auc" in numbers
    views = [view for view in TITLES if f"{view}.test_auc" in numbers]
    heights = np.arange(len(views))[::-1].astype(float)
    figure, axes = plt.subplots(
        1, 2, figsize=(11, 1.9 + 0.42 * len(views)), sharey=True, layout="constrained"
    )
    larger = numbers["larger_class.test_accuracy"].value
    lines = {
        "auc": {"chance": 0.5},
        "accuracy": {"all called alike": larger, **(references or {})},
    }
    for ax, (metric, name) in zip(axes, (("auc", "AUC"), ("accuracy", "accuracy at ½")), strict=True):
        for view, height in zip(views, heights, strict=True):
            _dot(ax, numbers[f"{view}.test_{metric}"], height, BLUE if TITLES[view][1] else VERMILLION,
                 "o" if TITLES[view][1] else "D", ".3f" if metric == "auc" else ".1%")  # fmt: skip
            if f"still.{view}.test_{metric}" in numbers:
                ax.plot(numbers[f"still.{view}.test_{metric}"].value, height - 0.25, "s", markersize=5,
                        color=GREY, markerfacecolor="white", zorder=4)  # fmt: skip
        _lines(ax, lines[metric])
        ax.set(xlabel=f"test {name} (95% interval)", ylim=(-0.6, len(views) - 0.2))
        ax.grid(axis="y", visible=False)
    axes[1].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[0].set_yticks(heights, [TITLES[view][0] for view in views])
    figure.suptitle(title or "What a network reaches that sees only this", x=0.01, ha="left",
                    fontweight="bold", fontsize=12.5)  # fmt: skip
    marks = [
        Line2D([], [], marker=marker, linestyle="", color=colour, markersize=8, label=label)
        for marker, colour, label in (
            ("o", BLUE, "lung tissue is in it"), ("D", VERMILLION, "hardly any, or none"),
        )
    ]  # fmt: skip
    if both:
        still = "another recipe: images neither turned nor shifted"
        marks.append(
            Line2D([], [], marker="s", linestyle="", color=GREY, markerfacecolor="white", label=still)
        )
    figure.legend(handles=marks, loc="outside lower center", ncols=3)
    return figure


def dose_response(study: Study, confounder: str = "marker") -> Figure:
    """AUC where the correlation holds, is absent, is reversed, and the share of flips, against the dose."""
    numbers = study.numbers
    doses = np.sort(study.runs["agreement"].unique())
    keys = [f"{confounder}_{100 * dose:.0f}" for dose in doses]
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.0), layout="constrained")
    panels = (
        (axes[0], (("auc_holds", "holds"), ("auc_absent", "is absent"), ("auc_reversed", "is reversed")),
         "Test AUC where the correlation …", "AUC (95% interval)"),
        (axes[1], (("flips", "threshold ½"), ("flips_at_val_threshold", "validation's threshold")),
         "Calls that flip with it", "share of test images (95% interval)"),
    )  # fmt: skip
    for ax, curves, title, ylabel in panels:
        looks = zip((BLUE, GREEN, VERMILLION), STYLES, MARKERS, strict=False)
        for (name, label), (colour, style, marker) in zip(curves, looks, strict=False):
            found = [numbers[f"{key}.{name}"] for key in keys]
            _curve(ax, doses, found, colour, style, marker, label)
        ax.set(title=title, ylabel=ylabel, xlabel=f"agreement of {confounder} and disease in training")
        ax.xaxis.set_major_locator(FixedLocator(doses.tolist()))
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        ax.legend(loc="best")
    axes[0].axhline(0.5, color=GREY, linestyle=":", linewidth=1.2)
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[1].set_ylim(bottom=min(0, axes[1].get_ylim()[0]))
    return figure


def order_of_learning(study: Study) -> Figure:
    """How far the network goes by each confounder, and how many calls flip with it, step by step."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.3), layout="constrained")
    ranks = {n: study.numbers[f"{n}.rank"].value for n in study.runs["confounder"].unique()}
    looks = zip(COLOURS, STYLES, MARKERS, strict=True)
    for name, (colour, style, marker) in zip(
        sorted(ranks, key=lambda name: ranks[name]), looks, strict=False
    ):
        mean = study.runs[study.runs["confounder"] == name].groupby("step")[["pull", "flips"]].mean()
        for ax, column in zip(axes, ("pull", "flips"), strict=True):
            ax.plot(mean.index, mean[column], linestyle=style, color=colour, marker=marker, markersize=6,
                    markeredgecolor="white", label=name)  # fmt: skip
    axes[0].axhline(0, color=GREY, linestyle=":", linewidth=1.2)
    axes[0].set(title="Pull: AUC with it − AUC against it", ylabel="difference of AUC")
    axes[1].set(title="Calls that flip with it", ylabel="share of test images")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for ax in axes:
        ax.set_xlabel("training step")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def hospitals(studies: Mapping[str, Study]) -> Figure:
    """Internal and external AUC of each training, a panel each."""
    widest = max(study.runs["tested_on"].nunique() for study in studies.values())
    figure, axes = plt.subplots(
        len(studies), 1, figsize=(7.6, 0.6 + (1.0 + 0.42 * widest) * len(studies)), squeeze=False,
        sharex=True, layout="constrained",
    )  # fmt: skip
    for ax, (title, study) in zip(axes[:, 0], studies.items(), strict=True):
        numbers, names = study.numbers, list(study.runs["tested_on"].unique())
        heights = np.arange(len(names))[::-1].astype(float)
        for name, height in zip(names, heights, strict=True):
            inside = name == "internal"
            key = "internal.test_auc" if inside else f"{word(name)}.auc"
            _dot(ax, numbers[key], height, BLUE if inside else VERMILLION, "o" if inside else "D")
        counts = study.runs.drop_duplicates("tested_on").set_index("tested_on")
        labels = [
            f"{'its own patients' if name == 'internal' else as_text(name)} ({counts.loc[name, 'images']:,})"
            for name in names
        ]
        ax.axvline(numbers["internal.test_auc"].value, color=GREY, linestyle=":", linewidth=1.2)
        rows_on(ax, heights, labels, top=0.8)
        ax.set_title(title)
    axes[-1, 0].set_xlabel("AUC (95% interval); in brackets: images")
    return figure


def metadata(numbers: Mapping[str, Estimate], columns: Sequence[str]) -> Figure:
    """What the columns explain of a score, alone and together; and AUCs with and without their part."""
    figure, axes = plt.subplots(1, 2, figsize=(12.5, 4.0), layout="constrained")
    rows = {"all columns": "metadata", **{column.replace("_", " "): column for column in columns}}
    _rows(axes[0], {name: numbers[f"{key}.r2_rank"] for name, key in rows.items()}, ".1%")
    axes[0].set(title="Explained of the score's rank", xlabel="R², patients not seen (95% interval)")
    axes[0].xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes[0].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _lines(axes[0], {"nothing": 0.0})
    rows = {
        "score": "score", "the part that columns predict": "predicted_score",
        "what is left of it": "rest_of_score", "columns, no image": "metadata",
        "score, within AP": "AP", "score, within PA": "PA", "score, pairs of one view": "same_view",
    }  # fmt: skip
    _rows(axes[1], {name: numbers[f"{key}.auc"] for name, key in rows.items()}, ".3f")
    axes[1].set(title="AUC for the label", xlabel="AUC (95% interval)")
    _lines(axes[1], {"chance": 0.5})
    return figure


def _rows(ax: Axes, rows: Mapping[str, Estimate], spec: str) -> None:
    heights = np.arange(len(rows))[::-1].astype(float)
    for height, estimate in zip(heights, rows.values(), strict=True):
        _dot(ax, estimate, height, BLUE, "o", spec)
    rows_on(ax, heights, list(map(as_text, rows)), top=0.8)


def _dot(ax: Axes, estimate: Estimate, height: float, colour: str, marker: str, spec: str = ".3f") -> None:
    """A point with its interval, and the number over it."""
    if estimate.low is not None and estimate.high is not None:
        ax.plot([estimate.low, estimate.high], [height] * 2, "-", color=colour, linewidth=2)
    ax.plot(estimate.value, height, marker, color=colour, markersize=8, markeredgecolor="white", zorder=4)
    ax.annotate(f"{estimate.value:{spec}}", (estimate.value, height), (0, 7), ha="center", fontsize=9,
                textcoords="offset points", bbox=_PLATE)  # fmt: skip


def _curve(
    ax: Axes,
    x: np.ndarray,
    found: Sequence[Estimate],
    colour: str,
    style: LineStyleType,
    marker: str,
    label: str,
) -> None:
    ax.fill_between(x, *limits(found), color=colour, alpha=0.13, linewidth=0)
    ax.plot(x, [e.value for e in found], linestyle=style, color=colour, marker=marker, markersize=7,
            markeredgecolor="white", label=label)  # fmt: skip


def _lines(ax: Axes, references: Mapping[str, float]) -> None:
    """Vertical lines, named in the axis's own legend below it, so that close ones do not collide."""
    looks = zip((GREY, BLACK, PURPLE), (":", "--", "-."), strict=True)
    for (name, value), (colour, style) in zip(references.items(), looks, strict=False):
        ax.axvline(value, color=colour, linestyle=style, linewidth=1.4, label=name)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(references), fontsize=9)
