"""Figures of what is in a cohort or a table: counts, shares by group, distributions.

Each function takes data and perhaps an axis, draws, and returns the axis.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from cxrlib.metrics import proportion
from cxrlib.plot_style import BLACK, BLUE, COLOURS, HATCHES, STYLES, VERMILLION, cycled


def label_cooccurrence(labels: pd.DataFrame, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Of the images with the row's finding, the share that also has the column's.

    ``labels``: one row an image, one 0/1 column a finding.
    """
    values = labels.to_numpy(dtype=float)
    totals = values.sum(axis=0)
    with np.errstate(invalid="ignore"):
        shares = values.T @ values / totals[:, None]
    np.fill_diagonal(shares, np.nan)
    n = len(totals)
    ax = ax or plt.subplots(figsize=(3.2 + 0.48 * n, 2.0 + 0.42 * n))[1]
    top = max(0.05, float(np.nanmax(shares, initial=0)))
    drawn = ax.imshow(shares, cmap="cividis_r", vmin=0, vmax=top, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        text = "–" if np.isnan(share) else f"{100 * share:.0f}"
        colour = "white" if share > 0.55 * top else BLACK
        ax.text(column, row, text, ha="center", va="center", fontsize=8.5, color=colour)
    names = [name.replace("_", " ") for name in labels.columns]
    ax.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(n), [f"{name} ({total:,.0f})" for name, total in zip(names, totals, strict=True)])
    ax.set(
        title=title or "Findings that come together",
        xlabel="… also have this",
        ylabel="of images with this …",
    )
    ax.grid(False)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.8, format=PercentFormatter(1, decimals=0))
    bar.outline.set_visible(False)
    bar.set_label("share of the row's images (cells in %)")
    return ax


def counts(
    sizes: Mapping[str, int], ax: Axes | None = None, *, total: int | None = None, unit: str = "images",
    highlight: str | None = None, title: str = "",
) -> Axes:  # fmt: skip
    """Horizontal bars with the count and its percentage of ``total`` (None: their sum), as ordered."""
    sizes = dict(sizes)
    total = sum(sizes.values()) if total is None else total
    ax = ax or plt.subplots(figsize=(7.2, 1.3 + 0.33 * len(sizes)))[1]
    heights = np.arange(len(sizes))[::-1]
    bars = ax.barh(heights, list(sizes.values()), color=BLUE, height=0.72)
    for height, bar, (name, size) in zip(heights, bars, sizes.items(), strict=True):
        if name == highlight:
            bar.set(facecolor=VERMILLION, hatch="///", edgecolor="white")
        text = f"{size:,} ({size / max(total, 1):.1%})"
        ax.annotate(text, (size, height), (4, 0), textcoords="offset points", va="center", fontsize=9.5)
    ax.set_yticks(heights, [str(name).replace("_", " ") for name in sizes])
    ax.set_xlim(0, max(sizes.values()) * 1.27)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.grid(axis="y", visible=False)
    ax.set(title=title, xlabel=unit)
    return ax


