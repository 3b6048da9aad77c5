"""VinDr-CXR (Hanoi): three radiologists an image in training, the consensus of five in the test; DICOM.

Source: Nguyen et al., Scientific Data 2022, doi:10.1038/s41597-022-01498-w.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxrlib.datasets.nih_tables import read_table, require_columns, tables_folder
from cxrlib.datasets.tabular import Published, beside

_RENAMED = {"Pleural effusion": "Effusion", "Pleural thickening": "Pleural_Thickening",
            "Other diseases": "Other disease"}  # fmt: skip


def _read(root: Path | None) -> pd.DataFrame:
    parts = {part: beside(root, f"image_labels_{part}.csv") for part in ("train", "test")}
    tables = [_image_labels(path).assign(published_part=part) for part, path in parts.items() if path]
    if not tables:
        boxes = beside(root, "train.csv") or tables_folder() / "vinbigdata-train.csv.gz"
        tables = [_boxes(boxes).assign(published_part="train")]
    table = pd.concat(tables)
    files = table["published_part"] + "/" + table.index + ".dicom"
    return table.assign(file=files, view="PA").rename_axis("image_id").reset_index()


def _image_labels(path: Path) -> pd.DataFrame:
    """PhysioNet's: a row a reader of an image (one for all in the test), a 0/1 column a finding."""
    raw = read_table(path)
    require_columns(raw, ["image_id", "No finding", "Pneumonia"], path)
    return raw.set_index("image_id").select_dtypes("number").rename(columns=_RENAMED).groupby(level=0).mean()


def _boxes(path: Path) -> pd.DataFrame:
    """Kaggle's: a row a box; the share of an image's readers who drew one of a class."""
    raw = read_table(path)
    require_columns(raw, ["image_id", "class_name", "rad_id"], path)
    readers = raw.groupby("image_id")["rad_id"].nunique()
    drawn = raw.drop_duplicates(["image_id", "rad_id", "class_name"])
    counts = pd.crosstab(drawn["image_id"], drawn["class_name"]).rename_axis(columns=None)
    shares = counts.div(readers, axis=0).rename(columns=_RENAMED)
    boxed = VINDR.findings[: VINDR.findings.index("No finding") + 1]  # the rest is in image_labels alone
    return shares.reindex(columns=list(boxed), fill_value=0.0)


VINDR = Published("vindr", _read)
