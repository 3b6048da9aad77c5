"""What ``make bench`` and the campaigns measured: tables and a figure, and sections of the report."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from cxrlib.io.storage import atomic_path
from cxrlib.plots.style import BLUE, GREY, VERMILLION, apply_style


def measured(record: dict) -> list[dict]:
    """The rows that compare; the profile's do not."""
    return [row for row in record["rows"] if "ratio" in row]


def cells(record: dict) -> list[list[str]]:
    """For each row: name, ours, peer, ratio with its range, target, data."""
    return [
        [
            row["name"],
            f"{row['ours']:,.4g} {row['unit']}",
            f"{row['peer']:,.4g}",
            f"{row['ratio']:.3g} ({row['low']:.3g}–{row['high']:.3g})",
            f"{row['target']:g}",
            row["data"],
        ]
        for row in measured(record)
    ]


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


def add_to_report(page: Path, root: Path, out: Path) -> None:
    """Append a section on speed to the page of all numbers, where ``root/benchmarks/results.json`` is there.

    The JSON and its figure are copied to ``out/benchmarks``.
    """
    from benchmarks.speed.run import read

    path = root / "benchmarks" / "results.json"
    if not path.is_file():
        return
    record = read(path)
    target = out / "benchmarks"
    target.mkdir(parents=True, exist_ok=True)
    for file in (path, path.with_suffix(".png")):
        if file.is_file():
            shutil.copyfile(file, target / file.name)
    table = _table("Speed", ("Row", "Ours", "Peer", "Ratio (range)", "Wanted", "Data"), cells(record))
    what = "".join(
        f"<dt><code>{row['name']}</code></dt><dd>{html.escape(row['what'])}.</dd>" for row in measured(record)
    )
    figure = (
        '<img src="benchmarks/results.png" alt="Each row\'s ratio to its peer, its range and its target">'
    )
    section = (
        "\n## Speed\n\nMeasured by turns on one machine; a ratio is how many times the peer's rate ours is, "
        "with the smallest and largest of the pairs.\n\n```{raw} html\n"
        + (figure if path.with_suffix(".png").is_file() else "")
        + f"{table}<dl>{what}</dl>"
        + '<p><a href="benchmarks/results.json">JSON</a>; hardware: '
        + f"{html.escape(str(record['provenance']['hardware']))}. "
        + f"Again with: <code>{html.escape(record['command'])}</code></p>\n```\n"
    )
    page.write_text(page.read_text(encoding="utf-8") + section, encoding="utf-8")


def add_reliability(page: Path, root: Path, out: Path) -> None:
    """Append a section on what was tried to break the package, where the campaigns' record is there.

    ``root/benchmarks/reliability.json`` is copied to ``out/benchmarks``.
    """
    path = root / "benchmarks" / "reliability.json"
    if not path.is_file():
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    target = out / "benchmarks"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target / path.name)
    rows = [
        [row["what"], f"{row['tried']:,}", f"{row['failed']:,}", _against(row), str(row.get("note", ""))]
        for row in record["rows"]
    ]
    table = _table("Reliability", ("What", "Tried", "Failed", "Measured", "Remarks"), rows)
    commands = "; ".join(
        f"<code>{html.escape(str(made.get('command')))}</code>" for made in record["campaigns"].values()
    )
    section = (
        "\n## Reliability\n\nWhat was done to the package to see whether it breaks: a row is a campaign, "
        "and none of what it tried should fail. Mutants are small changes to the code; those that no test "
        "noticed count as failed, and so do branches and lines that none takes, and printed text that is "
        "missed, or seen where there is none.\n\n```{raw} html\n"
        + f'{table}<p><a href="benchmarks/reliability.json">JSON</a>. Again with: {commands}</p>\n```\n'
    )
    page.write_text(page.read_text(encoding="utf-8") + section, encoding="utf-8")


def _against(row: Mapping) -> str:
    """A row's value, and what it was to be."""
    if row.get("value") is None:
        return ""
    value = f"{row['value']:g} {row.get('unit', '')}".strip()
    if row.get("target") is None:
        return value
    return f"{value} ({'at least' if row.get('at_least') else 'at most'} {row['target']:g} wanted)"


def _table(name: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide-table" tabindex="0" role="region" aria-label="{name}">'
        '<table class="table numbers">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
