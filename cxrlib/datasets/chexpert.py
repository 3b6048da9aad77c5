"""CheXpert (Stanford): labels that a program read in reports; −1 where one is unsure, blank where silent.

Source: Irvin et al., AAAI 2019, doi:10.1609/aaai.v33i01.3301590.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxrlib.datasets.nih_tables import read_table, require_columns, tables_folder
from cxrlib.datasets.tabular import ABOUT, Published, beside

#: Published name -> ours; MIMIC-CXR-JPG has the same.
FINDINGS = {published: ours for ours, published in ABOUT["chexpert"]["findings"].items()}


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


CHEXPERT = Published("chexpert", _read)
