"""Scores of classifiers from a CSV, put in the order of an audit's images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.errors import DataError, one_line


def read_scores(path: str | Path, image_ids: np.ndarray) -> pd.DataFrame:
    """Scores of classifiers from a CSV, in the order of ``image_ids``: float64, a column a classifier.

    The first column called ``image``, ``image_id``, ``file`` or ``path`` names the image, by its id or by its
    file's name; every other column is a classifier.

    - Raises DataError: an image without a score, one with two, a score that is no number, or no column of
      names.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read: {one_line(error)}", remedy="Give a CSV with a header."
        ) from None
    rows, classifiers = rows_by_name(table, image_ids, path, "score")
    table = table.iloc[rows]
    scores = {}
    for column in classifiers:
        numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
        if (bad := ~np.isfinite(numbers)).any():
            raise DataError(
                f"{path}: column {column!r} has {int(bad.sum()):,} values that are no finite numbers.",
                offenders=list(table[column][bad]), remedy="Give each image a number, or remove the column.",
            )  # fmt: skip
        scores[str(column)] = varied(numbers, f"{path}: column {column!r}")
    return pd.DataFrame(scores)


def rows_by_name(
    table: pd.DataFrame, image_ids: np.ndarray, path: str | Path, what: str
) -> tuple[np.ndarray, list[Any]]:
    """The row of each image in a table with a column of names, int (N,), and the other columns.

    Names are ids or the files' names. Raises a DataError where there is no such column, where an image is not
    there, or twice; ``what`` is what the other columns hold.
    """
    called = ("image", "image_id", "file", "path")
    key = next((c for c in table if str(c).strip().lower() in called), None)
    if key is None or len(table.columns) < 2:
        raise DataError(
            f"{path} has the columns {', '.join(map(str, table.columns[:20]))}.",
            remedy=f"Give a column image, and one of numbers for each {what}.",
        )
    wanted = pd.Series(image_ids, dtype=str)
    names = table[key].astype(str).str.strip()
    if not set(wanted) <= set(names):  # ids are paths here, and file names there, or the other way round
        wanted, names = (one.str.replace("\\", "/").str.rsplit("/", n=1).str[-1] for one in (wanted, names))
    twice = names[names.duplicated()].unique()
    if wanted.duplicated().any():
        raise DataError(
            f"{path} names images by their files alone, and several are called so.",
            offenders=list(wanted[wanted.duplicated()]),
            remedy="Name them with their folders, as the labels do.",
        )  # fmt: skip
    if len(twice):
        raise DataError(
            f"{path} names images twice.", offenders=list(twice), remedy="Give each image one line."
        )
    rows = pd.Series(np.arange(len(names)), index=names.to_numpy())
    missing = wanted[~wanted.isin(rows.index)]
    if len(missing):
        raise DataError(
            f"{path} has no {what} for {len(missing):,} of {len(wanted):,} images.", offenders=list(missing),
            remedy="Give one for every image that is audited, under the name that the labels' CSV uses.",
        )  # fmt: skip
    return rows[wanted.to_numpy()].to_numpy(), [c for c in table if c != key]


def varied(scores: np.ndarray, what: str) -> np.ndarray:
    """The scores, where they are not all alike; else a DataError that names ``what`` gave them."""
    if len(scores) > 1 and np.ptp(scores) == 0:
        raise DataError(
            f"{what} gives every image the score {scores[0]:g}.",
            remedy="Check size, range and channels (--model-size, --model-range, --model-channels).",
        )
    return scores
