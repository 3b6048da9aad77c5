"""Columns of a table as features of the audit's classifier, and which of them are worth asking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxrlib.datasets.columns import IDENTIFYING
from cxrlib.datasets.nih_tables import FINDINGS
from cxrlib.images.geometry import GEOMETRY_COLUMNS
from cxrlib.studies.shortcuts import encode

_LEVELS = 50  # a text column with more is a name or a note
_BINS = 8

#: Columns that are no description of how an image came about: roles, places in files, the label in other
#: words.
NOT_ASKED = (
    "image_id", "patient_id", "label", "split", "path", "mask_path", "subtype", "lungs_plausible",
    "lungs_problem", "inverted", "border_cropped", "marker_area", "cache_row", "window_top", "window_left",
    "window_side", "original_height", "original_width", "no_finding", "findings",
    *GEOMETRY_COLUMNS, *FINDINGS,
)  # fmt: skip


def asked_columns(table: pd.DataFrame, *, without: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The columns to ask, and why each of the others is left out (roles are not mentioned)."""
    asked: list[str] = []
    left_out: dict[str, str] = {}
    for column in table.columns:
        if column in NOT_ASKED or column in without:
            continue
        known = table[column].dropna()
        if IDENTIFYING.search(str(column).replace(" ", "_")):
            left_out[column] = "its name says that it identifies people, so its values are not shown"
        elif known.nunique() + table[column].isna().any() < 2:
            left_out[column] = "one value"
        elif not pd.api.types.is_numeric_dtype(known) and known.astype(str).nunique() > min(
            _LEVELS, len(known) / 4
        ):
            left_out[column] = f"{known.astype(str).nunique()} different texts"
        elif known.astype(str).str.fullmatch(r"\d+").all() and known.nunique() > 0.95 * len(table):
            left_out[column] = "a number of its own for every image"
        else:
            asked.append(column)
    return asked, left_out


def column_features(table: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """The columns as a linear classifier can use them: float64, (N, D).

    Numbers become their quantile group (eight) and their rank; categories and booleans their level, rare ones
    together; missing is a level of its own.
    """
    encoded = encode(table, list(columns))
    features = []
    for column in columns:
        values = encoded[column]
        if isinstance(values.dtype, pd.CategoricalDtype):
            texts = values.astype(str)
            counts = texts.value_counts()
            rare = counts.index[counts < max(5, 0.005 * len(table))]
            features += [levels for levels in _indicators(texts.where(~texts.isin(rare), "(rare)"))]
            continue
        ranks = values.rank(pct=True)
        features += [ranks.fillna(0.5).to_numpy(), values.isna().to_numpy(float)]
        if values.nunique() > 2:
            edges = np.unique(np.nanquantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
            groups = pd.Series(np.searchsorted(edges, values.to_numpy(), side="right"), index=values.index)
            features += [levels for levels in _indicators(groups.where(values.notna(), -1))]
    return np.column_stack(features) if features else np.zeros((len(table), 1))


def levels_by_label(values: pd.Series, labels: np.ndarray, most: int = 6) -> list[dict[str, object]]:
    """How often the label occurs at each level of a column, commonest levels first; numbers in quarters."""
    if (
        pd.api.types.is_numeric_dtype(values)
        and not pd.api.types.is_bool_dtype(values)
        and values.nunique() > most
    ):
        values = pd.qcut(values.replace([np.inf, -np.inf], np.nan), 4, duplicates="drop").astype(str)
    table = pd.DataFrame(
        {"level": values.astype(object).where(values.notna(), "missing").astype(str), "ill": labels}
    )
    groups = (
        table.groupby("level")["ill"].agg(["size", "mean"]).sort_values("size", ascending=False).head(most)
    )
    return [
        {"level": str(level), "images": int(row["size"]), "share_ill": round(float(row["mean"]), 4)}
        for level, row in groups.iterrows()
    ]


def _indicators(values: pd.Series) -> np.ndarray:
    """0/1, (levels, N)."""
    return pd.get_dummies(values, dtype=float).to_numpy().T
