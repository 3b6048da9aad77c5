"""The figures on errors and heat maps: each takes what a study returns, and returns the figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.operating_points import OperatingPoint
from cxrlib.plots.style import (
    BLACK,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    MARKERS,
    ORANGE,
    PURPLE,
    SKY,
    STYLES,
    VERMILLION,
    as_text,
    dots,
    picture,
    rows_on,
)
from cxrlib.studies.attribution import TITLES


def curves(
    roc: pd.DataFrame,
    precision_recall: pd.DataFrame,
    numbers: Mapping[str, Estimate],
    points: Mapping[str, OperatingPoint] | None = None,
    prevalence: float | None = None,
) -> Figure:
    """ROC and precision–recall curve with bands (:func:`.mean_curve`), side by side.

    ``numbers`` has ``auc`` and ``average_precision``; ``points`` are marked on the ROC curve.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.9))
    for ax, table, key, name in (
        (axes[0], roc, "auc", "AUC"),
        (axes[1], precision_recall, "average_precision", "average precision"),
    ):
        ax.fill_between(table["x"], table["low"], table["high"], color=BLUE, alpha=0.18, linewidth=0)
        ax.plot(table["x"], table["y"], color=BLUE, label=f"{name} {numbers[key]}")
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes[0].plot([0, 1], [0, 1], ":", color=GREY, linewidth=1.2, label="chance: 0.500")
    for (point, colour), marker in zip(
        zip((points or {}).values(), COLOURS[1:], strict=False), MARKERS, strict=False
    ):
        found = point.numbers
        x, y = 1 - found["test_specificity"].value, found["test_sensitivity"].value
        axes[0].plot(x, y, marker, color=colour, markeredgecolor="white", markersize=9, zorder=5,
                     linestyle="none", label=point.title)  # fmt: skip
    axes[0].set(title="ROC curve", xlabel="false-positive rate (1 − specificity)", ylabel="sensitivity")
    if prevalence is not None:
        axes[1].axhline(
            prevalence, color=GREY, linestyle=":", linewidth=1.2, label=f"chance: {prevalence:.3f}"
        )
    axes[1].set(title="Precision–recall curve", xlabel="recall (sensitivity)", ylabel="precision")
    axes[0].legend(loc="lower right")
    axes[1].legend(loc="lower left")
    return figure


