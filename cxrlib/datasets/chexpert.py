"""CheXpert (Stanford): labels that a program read in reports; −1 where one is unsure, blank where silent.

Source: Irvin et al., AAAI 2019, doi:10.1609/aaai.v33i01.3301590.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxrlib.datasets.nih_tables import read_table, require_columns, tables_folder
from cxrlib.datasets.tabular import READ_IN_REPORTS, VIEWS, Published, beside

#: Published name -> ours; MIMIC-CXR-JPG has the same.
FINDINGS = {
    "Pneumonia": "Pneumonia",
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Enlarged Cardiomediastinum": "Enlarged Cardiomediastinum",
    "Fracture": "Fracture",
    "Lung Lesion": "Lung Lesion",
    "Lung Opacity": "Lung Opacity",
    "Pleural Effusion": "Effusion",
    "Pleural Other": "Pleural Other",
    "Pneumothorax": "Pneumothorax",
    "Support Devices": "Support Devices",
}


def findings(raw: pd.DataFrame) -> pd.DataFrame:
    """The findings under our names; where a report says *No Finding*, blank ones are 0, except devices."""
    table = raw[list(FINDINGS)].rename(columns=FINDINGS).astype(float)
    silent = table.isna() & (raw["No Finding"] == 1).to_numpy()[:, None]
    return table.mask(silent.assign(**{"Support Devices": False}), 0.0)


def _read(root: Path | None) -> pd.DataFrame:
    parts = {"train": tables_folder() / "chexpert_train.csv.gz", "val": beside(root, "valid.csv")}
    tables = []
    for part, path in parts.items():
        if path is not None:
            raw = read_table(path)
            require_columns(
                raw, ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", *FINDINGS], path
            )
            tables.append(raw.assign(published_part=part))
    raw = pd.concat(tables, ignore_index=True)
    file = raw["Path"].str.replace(r"^CheXpert-v1\.0(-small)?/", "", regex=True)
    frontal = raw["Frontal/Lateral"] == "Frontal"
    known = {
        "image_id": file,
        "patient_id": file.str.extract(r"(patient\d+)")[0],
        "file": file,
        "published_part": raw["published_part"],
        "view": raw["AP/PA"].where(frontal, "L"),
        "age": raw["Age"].where(raw["Age"] > 0).astype(float),  # the table's zeros are unknown ages
        "sex": raw["Sex"].map({"Male": "M", "Female": "F"}),
    }
    return pd.concat([pd.DataFrame(known), findings(raw)], axis=1)


CHEXPERT = Published(
    name="chexpert",
    title="CheXpert: 224,316 radiographs of 65,240 patients",
    summary="Labels for 14 observations, read in reports by a program, with uncertain ones; age, sex and "
    "view. The training table ships in torchxrayvision; valid.csv in the folder is used for validation.",
    licence="Stanford's research use agreement",
    citation="Irvin et al., AAAI 2019, doi:10.1609/aaai.v33i01.3301590",
    read=_read,
    findings=tuple(FINDINGS.values()),
    folders=("", "CheXpert-v1.0-small", "CheXpert-v1.0"),
    counts={"images": 223_414, "patients": 64_540},
    choices=READ_IN_REPORTS | VIEWS,
)
