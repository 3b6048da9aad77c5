"""The course about itself: which chapters there are, and what was found so far."""

from __future__ import annotations

import json
import re

import pandas as pd

from cxrlib.batch import find_notebooks
from cxrlib.results import project_root
from cxrlib.site.scoreboard import collect, scoreboard

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
