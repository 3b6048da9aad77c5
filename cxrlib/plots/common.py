"""Figures: each function takes data and perhaps an axis, draws, and returns the axis.

Colours are Okabe and Ito's, told apart with any colour vision (https://jfly.uni-koeln.de/color/); line
styles, markers and hatches say the same in greyscale. Figures of one chapter alone are in
:mod:`cxrlib.plots.eda` and :mod:`cxrlib.plots.training`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike

from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate, average_precision, bootstrap
from cxrlib.evaluation.operating_points import mean_curve
from cxrlib.plots.style import (
    BLACK,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    STYLES,
    VERMILLION,
    apply_style,
    as_text,
    cycled,
    rows_on,
)

if TYPE_CHECKING:
    from matplotlib.typing import ColorType, LineStyleType

__all__ = [
    "COLOURS", "apply_style", "differences", "image_grid", "intervals", "precision_recall", "roc",
    "training_curves",
]  # fmt: skip


def training_curves(
    history: pd.DataFrame | Sequence[pd.DataFrame], axes: Sequence[Axes] | None = None, title: str = ""
) -> np.ndarray:
    """Loss and AUC on training and validation images, one line for each run, the best check-in starred.

    - ``history``: what ``Trainer.fit`` returns, or one for each seed: columns epoch, train_loss, val_loss,
      train_auc, val_auc.
    - ``axes``: two axes, for the loss and the AUC.
    - Returns: array of two axes
    """
    runs = [history] if isinstance(history, pd.DataFrame) else list(history)
    if not runs or any(run.empty for run in runs):
        raise DataError("There is no training history to draw.", remedy="Train for at least one check-in.")
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(9.6, 3.8))[1]
    alpha = 1.0 if len(runs) == 1 else 0.75
    for ax, quantity, name in zip(axes, ("loss", "auc"), ("Loss", "AUC"), strict=True):
        for i, run in enumerate(runs):
            best, first = run.iloc[run["val_loss"].to_numpy().argmin()], i == 0
            for part, style, colour, word in (
                ("train", "--", BLUE, "training"), ("val", "-", VERMILLION, "validation"),
            ):  # fmt: skip
                ax.plot("epoch", f"{part}_{quantity}", style, data=run, color=colour, alpha=alpha,
                        label=word * first)  # fmt: skip
            ax.plot(best["epoch"], best[f"val_{quantity}"], "*", markersize=13, color=BLACK, zorder=5,
                    markeredgecolor="white", label="best validation loss" * first)  # fmt: skip
        ax.set(title=name if not title else f"{title}: {name if name == 'AUC' else 'loss'}", xlabel="epoch")
        ax.set_ylabel("binary cross-entropy (nats)" if quantity == "loss" else "area under the ROC curve")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(loc="best")
    return np.asarray(axes)


def roc(
    labels: ArrayLike,
    scores: ArrayLike,
    patients: ArrayLike | None = None,
    ax: Axes | None = None,
    **look: Any,
) -> Axes:
    """ROC curve with a 95% bootstrap band by patient; call again on the same axis for another model.

    - ``labels``, ``scores``, ``patients``: as for :func:`cxrlib.evaluation.metrics.bootstrap`.
    - ``look``: ``label`` names the model, ``threshold`` marks its operating point, ``band=False`` leaves out
      the band; ``replicates`` (500) and ``seed`` (0) are the bootstrap's.
    """
    ax, first = _curve_axis(ax, "ROC curve", "false-positive rate (1 − specificity)", "sensitivity")
    if first:
        ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="chance: 0.500", zorder=1)
    from sklearn.metrics import roc_curve

    fpr, tpr, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    at = lambda threshold: int(np.flatnonzero(thresholds >= threshold)[-1])  # noqa: E731
    return _curve(ax, "roc", (labels, scores, patients), (fpr, tpr), at, "lower right", **look)


def precision_recall(
    labels: ArrayLike,
    scores: ArrayLike,
    patients: ArrayLike | None = None,
    ax: Axes | None = None,
    **look: Any,
) -> Axes:
    """Precision–recall curve with a 95% bootstrap band by patient; otherwise as :func:`roc`."""
    ax, first = _curve_axis(ax, "Precision–recall curve", "recall (sensitivity)", "precision")
    if first:
        share = average_precision(labels, np.zeros(len(np.asarray(labels))))
        ax.axhline(share, color=GREY, linestyle=":", linewidth=1.2, label=f"chance: {share:.3f}", zorder=1)
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(labels, scores)
    found = recall > 0  # above the highest-scored positive, precision means nothing
    precision, recall = np.append(precision[found], precision[found][-1]), np.append(recall[found], 0)
    at = lambda threshold: min(int(np.searchsorted(thresholds, threshold)), len(recall) - 2)  # noqa: E731
    where = "lower left" if np.mean(np.asarray(labels) == 1) > 0.4 else "upper right"
    data = (labels, scores, patients)
    return _curve(ax, "precision_recall", data, (recall, precision), at, where, **look)


def intervals(
    rows: Mapping[str, Estimate],
    ax: Axes | None = None,
    *,
    title: str = "",
    xlabel: str = "AUC (95% interval)",
    references: Mapping[str, float] | None = None,
    spec: str = ".3f",
) -> Axes:
    """Estimates with their intervals, one a row, the first on top, the numbers beside (a forest plot).

    ``references`` are vertical lines, such as ``{"chance": 0.5}``; ``spec`` formats the numbers.
    """
    ax = ax or plt.subplots(figsize=(7.6, 1.5 + 0.42 * len(rows)))[1]
    heights = np.arange(len(rows))[::-1]
    for height, estimate in zip(heights, rows.values(), strict=True):
        _dot(ax, estimate, height, BLUE)
        ax.text(
            1.02, height, format(estimate, spec), transform=ax.get_yaxis_transform(), va="center", fontsize=10
        )
    _references(ax, references, 44)
    rows_on(ax, heights, list(map(as_text, rows)))
    ax.set(title=title, xlabel=xlabel)
    return ax


def differences(
    estimates: pd.DataFrame, rows: Mapping[str, str], panels: Mapping[str, str], xlabel: str
) -> Figure:
    """Arms against a control, one row an arm and one panel a measure, with 95% intervals.

    A circle is filled where Holm's p is below 0.05.

    - ``estimates``: a study's estimates: columns name, value, low, high, p_holm.
    - ``rows``: label of each row, and what its names begin with: a row and a panel meet at
      ``"prefix.measure"``.
    - ``panels``: measure to the panel's title.
    """
    table = estimates.set_index("name")
    heights = np.arange(len(rows))[::-1]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3 + 3.2 * len(panels), 1.7 + 0.46 * len(rows)), layout="constrained",
        sharey=True, squeeze=False,
    )  # fmt: skip
    circle: dict[str, Any] = {
        "color": BLUE,
        "marker": "o",
        "markersize": 8,
        "markeredgewidth": 1.6,
        "zorder": 4,
    }
    for ax, (measure, title) in zip(axes[0], panels.items(), strict=True):
        for prefix, height in zip(rows.values(), heights, strict=True):
            e = table.loc[f"{prefix}.{measure}"]
            ax.plot([e["low"], e["high"]], [height] * 2, "-", color=BLUE, linewidth=2)
            ax.plot(e["value"], height, markerfacecolor=BLUE if e["p_holm"] < 0.05 else "white", **circle)
            ax.annotate(
                f"{e['value']:+.3f}".replace("-", "−"), (e["value"], height), (0, 8), fontsize=9,
                textcoords="offset points", ha="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
        ax.axvline(0, color=GREY, linestyle=":", linewidth=1.4)
        ax.set(title=title, xlabel=xlabel, ylim=(-0.6, len(rows) - 0.3))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(heights, list(rows))
    marks = [
        Line2D([], [], linestyle="", markerfacecolor=face, label=label, **circle)
        for face, label in ((BLUE, "p < 0.05 after Holm"), ("white", "not established"))
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=2)
    return figure


def image_grid(
    images: np.ndarray,
    titles: Sequence[str] | None = None,
    masks: Mapping[str, np.ndarray] | None = None,
    columns: int = 6,
    axes: np.ndarray | None = None,
    title: str = "",
) -> np.ndarray:
    """Radiographs side by side with the outlines of masks.

    ``images``: uint8, (N, H, W), 0–255. ``masks``: name to uint8 0/1 of the same shape, each outlined in a
    colour and a line style of its own. Returns the axes, (rows, columns).
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    if axes is None:
        height, width = images.shape[1:]
        size = (1.75 * columns, (1.75 * height / width + (0.3 if titles is not None else 0.05)) * rows + 0.5)
        axes = plt.subplots(rows, columns, figsize=size, squeeze=False)[1]
    styles: tuple[LineStyleType, ...] = ("-", "--", ":")
    looks = list(zip((masks or {}).items(), (ORANGE, SKY, GREEN), styles, strict=False))
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (ax, image) in enumerate(zip(axes.flat, images, strict=False)):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255)
        for (_, outlined), colour, style in looks:
            mask = outlined[i]
            if mask.any() and not mask.all():  # an outline needs an inside and an outside
                ax.contour(mask, levels=[0.5], colors=[colour], linestyles=[style], linewidths=1.4)
        if titles is not None:
            ax.set_title(as_text(titles[i]), fontsize=9, fontweight="normal", loc="center", pad=3)
    figure = axes.flat[0].figure
    if looks:
        lines = [Line2D([], [], color=colour, linestyle=style) for _, colour, style in looks]
        figure.legend(
            lines, [name for (name, _), _, _ in looks], loc="outside lower center", ncols=len(looks)
        )
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12.5)
    return axes


