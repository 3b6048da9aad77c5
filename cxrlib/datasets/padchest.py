"""PadChest (Alicante): lists of terms, from physicians or a network that read the report; 16-bit PNG.

Source: Bustos et al., Medical Image Analysis 2020, doi:10.1016/j.media.2020.101797.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxrlib.datasets.nih_tables import credible_ages, read_table, require_columns, tables_folder
from cxrlib.datasets.tabular import ABOUT, Published, read_terms

_COLUMNS = ABOUT["padchest"]["columns"]
_READ = (
    "ImageID", "ImageDir", "StudyDate_DICOM", "PatientID", "PatientBirth", "PatientSex_DICOM", "Projection",
    "Labels",
)  # fmt: skip


def _read(root: Path | None) -> pd.DataFrame:
    path = tables_folder() / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    wanted = [*_READ, *_COLUMNS]
    raw = read_table(path, usecols=lambda name: name in wanted, dtype={"PatientID": str})
    require_columns(raw, wanted, path)
    terms = raw["Labels"].str.strip("[]").str.replace("'", "")
    known = {
        "image_id": raw["ImageID"],
        "patient_id": raw["PatientID"],
        "file": raw["ImageDir"].astype(str) + "/" + raw["ImageID"],
        "view": raw["Projection"].replace({"AP_horizontal": "AP supine"}),
        "age": credible_ages(raw["StudyDate_DICOM"] // 10_000 - raw["PatientBirth"]),
        "sex": raw["PatientSex_DICOM"].where(raw["PatientSex_DICOM"].isin(["F", "M"])),
        "terms": terms,
    }
    found = read_terms(terms, ABOUT["padchest"]["findings"] | {"exclude": "exclude"}, ",")
    found = found.drop(columns="exclude").mask(found["exclude"] == 1)  # reports that the publishers set aside
    return pd.concat([pd.DataFrame(known), raw[list(_COLUMNS)].rename(columns=_COLUMNS), found], axis=1)


PADCHEST = Published("padchest", _read)
