"""Kermany's paediatric chest radiographs: 5,856 images of children of one to five years, Guangzhou.

Patients
--------
File names carry the patient: ``person100_bacteria_475.jpeg``, ``IM-0115-0001.jpeg``,
``NORMAL2-IM-1422-0001.jpeg``. Four independent numberings are in use. Number 100 among the bacterial cases
and number 100 among the viral ones are different people: each numbering starts at 1 and runs through its own
images, and images that share a number within a numbering resemble each other, while images that share it
across two numberings resemble each other no more than any others (a test measures it). The same holds for
``IM-`` and ``NORMAL2-IM-``. So a patient id here is the numbering and the number: ``bacteria-100``,
``virus-100``, ``IM-0115``, ``NORMAL2-IM-1422``, and of these 4,097 none is in two published parts. Cutting
the id at ``person100``, as is often done, finds 170 "patients" in both training and test part that are none.
Whether a child was numbered twice, in two numberings, cannot be told from what is published.

Splits
------
``test`` is the published test part. The published validation part has 16 images, too few to steer by: it
joins the training part, from which one patient in ten, by a hash of the id, becomes ``val``.

Source: Kermany et al., Cell 2018, doi:10.1016/j.cell.2018.02.010; data doi:10.17632/rscbjbr9sj.2.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlib.cohort import Cohort
from cxrlib.datasets._files import cohort_from_files, existing_folder, images_in, official_splits
from cxrlib.errors import CxrWarning, DataError

PUBLISHED_COUNTS = {"train": 5216, "val": 16, "test": 624}
CLASSES = ("NORMAL", "PNEUMONIA")

_WANTED = "chest_xray/train/NORMAL/*.jpeg and so on, as Kaggle and Mendeley publish it"
_PATTERNS = (
    re.compile(r"person(?P<number>\d+)_(?P<numbering>bacteria|virus)_"),
    re.compile(r"(?P<numbering>(?:NORMAL2-)?IM)-(?P<number>\d+)-"),
    # The names in Mendeley's later versions.
    re.compile(r"(?P<numbering>NORMAL|BACTERIA|VIRUS)-(?P<number>\d+)-"),
)


def load(data_dir: str | Path | None = None, *, seed: int = 0, **options: Any) -> Cohort:
    """The radiographs in their official split.

    - ``data_dir``: the folder that holds ``chest_xray/``, or ``chest_xray`` itself.
    - ``seed``: of the hash that takes the validation patients.
    - ``options``: those of :func:`cxrlib.datasets._files.cohort_from_files`.
    - Returns: Cohort with the further columns ``subtype`` (normal, bacteria, virus), ``published_part``
      (train, val, test), ``path``, ``original_height``, ``original_width``.
    - Raises DataError: the layout is another, or a class folder is empty.
    """
    table = files(data_dir)
    counts = table["published_part"].value_counts().reindex(list(PUBLISHED_COUNTS), fill_value=0).to_dict()
    if counts != PUBLISHED_COUNTS:
        found = ", ".join(f"{part} {n:,}" for part, n in counts.items())
        warnings.warn(
            f"{data_dir} holds {found} images; published are train 5,216, val 16, test 624.",
            CxrWarning,
            stacklevel=2,
        )
    table["split"] = official_splits(table, table["published_part"] == "test", seed)
    info = {"data_dir": str(data_dir), "published_counts": counts}
    return cohort_from_files("kermany", table, info=info, seed=seed, **options)


def files(data_dir: str | Path | None) -> pd.DataFrame:
    """The files of the three published parts, without reading any.

    - Returns: DataFrame: ``image_id`` (``train/NORMAL/IM-0115-0001.jpeg``), ``patient_id``, ``label``,
      ``subtype``, ``published_part``, ``path``.
    """
    root = find_root(existing_folder(data_dir, "kermany", _WANTED))
    rows: list[tuple[str, str, int, str, str, str]] = []
    empty, unknown = [], []
    for part in PUBLISHED_COUNTS:
        if part == "val" and not (root / part).is_dir():
            continue  # Mendeley's own release has no validation part
        for label, kind in enumerate(CLASSES):
            folder = root / part / kind
            found = images_in(folder) if folder.is_dir() else []
            if not found:
                empty.append(folder)
            for path in found:
                image = path.relative_to(root).as_posix()
                patient, origin = _parse(path.name)
                if patient is None:
                    unknown.append(path.name)
                subtype = "normal" if label == 0 else origin or "unknown"
                rows.append((image, patient or f"file-{image}", label, subtype, part, str(path)))
    if empty:
        raise DataError(
            f"{len(empty)} class folders are missing or hold no image.",
            offenders=empty,
            remedy="Unpack the published archive again; each part has NORMAL and PNEUMONIA.",
        )
    if unknown:
        warnings.warn(
            f"{len(unknown)} file names do not say whose they are (such as {unknown[0]}); each of these "
            "images counts as a patient of its own.",
            CxrWarning,
            stacklevel=3,
        )
    columns = ["image_id", "patient_id", "label", "subtype", "published_part", "path"]
    return pd.DataFrame(rows, columns=columns)


def find_root(folder: Path) -> Path:
    """The folder that holds ``train`` and ``test``: this one, its ``chest_xray``, or the one in that."""
    for candidate in (folder, folder / "chest_xray", folder / "chest_xray" / "chest_xray"):
        if (candidate / "train").is_dir() and (candidate / "test").is_dir():
            return candidate
    raise DataError(
        f"There is no chest_xray/train and chest_xray/test in {folder}.",
        remedy=f"Name the folder with {_WANTED}.",
    )


def _parse(name: str) -> tuple[str | None, str | None]:
    """(patient id, bacteria or virus) from a file's name; None where it does not say."""
    for pattern in _PATTERNS:
        found = pattern.match(name)
        if found:
            numbering = found["numbering"]
            subtype = numbering.lower() if numbering.lower() in ("bacteria", "virus") else None
            return f"{numbering}-{found['number']}", subtype
    return None, None
