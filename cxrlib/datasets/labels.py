"""Cells of a label column as classes: joined findings, uncertain and blank labels, what became of each."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable

import pandas as pd

from cxrlib.errors import ConfigError, DataError

#: Between the findings of one cell, in the order in which they are looked for.
SEPARATORS = ("|", ";", "/", ",")
UNCERTAIN = ("ignore", "positive", "negative")


def words(value: object) -> frozenset[str]:
    """One value or several as lower-case text."""
    several = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return frozenset(str(one).strip().lower() for one in several if one is not None)


def findings_of(cell: str, separator: str | None) -> list[str]:
    """The findings in one cell: of a list as Python writes it (PadChest), else between separators."""
    cell = cell.strip()
    if cell.startswith("[") and cell.endswith("]"):
        try:
            return [str(one).strip() for one in ast.literal_eval(cell)]
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return [one.strip(" '\"") for one in cell[1:-1].split(",")]
    return [one.strip() for one in cell.split(separator)] if separator else [cell]


def separator_of(values: Iterable[str], positive: Collection[str]) -> str | None:
    """The separator by which a positive value is one of several findings of a cell; None: none."""
    cells = {str(value).strip().lower() for value in values} - set(positive)
    for separator in SEPARATORS:
        if any(set(findings_of(cell, separator)) & set(positive) for cell in cells if separator in cell):
            return separator
    return None


def has_finding(
    text: pd.Series,
    positive: str | Collection[str],
    *,
    negative: str | Collection[str] = (),
    separator: str | None = None,
    column: str = "label",
) -> pd.Series:
    """Which cells name a positive finding; bool, (N,). An empty cell does not.

    - ``text``: texts, each a finding or several in one cell.
    - ``positive``, ``negative``: findings, in any case; ``negative``: those that are healthy though the
      positive word is in them.
    - ``separator``: between findings of a cell; None: found. Lists such as ``['a', 'b']`` need none.
    - ``column``: what messages call the column.
    - Raises DataError: a finding that is not positive contains the positive word ("viral pneumonia"): say
      which it is.
    """
    wanted, denied = words(positive), words(negative)
    values = [str(value) for value in text.dropna().unique()]
    separator = separator or separator_of(values, wanted)
    found = {value: {one.lower() for one in findings_of(value, separator)} for value in values}
    ill = {value for value, findings in found.items() if findings & wanted or value.strip().lower() in wanted}
    inside = re.compile(
        "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in sorted(wanted) if word) or r"$^"
    )
    doubtful = sorted(
        value for value in found 
        if value not in ill and any(inside.search(one) for one in found[value] - denied)
        and value.strip().lower() not in denied
    )  # fmt: skip
    if doubtful:
        counts = text.value_counts()
        rows = int(counts[doubtful].sum())
        raise DataError(
            f"{rows} rows of column {column!r} contain {' or '.join(map(repr, sorted(wanted)))} and would "
            "count as healthy.",
            offenders=[f"{value!r}: {counts[value]} rows" for value in doubtful],
            remedy='Say which they are: add them to positive (--set \'positive=["a", "b"]\'), or to negative '
            "(--set negative='…'); or name what stands between findings (--set separator='|').",
        )
    return text.isin(list(ill))


def settled(numbers: pd.Series, uncertain: str | None) -> pd.Series:
    """CheXpert's labels under a policy: 1 and 0 stay, −1 and blank become 1, 0, or NaN (to be left out).

    ``positive`` and ``negative`` say what −1 becomes; a blank (not mentioned) is then negative, as CheXpert's
    authors train. ``ignore`` leaves both out: only what a report says counts. None changes nothing.

    Reference: Irvin et al., AAAI 2019, arXiv:1901.07031.
    """
    if uncertain is None:
        return numbers
    if uncertain not in UNCERTAIN:
        raise ConfigError(f"uncertain is {uncertain!r}.", remedy=f"Use one of {', '.join(UNCERTAIN)}.")
    if uncertain == "ignore":
        return numbers.where(numbers != -1)
    return numbers.fillna(0).replace(-1, int(uncertain == "positive"))


def classes(text: pd.Series, label: pd.Series) -> dict[str, dict[str, int]]:
    """Rows of each value by class: ``{"ill": {value: rows}, "healthy": …, "left out": …}``."""
    named = label.map({1: "ill", 0: "healthy"}).astype(object).where(label.notna(), "left out")
    values = text.astype(object).where(text.notna(), "(blank)")
    return {
        name: {str(value): int(n) for value, n in values[named == name].value_counts().items()}
        for name in ("ill", "healthy", "left out")
    }


def told(counts: dict[str, dict[str, int]], most: int = 10) -> str:
    """:func:`classes` as a sentence."""
    parts = []
    for name, values in counts.items():
        if values:
            listed = ", ".join(f"{value!r} ({n})" for value, n in list(values.items())[:most])
            rest = list(values.values())[most:]
            more = f" and {len(rest)} other values ({sum(rest)} rows)" if rest else ""
            parts.append(f"{'count as ' if name != 'left out' else 'are '}{name}: {listed}{more}")
    return f"Labels that {'; that '.join(parts)}."
