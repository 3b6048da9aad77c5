"""What the report's first page and its slides say and show, from the tables beside this file and records."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cxrlib.evaluation.metrics import Estimate
from cxrlib.report.site.scoreboard import Evidence

HERE = Path(__file__).parent
_NUMBER = re.compile(r"([+−]?\d[\d.]*%?)( \([+−\d.%]+(?:–| to )[+−\d.%]+\))?<!-- .*?-->")


def said(text: str) -> str:
    """A sentence of the tables as HTML: each marked number strong, its interval small, the mark gone."""

    def number(found: re.Match[str]) -> str:
        interval = f'<span class="interval">{found[2]}</span>' if found[2] else ""
        return f"<strong>{found[1]}</strong>{interval}"

    return _NUMBER.sub(number, text)


def table(name: str) -> dict[str, Any]:
    """``first_page`` or ``slides``: the file of that name beside this one."""
    return tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))


def findings(evidence: Iterable[Evidence]) -> list[dict[str, Any]]:
    """The findings whose committed records are all there, each with its points placed on its axis.

    A point has ``label``, ``value`` and ``interval`` as text, and ``at``, ``low``, ``high`` in percent.
    """
    records = {f"{e.dataset}/{e.record.name}": e.record for e in evidence if not e.from_run}
    found = []
    for one in table("first_page")["finding"]:
        if all(point["record"] in records for point in one["points"]):
            points = [
                _placed(point["label"], records[point["record"]].estimate(point["key"]), one)
                for point in one["points"]
            ]
            chance = _share(one["chance"], one) if "chance" in one else None
            found.append(one | {"points": points, "chance": chance})
    return found


def _placed(label: str, estimate: Estimate, finding: dict[str, Any]) -> dict[str, object]:
    value, _, interval = format(estimate, finding.get("format", ".3f")).partition(" ")
    sides = {"at": estimate.value, "low": estimate.low, "high": estimate.high}
    placed = {name: _share(side, finding) for name, side in sides.items() if side is not None}
    return {"label": label, "value": value, "interval": interval.strip("()"), **placed}


def _share(value: float, finding: dict[str, Any]) -> float:
    begin, end = finding["range"]
    return round(100 * (value - begin) / (end - begin), 1)
