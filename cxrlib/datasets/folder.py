"""Anyone's images and a CSV whose columns the user names."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.cohort import SPLITS, Cohort, check_labels, split_by_patient
from cxrlib.datasets import columns as typing_of
from cxrlib.datasets import labels as classes_of
from cxrlib.datasets._files import cohort_from_files, existing_folder
from cxrlib.errors import ConfigError, CxrWarning, DataError
from cxrlib.io.tables import ENDINGS, read_table

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "holdout": "test",
}
#: Option that names a column -> what the column becomes; one of that very name is taken for it by the audit.
ROLES = {
    "patient_column": "patient_id",
    "split_column": "split",
    "view_column": "view",
    "age_column": "age",
    "sex_column": "sex",
    "site_column": "site",
}


def load(
    data_dir: str | Path | None = None,
    *,
    image_size: int = 128,
    seed: int = 0,
    fit: str = "letterbox",
    limit: int | None = None,
    allow_shared_patients: bool = False,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
    cache_dir: str | Path | None = None,
    **options: Any,
) -> Cohort:
    """The images that a CSV lists, with the further columns of :func:`.cohort_from_files`.

    ``options``, and the errors about the CSV: of :func:`files`; the others are those of
    :func:`.cohort_from_files`.
    """
    shared: dict[str, Any] = {"seed": seed, "allow_shared_patients": allow_shared_patients}
    table, info = files(data_dir, allow_missing=skip_bad, **shared, **options)
    return cohort_from_files(
        "folder", table, info=info, image_size=image_size, limit=limit, fit=fit, **shared,
        skip_bad=skip_bad, workers=workers, progress=progress, cache_dir=cache_dir,
    )  # fmt: skip


def files(
    data_dir: str | Path | None,
    *,
    labels: str | Path | None = None,
    image_column: str = "image",
    label_column: str = "label",
    positive: str | Collection[str] | None = None,
    negative: str | Collection[str] = (),
    separator: str | None = None,
    uncertain: str | None = None,
    allow_shared_patients: bool = False,
    allow_missing: bool = False,
    seed: int = 0,
    **columns: str | None,
) -> tuple[pd.DataFrame, dict[str, object]]:
    """The checked table of the images that a CSV lists, and the cohort's info, without reading an image.

    - ``data_dir``: the folder that the CSV's paths begin at.
    - ``labels``: the CSV, with a header line, as :func:`cxrlib.io.tables.read_table` reads it. A relative
      path is looked up from the working folder, then in ``data_dir``. None: the one CSV in ``data_dir``.
    - ``image_column``: the file of each image: PNG, JPEG, TIFF, BMP or DICOM; relative to ``data_dir`` or
      absolute.
    - ``label_column``: 0 or 1 (also true and false); or anything, with ``positive``.
    - ``positive``: the value, or values, of the label column that mean pneumonia, in any case; all others do
      not, and a warning counts them where they are several. Of findings joined in a cell, one of these is
      enough.
    - ``negative``, ``separator``: values that do not mean it though the positive word is in them; what stands
      between findings of a cell (None: found). See :func:`cxrlib.datasets.labels.has_finding`.
    - ``uncertain``: what −1 means, positive, negative or ignore; blank labels are then negative, or with
      ignore left out. None: both are errors. See :func:`cxrlib.datasets.labels.settled`.
    - ``allow_shared_patients``: let patients be in two splits instead of refusing such a CSV: for looking at
      it, not for training. ``allow_missing``: let files be absent, not all.
    - ``seed``: of the split.
    - ``columns``: a name for each of :data:`ROLES`. ``patient_column``: None is the column ``patient_id``;
      where there is none, every image counts as a patient of its own, with a warning. ``split_column``: None
      is the column ``split``; where there is none, 70 / 10 / 20 % of the patients, by a hash.
      ``view_column``, ``age_column``, ``sex_column``, ``site_column`` become ``view``, ``age``, …; all
      other columns are carried along.
    - Raises ConfigError: no CSV is named, there is no such column role, or two name one column.
    - Raises DataError: a named column is not in the CSV, an image is listed twice or not there, a label is
      neither 0 nor 1, a split is none, or a patient is in two splits.
    """
    if unknown := sorted(set(columns) - set(ROLES)):
        known = (
            "image_column",
            "label_column",
            *ROLES,
            "positive",
            "negative",
            "separator",
            "uncertain",
            "fit",
        )
        raise ConfigError(f"A folder has no option {unknown[0]!r}.", remedy=f"Use one of {', '.join(known)}.")
    roles = {ROLES[name]: column for name, column in columns.items() if column is not None}
    roles = {"image_id": image_column, "label": label_column, **roles}
    root = existing_folder(data_dir, "folder", "your images, and name a CSV that lists them (labels=…)")
    csv = _find_csv(labels, root)
    raw, notes = read_table(csv)
    usual = [name for name in ("patient_id", "split") if name in raw and name not in roles.values()]
    roles = {name: name for name in usual} | roles
    _check_roles(roles, raw, csv)
    table, readings = _named(raw, roles)
    _check_repeated(table, csv, image_column)
    texts = table["label"]
    label = _labels(table, csv, label_column, positive, negative, separator, uncertain)
    counts = classes_of.classes(texts, label)
    table = table.assign(label=label)[label.notna()].astype({"label": np.int64}).reset_index(drop=True)
    if not len(table):
        raise DataError(f"{csv}: no row of column {label_column!r} has a label that is left.",
                        remedy="Give uncertain=positive or negative, or another label_column.")  # fmt: skip
    healthy = counts["healthy"]
    if counts["left out"] or (positive is not None and max(len(healthy), len(counts["ill"])) > 1):
        notes.append(classes_of.told(counts))
    text = [name for name, one in readings.items() if one["read_as"] == "text"]
    spelt = {
        roles.get(name, name): table[name] for name in dict.fromkeys((*text, "patient_id")) if name in table
    }
    alike = typing_of.spelt_alike(spelt)
    for note in [*notes, *typing_of.lost_much(readings), *alike]:
        warnings.warn(note, CxrWarning, stacklevel=3)
    if "patient_id" not in roles:
        warnings.warn(
            f"No patient column is named for {csv.name}: every image counts as a patient of its own. If a "
            "patient has several images, training and test share patients and the result is too good.",
            CxrWarning,
            stacklevel=3,
        )
        table["patient_id"] = table["image_id"]
    _check_empty(table, "patient_id", csv, roles.get("patient_id"))
    if "split" in roles:
        table["split"] = _splits(table, csv, roles["split"])
        if not allow_shared_patients:
            _check_shared(table, csv, roles.get("patient_id"))
    else:
        table["split"] = split_by_patient(table["patient_id"], seed=seed)
    table["path"] = _paths(table["image_id"], root, csv, allow_missing=allow_missing)
    return table, {"data_dir": str(data_dir), "labels": str(csv), "columns": roles, "positive": positive,
                   "classes": counts, "readings": readings, "spelt_alike": alike}  # fmt: skip


def _find_csv(labels: str | Path | None, root: Path) -> Path:
    if labels is None:
        here = sorted(
            path
            for path in root.iterdir()
            if path.name.lower().endswith(ENDINGS) and not path.name.startswith(".")
        )
        if len(here) == 1:
            return here[0].absolute()
        raise ConfigError(
            f"No CSV of labels is named, and {root} holds {len(here)}.",
            remedy="Pass labels (--labels), a CSV with a line an image: its file and its label; or put one "
            "into that folder.",
        )
    given = Path(labels).expanduser()
    for candidate in (given, root / given):
        if candidate.is_file():
            return candidate.absolute()
    raise DataError(f"The CSV {given} does not exist.", remedy=f"Give its path, or put it into {root}.")


def _check_roles(roles: dict[str, str], raw: pd.DataFrame, csv: Path) -> None:
    missing = [column for column in roles.values() if column not in raw]
    if missing:
        raise DataError(
            f"{csv} has no column {', '.join(map(repr, missing))}.",
            remedy="Name the columns: image_column=…, label_column=… (in a terminal, --set image_column=…). "
            "It has "
            f"{', '.join(map(repr, raw.columns))}.",
        )
    used = list(roles.values())
    twice = sorted({column for column in used if used.count(column) > 1 and column != roles["image_id"]})
    if twice:
        raise ConfigError(
            f"Column {', '.join(map(repr, twice))} is named for two things.", remedy="Name another for one."
        )


def _named(raw: pd.DataFrame, roles: dict[str, str]) -> tuple[pd.DataFrame, dict[str, typing_of.Reading]]:
    """The CSV's columns under the cohort's names, and how each was read; others of those names become
    ``csv_…``."""
    ours = {*roles, "path", "split", "patient_id", "original_height", "original_width"}
    named = pd.DataFrame({role: raw[column] for role, column in roles.items()})
    readings: dict[str, typing_of.Reading] = {}
    if "age" in named:
        named["age"], readings["age"] = typing_of.typed_column(named["age"], age=True)
    for column in raw.columns.difference(list(roles.values()), sort=False):
        name = f"csv_{column}" if column in ours else column
        named[name], readings[name] = typing_of.typed_column(raw[column])
    for role in set(roles) & {"view", "sex", "site"}:
        known = int(named[role].notna().sum())
        readings[role] = {"read_as": "text", "values": known, "lost": 0, "examples": []}
    return named, readings


def _labels(
    table: pd.DataFrame,
    csv: Path,
    column: str,
    positive: str | Collection[str] | None,
    negative: str | Collection[str],
    separator: str | None,
    uncertain: str | None,
) -> pd.Series:
    """The label of each row, 0 or 1, or NaN where the policy leaves it out."""
    text = table["label"]
    if positive is None:
        numeric = text.str.lower().replace({"true": "1", "false": "0"})
        if uncertain is not None:
            numbers = pd.to_numeric(numeric, errors="coerce").where(text.notna())
            numeric = classes_of.settled(numbers, uncertain).where(numbers.notna() | text.isna(), numeric)
        left = numeric.notna() | (uncertain is None)
        try:
            check_labels(numeric[left], table["image_id"][left], column)
        except DataError as error:
            raise DataError(
                f"{csv}: {error.message}",
                offenders=error.offenders,
                remedy="Write 1 for pneumonia and 0 for its absence, or say which value means pneumonia: "
                "positive=… (in a terminal, --set positive=…), one of "
                f"{', '.join(map(repr, text.dropna().unique()[:10]))}; or, for CheXpert's -1 and blank, "
                f"uncertain={'|'.join(classes_of.UNCERTAIN)}.",
            ) from None
        return pd.to_numeric(numeric).astype(float)
    if uncertain is None:
        _check_empty(table, "label", csv, column)
    wanted = classes_of.words(positive)
    found = classes_of.has_finding(text, wanted, negative=negative, separator=separator, column=column)
    if not found.any():
        raise DataError(
            f"{csv}: No row of column {column!r} is {' or '.join(map(repr, sorted(wanted)))}.",
            offenders=[f"{value!r}: {n} rows" for value, n in text.value_counts().items()],
            remedy="Give one of the values that occur as positive.",
        )
    unsure = text.where(text.isna(), "0").where(text != "-1", "-1").where(~found, "1")
    return classes_of.settled(pd.to_numeric(unsure).astype(float), uncertain)


def _check_empty(table: pd.DataFrame, role: str, csv: Path, column: str | None) -> None:
    empty = table[role].isna() | (table[role] == "")
    if empty.any():
        raise DataError(
            f"Column {column or role!r} of {csv} is empty in {int(empty.sum())} rows.",
            offenders=table.loc[empty, "image_id"],
            remedy="Fill them in, or drop these rows.",
        )


def _check_repeated(table: pd.DataFrame, csv: Path, column: str) -> None:
    _check_empty(table, "image_id", csv, column)
    repeated = table.loc[table["image_id"].duplicated(), "image_id"].unique()
    if len(repeated):
        raise DataError(
            f"Column {column!r} of {csv} names {len(repeated)} images more than once.",
            offenders=repeated,
            remedy="Keep one row an image.",
        )


def _splits(table: pd.DataFrame, csv: Path, column: str) -> pd.Series:
    split = table["split"].str.lower().map(_SPLIT_NAMES)
    unknown = split.isna()
    if unknown.any():
        values = table.loc[unknown, "split"].value_counts(dropna=False)
        raise DataError(
            f"Column {column!r} of {csv} holds values that are no split.",
            offenders=[f"{value!r}: {n} rows" for value, n in values.items()],
            remedy=f"Use {', '.join(SPLITS)}, or leave split_column out for a split by patient.",
        )
    return split


def _check_shared(table: pd.DataFrame, csv: Path, patient_column: str | None) -> None:
    splits = table.groupby("patient_id")["split"].agg(lambda values: ", ".join(sorted(set(values))))
    shared = splits[splits.str.contains(",")]
    if len(shared):
        raise DataError(
            f"{len(shared)} patients are in more than one split (column {patient_column!r} of {csv}).",
            offenders=[f"{patient}: {found}" for patient, found in shared.items()],
            remedy="Put all images of a patient into one split, or leave split_column out.",
        )


def _paths(images: pd.Series, root: Path, csv: Path, *, allow_missing: bool) -> list[str]:
    paths = [os.path.join(root, image) for image in images]
    paths = [path if os.path.isfile(path) else _otherwise(path, root, csv) for path in paths]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing and (not allow_missing or len(missing) == len(paths)):
        raise DataError(
            f"{len(missing)} of the {len(paths)} images that {csv} lists are not on the disk.",
            offenders=missing,
            remedy=f"Check that the paths begin at {root} and carry the file's ending, or go on without "
            "them: skip_bad=True, --skip-bad.",
        )
    return paths


def _otherwise(path: str, root: Path, csv: Path) -> str:
    """A path that is not there as another system writes it (backslashes, composed or decomposed letters),
    from the folder or from the table's; unchanged where that is not there either."""
    if "\0" in path:
        return path
    inside = path.startswith(f"{root}{os.sep}")
    named = (path[len(str(root)) + 1 :] if inside else path).replace("\\", "/")
    for start in (root, csv.parent):
        for form in ("NFC", "NFD"):
            found = os.path.join(start, unicodedata.normalize(form, named))
            if os.path.isfile(found):
                return found
    return path
