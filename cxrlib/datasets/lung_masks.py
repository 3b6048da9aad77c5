"""Montgomery County and Shenzhen: 704 frontal radiographs of adults with lung masks.

The label here is tuberculosis, not pneumonia: the last digit of the file name, 1 for a radiograph with signs
of it. The set serves to measure lung segmentation and to stand for another hospital, not to train on
pneumonia.

``MCUCXR_*`` are from Montgomery County's tuberculosis programme (Maryland), ``CHNCXR_*`` from Shenzhen No. 3
Hospital. One image a patient.

Sources: Jaeger et al., Quantitative Imaging in Medicine and Surgery 2014,
doi:10.3978/j.issn.2223-4292.2014.11.20; Shenzhen masks: Stirenko et al., IEEE ELNANO 2018,
doi:10.1109/ELNANO.2018.8477564.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.datasets._files import cohort_from_files, existing_folder, images_in, masks_from_files
from cxrlib.errors import DataError

PUBLISHED_COUNTS = {"Montgomery": 138, "Shenzhen": 566}

_WANTED = "images/ and masks/, files of the same names in both (MCUCXR_0001_0.png, CHNCXR_0001_0.png, …)"
_NAME = re.compile(r"(?P<hospital>MCUCXR|CHNCXR)_(?P<number>\d+)_(?P<label>[01])(?:_mask)?$")
_SITES = {"MCUCXR": "Montgomery", "CHNCXR": "Shenzhen"}


def load(
    data_dir: str | Path | None = None,
    *,
    image_size: int = 128,
    seed: int = 0,
    fit: str = "letterbox",
    limit: int | None = None,
    **decoding: Any,
) -> Cohort:
    """The radiographs that have a mask, split by patient.

    - ``data_dir``: the folder that holds ``images/`` and ``masks/``; a mask has its image's name, or that and
      ``_mask``.
    - ``seed``: of the split; the rest as in :func:`cxrlib.datasets._files.cohort_from_files`.
    - Returns: Cohort with ``lung_masks``; ``label`` is 1 for tuberculosis; further columns ``site``
      (Montgomery, Shenzhen), ``path``, ``mask_path``, ``original_height``, ``original_width``.
    - Raises DataError: a folder is missing, a name is of another form, an image has no mask, or a mask is
      unreadable (also with skip_bad: an image without its mask is of no use here).
    """
    table = files(data_dir)
    table["split"] = split_by_patient(table["patient_id"], seed=seed)
    cohort = cohort_from_files(
        "lung_masks", table, info={"data_dir": str(data_dir), "label": "tuberculosis"},
        image_size=image_size, seed=seed, limit=limit, fit=fit, **decoding,
    )  # fmt: skip
    masks = masks_from_files(
        cohort.table["mask_path"].tolist(), image_size=image_size, fit=fit, **{**decoding, "skip_bad": False}
    )
    return replace(cohort, lung_masks=masks)


def files(data_dir: str | Path | None) -> pd.DataFrame:
    """The pairs of image and mask, without reading any.

    - Returns: DataFrame: ``image_id``, ``patient_id``, ``label``, ``site``, ``path``, ``mask_path``.
    """
    root = existing_folder(data_dir, "lung_masks", _WANTED)
    for part in ("images", "masks"):
        if not (root / part).is_dir() or not images_in(root / part):
            raise DataError(
                f"{root / part} is missing or holds no image.", remedy=f"Name the folder with {_WANTED}."
            )
    masks = {path.stem.removesuffix("_mask"): path for path in images_in(root / "masks")}
    images = images_in(root / "images")
    strange = [path.name for path in images if not _NAME.match(path.stem)]
    if strange:
        raise DataError(
            f"{len(strange)} files in {root / 'images'} are named in another way.",
            offenders=strange,
            remedy="Keep the published names, like MCUCXR_0001_0.png; their digits are needed.",
        )
    alone = [path.name for path in images if path.stem not in masks]
    if alone:
        raise DataError(
            f"{len(alone)} images in {root / 'images'} have no mask in {root / 'masks'}.",
            offenders=alone,
            remedy="Remove these images, or add masks of the same names.",
        )
    names = [name for path in images if (name := _NAME.match(path.stem))]  # all: none is strange
    return pd.DataFrame(
        {
            "image_id": [path.stem for path in images],
            "patient_id": [f"{name['hospital']}_{name['number']}" for name in names],
            "label": [int(name["label"]) for name in names],
            "site": [_SITES[name["hospital"]] for name in names],
            "path": [str(path) for path in images],
            "mask_path": [str(masks[path.stem]) for path in images],
        }
    )