def _curve_axis(ax: Axes | None, title: str, xlabel: str, ylabel: str) -> tuple[Axes, bool]:
    """An axis for a curve in the unit square, and whether it is still empty."""
    ax = ax or plt.subplots(figsize=(5.4, 5.2))[1]
    first = not ax.lines
    if first:
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        ax.set_aspect("equal")
    return ax, first


def _curve(
    ax: Axes,
    kind: Literal["roc", "precision_recall"],
    data: tuple[ArrayLike, ArrayLike, ArrayLike | None],
    curve: tuple[np.ndarray, np.ndarray],
    at: Callable[[float], int],
    legend: Any,
    *,
    label: str = "",
    threshold: float | None = None,
    band: bool = True,
    replicates: int = 500,
    seed: int = 0,
) -> Axes:
    """Draw a curve, its band and its operating point, and name its area; ``at``: threshold to its place."""
    metric, name = {"roc": ("auc", "AUC"), "precision_recall": ("average_precision", "average precision")}[
        kind
    ]
    estimate = bootstrap(*data, (metric,), replicates=replicates, seed=seed)[metric]
    count = sum(line.get_gid() == "curve" for line in ax.lines)
    text = f"{label}: {estimate}" if label else f"{name} {estimate}"
    look: dict[str, Any] = {"color": COLOURS[count % len(COLOURS)], "linestyle": STYLES[count % len(STYLES)]}
    steps: dict[str, Any] = {} if kind == "roc" else {"drawstyle": "steps-post"}
    line = ax.plot(*curve, label=text, gid="curve", **look, **steps)[0]
    if band:
        labels, scores, patients = data
        drawn = mean_curve(labels, [scores], patients, kind, replicates=replicates, seed=seed)
        limits = drawn["x"], drawn["low"], drawn["high"]
        ax.fill_between(*limits, color=line.get_color(), alpha=0.16, linewidth=0)
    if threshold is not None:
        x, y = (values[at(threshold)] for values in curve)
        _operating_point(ax, x, y, line.get_color(), threshold)
    ax.legend(loc=legend, title=f"{name[0].upper()}{name[1:]} (95% interval)" if label else None)
    return ax


