"""Columns of text as numbers, ages, dates or categories; what was read as what, and what was lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

Reading = dict[str, Any]
"""``read_as``, ``values`` (cells that were not empty), ``lost`` (of these, not understood), ``examples``."""

IDENTIFYING = re.compile(
    r"(patient|other|referring|physician)\W*s?_?(name|id|ids|address|phone)|(birth|death)_?(date|day|time|name)"
    r"|^(name|surname|first_?name|last_?name|full_?name|dob|mrn|ssn)$|medical_?record|accession|instance_?uid"
    r"|study_?id|address|telephone|e_?mail|insurance|social_?security|institution_?name",
    re.IGNORECASE,
)
"""Names of columns whose values are not shown."""

LOST = 0.01
"""Share of a column's values from which on their loss is a warning."""

_MOSTLY = 0.9  # of the values must be understood for the column to be more than text
_LEVELS = 20  # with so few different texts, texts among numbers are codes and not slips
_DAYS = {"y": 365.25, "m": 365.25 / 12, "w": 7.0, "d": 1.0}
_AGE = r"^(\d+(?:[.,]\d+)?)\s*(y|yr|yrs|years?|m|months?|w|weeks?|d|days?)?$"
_DOT = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_MISSING = ("na", "n/a", "nan", "none", "null", "unknown", "-", "--", "?", ".")
_DATES = (
    ("%Y-%m-%d", r"\d{4}-\d\d?-\d\d?"),
    ("%Y/%m/%d", r"\d{4}/\d\d?/\d\d?"),
    ("%d.%m.%Y", r"\d\d?\.\d\d?\.\d{4}"),
    ("%d/%m/%Y", r"\d\d?/\d\d?/\d{4}"),
    ("%m/%d/%Y", r"\d\d?/\d\d?/\d{4}"),
    ("%d-%m-%Y", r"\d\d?-\d\d?-\d{4}"),
)


def years(text: pd.Series) -> pd.Series:
    """Years from numbers and DICOM's age strings (``058Y``, ``011M``, ``003W``, ``009D``); else NaN."""
    parts = text.astype(str).str.strip().str.lower().str.extract(_AGE)
    days = parts[1].fillna("y").str[:1].map(_DAYS)
    numbers = parts[0].str.replace(",", ".", regex=False).astype(float)
    return (numbers * days / _DAYS["y"]).astype(float)


def typed_column(text: pd.Series, *, age: bool = False) -> tuple[pd.Series, Reading]:
    """A column of text as what it holds.

    ``age``: years, whatever share of it is understood. Else numbers (decimal point, or decimal comma), ages
    with their unit, or dates (days since 1970), where nine tenths of the values are that; and text otherwise.
    A value that is not understood becomes NaN and counts as lost; words for "missing" (NA, unknown, …) count
    as missing in a column of numbers, and as text in one of text.
    """
    text = text.str.strip()
    text = text.where(text != "")
    lower = text.str.lower()
    present = text.notna() & ~lower.isin(_MISSING)
    kinds = {"ages in years": years(text)} if age else _readings(lower, lower[present])
    best = max(kinds, key=lambda kind: int(kinds[kind][present].notna().sum()), default=None)
    values, known = int(present.sum()), int(kinds[best][present].notna().sum()) if best else 0
    codes = known < values and text[present].nunique() <= _LEVELS
    if best is None or (not age and (codes or not known or known < _MOSTLY * values)):
        return text, {"read_as": "text", "values": int(text.notna().sum()), "lost": 0, "examples": []}
    lost = text[present & kinds[best].isna()]
    hidden = IDENTIFYING.search(str(text.name).replace(" ", "_"))
    examples = [] if hidden else [_shown(one) for one in lost.drop_duplicates().head(5)]
    numbers = kinds[best].where(present)
    if numbers.notna().all() and (numbers % 1 == 0).all() and (numbers.abs() < 2**53).all():
        numbers = numbers.astype("int64")
    return numbers, {
        "read_as": best, "values": values, "lost": len(lost), "examples": list(dict.fromkeys(examples)),
    }  # fmt: skip


def _readings(text: pd.Series, present: pd.Series) -> dict[str, pd.Series]:
    """Each way to read a column, by name; on a tie the first counts."""
    plain = text.where(text.str.fullmatch(_DOT).fillna(False).astype(bool))
    grouped = bool(present.str.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?").fillna(False).sum() > 0) and bool(
        present.str.fullmatch(r"[+-]?\d{1,3}(,\d{3})*(\.\d+)?").fillna(False).all()
    )
    mark, name = (
        ("", "numbers, comma between thousands") if grouped else (".", "numbers with a decimal comma")
    )
    comma = text.str.replace(",", mark, regex=False)
    comma = comma.where(comma.str.fullmatch(_DOT).fillna(False).astype(bool))
    kinds = {"numbers": _finite(plain), name: _finite(comma)}
    if present.str.contains(r"^\d+(?:[.,]\d+)?\s*[ymwd]", regex=True).any():
        kinds["ages in years"] = years(text)
    for form, pattern in _DATES:
        part = text.str.extract(rf"^({pattern})(?:[t ]\d\d?:\d\d.*)?$")[0]
        if part.notna().any():
            dates = pd.to_datetime(part, format=form, errors="coerce")
            kinds[f"dates ({form.replace('%', '')}), in days"] = (dates - pd.Timestamp(0)) / pd.Timedelta(
                days=1
            )
    return kinds


def _finite(text: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(text, errors="coerce").astype(float)
    return numbers.where(numbers.abs() < float("inf"))


def _shown(value: str) -> str:
    """An example for a message; what looks like a date keeps no digit, it may be that of a birth."""
    value = value if len(value) <= 40 else value[:40] + "…"
    return re.sub(r"\d", "9", value) if re.search(r"\d{4,}|\d+[./-]\d+[./-]\d+", value) else value


def lost_much(readings: Mapping[str, Reading]) -> list[str]:
    """A sentence for each column of which more than a hundredth was lost."""
    return [
        f"Column {column!r} was read as {one['read_as']}, and {one['lost']:,} of {one['values']:,} values "
        f"are not that and are lost: {', '.join(map(repr, one['examples'])) or 'they are not shown'}."
        for column, one in readings.items()
        if one["lost"] > LOST * one["values"]
    ]


def spelt_alike(columns: Mapping[str, pd.Series]) -> list[str]:
    """A sentence for each column of text with values that differ in capitals and spaces alone."""
    said = []
    for column, values in columns.items():
        apart = pd.Series(values.dropna().unique(), dtype=object).astype(str)
        groups = apart.groupby(apart.str.casefold().str.replace(r"\s+", "", regex=True), sort=False)
        several = [list(group) for _, group in groups if len(group) > 1]
        if several:
            hidden = IDENTIFYING.search(column.replace(" ", "_"))
            shown = "" if hidden else ": " + "; ".join(", ".join(map(repr, one)) for one in several[:3])
            said.append(
                f"Column {column!r} has values that differ in capitals or spaces alone ({len(several)} of "
                f"them), which are kept apart{shown}. If they mean the same, write them alike."
            )
    return said


def told(readings: Mapping[str, Reading]) -> str:
    """What each column was read as, in a line."""
    parts = (
        f"{column} as {one['read_as']} ({one['values']:,} values, {one['lost']:,} lost"
        + (f": {', '.join(map(repr, one['examples']))})" if one["examples"] else ")")
        for column, one in readings.items()
    )
    return "Columns were read so: " + "; ".join(parts) + "."
