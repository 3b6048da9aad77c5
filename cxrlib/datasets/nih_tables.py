"""The tables of NIH ChestX-ray14: metadata, boxes, and what radiologists said on looking again.

All of them ship inside the ``torchxrayvision`` package, so nothing is downloaded and no image is needed. The
package itself is not imported (that takes seconds): its data folder is found and read.

Sources
-------
Metadata, text-mined labels, boxes: Wang et al., CVPR 2017, doi:10.1109/CVPR.2017.369 (the 2020 revision).
Expert relabels: Majkowska et al., Radiology 2020, doi:10.1148/radiol.2019191293.
RSNA labels: Shih et al., Radiology: Artificial Intelligence 2019, doi:10.1148/ryai.2019180041.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.datasets.columns import years
from cxrlib.errors import DataError, course_packages

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The 14 text-mined findings, spelt as in NIH's file; each is a bool column of :func:`metadata`."""

EXPERT_FINDINGS = ("airspace_opacity", "fracture", "nodule_or_mass", "pneumothorax")

PUBLISHED_COUNTS = {"images": 112_120, "patients": 30_805, "pneumonia images": 1_431}

OLDEST_CREDIBLE_AGE = 110
"""Years. Ages above it are typing errors: the first release of the table goes up to 414."""

_COLUMNS = {
    "Image Index": "image_id",
    "Finding Labels": "findings",
    "Follow-up #": "follow_up",
    "Patient ID": "patient_id",
    "Patient Age": "age_recorded",
    "Patient Gender": "sex",
    "View Position": "view",
    "OriginalImage[Width": "original_width",
    "Height]": "original_height",
    "OriginalImagePixelSpacing[x": "pixel_spacing",
}
_BOX_COLUMNS = {"Image Index": "image_id", "Finding Label": "finding", "Bbox [x": "x", "h]": "h"}


def tables_folder() -> Path:
    """The folder of tables inside the installed ``torchxrayvision``; a DataError where there is none."""
    spec = importlib.util.find_spec("torchxrayvision")
    folder = Path(spec.origin).parent / "data" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        with course_packages("NIH's table"):
            raise ModuleNotFoundError("not installed, or incomplete", name="torchxrayvision")
    return folder


def metadata(csv: str | Path | None = None, *, check: bool = True) -> pd.DataFrame:
    """What NIH publishes of every image, one row an image, in the file's order.

    - ``csv``: a ``Data_Entry_2017*.csv``, gzipped or not; None reads the one that ships with torchxrayvision.
    - ``check``: require the published numbers of images, patients and pneumonia labels.
    - Returns: DataFrame of 112,120 rows: ``image_id`` (the file name, ``00000001_000.png``), ``patient_id``
      (the eight digits that begin it), ``follow_up`` (0 = the patient's first image), ``age`` (years; NaN
      where the recorded one is impossible), ``age_recorded`` (years, as in the file), ``sex`` (F or M),
      ``view`` (PA or AP), ``findings`` (``"Effusion|Pneumonia"`` or ``"No Finding"``), a bool column for each
      of :data:`FINDINGS` and for ``no_finding``, ``label`` (int, 1 = Pneumonia), ``original_width`` and
      ``original_height`` (pixels before NIH reduced the image to 1024 × 1024), ``pixel_spacing`` (mm).
    - Raises DataError: a column is missing, a finding is unknown, or the counts are not the published ones.
    """
    path = Path(csv) if csv is not None else tables_folder() / "Data_Entry_2017_v2020.csv.gz"
    raw = read_table(path)
    require_columns(raw, _COLUMNS, path)
    table = raw[list(_COLUMNS)].rename(columns=_COLUMNS)
    table["patient_id"] = table["patient_id"].astype(str).str.zfill(8)
    table["age_recorded"] = parse_ages(table["age_recorded"])
    table["age"] = credible_ages(table["age_recorded"])
    kind, kinds = pd.factorize(table["findings"], use_na_sentinel=False)  # 836 lists for 112,120 images
    listed = pd.Series(kinds).str.get_dummies("|").astype(bool).take(kind).set_axis(table.index)
    unknown = sorted(set(map(str, listed)) - {*FINDINGS, "No Finding"})
    if unknown:
        raise DataError(
            f"Column 'Finding Labels' of {path.name} names findings that ChestX-ray14 does not have.",
            offenders=unknown,
            remedy="Use NIH's own Data_Entry_2017 table.",
        )
    for finding in FINDINGS:
        table[finding] = listed.get(finding, False)
    table["no_finding"] = listed.get("No Finding", False)
    table["label"] = table["Pneumonia"].astype(np.int64)
    if check:
        _check_counts(table, path)
    return table