def shares(
    table: pd.DataFrame, by: str, hue: str | None = None, ax: Axes | None = None, *, label: str = "label",
    title: str = "", ylabel: str = "share with pneumonia",
) -> Axes:  # fmt: skip
    """Share of ``label`` = 1 in each group of column ``by``, in bars with Wilson's 95% interval.

    ``hue`` names a second column that splits each group into bars side by side. Rows are taken as
    independent.
    """
    groups = _levels(table[by])
    hues = _levels(table[hue]) if hue else [None]
    ax = ax or plt.subplots(figsize=(1.8 + 0.95 * max(4, len(groups) * (1 + 0.35 * len(hues))), 4.0))[1]
    width = 0.8 / len(hues)
    for j, (level, colour, hatch) in enumerate(zip(hues, cycled(COLOURS), cycled(HATCHES), strict=False)):
        rows = table if level is None else table[table[hue] == level]
        for i, group in enumerate(groups):
            found = rows.loc[rows[by] == group, label]
            if not len(found):
                continue
            share = proportion(int(found.sum()), len(found))
            x = i + (j - (len(hues) - 1) / 2) * width
            ax.bar(
                x, share.value, width * 0.92, color=colour, hatch=hatch, edgecolor="white",
                label=str(level) if level is not None and i == 0 else None,
            )  # fmt: skip
            errors = [[share.value - share.low], [share.high - share.value]]
            ax.errorbar(x, share.value, errors, color=BLACK, capsize=3.5, linewidth=1.3, linestyle="none")
    sizes = table[by].value_counts()
    ax.set_xticks(range(len(groups)), [f"{group}\nn = {sizes[group]:,}" for group in groups])
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_ylim(bottom=0)
    ax.grid(axis="x", visible=False)
    ax.set(title=title, xlabel=by.replace("_", " "), ylabel=f"{ylabel} (95% interval)")
    if hue:
        ax.legend(title=hue.replace("_", " "), loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def stacked_shares(table: pd.DataFrame, by: str, of: str, ax: Axes | None = None, *, title: str = "") -> Axes:
    """How column ``of`` is made up in each group of column ``by``: horizontal bars to 100%."""
    made_up = pd.crosstab(table[by], table[of]).loc[_levels(table[by]), _levels(table[of])]
    portions = made_up.div(made_up.sum(axis=1), axis=0)
    ax = ax or plt.subplots(figsize=(7.2, 1.6 + 0.5 * len(portions)))[1]
    heights = np.arange(len(portions))[::-1]
    left = np.zeros(len(portions))
    for column, colour, hatch in zip(portions, cycled(COLOURS), cycled(HATCHES), strict=False):
        values = portions[column].to_numpy()
        ax.barh(
            heights, values, left=left, height=0.7, color=colour, hatch=hatch, edgecolor="white", label=column
        )
        for height, start, value in zip(heights, left, values, strict=True):
            if value >= 0.06:  # less has no room for its number
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
                ax.text(
                    start + value / 2,
                    height,
                    f"{value:.0%}",
                    ha="center",
                    va="center",
                    fontsize=9.5,
                    bbox=box,
                )
        left += values
    ax.set_yticks(heights, [f"{group} (n = {n:,})" for group, n in made_up.sum(axis=1).items()])
    ax.set(title=title, xlabel="share of images", ylabel=by.replace("_", " "), xlim=(0, 1))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.grid(False)
    ax.legend(title=of.replace("_", " "), loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def images_per_patient(patients, ax: Axes | None = None, *, title: str = "Images per patient") -> Axes:
    """How many patients have how many images. ``patients``: the patient of each image, shape (N,)."""
    sizes = pd.Series(np.asarray(patients)).value_counts().to_numpy()
    n_images, n_patients = np.unique(sizes, return_counts=True)
    ax = ax or plt.subplots()[1]
    ax.loglog(n_images, n_patients, "o", color=BLUE, markersize=4.5, linestyle="none")
    tenth = max(1, round(0.1 * len(sizes)))
    facts = (
        f"{len(sizes):,} patients, {sizes.sum():,} images\n"
        f"{np.mean(sizes == 1):.0%} of patients have one image; the most is {sizes.max():,}\n"
        f"the tenth with most images holds {np.sort(sizes)[-tenth:].sum() / sizes.sum():.0%} of the images"
    )
    ax.text(0.98, 0.97, facts, transform=ax.transAxes, ha="right", va="top", fontsize=9.5)
    plain = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else "")
    ax.xaxis.set_major_formatter(plain)
    ax.yaxis.set_major_formatter(plain)
    ax.set_ylim(0.7, n_patients.max() * 20)  # room for the facts
    ax.set(title=title, xlabel="images of the patient", ylabel="patients")
    return ax


def histogram(
    groups: Mapping[str, np.ndarray],
    ax: Axes | None = None,
    *,
    bins=30,
    title: str = "",
    xlabel: str = "value",
) -> Axes:
    """Outlined histograms of one quantity in several groups, each to a sum of 100%; NaN are left out."""
    ax = ax or plt.subplots()[1]
    values = {name: np.asarray(group, dtype=float) for name, group in groups.items()}
    values = {name: group[np.isfinite(group)] for name, group in values.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins)
    for (name, group), colour, style in zip(values.items(), cycled(COLOURS), cycled(STYLES), strict=False):
        height = np.histogram(group, edges)[0] / max(len(group), 1)
        ax.stairs(
            height, edges, color=colour, linestyle=style, linewidth=1.9, label=f"{name} (n = {len(group):,})"
        )
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set(title=title, xlabel=xlabel, ylabel="share of the group")
    ax.legend(loc="best")
    return ax


def _levels(column: pd.Series) -> list:
    """A column's values in their order if it has one, else sorted."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [level for level in column.cat.categories if (column == level).any()]
    return sorted(column.dropna().unique())
