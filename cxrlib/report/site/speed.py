"""What ``make bench``, the campaigns and ``audit_peers.py`` measured, as sections of the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from cxrlib.errors import DataError
from cxrlib.report.site.build import fill


def read(path: Path) -> dict:
    """A record that :func:`run` wrote; a DataError where the file is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] == 1 and all("name" in row for row in record["rows"]):
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{path} is no record of the benchmark.", remedy="Name another --out, or remove it.")


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


def add_to_report(page: Path, root: Path, out: Path) -> None:
    """Append a section on speed to the page of all numbers, where ``root/benchmarks/results.json`` is there.

    The JSON and its figure are copied to ``out/benchmarks``.
    """
    path = root / "benchmarks" / "results.json"
    if path.is_file():
        record, figure = read(path), path.with_suffix(".png")
        files = [file for file in (path, figure) if file.is_file()]
        values = {"rows": cells(record), "measured": measured(record), "figure": figure in files}
        _append(page, out, files, "speed.md.j2", record=record, **values)


def add_reliability(page: Path, root: Path, out: Path) -> None:
    """Append a section on what was tried to break the package, where the campaigns' record is there.

    ``root/benchmarks/reliability.json`` is copied to ``out/benchmarks``.
    """
    path = root / "benchmarks" / "reliability.json"
    if path.is_file():
        record = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            [row["what"], f"{row['tried']:,}", f"{row['failed']:,}", _against(row), row.get("note", "")]
            for row in record["rows"]
        ]
        _append(page, out, [path], "reliability.md.j2", rows=rows, campaigns=record["campaigns"])


def add_peers(page: Path, root: Path, out: Path) -> None:
    """Append a section on the audit beside other tools, where ``root/benchmarks/audit_peers.json`` is there.

    The JSON is copied to ``out/benchmarks``.
    """
    path = root / "benchmarks" / "audit_peers.json"
    if path.is_file():
        record = json.loads(path.read_text(encoding="utf-8"))
        titles = ["Planted", "Cohorts", *(about["title"] for about in record["tools"].values())]
        _append(page, out, [path], "peers.md.j2", record=record, titles=titles, rows=peer_cells(record))


def peer_cells(record: Mapping) -> list[list[str]]:
    """A row for each kind of cohort: what was planted, how many cohorts, and each reading's three counts."""
    numbers, rows = record["numbers"], []
    for place in dict.fromkeys(place for reading in record["tools"] for place in _places(numbers, reading)):
        images, kind = place.split(".")
        name = kind + {"ill_50": "", "ill_10": ", one in ten ill", "real": ", real radiographs"}[images]
        counts, cohorts = [], set()
        for reading in record["tools"]:
            found = [numbers.get(f"{reading}.{place}.{what}") for what in ("flagged", "detected", "named")]
            counts.append(
                ", ".join("–" if one is None else f"{one['value'] * one['n']:.0f}" for one in found)
            )
            cohorts |= {one["n"] for one in found if one}
        rows.append([name, " or ".join(map(str, sorted(cohorts))), *counts])
    return rows


def _places(numbers: Mapping, reading: str) -> list[str]:
    """``ill_50.marker`` and so on: where a reading has numbers."""
    keys = [key.split(".") for key in numbers]
    return [f"{key[1]}.{key[2]}" for key in keys if key[0] == reading and key[-1] == "flagged"]


def _append(page: Path, out: Path, files: list[Path], template: str, **values: object) -> None:
    (out / "benchmarks").mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, out / "benchmarks" / file.name)
    page.write_text(page.read_text(encoding="utf-8") + fill(template, **values), encoding="utf-8")


def _against(row: Mapping) -> str:
    """A row's value, and what it was to be."""
    if row.get("value") is None:
        return ""
    value = f"{row['value']:g} {row.get('unit', '')}".strip()
    if row.get("target") is None:
        return value
    return f"{value} ({'at least' if row.get('at_least') else 'at most'} {row['target']:g} wanted)"
