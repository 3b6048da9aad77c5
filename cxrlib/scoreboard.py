"""What was found, in one screen: the recorded numbers that tell the story, read from their JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cxrlib.metrics import Estimate
from cxrlib.results import recorded


@dataclass(frozen=True)
class Row:
    """One line of the board: what a classifier sees, on what data, and where its numbers are recorded."""

    sees: str
    data: str
    dataset: str
    notebook: str
    name: str
    auc: str
    accuracy: str | None = None


ROWS = (
    Row("whole image, residual network", "Kermany, official test", "kermany", "03_training", "official_test",
        "residual.test_auc", "residual.test_accuracy"),
    Row("whole image, LeNet", "Kermany, official test", "kermany", "03_training", "official_test",
        "lenet.test_auc", "lenet.test_accuracy"),
    Row("no pixels: view, age, sex, follow-up number", "NIH, by patient", "nih", "01_eda", "pixel_free",
        "metadata.auc"),
    Row("no pixels: view alone", "NIH, by patient", "nih", "01_eda", "pixel_free", "view.auc"),
)  # fmt: skip


def scoreboard(rows: Sequence[Row] = ROWS) -> pd.DataFrame:
    """The rows whose evidence is there, best AUC first.

    Returns
    -------
    DataFrame with ``what the classifier sees``, ``data``, ``AUC`` and ``accuracy`` (value with 95% interval,
    as text), ``estimate`` (the AUC's Estimate) and ``link`` (the chapter's name).
    """
    found = []
    for row in rows:
        record = recorded(row.dataset, row.notebook, row.name)
        if record is None:
            continue
        auc: Estimate = record.estimate(row.auc)
        found.append(
            {
                "what the classifier sees": row.sees,
                "data": row.data,
                "AUC": f"{auc}",
                "accuracy": f"{record.estimate(row.accuracy):.1%}" if row.accuracy else "–",
                "estimate": auc,
                "link": row.notebook,
            }
        )
    board = pd.DataFrame(found)
    return board.sort_values("estimate", key=lambda column: [-e.value for e in column]) if found else board
