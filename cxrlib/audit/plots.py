"""Figures of audits: a scorecard, how strong a shortcut has to be to be found, and what a classifier uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from cxrlib.audit.interventions import Effect
from cxrlib.audit.rules import PROBES
from cxrlib.audit.rules import WARNING_AUC as USEFUL
from cxrlib.audit.run import Audit
from cxrlib.audit.study import Named
from cxrlib.audit.verdicts import USED, USED_ALONE, VISIBLE, Asked
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.results import Record, project_root, read_record
from cxrlib.plots.style import BLACK, COLOURS, GREY, ORANGE, SKY, VERMILLION, as_text

#: Colour, marker and name of each severity; they differ in grey, too.
LOOKS = {
    "severe": (VERMILLION, "s", "severe"),
    "warning": (ORANGE, "^", "warning"),
    "note": (SKY, "o", "note (may be disease, or too little)"),
    "fine": (GREY, ".", "fine"),
}
CONFOUNDERS = ("marker", "portable", "collimation", "exposure", "devices", "projection")
_PLAIN = {"marker": "lead letter", "portable": "burned-in text"}


def scorecard(audit: Audit) -> Figure:
    """The AUC of every probe with its interval, worst finding on top."""
    asked = [one for one in audit.findings if one.probe.group != "split"]
    found = [(one, one.auc) for one in asked if one.auc is not None][::-1]
    figure, ax = plt.subplots(figsize=(8, 0.29 * len(found) + 1.4), layout="constrained")
    for row, (one, auc) in enumerate(found):
        colour, marker, _ = LOOKS[one.severity]
        ax.plot(_limits(auc), [row, row], color=colour, linewidth=2.4, linestyle="-")
        ax.plot(auc.value, row, marker, color=colour, markersize=7, markeredgecolor=BLACK)
    ax.axvline(0.5, color=BLACK, linewidth=1, linestyle="-")
    whole = next(auc.value for one, auc in found if one.probe.name == "whole")
    ax.axvline(whole, color=GREY, linewidth=1, linestyle=":")
    ax.annotate(" whole image", (whole, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
                textcoords="offset points", ha="center", fontsize=9, color=GREY)  # fmt: skip
    ax.set_yticks(range(len(found)), [as_text(one.probe.title) for one, _ in found], fontsize=9.5)
    ax.set(xlabel="AUC on held-out patients, 95% interval", xlim=(min(0.4, ax.get_xlim()[0]), 1.0))
    ax.grid(axis="y", visible=False)
    handles = [
        Line2D([], [], color=colour, marker=marker, markeredgecolor=BLACK, linestyle="-", label=name)
        for colour, marker, name in LOOKS.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def strata_named(named: Named) -> Figure:
    """How far each probe's score parts two strata (left), and the kinds of image that hold them (right)."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.5, 5), layout="constrained", gridspec_kw={"width_ratios": (1, 1.2)}
    )
    looks = {"machine": (VERMILLION, "s"), "washed_out": (SKY, "o")}
    probes = [name.split(".")[1] for name in named.numbers if name.startswith("machine.")]
    names = [name for name in dict.fromkeys(probes) if f"machine.{name}.auc" in named.numbers][::-1]
    for shift, (stratum, (colour, marker)) in zip((0.15, -0.15), looks.items(), strict=True):
        for row, name in enumerate(names):
            one = named.numbers[f"{stratum}.{name}.auc"]
            left.plot(_limits(one), [row + shift] * 2, color=colour, linewidth=1.8, linestyle="-")
            left.plot(one.value, row + shift, marker, color=colour, markersize=5)
        label = stratum.replace("_", " ")
        right.scatter(
            named.kinds["ill"], named.kinds[stratum], s=named.kinds["images"], color=colour, marker=marker,
            alpha=0.7, edgecolors=[BLACK if p < 0.05 else GREY for p in named.kinds["p"]],
            linewidths=[1.2 if p < 0.05 else 0.3 for p in named.kinds["p"]], label=label,
        )  # fmt: skip
    left.axvline(0.5, color=BLACK, linewidth=1, linestyle="-")
    left.set_yticks(range(len(names)), [as_text(PROBES[name].title) for name in names], fontsize=8.5)
    left.set(title="Does the finding's score part it?", xlabel="AUC for the stratum within a class")
    right.axvline(named.numbers["share_ill"].value, color=GREY, linewidth=1, linestyle=":")
    right.set(title="Kinds of image the audit made", xlabel="share of the kind that is ill",
              ylabel="share of the stratum in it, of images read")  # fmt: skip
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.legend(loc="upper left", fontsize=9)
    return figure


