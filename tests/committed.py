"""What the committed notebooks show, as text that can be compared."""

import html
import re
from pathlib import Path

import nbformat

from cxrlib.evaluation.results import project_root, read_record

ESTIMATE = re.compile(r"[+−]?\d[\d.]*%? \([+−\d.%]+(?:–| to )[+−\d.%]+\)")
MARKED = re.compile(
    r"([+−]?\d[\d.]*%?(?: \([+−\d.%]+(?:–| to )[+−\d.%]+\))?)"
    r"<!-- ([\w-]+/[\w-]+):([\w.-]+?)(?::(\+?\.\d[f%]))? -->"
)
"""A number in prose with the mark of its record: number, place, name, format."""
_SPECS = [f"{sign}.{digits}{kind}" for sign in ("", "+") for digits in "0123" for kind in "f%"]


def notebooks() -> list[str]:
    return [path.stem for path in sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))]


def read(name: str):
    return nbformat.read(project_root() / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def quotes(cell) -> bool:
    """Whether the cell shows what is recorded in the repository, which no run changes."""
    return bool(re.search(r"\b(evidence|recorded|findings|benchmark)\(", cell.source))


def shown(output) -> str:
    """An output's words and numbers: no pictures, no tags, no names that a run makes up."""
    data = output.get("data", {})
    text = output.get("text") or data.get("text/markdown") or data.get("text/html") or ""
    if not text and "image/png" not in data:
        text = data.get("text/plain", "")
    text = re.sub(r"<style.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def recorded_estimates() -> set[str]:
    """Every number with an interval in ``figures/`` and in the audit's benchmark, as it may be written."""
    paths: list[Path] = [*(project_root() / "figures").rglob("*.json")]
    paths += [project_root() / "benchmarks" / "audit.json"]
    every = [e for path in paths for e in read_record(path).numbers.values() if e.low is not None]
    return {format(estimate, spec) for estimate in every for spec in _SPECS}