def operating_points(
    points: Mapping[str, OperatingPoint], values: pd.DataFrame, settings: Mapping[str, float]
) -> Figure:
    """What thresholds chosen on validation become on test, and the predictive values of one of them.

    - ``values``: :func:`cxrlib.evaluation.operating_points.predictive_values` over a range of prevalences.
    - ``settings``: name -> prevalence, marked.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.3), width_ratios=(1, 1, 1.15))
    heights = np.arange(len(points))[::-1]
    for ax, measure in zip(axes[:2], ("sensitivity", "specificity"), strict=True):
        for part, colour, marker, shift in (("val", SKY, "s", 0.14), ("test", VERMILLION, "o", -0.14)):
            found = [point.numbers[f"{part}_{measure}"] for point in points.values()]
            dots(ax, found, heights + shift, colour, marker, {"val": "validation", "test": "test"}[part])
        rows_on(ax, heights, [point.title if ax is axes[0] else "" for point in points.values()])
        ax.set(title=measure.capitalize(), xlabel=f"{measure} (95% interval)")
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5], prune="both"))
    axes[1].legend(loc="best")
    ax = axes[2]
    for name, label, colour, style in (
        ("ppv", "ill, of those alarmed (PPV)", BLUE, "-"),
        ("npv", "healthy, of those cleared (NPV)", GREEN, "--"),
    ):
        ax.fill_between(
            values["prevalence"], values[f"{name}_low"], values[f"{name}_high"], color=colour, alpha=0.18,
            linewidth=0,
        )  # fmt: skip
        ax.plot(values["prevalence"], values[name], style, color=colour, label=label)
    for name, share in settings.items():
        ax.axvline(share, color=GREY, linestyle=":", linewidth=1.3)
        ax.annotate(f"{name} {share:.1%}", (share, 1.01), xycoords=ax.get_xaxis_transform(), ha="center",
                    va="bottom", fontsize=9.5)  # fmt: skip
    ax.set_title("What an answer is worth", pad=26)
    ax.set(
        xscale="log", xlabel="share of ill patients", ylim=(0, 1.02),
        ylabel="share", xlim=(values["prevalence"].min(), values["prevalence"].max()),
    )  # fmt: skip
    ax.xaxis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 0.5]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return figure


def calibration(
    diagrams: Mapping[str, pd.DataFrame], numbers: Mapping[str, Mapping[str, Estimate]]
) -> Figure:
    """Reliability diagrams and the ECE with the floor that noise alone would give.

    - ``diagrams``: name -> :func:`cxrlib.evaluation.calibration.reliability`.
    - ``numbers``: name -> :func:`cxrlib.evaluation.calibration.calibration`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10.4, 4.7), width_ratios=(1.05, 1))
    ax = axes[0]
    ax.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1.3, label="calibrated")
    looks = dict(zip(diagrams, zip(COLOURS, MARKERS, STYLES, strict=False), strict=False))
    for i, (name, table) in enumerate(diagrams.items()):
        colour, marker, style = looks[name]
        errors = np.maximum(0, [table["frequency"] - table["low"], table["high"] - table["frequency"]])
        x = table["probability"] + 0.006 * (i - (len(diagrams) - 1) / 2)  # side by side, not on top
        ax.errorbar(x, table["frequency"], errors, fmt=marker, linestyle=style, color=colour, markersize=5.5,
                    elinewidth=1, linewidth=1.3, capsize=2, label=name)  # fmt: skip
    ax.set(
        title="Reliability diagram", xlabel="mean probability in the bin", ylabel="share with pneumonia",
        xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal",
    )  # fmt: skip
    ax.legend(loc="upper left")
    ax = axes[1]
    heights = np.arange(len(numbers))[::-1].astype(float)
    for height, (name, found) in zip(heights, numbers.items(), strict=True):
        colour, marker, _ = looks[name]
        floor = found["ece_floor"]
        label = "if calibrated: 95% of draws" if height == heights[0] else None
        ax.plot([floor.low, floor.high], [height - 0.2] * 2, "-", color=GREY, linewidth=7, alpha=0.45,
                solid_capstyle="butt", label=label)  # fmt: skip
        dots(ax, [found["ece"]], [height], colour, marker)
        ax.annotate(f"{found['ece']}", (found["ece"].value, height), (0, 9), textcoords="offset points",
                    ha="center", fontsize=9.5)  # fmt: skip
    rows_on(ax, heights, list(numbers))
    ax.set(title="Expected calibration error", xlabel="ECE (95% interval)")
    ax.set_xlim(left=0)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def subgroups(table: pd.DataFrame, overall: Mapping[str, float] | None = None, title: str = "") -> Figure:
    """A dot with its interval for each group, a panel for each measure (:mod:`cxrlib.evaluation.subgroups`).

    Groups whose difference from the others has an interval without zero are drawn filled in another colour.
    """
    measures = list(dict.fromkeys(table["measure"]))
    rows = list(dict.fromkeys(zip(table["division"], table["group"], strict=True)))
    heights, labels, at = {}, {}, 0.0
    for i, (division, group) in enumerate(rows):
        at -= 1.6 if i and rows[i - 1][0] != division else 1.0
        heights[division, group] = at
        first = table[(table["division"] == division) & (table["group"] == group)].iloc[0]
        # All healthy images are compared with each subtype: what differs in number is the ill.
        count = f"{first['positives']:,} ill" if division == "subtype" else f"n = {first['n']:,}"
        labels[at] = f"{as_text(division).replace('_', ' ')}: {as_text(group)} ({count})"
    figure, axes = plt.subplots(
        1, len(measures), figsize=(3.5 * len(measures) + 1.6, 1.5 - 0.31 * at), sharey=True, squeeze=False
    )
    for ax, measure in zip(axes[0], measures, strict=True):
        for row in table[table["measure"] == measure].itertuples():
            apart = np.isfinite(row.gap) and (row.gap_low > 0 or row.gap_high < 0)
            colour, marker = (VERMILLION, "D") if apart else (BLUE, "o")
            estimate = Estimate(row.value, row.low, row.high)
            dots(ax, [estimate], [heights[row.division, row.group]], colour, marker)
        if overall and measure in overall:
            ax.axvline(overall[measure], color=GREY, linestyle=":", linewidth=1.3)
        ax.set(title={"auc": "AUC"}.get(measure, measure.capitalize()), xlabel="95% interval")
        ax.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(list(labels), list(labels.values()))
    axes[0, 0].set_ylim(at - 0.6, -0.4)
    handles = [
        Line2D([], [], color=VERMILLION, marker="D", label="differs from the other groups (95%)"),
        Line2D([], [], color=BLUE, marker="o", label="does not"),
    ]
    if overall:
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="all"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12.5)
    return figure