def benchmark() -> Record | None:
    """``benchmarks/audit.json`` of this checkout, or None where there is none."""
    root = project_root()
    path = None if root is None else root / "benchmarks" / "audit.json"
    return read_record(path) if path is not None and path.is_file() else None


def detection(record: Record) -> Figure:
    """Share of cohorts in which each planted confounder was named as severe, against its agreement."""
    figure, axes = plt.subplots(2, 3, figsize=(9, 5), sharex=True, sharey=True, layout="constrained")
    for ax, name, colour in zip(axes.flat, CONFOUNDERS, COLOURS, strict=True):
        for measure, look, label in (
            ("found_share", {"marker": "o", "linestyle": "-"}, "severe"),
            ("flagged_share", {"marker": "", "linestyle": ":"}, "severe or warning"),
        ):
            points = detected(record, name, measure)
            x = [agreement for agreement, _ in points]
            ax.plot(x, [one.value for _, one in points], color=colour, label=label, **look)
            if measure == "found_share":
                limits = [_limits(one) for _, one in points]
                ax.fill_between(x, [low for low, _ in limits], [high for _, high in limits],
                                color=colour, alpha=0.18, linewidth=0)  # fmt: skip
        ax.set_title(_PLAIN.get(name, name), fontsize=11)
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.set(ylim=(-0.04, 1.04))
    for ax in axes[1]:
        ax.set_xlabel("agreement with the label")
    for ax in axes[:, 0]:
        ax.set_ylabel("cohorts")
    handles = [
        Line2D([], [], color=BLACK, marker="o", linestyle="-", label="severe (band: 95%)"),
        Line2D([], [], color=BLACK, linestyle=":", label="severe or warning"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def detected(record: Record, name: str, measure: str = "found_share") -> list[tuple[float, Estimate]]:
    """(agreement, share of cohorts) of one confounder, by agreement."""
    points = []
    for key, estimate in record.numbers.items():
        confounder, _, last = key.rpartition(".")
        if last == measure and confounder.split(".")[0] == name:
            _, _, agreement = confounder.partition(".agreement_")
            points.append((float(agreement) / 100 if agreement else 0.9, estimate))
    return sorted(points, key=lambda point: point[0])


#: Colour, marker and explanation of each verdict on a classifier.
WORDS = {
    "used": (VERMILLION, "s"),
    "exploitable": (ORANGE, "^"),
    "selection only": (SKY, "o"),
    "harmless": (GREY, "."),
}


def attributes(
    panels: Mapping[str, Sequence[Asked]], effects: Mapping[str, Sequence[Effect]] | None = None
) -> Figure:
    """Attribute by utility, visibility and use, with the verdict's word; below, what interventions turn.

    - ``panels``: title to attributes, worst first; of several classifiers each has a mark.
    - ``effects``: classifier to its interventions; the share of calls that turn, and under the control.
    """
    told = {title: list(asked) for title, asked in panels.items() if asked}
    changes = [one.name for one in next(iter(effects.values()))] if effects else []
    rows = [*(len(asked) for asked in told.values()), *([len(changes)] if changes else [])]
    figure = plt.figure(figsize=(9.5, 0.3 * sum(rows) + 1.1 * len(rows) + 0.4), layout="constrained")
    parts = figure.subfigures(len(rows), 1, height_ratios=[count + 3 for count in rows], squeeze=False)[:, 0]
    for part, (title, asked) in zip(parts, told.items(), strict=False):
        _asked(part, title, asked)
    if effects and changes:
        _turned(parts[-1], effects)
    return figure


def _asked(figure: SubFigure, title: str, asked: list[Asked]) -> None:
    axes = figure.subplots(1, 3, sharey=True)
    for row, one in enumerate(asked[::-1]):
        colour, marker = WORDS[one.verdict]
        columns: list[list[Estimate]] = [
            [one.finding.auc] if one.finding.auc else [],
            [one.visible.concordance] if one.visible else [],
            [by.told.concordance for by in one.uses.values()],
        ]
        for ax, found in zip(axes, columns, strict=True):
            for number, estimate in enumerate(found):
                y = row + 0.22 * (number - (len(found) - 1) / 2)
                ax.plot(_limits(estimate), [y, y], color=colour, linewidth=2, linestyle="-")
                ax.plot(estimate.value, y, marker, color=colour, markersize=6, markeredgecolor=BLACK)
        if one.visible is None:
            axes[1].text(
                0.77, row, "measured in the picture", fontsize=8, color=GREY, ha="center", va="center"
            )
        axes[2].text(1.03, row, one.verdict, fontsize=9, va="center", transform=axes[2].get_yaxis_transform())
    names = ("tells the label (AUC)", "pixels show it", "score follows it")
    limits = ((USEFUL,), (VISIBLE,), (USED, USED_ALONE))  # the second where it does not tell the label
    for ax, name, dotted in zip(axes, names, limits, strict=True):
        lowest = ax.dataLim.x0 - 0.02 if ax.lines else 0.5
        for limit in dotted:
            ax.axvline(limit, color=GREY, linewidth=1, linestyle=":")
        ax.axvline(0.5, color=BLACK, linewidth=1, linestyle="-")
        ax.set(xlim=(min(0.38, lowest), 1.0), ylim=(-0.6, len(asked) - 0.4))
        ax.set_xlabel(name, fontsize=9.5)
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(asked)), [as_text(one.probe.title) for one in asked[::-1]], fontsize=9)
    figure.suptitle(title, fontsize=11)


