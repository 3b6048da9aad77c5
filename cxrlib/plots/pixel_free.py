"""How far one gets without a picture, data set by data set."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cxrlib.evaluation.metrics import Estimate
from cxrlib.plots.style import BLACK, BLUE, GREY, VERMILLION
from cxrlib.studies.pixel_free import REPORTED, SIGHT


def without_a_picture(numbers: Mapping[str, Estimate], ax: Axes | None = None) -> Axes:
    """AUCs for pneumonia from the columns of each table, from its best column alone, and of networks.

    ``numbers``: those of :class:`cxrlib.studies.pixel_free.Without`.
    """
    if ax is None:
        ax = plt.subplots(figsize=(8.6, 5.4), layout="constrained")[1]
    names = [key.split(".")[0] for key in numbers if key.count(".") == 2 and key.endswith(".pneumonia.auc")]
    names = [name for name in names if "_to_" not in name]
    rows: list[tuple[str, str, str]] = []
    for name in sorted(names, key=lambda name: numbers[f"{name}.pneumonia.auc"].value):
        rows.append((name, f"{name}.pneumonia", name))
        if f"{name}.pneumonia.uncertain_positive.auc" in numbers:
            rows.append((f"{name}, unsure\ncounted as ill", f"{name}.pneumonia.uncertain_positive", ""))
    for height, (_, key, name) in enumerate(rows):
        every = numbers[f"{key}.auc"]
        if every.low is not None and every.high is not None:
            ax.plot([every.low, every.high], [height] * 2, "-", color=BLUE, linewidth=3)
        ax.plot(every.value, height, "o", color=BLUE, markersize=9, markeredgecolor="white", zorder=4)
        _write(ax, f"{every.value:.3f}", max(every.value, every.high or 0), height, BLUE)
        found = {column: f"{key}.{column}.auc" for column in SIGHT}
        single = {column: numbers[auc].value for column, auc in found.items() if auc in numbers}
        for column in sorted(single, key=single.__getitem__)[-1:]:
            value, low = single[column], height - 0.3
            ax.plot(value, low, "D", color="white", markeredgecolor=VERMILLION, markersize=7, zorder=4)
            _write(ax, f"{column.replace('_', ' ')} {value:.3f}", value, low, VERMILLION)
        for paper, auc in REPORTED.get(name, {}).items():
            ax.plot(auc, height + 0.3, "s", color=GREY, markersize=8, zorder=3)
            _write(ax, f"{paper} {auc:.3f}", auc, height + 0.3, BLACK)
    ax.axvline(0.5, color=BLACK, linestyle="--", linewidth=1.2)
    ax.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    ax.set(title="Pneumonia, guessed from the table without a picture", xlim=(0.46, 0.96),
           xlabel="AUC on held-out patients (95% interval)", ylim=(-0.6, len(rows) - 0.4))  # fmt: skip
    ax.grid(axis="y", visible=False)
    marks = [
        Line2D([], [], color=BLUE, marker="o", linestyle="-", linewidth=3, label="all columns, no picture"),
        Line2D(
            [],
            [],
            color=VERMILLION,
            marker="D",
            markerfacecolor="white",
            linestyle="",
            label="best single column",
        ),
        Line2D([], [], color=GREY, marker="s", linestyle="", label="networks, as published"),
        Line2D([], [], color=BLACK, linestyle="--", linewidth=1.2, label="guessing"),
    ]
    ax.figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize=9.5)
    return ax


def _write(ax: Axes, text: str, x: float, y: float, colour: str) -> None:
    ax.annotate(text, (x, y), (8, 0), textcoords="offset points", va="center", fontsize=9, color=colour)
