"""The figure of ``make bench``."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from cxrlib.io.storage import atomic_path
from cxrlib.plots.style import BLUE, GREY, VERMILLION, apply_style
from cxrlib.report.site.speed import measured


def ratios(record: dict, ax: Axes | None = None) -> Axes:
    """How many times as fast as the peer, with the range of the pairs, and what was aimed at (log axis).

    A circle is filled where the median reaches the target.
    """
    rows = measured(record)
    if ax is None:
        apply_style()
        ax = plt.subplots(figsize=(8.6, 1.6 + 0.5 * len(rows)))[1]
    heights = range(len(rows))[::-1]
    for row, height in zip(rows, heights, strict=True):
        ax.plot([row["low"], row["high"]], [height] * 2, "-|", color=BLUE, linewidth=2, markersize=7)
        ax.plot(row["target"], height, "|", color=VERMILLION, markersize=20, markeredgewidth=2.4, zorder=3)
        face = BLUE if row["ratio"] >= row["target"] else "white"
        ax.plot(row["ratio"], height, "o", zorder=4, markerfacecolor=face, markeredgecolor=BLUE, markersize=9,
                markeredgewidth=1.6)  # fmt: skip
        ax.text(
            1.02, height, f"{row['ratio']:.3g} ({row['low']:.3g}–{row['high']:.3g})",
            transform=ax.get_yaxis_transform(), va="center", fontsize=10,
        )  # fmt: skip
    ax.axvline(1, color=GREY, linestyle=":", linewidth=1.4, zorder=1)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_yticks(list(heights), [row["name"] for row in rows])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(axis="y", visible=False)
    ax.set(title="Speed against the peer", xlabel="times the peer's rate: median, smallest and largest pair")
    marks = [
        Line2D([], [], linestyle="", marker="o", color=BLUE, label="reached"),
        Line2D([], [], linestyle="", marker="o", color=BLUE, markerfacecolor="white", label="missed"),
        Line2D([], [], linestyle="", marker="|", color=VERMILLION, markersize=14, markeredgewidth=2.4,
               label="aimed at"),
    ]  # fmt: skip
    ax.figure.legend(handles=marks, loc="outside lower center", ncols=3)
    return ax


def save(ax: Axes, path: Path) -> None:
    """Write the figure, and close it."""
    figure = ax.figure.figure  # the whole figure, also of a subfigure's axis
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