def _turned(figure: SubFigure, effects: Mapping[str, Sequence[Effect]]) -> None:
    ax = figure.subplots()
    first = list(next(iter(effects.values())))[::-1]
    for row, one in enumerate(first):
        for number, found in enumerate(effects.values()):
            mine = next(effect for effect in found if effect.name == one.name)
            y = row + 0.24 * (number - (len(effects) - 1) / 2)
            for share, colour, marker in (
                (mine.control_flips, GREY, "o"),
                (mine.flips, VERMILLION if mine.believed else SKY, "s"),
            ):
                if share is not None:
                    ax.plot(_limits(share), [y, y], color=colour, linewidth=2, linestyle="-")
                    ax.plot(share.value, y, marker, color=colour, markersize=5, markeredgecolor=BLACK)
    ax.set_yticks(range(len(first)), [as_text(one.title) for one in first], fontsize=9)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set(xlabel="calls that turn, of the images that were changed; a row of marks a network")
    ax.grid(axis="y", visible=False)
    looks = ((VERMILLION, "s", "more than the control"), (SKY, "s", "no more"), (GREY, "o", "control"))
    handles = [
        Line2D([], [], color=colour, marker=marker, markeredgecolor=BLACK, linestyle="-", label=name)
        for colour, marker, name in looks
    ]
    figure.legend(handles=handles, fontsize=9, loc="outside lower center", ncols=3)


def _limits(estimate: Estimate) -> tuple[float, float]:
    """Of its interval; the estimate itself where it has none."""
    low, high = estimate.low, estimate.high
    return estimate.value if low is None else low, estimate.value if high is None else high
