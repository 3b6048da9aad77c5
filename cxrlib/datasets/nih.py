"""NIH ChestX-ray14: images from a folder, everything else from :mod:`cxrlib.datasets.nih_tables`.

Splits: NIH's own lists (86,524 images to train and validate with, 25,596 to test) where the folder has them,
with one training patient in ten, by a hash of the id, for ``val``; by a hash of the patient id
(70 / 10 / 20 %) where it has not.

Source: Wang et al., CVPR 2017, doi:10.1109/CVPR.2017.369.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.datasets import nih_tables
from cxrlib.datasets._files import cohort_from_files, existing_folder, images_in, official_splits
from cxrlib.errors import DataError

_WANTED = "images/*.png, images_001/images/*.png … images_012/images/*.png, or *.png"


def load(data_dir: str | Path | None = None, *, seed: int = 0, **options: Any) -> Cohort:
    """The images that the folder holds, with NIH's table.

    - ``data_dir``: a folder in NIH Box's layout (``images/``), Kaggle's (``images_001/images/`` …
      ``images_012/images/``) or flat. It need not hold all images. ``train_val_list.txt`` and
      ``test_list.txt`` in it are used.
    - ``seed``: of the split by patient.
    - ``options``: those of :func:`cxrlib.datasets._files.cohort_from_files`.
    - Returns: Cohort with all columns of :func:`cxrlib.datasets.nih_tables.metadata` and ``path``; ``label``
      is the text-mined finding Pneumonia. ``info`` counts what is missing: ``missing_images``,
      ``unknown_images``.
    - Raises DataError: the folder holds none of the dataset's images, or its lists leave some out.
    """
    table, info = files(data_dir)
    assert data_dir is not None  # or there were no files
    table["split"], info["official_split"] = _splits(table, Path(data_dir).expanduser(), seed)
    return cohort_from_files("nih", table, info=info, seed=seed, **options)


def files(data_dir: str | Path | None) -> tuple[pd.DataFrame, dict[str, object]]:
    """The rows of NIH's table whose image the folder holds, with ``path``; and how many are missing."""
    root = existing_folder(data_dir, "nih", _WANTED)
    metadata = nih_tables.metadata()
    found = {path.name: str(path) for folder in image_folders(root) for path in images_in(folder)}
    paths = metadata["image_id"].map(found)
    table = metadata[paths.notna()].assign(path=paths.dropna())
    if table.empty:
        what = f"{len(found)} images, none with a name of the dataset's," if found else "no image"
        raise DataError(
            f"{root} holds {what} where NIH's should be.",
            remedy=f"Name the folder with {_WANTED}; names are like 00000001_000.png.",
        )
    info = {
        "data_dir": str(data_dir),
        "missing_images": int(paths.isna().sum()),
        "unknown_images": len(found) - len(table),
    }
    return table.reset_index(drop=True), info


def image_folders(root: Path) -> list[Path]:
    """The folders in which images may lie, in either published layout."""
    parts = sorted(
        path for path in root.iterdir() if path.is_dir() and re.fullmatch(r"images_\d+", path.name)
    )
    candidates = [root, root / "images", *parts, *(part / "images" for part in parts)]
    return [folder for folder in candidates if folder.is_dir()]


def _splits(table: pd.DataFrame, root: Path, seed: int) -> tuple[np.ndarray, bool]:
    official = nih_tables.official_split(root)
    if official is None:
        return split_by_patient(table["patient_id"], seed=seed), False
    given = table["image_id"].map(official)
    if given.isna().any():
        raise DataError(
            f"{int(given.isna().sum())} images are on neither of the official lists in {root}.",
            offenders=table.loc[given.isna(), "image_id"],
            remedy="Fetch train_val_list.txt and test_list.txt again from NIH, or remove both.",
        )
    return official_splits(table, given == "test", seed), True