def boxes() -> pd.DataFrame:
    """The 984 boxes that a radiologist drew round findings on 880 images.

    - Returns: DataFrame: ``image_id``, ``finding`` (one of :data:`FINDINGS`), ``x``, ``y`` (left and top
      edge), ``w``, ``h``, in pixels of the 1024 × 1024 image.
    """
    path = tables_folder() / "BBox_List_2017.csv.gz"
    raw = read_table(path)
    require_columns(raw, [*_BOX_COLUMNS, "y", "w"], path)
    table = raw.rename(columns=_BOX_COLUMNS)[["image_id", "finding", "x", "y", "w", "h"]]
    # The box list says "Infiltrate" where the label list says "Infiltration".
    table["finding"] = table["finding"].replace("Infiltrate", "Infiltration")
    return table


def expert_labels() -> pd.DataFrame:
    """Labels that a panel of radiologists settled by discussion (adjudicated), for 4,376 images.

    The images were selected, not drawn at random: they hold more AP views and more findings than the whole.
    What each reader said before the discussion does not ship, so their agreement cannot be computed.

    - Returns: DataFrame: ``image_id``, ``patient_id``, ``expert_set`` (``val`` 2,414 or ``test`` 1,962),
      ``view``, ``age`` and ``age_recorded`` (as in the first release of NIH's table; ``age`` is NaN where
      that one is impossible), and a bool column for each of :data:`EXPERT_FINDINGS`.

    Reference: Majkowska et al., Radiology 2020, doi:10.1148/radiol.2019191293.
    """
    path = tables_folder() / "google2019_nih-chest-xray-labels.csv.gz"
    raw = read_table(path)
    columns = {finding: finding.replace("_", " ").capitalize() for finding in EXPERT_FINDINGS}
    require_columns(raw, ["Image Index", "Patient ID", "View Position", "Set Id", *columns.values()], path)
    recorded = parse_ages(raw["Patient Age"])
    table = pd.DataFrame(
        {
            "image_id": raw["Image Index"],
            "patient_id": raw["Patient ID"].astype(str).str.zfill(8),
            "expert_set": raw["Set Id"],
            "view": raw["View Position"],
            "age_recorded": recorded,
            "age": credible_ages(recorded),
        }
    )
    return table.assign(**{finding: raw[column] == "YES" for finding, column in columns.items()})


def rsna_labels() -> pd.DataFrame:
    """Radiologists' reading of 26,684 NIH images for the RSNA pneumonia challenge of 2018.

    The challenge renamed its images, and the key to NIH's names does not ship: this table cannot be joined to
    :func:`metadata`, and which of its images share a patient is unknown.

    - Returns: DataFrame: ``image_id`` (the challenge's), ``label`` (int, 1 = opacity suspicious of
      pneumonia), ``boxes`` (how many were drawn), ``view``, ``sex``, ``age`` (years, NaN where impossible),
      ``age_recorded``, ``pixel_spacing`` (mm).

    Reference: Shih et al., Radiology: Artificial Intelligence 2019, doi:10.1148/ryai.2019180041.
    """
    drawn = read_table(tables_folder() / "kaggle_stage_2_train_labels.csv.zip")
    headers = read_table(tables_folder() / "kaggle_stage_2_train_images_dicom_headers.csv.gz")
    grouped = drawn.groupby("patientId")
    labels = pd.DataFrame({"label": grouped["Target"].max(), "boxes": grouped["x"].count()})
    table = headers.merge(labels, left_on="PatientID", right_index=True, validate="one_to_one")
    recorded = parse_ages(table["PatientAge"])
    return pd.DataFrame(
        {
            "image_id": table["PatientID"],
            "label": table["label"].astype(np.int64),
            "boxes": table["boxes"].astype(np.int64),
            "view": table["ViewPosition"],
            "sex": table["PatientSex"],
            "age": credible_ages(recorded),
            "age_recorded": recorded,
            "pixel_spacing": table["PixelSpacing"],
        }
    ).reset_index(drop=True)