def suspicion(numbers: Mapping[str, Estimate], words: Sequence[str] = ("no", "yes"), title: str = "") -> Axes:
    """How often labels are wrong among the suspects and the others.

    ``numbers`` are those of :func:`cxrlib.evaluation.label_errors.agreement`; ``words`` are what label 0 and
    label 1 say.
    """
    rows = {"all labels": "", f"label says {words[0]}": "label_0.", f"label says {words[1]}": "label_1."}
    rows = {name: prefix for name, prefix in rows.items() if f"{prefix}base" in numbers}
    _, ax = plt.subplots(figsize=(7.4, 1.6 + 0.75 * len(rows)))
    heights = np.arange(len(rows))[::-1].astype(float)
    for key, name, colour, marker, shift in (
        ("precision", "suspected", VERMILLION, "D", 0.16),
        ("unsuspected", "not suspected", BLUE, "o", -0.16),
    ):
        known = [(h, numbers.get(prefix + key)) for h, prefix in zip(heights, rows.values(), strict=True)]
        found = [(height, estimate) for height, estimate in known if estimate is not None]
        dots(ax, [e for _, e in found], [h + shift for h, _ in found], colour, marker, name)
        for height, estimate in found:
            ax.annotate(f"{estimate.value:.0%} of {estimate.n:,}", (1.02, height + shift), va="center",
                        xycoords=ax.get_yaxis_transform(), fontsize=9.5, annotation_clip=False)  # fmt: skip
    ax.plot([numbers[f"{prefix}base"].value for prefix in rows.values()], heights, "|", color=BLACK,
            markersize=22, markeredgewidth=1.6, label="all of the row", linestyle="none")  # fmt: skip
    rows_on(ax, heights, list(rows))
    ax.set(title=title or "How often the label is wrong", xlabel="share wrong (95% interval)")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlim(left=0)
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=3)
    return ax


def attribution(
    shares: Mapping[str, Mapping[str, Mapping[str, Estimate]]], randomisation: pd.DataFrame
) -> Figure:
    """Shares of attribution in regions against chance, and how maps change as weights turn to noise.

    - ``shares``: region -> method -> :func:`cxrlib.studies.attribution.localisation`.
    - ``randomisation``: :func:`cxrlib.studies.attribution.randomisation`.
    """
    figure, axes = plt.subplots(
        1, 2, figsize=(11.5, 1.9 + 1.05 * max(len(shares), 2.6)), width_ratios=(1, 1.1)
    )
    ax = axes[0]
    methods = list(next(iter(shares.values())))
    looks = dict(
        zip(methods, zip((BLUE, ORANGE, GREEN, PURPLE), MARKERS, STYLES, strict=False), strict=False)
    )
    for base, (_region, found) in zip(range(len(shares))[::-1], shares.items(), strict=True):
        shifts = np.linspace(0.24, -0.24, len(methods))
        for method, shift in zip(methods, shifts, strict=True):
            colour, marker, _ = looks[method]
            dots(ax, [found[method]["share"]], [base + shift], colour, marker,
                  TITLES.get(method, method) if base == 0 else None)  # fmt: skip
        area = found[methods[0]]["area"].value
        ax.plot([area] * 2, [base - 0.4, base + 0.4], "-", color=BLACK, linewidth=1.6,
                label="share of the image's area" if base == 0 else None)  # fmt: skip
    rows_on(ax, range(len(shares))[::-1], list(shares))
    ax.set(title="Where the attribution lies", xlabel="share of the positive attribution (95% interval)")
    ax.set_xlim(left=0)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9.5)
    ax = axes[1]
    for key, rows in randomisation.groupby("method", sort=False):
        method = str(key)
        colour, marker, style = looks.get(method, (GREY, "P", "-"))
        steps = rows[rows["step"] > 0]
        x, name = np.append(0, steps["step"]), TITLES.get(method, method)
        ax.plot(x, np.append(1, steps["correlation"]), marker, linestyle=style, color=colour, label=name,
                markersize=5)  # fmt: skip
        ax.fill_between(x, np.append(1, steps["low"]), np.append(1, steps["high"]), color=colour, alpha=0.18,
                        linewidth=0)  # fmt: skip
        other = rows.loc[rows["step"] == 0, "correlation"]
        if len(other):
            ax.axhline(other.iloc[0], color=colour, linestyle=":", linewidth=1.4,
                       label=f"{name}: another image's map")  # fmt: skip
    ax.axhline(0, color=GREY, linewidth=0.8)
    blocks = randomisation.loc[randomisation["step"] > 0, "step"].max()
    ax.set(
        title="Maps while the weights turn to noise", ylabel="rank correlation with the trained network's",
        xlabel=f"blocks made random, from the logit down (of {blocks})", ylim=(-0.5, 1.04),
    )  # fmt: skip
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9.5)
    return figure


