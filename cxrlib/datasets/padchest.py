"""PadChest (Alicante): lists of terms, from physicians or a network that read the report; 16-bit PNG.

Source: Bustos et al., Medical Image Analysis 2020, doi:10.1016/j.media.2020.101797.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxrlib.datasets.nih_tables import credible_ages, read_table, require_columns, tables_folder
from cxrlib.datasets.tabular import VIEWS, Published, read_terms

#: Finding -> pattern of the terms that state it, whole. No term of another place: pericardial effusion and
#: subcutaneous emphysema are none of these.
FINDINGS = {
    "Pneumonia": r"(atypical )?pneumonia",
    "Atelectasis": r".*atelectasis.*",
    "Cardiomegaly": r"cardiomegaly",
    "Consolidation": r"consolidation",
    "Edema": r"pulmonary edema",
    "Effusion": r".*pleural effusion|loculated fissural effusion",
    "Emphysema": r"emphysema",
    "Fibrosis": r"pulmonary fibrosis",
    "Fracture": r".*fracture",
    "Hernia": r"hiatal hernia",
    "Infiltration": r"infiltrates",
    "Mass": r"(pulmonary )?mass",
    "Nodule": r"nodule|multiple nodules",
    "Pleural_Thickening": r".*pleural thickening",
    "Pneumothorax": r"(hydro)?pneumothorax",
}
_COLUMNS = {
    "SpatialResolution_DICOM": "pixel_spacing",
    "XRayTubeCurrent_DICOM": "tube_current",
    "Exposure_DICOM": "exposure",
    "ExposureTime": "exposure_time",
    "RelativeXRayExposure_DICOM": "relative_exposure",
    "WindowCenter_DICOM": "window_center",
    "WindowWidth_DICOM": "window_width",
    "BitsStored_DICOM": "bits_stored",
    "Manufacturer_DICOM": "manufacturer",
    "Modality_DICOM": "modality",
    "Rows_DICOM": "original_height",
    "Columns_DICOM": "original_width",
    "MethodLabel": "label_method",
}
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
    found = read_terms(terms, FINDINGS | {"exclude": "exclude"}, ",")
    found = found.drop(columns="exclude").mask(found["exclude"] == 1)  # reports that the publishers set aside
    return pd.concat([pd.DataFrame(known), raw[list(_COLUMNS)].rename(columns=_COLUMNS), found], axis=1)


PADCHEST = Published(
    name="padchest",
    title="PadChest: 160,861 radiographs of 67,625 patients",
    summary="Lists of radiographic terms, a quarter of them given by physicians; age, sex, view, exposure "
    "and device. The table ships in torchxrayvision; the images are PNG of 16 bits.",
    licence="PadChest's research use agreement (BIMCV)",
    citation="Bustos et al., Medical Image Analysis 2020, doi:10.1016/j.media.2020.101797",
    read=_read,
    findings=tuple(FINDINGS),
    folders=("", "images", "images-224"),
    counts={"images": 160_861, "patients": 67_625},
    choices=VIEWS,
)
