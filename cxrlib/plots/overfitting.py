"""Figures on overfitting: each takes a study of :mod:`cxrlib.studies.overfitting` or ``leakage``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FormatStrFormatter,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from cxrlib.plots.common import differences
from cxrlib.plots.style import BLACK, BLUE, GREEN, GREY, VERMILLION, limits
from cxrlib.studies.overfitting import power_law_of
from cxrlib.studies.study import Study

TRAIN = {"color": BLUE, "linestyle": "--"}
HELD_OUT = {"color": VERMILLION, "linestyle": "-"}


def gap(study: Study) -> Figure:
    """Accuracy, AUC and loss on training and validation images over the epochs, one line a seed, and the
    last epoch's accuracy on test images.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.7), layout="constrained")
    titles = {"accuracy": "Accuracy at ½", "auc": "AUC", "loss": "Loss"}
    for ax, (metric, title) in zip(axes, titles.items(), strict=True):
        for number, (_, run) in enumerate(study.runs.groupby("seed")):
            first = number == 0
            for part, look, name in (("train", TRAIN, "training"), ("val", HELD_OUT, "validation")):
                ax.plot(run["epoch"], run[f"{part}_{metric}"], **look, linewidth=1.5, alpha=0.85,
                        label=name * first)  # fmt: skip
            best = run.iloc[run["val_loss"].argmin()]
            ax.plot(best["epoch"], best[f"val_{metric}"], "*", color=BLACK, markersize=13, zorder=5,
                    markeredgecolor="white", label="lowest validation loss" * first)  # fmt: skip
        ax.set(title=title, xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    tested, after = study.numbers["last.test_accuracy"], 1.06 * study.runs["epoch"].max() + 1
    low, high = limits([tested])
    spread = [tested.value - low, high - tested.value]
    axes[0].errorbar(after, tested.value, spread, fmt="D", color=BLACK, capsize=3, label="test, last epoch")
    axes[0].annotate(f"{tested.value:.1%}", (after, tested.value), (-8, 0), textcoords="offset points",
                     ha="right", va="center", fontsize=9)  # fmt: skip
    axes[0].axhline(0.95, color=GREY, linestyle=":", linewidth=1.2)
    axes[0].annotate("95%", (1, 0.95), (2, 0), xycoords=("axes fraction", "data"),
                     textcoords="offset points", va="center", fontsize=9, color=GREY)  # fmt: skip
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[2].set_ylabel("binary cross-entropy (nats)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def dataset_size(study: Study, part: str = "test") -> Figure:
    """1 − AUC against training images on logarithmic axes, the power law, and what it said of larger sets."""
    runs, law = study.runs, power_law_of(study.runs)
    figure, ax = plt.subplots(figsize=(6.6, 4.4), layout="constrained")
    for fitted, colour, marker, name in (
        (True, BLUE, "o", "fitted"),
        (False, VERMILLION, "s", "held out of the fit"),
    ):
        some = runs[runs["fitted"] == fitted]
        ax.plot(some["images"], some["error"], marker, color=colour, markersize=5, alpha=0.5)
        mean = some.groupby("size")[["images", "error"]].mean()
        ax.plot(mean["images"], mean["error"], marker, color=colour, markersize=9, markeredgecolor="white",
                label=f"mean over seeds, {name}")  # fmt: skip
    last = runs.loc[runs["fitted"], "images"].max()
    for low, high, style in ((runs["images"].min(), last, "-"), (last, runs["images"].max(), "--")):
        n = np.geomspace(low, high, 50)
        fit = f"fit: {law.a:.3g} · $n^{{{-law.b:.2f}}}$"
        label = fit if style == "-" else "its extrapolation, 95% interval"
        ax.plot(n, law(n), style, color=BLACK, linewidth=1.4, label=label)
        if style == "--":
            seeds = runs["seed"].nunique()
            band = limits([law.predict(one, seeds) for one in n])
            ax.fill_between(n, *band, color=BLACK, alpha=0.1, linewidth=0)
    _log(ax, sorted(runs.groupby("size")["images"].mean().round()))
    ax.set(title="How the error falls with data", xlabel="training images", ylabel=f"1 − AUC, {part}")
    ax.legend(loc="best")
    return figure


def capacity(study: Study) -> Figure:
    """Training and test AUC against the number of parameters."""
    figure, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for column, look, marker, name in (
        ("train_auc", TRAIN, "o", "training"),
        ("val_auc", {"color": GREEN, "linestyle": "-."}, "^", "validation"),
        ("test_auc", HELD_OUT, "s", "test"),
    ):
        mean = study.runs.groupby("parameters")[column].mean()
        ax.plot(study.runs["parameters"], study.runs[column], marker, color=look["color"], alpha=0.35, ms=4)
        ax.plot(mean.index, mean, marker=marker, markersize=7, markeredgecolor="white", label=name,
                color=look["color"], linestyle=look["linestyle"])  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(study.runs["parameters"].unique().tolist()))
    ax.xaxis.set_major_formatter(FuncFormatter(_short))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_minor_locator(FixedLocator([]))
    ax.set(title="A wider network, the same steps", xlabel="parameters", ylabel="area under the ROC curve")
    ax.legend(loc="best")
    return figure


def regularisers(study: Study) -> Figure:
    """What each regulariser changes against none, with intervals; filled where Holm's p is below 0.05."""
    arms = [arm for arm in study.runs["arm"].unique() if arm != "none"]
    return differences(
        study.estimates,
        {arm: arm.replace(" ", "_") for arm in arms},
        {"test_auc_gain": "Gain in test AUC", "gap_closed": "Narrowing of the gap"},
        "difference of AUC to no regulariser (95%)",
    )


def random_labels(study: Study) -> Figure:
    """Training accuracy against steps under true and under shuffled labels, one line a seed."""
    figure, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    looks = {"true": (BLUE, "-", "o"), "random": (VERMILLION, "--", "s")}
    for (kind, seed), run in study.runs.groupby(["labels", "seed"], sort=False):
        colour, style, marker = looks[str(kind)]
        first = bool(seed == study.runs["seed"].iloc[0])
        ax.plot(run["step"], run["train_accuracy"], style, color=colour, linewidth=1.6,
                label=f"{kind} labels" * first)  # fmt: skip
        ax.plot(run["step"].iloc[-1], run["train_accuracy"].iloc[-1], marker, color=colour, markersize=7,
                markeredgecolor="white")  # fmt: skip
    for level in (0.95, 0.99):
        ax.axhline(level, color=GREY, linestyle=":", linewidth=1.2)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set(title="Learning by heart", xlabel="step", ylabel="training accuracy")
    ax.legend(loc="lower right")
    return figure


def leakage(studies: Mapping[str, Study]) -> Figure:
    """Test AUC of each split by image and by patient, a panel for each cohort, beside the truth if known."""
    figure, axes = plt.subplots(
        1, len(studies), figsize=(1.0 + 4.6 * len(studies), 4.2), layout="constrained", squeeze=False
    )
    for ax, (name, study) in zip(axes[0], studies.items(), strict=True):
        runs, numbers = study.runs, study.numbers
        columns = [("test_auc", VERMILLION, "o", "on its own test images")]
        columns += [("true_auc", GREEN, "D", "on fresh patients")] if "true_auc" in runs else []
        for column, colour, marker, label in columns:
            wide = runs.pivot(index="split_seed", columns="arm", values=column)[["by image", "by patient"]]
            shift = 0.0 if len(columns) == 1 else {"test_auc": -0.09, "true_auc": 0.09}[column]
            for _, pair in wide.iterrows():
                ax.plot([shift, 1 + shift], pair, "-", color=colour, linewidth=0.8, alpha=0.45)
            for x, arm in enumerate(wide.columns):
                e = numbers[f"{arm.replace(' ', '_')}.{column}"]
                if e.low is not None:
                    ax.plot([x + shift] * 2, [e.low, e.high], "-", color=colour, linewidth=2.4)
                ax.plot(x + shift, e.value, marker, color=colour, markersize=9, markeredgecolor="white",
                        zorder=4, label=label if x == 0 else None)  # fmt: skip
        ax.set_xticks([0, 1], ["split by image", "split by patient"])
        ax.set(title=name, xlim=(-0.45, 1.45), ylabel="AUC")
        ax.grid(axis="x", visible=False)
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes[0]), key=lambda pair: len(pair[0]))
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def selection(study: Study) -> Figure:
    """The gain from picking the best of k, where it was picked and on fresh images."""
    figure, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for column, colour, style, marker, label in (
        ("gain_selected", VERMILLION, "-", "o", "on the test images it was picked on"),
        ("gain_fresh", GREEN, "--", "D", "on other images"),
    ):
        by_k = study.runs.groupby("k")[column]
        k = np.array(list(by_k.groups), dtype=float)
        ax.fill_between(k, by_k.quantile(0.025), by_k.quantile(0.975), color=colour, alpha=0.13, linewidth=0)
        ax.plot(k, by_k.mean(), style, color=colour, marker=marker, markersize=7, markeredgecolor="white",
                label=label)  # fmt: skip
    ax.axhline(0, color=GREY, linestyle=":", linewidth=1.2)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(k.tolist()))
    ax.xaxis.set_major_formatter(FormatStrFormatter("%d"))
    ax.set(title="Picking the best of k networks", xlabel="k", ylabel="gain in AUC over their mean")
    ax.legend(loc="upper left")
    return figure


def _log(ax: Axes, x: Sequence[float]) -> None:
    """Logarithmic axes with ticks a reader can use: the sizes themselves, and 1, 2, 5 of each decade."""
    ax.set(xscale="log", yscale="log")
    ax.xaxis.set_major_locator(FixedLocator(x))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_locator(FixedLocator([]))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%.3g"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _short(value: float, _: int | None = None) -> str:
    return f"{value / 1e6:.1f} M" if value >= 999_500 else f"{value / 1e3:,.3g} k"
