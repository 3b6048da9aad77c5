"""RSNA's pneumonia challenge of 2018: NIH's radiographs, read again by radiologists; DICOM.

Source: Shih et al., Radiology: Artificial Intelligence 2019, doi:10.1148/ryai.2019180041.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from cxrlib.datasets.nih_tables import read_table, require_columns, rsna_labels
from cxrlib.datasets.tabular import Published, beside
from cxrlib.errors import DataError

_NOT_NORMAL = "No Lung Opacity / Not Normal"


def _read(root: Path | None) -> pd.DataFrame:
    table = rsna_labels()
    table["file"] = table["image_id"] + ".dcm"
    table["Pneumonia"] = table["label"].astype(float)
    if classes := beside(root, "stage_2_detailed_class_info.csv"):
        raw = read_table(classes)
        require_columns(raw, ["patientId", "class"], classes)
        table["class"] = table["image_id"].map(
            raw.drop_duplicates("patientId").set_index("patientId")["class"]
        )
        against = table["class"].notna() & (table["class"] != _NOT_NORMAL)
        table["Pneumonia against normal"] = table["Pneumonia"].where(against)
    if key := beside(root, "*dataset-mappings*.json"):
        try:
            names = {row["subset_img_id"]: row["img_id"] for row in json.loads(key.read_text("utf-8"))}
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{key} is not RSNA's key to NIH's names: {error!r}", remedy="Fetch it again."
            ) from error
        table["nih_image"] = table["image_id"].map(names)
        table["patient_id"] = table["nih_image"].str[:8].fillna(table["image_id"])
    return table.drop(columns="label")


RSNA = Published("rsna", _read)