def official_split(folder: str | Path) -> pd.Series | None:
    """NIH's own division of the images, where the folder has its two lists.

    - ``folder``: where ``train_val_list.txt`` and ``test_list.txt`` may be; any ``.txt`` spelling of NIH Box
      or Kaggle.
    - Returns: Series of ``train_val`` or ``test``, indexed by ``image_id``; None where neither list is there.
    - Raises DataError: only one of the lists is there, or an image is on both.
    """
    folder = Path(folder)
    found: dict[str, Path | None] = {}
    for part, name in (("train_val", "train_val_list"), ("test", "test_list")):
        candidates = [folder / f"{name}{ending}" for ending in (".txt", "_NIH.txt")]
        found[part] = next((path for path in candidates if path.is_file()), None)
    there = {part: path for part, path in found.items() if path is not None}
    if not there:
        return None
    if len(there) < len(found):
        have = next(iter(there.values()))
        raise DataError(
            f"{have} is there and its counterpart is not.",
            remedy="Put both train_val_list.txt and test_list.txt in the folder, or neither.",
        )
    lists = [pd.Series(part, index=path.read_text().split()) for part, path in there.items()]
    split = pd.concat(lists).rename("split").rename_axis("image_id")
    repeated = split.index[split.index.duplicated()].unique()
    if len(repeated):
        raise DataError(
            f"{len(repeated)} images are listed twice in the official lists in {folder}.",
            offenders=repeated,
            remedy="Fetch the two lists again from NIH; they share no image.",
        )
    return split


def parse_ages(ages: pd.Series) -> pd.Series:
    """Ages in years from numbers or DICOM age strings (``058Y``, ``011M``, ``003W``, ``009D``); else NaN."""
    return ages.astype(float) if pd.api.types.is_numeric_dtype(ages) else years(ages)


def credible_ages(years: pd.Series) -> pd.Series:
    """The ages, NaN where below zero or above :data:`OLDEST_CREDIBLE_AGE`."""
    return years.where(years.between(0, OLDEST_CREDIBLE_AGE))


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """A published table, gzipped or not; ``options`` are those of pandas' ``read_csv``."""
    try:
        return pd.read_csv(path, **{"low_memory": False, **options})
    except FileNotFoundError:
        raise DataError(
            f"{path.name} is not in {path.parent}.",
            remedy="Reinstall it: pip install --force-reinstall torchxrayvision",
        ) from None
    except (OSError, EOFError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(
            f"{path} cannot be read as a table: {error}", remedy="Fetch the file again; it is damaged."
        ) from error


def require_columns(table: pd.DataFrame, columns: Iterable[str], path: Path) -> None:
    """A DataError that names the columns which the table lacks."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(
            f"{path.name} has no column {', '.join(map(repr, missing))}.",
            remedy="Use the table as its publishers give it, with its header line.",
        )


def _check_counts(table: pd.DataFrame, path: Path) -> None:
    found = {
        "images": table["image_id"].nunique(),
        "patients": table["patient_id"].nunique(),
        "pneumonia images": int(table["label"].sum()),
    }
    if len(table) != found["images"] or found != PUBLISHED_COUNTS:
        raise DataError(
            f"{path.name} is not the whole of ChestX-ray14.",
            offenders=[f"{what}: {found[what]:,}, published {n:,}" for what, n in PUBLISHED_COUNTS.items()],
            remedy="Use the complete table, or pass check=False to work with a part of it.",
        )