def heat_maps(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    outlines: np.ndarray | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Images above their positive attributions, one row a method, the colours' scale beside them; outlines of
    lesions where given.

    ``images``: uint8 (N, H, W); ``maps``: method -> float (N, H, W); ``outlines``: 0/1 (N, H, W).
    """
    figure, axes = plt.subplots(
        1 + len(maps), len(images), figsize=(1.35 * len(images) + 0.5, 1.35 * (1 + len(maps)) + 0.3),
        squeeze=False,
    )  # fmt: skip
    for column, image in enumerate(images):
        for row, (_name, drawn) in enumerate([("image", None), *maps.items()]):
            ax = axes[row, column]
            picture(ax, image)
            if drawn is not None:
                positive = np.maximum(drawn[column], 0)
                scale = np.quantile(positive, 0.995)
                heat = np.clip(positive / scale, 0, 1) if scale > 0 else positive
                ax.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.25 + 0.6 * heat)
            if outlines is not None and outlines[column].any():
                ax.contour(outlines[column], levels=[0.5], colors=[SKY], linewidths=1.3)
    colours = ScalarMappable(Normalize(0, 1), "inferno")
    bar = figure.colorbar(colours, ax=axes[1:], ticks=[0, 0.5, 1], aspect=12 * len(maps), pad=0.01)
    bar.set_label("heat (1: each\nmap's highest)", fontsize=9)
    bar.ax.tick_params(labelsize=9)
    for row, name in enumerate(["image", *(TITLES.get(name, name) for name in maps)]):
        axes[row, 0].set_ylabel(name.replace(" ", "\n"), fontsize=10)
    for ax, text in zip(axes[0], titles or [], strict=False):
        ax.set_title(as_text(text), fontsize=9, fontweight="normal", loc="center", pad=3)
    return figure


def chexnet(numbers: Mapping[str, Estimate], findings: pd.DataFrame, finding: str = "Pneumonia") -> Figure:
    """A finding's AUC taken apart by projection, and every finding's AUC in each view.

    From :func:`cxrlib.studies.chexnet.by_view` and :func:`cxrlib.studies.chexnet.findings_by_view`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(12, 5.4), width_ratios=(1, 1.15))
    ax = axes[0]
    rows = {"all pairs": "all", "both PA": "PA", "both AP": "AP", "same view": "same_view"}
    rows |= {"ill AP, healthy PA": "AP_with_PA_without", "ill PA, healthy AP": "PA_with_AP_without"}
    heights = np.arange(len(rows))[::-1].astype(float)
    for height, key in zip(heights, rows.values(), strict=True):
        one, across = numbers[f"{key}.auc"], "with" in key
        dots(ax, [one], [height], VERMILLION if across else BLUE, "D" if across else "o")
        share = numbers.get(f"{key}.share")
        text = f"{one}" + (f"\n{share.value:.0%} of the pairs" if share is not None else "")
        ax.annotate(text, (1.02, height), xycoords=ax.get_yaxis_transform(), va="center", fontsize=9.5,
                    annotation_clip=False)  # fmt: skip
    rows_on(ax, heights, list(rows))
    ax.set(title=f"{finding}: AUC by the pair's views", xlabel="AUC (95% interval)")
    ax = axes[1]
    ordered = findings.sort_values("gap")
    heights = np.arange(len(ordered)).astype(float)
    for view, colour, marker, shift in (("PA", BLUE, "o", 0.15), ("AP", VERMILLION, "D", -0.15)):
        found = [Estimate(*one) for one in ordered[[view, f"{view}_low", f"{view}_high"]].to_numpy()]
        dots(ax, found, heights + shift, colour, marker, view)
    names = [
        f"{str(name).replace('_', ' ').lower()} ({row.PA_positives:,.0f}, {row.AP_positives:,.0f})"
        for name, row in ordered.iterrows()
    ]
    rows_on(ax, heights, names, top=0.7)
    ax.tick_params(axis="y", labelsize=9.5)
    ax.set(title="Every finding, by view", xlabel="AUC (95%); in brackets: with the finding in PA, AP")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    return figure
