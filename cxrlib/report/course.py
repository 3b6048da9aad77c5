"""The course about itself: which chapters there are, and what was found so far."""

from __future__ import annotations

import json
import re
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from cxrlib.errors import CxrError
from cxrlib.evaluation.results import project_root
from cxrlib.io.storage import atomic_path, make_folder
from cxrlib.report.batch import find_notebooks
from cxrlib.report.site.chapters import read_notebook, write_notebook
from cxrlib.report.site.scoreboard import collect, scoreboard

_TITLE = re.compile(r"^# +(.+)$", re.MULTILINE)
_FIRST_QUESTION = re.compile(r"\*\*Questions\*\*\s+- (.+?)\n(?=-|\n|$)", re.DOTALL)


def chapters() -> pd.DataFrame:
    """The notebooks of this copy of the project: ``chapter`` (file name), ``title``, ``first question``."""
    root = project_root()
    rows = []
    for notebook in find_notebooks(root / "notebooks")[0] if root else ():
        cells = json.loads(notebook.path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown") + "\n"
        title, question = _TITLE.search(text), _FIRST_QUESTION.search(text)
        rows.append(
            {
                "chapter": notebook.name,
                "title": title[1] if title else "",
                "first question": " ".join(question[1].split()) if question else "",
            }
        )
    return pd.DataFrame(rows, columns=["chapter", "title", "first question"])


def findings() -> pd.DataFrame:
    """The committed evidence in one table: a row for what a classifier sees, a column for each dataset.

    Empty where this copy of the project has no ``figures/``.
    """
    root = project_root()
    if root is None:
        return pd.DataFrame()
    rows, datasets = scoreboard(collect(root / "figures", "figures", from_run=False), "")
    return pd.DataFrame(
        [
            {"what the classifier sees": row.label, "measure": row.measure}
            | {name: row.cells[name].text if name in row.cells else "–" for name in datasets}
            for row in rows
        ]
    )


def keep_outputs(report: str | Path) -> list[Path]:
    """Give the project's notebooks the outputs of a finished report, cleaned; returns the files written.

    The source cells stay the project's own: only outputs are taken over. No file is changed where one does
    not fit.

    - Raises CxrError: there is no report, it is of another dataset than the embedded one, a notebook is
      missing or did not finish, or its cells are no longer those of the project's notebook; or the package is
      installed without the notebooks.
    """
    report = Path(report)
    root = project_root()
    if root is None:
        raise CxrError(
            "The notebooks are not part of the installed package.",
            remedy="Run from a checkout of the project.",
        )
    again = "Make the report again: make report"
    try:
        manifest = json.loads((report / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CxrError(f"{report} is no finished report: it has no manifest.json.", remedy=again) from error
    unfinished = [entry["name"] for entry in manifest["notebooks"] if entry["status"] != "done"]
    if manifest["dataset"] != "phantom" or unfinished:
        raise CxrError(
            f"{report} is of {manifest['dataset']}, with {len(unfinished)} notebooks unfinished.",
            offenders=unfinished,
            remedy="Make the report on the embedded cohort first: make report",
        )
    filled = {}
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        if not (report / "notebooks" / path.name).is_file():
            raise CxrError(f"{report} was made without {path.name}.", remedy=again)
        notebook = filled[path] = read_notebook(path)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        executed = [
            cell
            for cell in read_notebook(report / "notebooks" / path.name).cells
            if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", ())
        ]
        for number, (cell, run) in enumerate(zip_longest(cells, executed), start=1):
            if cell is None or run is None or (cell["id"], cell.source) != (run["id"], run.source):
                raise CxrError(
                    f"Code cell {number} of {path.name} has changed since {report} was made.", remedy=again
                )
            cell.outputs, cell.execution_count = run.outputs, number
    for path, notebook in filled.items():  # once all are known to fit
        with atomic_path(path) as temporary:
            write_notebook(notebook, temporary)
    return list(filled)


def hand_out(folder: str | Path) -> list[Path]:
    """Write the notebooks for learners: with exercises, without solutions (cells tagged so) and outputs.

    Returns the files written; notebooks of an earlier call that are chapters no more are removed.

    - Raises ConfigError: this copy of the project has no notebooks.
    - Raises CxrError: somebody has run a notebook there, whose answers would be lost.
    """
    folder = Path(folder)
    worked_in = [
        path.name
        for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))
        if any(cell.get("execution_count") for cell in read_notebook(path).get("cells", ()))
    ]
    if worked_in:
        raise CxrError(
            f"Somebody has worked in the notebooks in {folder}.",
            offenders=worked_in,
            remedy="Move the folder away first, so that no answer is lost.",
        )
    make_folder(folder)
    root = project_root()
    notebooks, _ = find_notebooks((root or Path()) / "notebooks")
    written = []
    for chapter in notebooks:
        notebook = read_notebook(chapter.path)
        notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", ())]
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        written.append(folder / chapter.path.name)
        with atomic_path(written[-1]) as temporary:
            write_notebook(notebook, temporary)
    for path in set(folder.glob("[0-9][0-9]_*.ipynb")) - set(written):
        path.unlink()
    return written
