"""Two reports side by side: which recorded numbers moved beyond their intervals, appeared or vanished."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.report.site.scoreboard import collect

RULE = (
    "A number moved when its two intervals have no value in common; where only one of the two has an "
    "interval, when the other value lies outside it. A number without any interval is listed as different as "
    "soon as its value is another one. Intervals that overlap do not show that nothing changed: they are "
    "wider than what separates two runs on the same patients."
)
STATUSES = {
    "moved": "moved beyond its interval",
    "different": "different, without an interval",
    "appeared": "appeared",
    "vanished": "vanished",
    "within": "within the intervals",
    "same": "the same",
}
"""What can become of a number, the most telling first."""

Key = tuple[str, str, str]
"""Dataset, study, number."""


@dataclass(frozen=True)
class Change:
    """What became of one recorded number; ``status`` is one of :data:`STATUSES`."""

    key: Key
    status: str
    old: Estimate | None
    new: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """All numbers of two reports; ``name`` is what the older one is called."""

    name: str
    changes: tuple[Change, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Status to how many numbers have it."""
        return {status: sum(c.status == status for c in self.changes) for status in STATUSES}

    @property
    def notable(self) -> list[Change]:
        """The numbers that did not stay where they were, moved ones first."""
        order = list(STATUSES)
        chosen = [change for change in self.changes if change.status not in ("within", "same")]
        return sorted(chosen, key=lambda change: order.index(change.status))

    def as_json(self) -> str:
        """The whole comparison, for scripts."""
        fields = ("dataset", "study", "number")
        numbers = [
            dict(zip(fields, change.key, strict=True))
            | {"status": change.status}
            | {side: e.as_dict() if (e := getattr(change, side)) else None for side in ("old", "new")}
            for change in self.changes
        ]
        facts = {"schema": 1, "old": self.name, "rule": RULE, "counts": self.counts, "numbers": numbers}
        return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"


def recorded_numbers(report: str | Path) -> dict[Key, Estimate]:
    """The numbers of a report's own run, or of a folder with ``figures/<dataset>/<study>.json``.

    - Raises ConfigError: there is no such folder, or nothing recorded in it.
    """
    report = Path(report).expanduser()
    places = [report / "artifacts" / "figures"]
    if not (report / "manifest.json").is_file():  # a report's own figures/ is a copy of the committed ones
        places += [report / "figures", report]
    for place in places:
        found = numbers_in(place)
        if found:
            return found
    raise ConfigError(
        f"{report} holds no recorded numbers (figures/<dataset>/<study>.json).",
        remedy="Give the folder of an earlier report, or one that holds figures/.",
    )


def numbers_in(figures: Path, files: Iterable[str] | None = None) -> dict[Key, Estimate]:
    """Every number of the records in a ``figures`` folder, or of some of its files."""
    return {
        (item.dataset, item.record.path.stem, number): estimate
        for item in collect(figures, "", from_run=True, files=files)
        for number, estimate in item.record.numbers.items()
    }


def compare(old: Mapping[Key, Estimate], new: Mapping[Key, Estimate], name: str) -> Comparison:
    """Hold the numbers of two reports against each other, in the order of their names."""
    keys = sorted({**old, **new}, key=lambda key: (key[1], key[0], key[2]))
    changes = [Change(key, _status(old.get(key), new.get(key)), old.get(key), new.get(key)) for key in keys]
    return Comparison(name, tuple(changes))


def _status(old: Estimate | None, new: Estimate | None) -> str:
    if old is None or new is None:
        return "appeared" if old is None else "vanished"
    if (old.value, old.low, old.high) == (new.value, new.low, new.high):
        return "same"
    (old_low, old_high), (new_low, new_high) = _ends(old), _ends(new)
    if None in (old.low, old.high) and None in (new.low, new.high):
        return "same" if math.isclose(old.value, new.value, rel_tol=1e-9) else "different"
    return "moved" if new_low > old_high or old_low > new_high else "within"


def _ends(estimate: Estimate) -> tuple[float, float]:
    """The interval, or the value alone as one."""
    if estimate.low is None or estimate.high is None:
        return estimate.value, estimate.value
    return estimate.low, estimate.high
