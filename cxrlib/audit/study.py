"""Data sets with known faults, to see what an audit says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxrlib.cohort import Cohort
from cxrlib.errors import DataError


def own_folder(cohort: Cohort, folder: str | Path, *, copies: int = 4, seed: int = 0) -> Path:
    """Write a cohort as someone would have it: PNG files, and ``labels.csv``, with faults of its own.

    The CSV (its path is returned) has ``image``, ``label``, ``patient_id``, ``split``, ``age`` and ``ward``.
    The ward goes along with the label: intensive care in 70% of those with and 25% of those without.
    ``copies`` images of the training part come again in the test part, under another patient and brighter.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 8])
    table = cohort.table[["image_id", "label", "patient_id", "split", "age"]].copy()
    intensive = rng.random(len(table)) < np.where(cohort.labels == 1, 0.7, 0.25)
    table["ward"] = np.where(intensive, "intensive care", "outpatients")
    table["image"] = table["image_id"] + ".png"
    for name, image in zip(table["image"], cohort.images, strict=True):
        Image.fromarray(np.asarray(image)).save(folder / name)
    again = rng.choice(np.flatnonzero(table["split"] == "train"), copies, replace=False)
    twins = table.iloc[again].assign(split="test")
    twins["patient_id"] = [f"copy-{number}" for number in range(copies)]
    twins["image"] = [f"copy-{number}.png" for number in range(copies)]
    for name, row in zip(twins["image"], again, strict=True):
        brighter = np.clip(0.9 * cohort.images[row].astype(float) + 20, 0, 255).astype(np.uint8)
        Image.fromarray(brighter).save(folder / name)
    columns = ["image", "label", "patient_id", "split", "age", "ward"]
    csv = folder / "labels.csv"
    pd.concat([table, twins])[columns].to_csv(csv, index=False)
    return csv


def skewed(cohort: Cohort, source: str = "site", keep: float = 0.25, seed: int = 0) -> Cohort:
    """A part of a pooled cohort in which the label is frequent in its largest source and rare in the others.

    Of the images that do not fit (healthy in the largest, ill elsewhere) a share ``keep`` stays, drawn at
    random. Raises a DataError where the cohort has no such column, or a single source.
    """
    if source not in cohort.table or cohort.table[source].nunique() < 2:
        raise DataError(
            f"The cohort {cohort.name!r} has no two sources in a column {source!r}.",
            remedy="Pool two hospitals, and name the column that tells them apart.",
        )
    largest = cohort.table[source].value_counts().index[0]
    fits = (cohort.table[source] == largest).to_numpy() == (cohort.labels == 1)
    drawn = np.random.default_rng([seed, 9]).random(len(cohort)) < keep
    return cohort.take(fits | drawn)
