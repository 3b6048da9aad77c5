"""MIMIC-CXR-JPG (Boston): the user's copy of images and tables; labels as CheXpert's.

Source: Johnson et al., arXiv:1901.07042; data doi:10.13026/8360-t248.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxrlib.datasets.chexpert import FINDINGS, findings
from cxrlib.datasets.nih_tables import read_table, require_columns
from cxrlib.datasets.tabular import Published, beside
from cxrlib.errors import DataError

_STUDY = ["subject_id", "study_id"]
_TABLES = {
    "chexpert": [*_STUDY, "No Finding", *FINDINGS],
    "metadata": [*_STUDY, "dicom_id", "ViewPosition", "StudyDate", "Rows", "Columns"],
    "split": ["dicom_id", "split"],
}
_PARTS = {"train": "train", "validate": "val", "test": "test"}


def _read(root: Path | None) -> pd.DataFrame:
    tables = {}
    for what, columns in _TABLES.items():
        path = beside(root, f"mimic-cxr-*-{what}.csv*")
        if path is None:
            raise DataError(
                f"The table mimic-cxr-2.0.0-{what}.csv.gz is not in "
                f"{root or 'the package: it may not be shared'}.",
                remedy="Put the tables of MIMIC-CXR-JPG (chexpert, metadata, split) beside its folder files.",
            )
        tables[what] = read_table(path)
        require_columns(tables[what], columns, path)
    images = tables["metadata"].merge(tables["split"][["dicom_id", "split"]], on="dicom_id", how="left")
    raw = images.merge(tables["chexpert"], on=_STUDY, how="left", validate="many_to_one")
    subject, study = raw["subject_id"].astype(str), raw["study_id"].astype(str)
    file = "p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + raw["dicom_id"] + ".jpg"
    known = {
        "image_id": raw["dicom_id"],
        "patient_id": subject,
        "study_id": study,
        "file": file,
        "published_part": raw["split"].map(_PARTS),
        "view": raw["ViewPosition"].replace({"LATERAL": "L", "LL": "L"}),
        "study_date": raw["StudyDate"],  # shifted by the publishers; right only within a patient
        "original_height": raw["Rows"],
        "original_width": raw["Columns"],
    }
    return pd.concat([pd.DataFrame(known), findings(raw)], axis=1)


MIMIC = Published("mimic_cxr_jpg", _read)
