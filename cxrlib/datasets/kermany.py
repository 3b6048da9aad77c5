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
    rows, empty = [], []
    for part in PUBLISHED_COUNTS:
        if part == "val" and not (root / part).is_dir():
            continue  # Mendeley's own release has no validation part
        for label, kind in enumerate(CLASSES):
            folder = root / part / kind
            found = images_in(folder) if folder.is_dir() else []
            if not found:
                empty.append(folder)
            rows += [(part, label, path) for path in found]
    if empty:
        raise DataError(
            f"{len(empty)} class folders are missing or hold no image.",
            offenders=empty,
            remedy="Unpack the published archive again; each part has NORMAL and PNEUMONIA.",
        )
    table = pd.DataFrame(rows, columns=["published_part", "label", "path"])
    parsed = [_parse(path.name) for path in table["path"]]
    unknown = [path.name for path, (patient, _) in zip(table["path"], parsed, strict=True) if patient is None]
    if unknown:
        warnings.warn(
            f"{len(unknown)} file names do not say whose they are (such as {unknown[0]}); each of these "
            "images counts as a patient of its own.",
            CxrWarning,
            stacklevel=3,
        )
    image_ids = [path.relative_to(root).as_posix() for path in table["path"]]
    subtypes = [
        "normal" if label == 0 else subtype or "unknown"
        for label, (_, subtype) in zip(table["label"], parsed, strict=True)
    ]
    return pd.DataFrame(
        {
            "image_id": image_ids,
            "patient_id": [patient or f"file-{i}" for i, (patient, _) in zip(image_ids, parsed, strict=True)],
            "label": table["label"],
            "subtype": subtypes,
            "published_part": table["published_part"],
            "path": [str(path) for path in table["path"]],
        }
    )


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
