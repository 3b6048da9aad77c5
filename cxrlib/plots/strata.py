"""Figures of :mod:`cxrlib.studies.strata`: the strata in numbers, and healthy children of both machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cxrlib.evaluation.metrics import Estimate
from cxrlib.plots.common import image_grid
from cxrlib.plots.style import BLUE, GREY, ORANGE, VERMILLION, limits
from cxrlib.studies.harmonised import ARMS
from cxrlib.studies.study import Study

_PARTS = {"train": "training", "val": "validation", "test": "official test"}
_GROUPS = {
    "all": "all", "machine": "second machine", "others": "all others", "adolescent": "… adolescents",
    "border": "… with a border", "infant": "… infants", "child": "… children",
}  # fmt: skip


def _arms(found: Sequence[Estimate]) -> np.ndarray:
    return np.abs(limits(found) - np.array([e.value for e in found]))


def strata(numbers: Mapping[str, Estimate]) -> Figure:
    """Where the second machine is (left), and the healthy called healthy in each stratum (right)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9), gridspec_kw={"width_ratios": (1, 1.35)})
    places = np.arange(3)
    for shift, kind, colour, hatch in ((-0.2, "healthy", BLUE, ""), (0.2, "ill", VERMILLION, "//")):
        found = [numbers[f"detected.{part}.{kind}.machine"] for part in _PARTS]
        left.bar(
            places + shift,
            [e.value for e in found],
            0.38,
            yerr=_arms(found),
            color=colour,
            hatch=hatch,
            edgecolor="white",
            ecolor=GREY,
            label=kind,
        )
    left.set(title="Images of the second machine", xticks=places, ylabel="share, by the detector")
    left.set_xticklabels(_PARTS.values())
    left.legend(loc="upper left")
    heights = np.arange(len(_GROUPS))[::-1]
    for part, prefix, colour, marker, shift in (
        ("validation", "val.", ORANGE, "s", 0.16), ("official test", "", BLUE, "o", -0.16),
    ):  # fmt: skip
        rows = [
            (y + shift, numbers[key])
            for y, name in zip(heights, _GROUPS, strict=True)
            if (key := f"healthy.{prefix}{name}.specificity") in numbers
        ]
        found = [e for _, e in rows]
        right.errorbar(
            [e.value for e in found],
            [y for y, _ in rows],
            xerr=_arms(found),
            fmt=marker,
            color=colour,
            label=part,
        )
    sizes = [numbers[f"healthy.{name}.specificity"].n for name in _GROUPS]
    right.set_yticks(heights, [f"{t} ({n})" for t, n in zip(_GROUPS.values(), sizes, strict=True)])
    right.set(
        title="Healthy children called healthy", xlabel="specificity at ½ (95% interval)", xlim=(0, 1.03)
    )
    right.legend(loc="lower left")
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def pictures(images: np.ndarray, answers: Sequence[float], rows: Sequence[str]) -> Figure:
    """Radiographs of healthy children, four a row, the networks' mean answer under each.

    ``images``: uint8, (4 · rows, H, W); ``answers``: mean probability of pneumonia; ``rows``: their titles.
    """
    size = 1.4
    figure, axes = plt.subplots(len(rows), 4, figsize=(4 * size + 1.5, len(rows) * (size + 0.3) + 0.5))
    image_grid(images, [f"{100 * answer:.0f}% pneumonia" for answer in answers], columns=4, axes=axes)
    for ax, title in zip(axes[:, 0], rows, strict=True):
        ax.text(-0.06, 0.5, title, transform=ax.transAxes, ha="right", va="center", fontsize=9)
    figure.suptitle(
        "Healthy children, and what the networks say of them",
        x=0.01,
        ha="left",
        fontweight="bold",
        fontsize=12.5,
    )
    return figure


_STRATA = {
    "letter": "A small R low in the image",
    "contrast": "The fifth of the images with the most contrast",
    "archive": "Phantoms that a second archive stores",
}


def missing(found: Mapping[str, Study]) -> Figure:
    """Right calls in each stratum and among the others, against the share of its healthy that is missing."""
    figure, axes = plt.subplots(
        1, len(found), figsize=(5.4 * len(found), 4.1), layout="constrained", squeeze=False, sharey=True
    )
    for ax, (name, study) in zip(axes[0], found.items(), strict=True):
        numbers, at = study.numbers, [100 * share for share in sorted(study.runs["share"].unique())]
        for key, label, colour, style, shift in (
            ("healthy.stratum.specificity", "healthy, in the stratum", VERMILLION, "o-", -0.6),
            ("healthy.others.specificity", "healthy, others", BLUE, "s--", 0.6),
            ("ill.stratum.sensitivity", "ill, in the stratum", GREY, "^:", 0.0),
        ):
            drawn = [numbers[f"missing_{percent:.0f}.{key}"] for percent in at]
            ax.errorbar(
                np.array(at) + shift, [e.value for e in drawn], yerr=_arms(drawn), fmt=style, color=colour,
                label=label,
            )  # fmt: skip
        ax.set(title=_STRATA[name], xlabel="of its healthy, missing from training", xticks=at, ylim=(0, 1.03))
        ax.set_xticklabels([f"{percent:.0f}%" for percent in at], rotation=45)
    axes[0, 0].set_ylabel("called right at ½ (95% interval)")
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def harmonised(study: Study) -> Figure:
    """Each arm where the stratum's healthy are missing (left), and the best on the official test (right)."""
    numbers = study.numbers
    arms = sorted(study.runs["arm"].unique(), key=lambda arm: numbers[f"{arm}.score"].value)
    titles = {name: arm.title for name, arm in ARMS.items()} | {"together": "the best two together"}
    best = next(arm for arm in arms if numbers[f"{arm}.chosen"].value)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 1.8 + 0.36 * len(arms)), layout="constrained", width_ratios=(1.7, 1)
    )
    places = np.arange(len(arms))
    for key, label, colour, marker, shift in (
        ("healthy.stratum.specificity", "healthy called healthy", BLUE, "o", 0.13),
        ("ill.stratum.sensitivity", "ill called ill", VERMILLION, "D", -0.13),
    ):
        found = [numbers[f"{arm}.{key}"] for arm in arms]
        values = [e.value for e in found]
        left.errorbar(values, places + shift, xerr=_arms(found), fmt=marker, color=colour, label=label)
    left.set_yticks(places, [titles[arm] for arm in arms])
    left.set(
        title="The stratum whose healthy are missing", xlabel="share at ½ (95% interval)", xlim=(0, 1.03)
    )
    for key, label, colour, marker, shift in (
        ("plain", titles["plain"], GREY, "s", 0.12), ("best", titles[best], BLUE, "o", -0.12),
    ):  # fmt: skip
        found = [numbers[f"{key}.test_{measure}"] for measure in ("specificity", "sensitivity", "auc")]
        values = [e.value for e in found]
        heights = np.array([2, 1, 0]) + shift
        right.errorbar(values, heights, xerr=_arms(found), fmt=marker, color=colour, label=label)
    right.set_yticks([2, 1, 0], ["specificity", "sensitivity", "AUC"])
    right.set(title="Official test", xlabel="value (95% interval)", ylim=(-0.6, 2.6))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right")
    return figure