def _operating_point(ax: Axes, x: float, y: float, colour: ColorType, threshold: float) -> None:
    ax.plot(x, y, "o", color=colour, markeredgecolor="white", markersize=9, zorder=5)
    side, offset = ("left", (9, -12)) if x < 0.6 else ("right", (-9, -12))
    text = f"threshold {threshold:.2f}"
    ax.annotate(text, (x, y), offset, textcoords="offset points", ha=side, fontsize=9.5)


def _dot(ax: Axes, estimate: Estimate, height: float, colour: str) -> None:
    if estimate.low is not None and estimate.high is not None:
        ax.plot(
            [estimate.low, estimate.high], [height, height], "-|", color=colour, linewidth=2, markersize=7
        )
    ax.plot(estimate.value, height, "o", color=colour, markeredgecolor="white", markersize=8, zorder=4)


def _references(ax: Axes, references: Mapping[str, float] | None, points_below: float) -> None:
    """Named vertical lines, with their legend so many points below the axis."""
    for (name, value), style in zip((references or {}).items(), cycled((":", "--", "-.")), strict=False):
        ax.axvline(value, color=GREY, linestyle=style, linewidth=1.4, zorder=1, label=f"{name}: {value:g}")
    if references:
        below = ax.transAxes + ScaledTranslation(0, -points_below / 72, ax.figure.dpi_scale_trans)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, borderaxespad=0)
