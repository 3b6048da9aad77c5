"""The figures of the notebook 01_eda. Each function takes data and perhaps an axis, and returns the axis."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cxrlib.plots.style import BLACK, BLUE, GREY, as_text
from cxrlib.plots.style import VERMILLION as ORANGE


def images_per_patient(sizes: pd.Series, curve: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Axes:
    """How many images patients have, and the share of images that the busiest patients hold; two axes."""
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")[1]
    edges = [1, 2, 3, 5, 9, 17, 33, 65, 129, np.inf]
    names = ["1", "2", "3–4", "5–8", "9–16", "17–32", "33–64", "65–128", "129+"]
    bins = pd.cut(sizes, edges, right=False, labels=names)
    patients = bins.value_counts().reindex(names)
    share = sizes.groupby(bins, observed=False).sum() / sizes.sum()
    rows = np.arange(len(names))
    axes[0].bar(rows - 0.2, patients / len(sizes), 0.4, color=BLUE, label="of patients")
    axes[0].bar(rows + 0.2, share, 0.4, color=ORANGE, hatch="//", edgecolor="white", label="of images")
    axes[0].set_xticks(rows, names, rotation=40)
    axes[0].set(title="Images per patient", xlabel="images of the patient", ylabel="share")
    axes[0].legend(frameon=False)
    tenth = float(np.interp(0.1, curve["patients"], curve["images"]))
    axes[1].plot(curve["patients"], curve["images"], color=BLUE, label="these patients")
    axes[1].plot([0.1], [tenth], "o", color=ORANGE, label=f"busiest tenth: {tenth:.0%} of the images")
    axes[1].plot([0, 1], [0, 1], color=GREY, linestyle=":", label="if all had the same number")
    axes[1].legend(frameon=False, loc="lower right")
    axes[1].set(
        title="Share of images held by the busiest", xlabel="share of patients", ylabel="share of images"
    )
    for ax in axes:
        _bare(ax)
    return axes[0]


def ages(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of images by age, in each view. Needs columns ``age`` and ``view``."""
    ax = ax or plt.subplots(figsize=(7.5, 3.4), layout="constrained")[1]
    for view, colour, style in (("PA", BLUE, "-"), ("AP", ORANGE, "--")):
        years = table.loc[table["view"] == view, "age"].dropna()
        share = np.bincount(years.astype(int), minlength=100)[:100] / max(len(years), 1)
        ax.step(
            np.arange(100),
            share,
            where="mid",
            color=colour,
            linestyle=style,
            label=f"{as_text(view)} (n = {len(years):,})",
        )
    ax.set(title="Age at the image", xlabel="age (years)", ylabel="share of images of the view")
    ax.legend(frameon=False)
    _bare(ax)
    return ax


def prevalence(
    table: pd.DataFrame, title: str, xlabel: str, *, overall: float | None = None, ax: Axes | None = None
) -> Axes:
    """Dots with intervals (:func:`.prevalence_by`): thick by image (Wilson), thin by patient."""
    ax = ax or plt.subplots(figsize=(6.5, 3.4), layout="constrained")[1]
    rows, share = np.arange(len(table)), table["prevalence"].to_numpy()
    by_patient = np.array([share - table["low"], table["high"] - share])
    by_image = np.array([share - table["wilson_low"], table["wilson_high"] - share])
    ax.plot(rows, share, "o", color=BLACK, zorder=3)
    ax.errorbar(
        rows, share, np.abs(by_image), fmt="none", ecolor=BLUE, alpha=0.4, elinewidth=6, label="95%, by image"
    )
    if not np.allclose(by_patient, by_image):  # patients are unknown, or were not resampled
        ax.errorbar(
            rows, share, np.abs(by_patient), fmt="none", ecolor=BLUE, capsize=4, label="95%, by patient"
        )
    if overall is not None:
        ax.axhline(overall, color=GREY, linestyle=":", zorder=0, label=f"all images: {overall:.1%}")
    ax.set_xticks(
        rows, [f"{as_text(level)}\n({n:,})" for level, n in zip(table.index, table["images"], strict=True)]
    )
    ax.set_xlim(-0.5, len(rows) - 0.5)
    ax.set(title=as_text(title), xlabel=f"{as_text(xlabel)} (number of images)")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}" if share.max() < 0.1 else f"{value:.0%}")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    _bare(ax)
    return ax


def agreement(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Axes:
    """Sensitivity, PPV and kappa of each row of :func:`cxrlib.evaluation.eda.label_agreement`; three axes."""
    panels = {"sensitivity": "Sensitivity", "ppv": "Positive predictive value", "kappa": "Cohen's kappa"}
    if axes is None:
        axes = plt.subplots(1, 3, figsize=(11, 0.45 * len(table) + 1.6), sharey=True, layout="constrained")[1]
    rows = np.arange(len(table))[::-1]
    for ax, (measure, title) in zip(axes, panels.items(), strict=True):
        value = table[measure]
        errors = [value - table[f"{measure}_low"], table[f"{measure}_high"] - value]
        ax.errorbar(value, rows, xerr=errors, fmt="o", color=BLUE, capsize=3)
        if measure == "ppv":
            ax.plot(table["prevalence"], rows, "|", color=ORANGE, markersize=14, markeredgewidth=2)
            ax.set_title(f"{title}\n(bar: by chance)")
        else:
            ax.set_title(title)
        lowest = np.nanmin([0, value.min(), table[f"{measure}_low"].min()])  # kappa may be negative
        ax.set_xlim(lowest - 0.02, 1)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        ax.set_ylim(-0.6, len(table) - 0.4)
        _bare(ax)
    axes[0].set_yticks(rows, table.index)
    axes[0].figure.supxlabel("text-mined label against the experts', with 95% interval", fontsize="medium")
    return axes[0]


def class_means(without: np.ndarray, with_label: np.ndarray, effect: np.ndarray) -> Axes:
    """Both mean images (float (H, W), 0–255) and their difference (:func:`.class_means`)."""
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.4), layout="constrained")
    for ax, image, title in zip(
        axes, (without, with_label), ("Mean without", "Mean with pneumonia"), strict=False
    ):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255)
        ax.set_title(title)
    most = max(0.05, float(np.abs(effect).max()))
    drawn = axes[2].imshow(effect, cmap="PuOr_r", vmin=-most, vmax=most)
    axes[2].set_title("Difference")
    figure.colorbar(drawn, ax=axes[2], shrink=0.8, label="standard deviations")
    for ax in axes:
        ax.set_axis_off()
    return axes[0]


def _bare(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
