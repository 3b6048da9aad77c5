"""The landing page's table: recorded numbers by what was measured and on which dataset."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cxrlib.errors import DataError
from cxrlib.evaluation.results import Record, read_record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evidence:
    """A recorded JSON as the site shows it.

    - ``dataset``, ``notebook``: from its place, ``figures/<dataset>/<name>.json``, or of a run's notebook,
      ``figures/<dataset>/<notebook>/<name>.json``; ``notebook`` is empty otherwise.
    - ``record``: its numbers and their provenance.
    - ``href``: the JSON, relative to the site's pages.
    - ``from_run``: True where this report's run made it, False where it is committed.
    """

    dataset: str
    notebook: str
    record: Record
    href: str
    from_run: bool


@dataclass(frozen=True)
class Cell:
    """One number on the scoreboard, the accuracy that goes with it, and the file that holds both."""

    value: str
    interval: str
    accuracy: str
    evidence: Evidence

    @property
    def text(self) -> str:
        """As one string: ``0.981 (0.970–0.990), accuracy 92.1%``."""
        text = f"{self.value} ({self.interval})" if self.interval else self.value
        return f"{text}, accuracy {self.accuracy}" if self.accuracy else text


@dataclass
class Row:
    """What was measured, the chapter that explains it, and dataset to cell."""

    label: str
    measure: str
    notebook: str
    cells: dict[str, Cell] = field(default_factory=dict)


def collect(folder: Path, href: str, *, from_run: bool, files: Iterable[str] | None = None) -> list[Evidence]:
    """Every readable record under a ``figures`` folder; one that is damaged is logged and left out.

    - ``folder``: holds ``<dataset>/<name>.json`` and ``<dataset>/<notebook>/<name>.json``.
    - ``href``: the same folder as the site's pages see it.
    - ``files``: only these, relative to ``folder``; None for all.
    """
    chosen = None if files is None else set(files)
    evidence = []
    for path in sorted([*folder.glob("*/*.json"), *folder.glob("*/*/*.json")]):
        inside = path.relative_to(folder).as_posix()
        if chosen is not None and inside not in chosen:
            continue
        try:
            record = read_record(path)
        except DataError as error:
            log.warning("%s", error)
            continue
        dataset, *notebook, _ = inside.split("/")
        evidence.append(Evidence(dataset, "".join(notebook), record, f"{href}/{inside}", from_run))
    return evidence


def scoreboard(
    evidence: list[Evidence], run_dataset: str, definition: Path | None = None
) -> tuple[list[Row], list[str]]:
    """The rows that have a number, and the datasets in the order of the columns: the run's first.

    Where the run and the committed evidence both have a dataset's number, the run's is shown.
    """
    definition = definition or Path(__file__).with_name("scoreboard.toml")
    rows = []
    for wanted in tomllib.loads(definition.read_text(encoding="utf-8"))["row"]:
        row = Row(wanted["label"], wanted["measure"], wanted["notebook"])
        for item in sorted(evidence, key=lambda item: item.from_run):  # the run's come last and replace
            estimate = item.record.numbers.get(wanted["key"])
            if item.record.name in wanted["studies"] and estimate is not None:
                value, _, interval = format(estimate, wanted.get("format", "")).partition(" ")
                accuracy = item.record.numbers.get(wanted.get("accuracy"))
                right = "" if accuracy is None else f"{accuracy.value:.1%}"
                row.cells[item.dataset] = Cell(value, interval.strip("()"), right, item)
        if row.cells:
            rows.append(row)
    datasets = sorted({dataset for row in rows for dataset in row.cells}, key=lambda d: (d != run_dataset, d))
    return rows, datasets
