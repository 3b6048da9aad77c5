"""CSV, TSV and spreadsheets as other people save them: bytes become a table of text, or a clear error."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from pathlib import Path

import pandas as pd

from cxrlib.errors import DataError

#: Endings of files that hold a table.
ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".xlsx")
_SEPARATORS = (",", ";", "\t", "|")
_LONGEST_HEADER = 2**20
_LARGEST = 2**31


def read_table(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """A table's cells as text, an empty cell as NaN, and what was skipped or understood, as sentences.

    Read are CSV with comma, semicolon, tab or bar, with or without Excel's ``sep=;`` line and lines of
    comment (``#``) before the header, gzipped or not; and the first sheet of ``.xlsx``. ``None`` and ``NA``
    are text.

    - Raises DataError: it cannot be read, names a column twice, has longer lines than its header, or has no
      rows.
    """
    notes: list[str] = []
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(_LARGEST + 1)
            if len(data) > _LARGEST:
                raise ValueError("it inflates to more than two gigabytes.")
        raw = _sheet(data, path) if data[:4] == b"PK\x03\x04" else _text(data, path, notes)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: {error.reason}.", remedy="Save it as CSV in UTF-8."
        ) from error
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as CSV: {error}", remedy="Save it as CSV with a header line."
        ) from error
    if not isinstance(raw.index, pd.RangeIndex):
        raise DataError(
            f"{path} has lines with more cells than its header.", remedy="Give every column a name."
        )
    raw.columns = [str(column).strip() for column in raw.columns]
    raw = raw.apply(lambda cells: cells.str.strip().replace("", pd.NA) if len(raw) else cells)
    bare = [name for name in raw if re.fullmatch(r"Unnamed: \d+", name) and raw[name].isna().all()]
    raw = raw.drop(columns=bare)
    blank = raw.isna().all(axis=1)
    remark = raw.iloc[:, 0].str.startswith("#").fillna(False).astype(bool) & raw.iloc[:, 1:].isna().all(
        axis=1
    )
    for rows, what in ((blank, "blank rows"), (remark & (raw.shape[1] > 1), "lines of comment")):
        if rows.any():
            notes.append(f"{int(rows.sum())} {what} of {path.name} are left out.")
            raw = raw[~rows.reindex(raw.index)]
    if raw.empty:
        raise DataError(f"{path} has no lines below its header.", remedy="List one image a line.")
    return raw.reset_index(drop=True), notes


def _text(data: bytes, path: Path, notes: list[str]) -> pd.DataFrame:
    text = re.sub(r"\r\n?", "\n", data.decode("utf-8-sig"))  # also as old spreadsheets end their lines
    separator: str | None = None
    skipped = 0
    while True:
        header, _, below = text[:_LONGEST_HEADER].partition("\n")
        if declared := re.fullmatch(r'"?sep=(.)"?\s*', header, re.IGNORECASE):
            separator = declared[1]
        elif header.startswith("#") and (not below or not _like_a_header(header, below)):
            skipped += 1
        elif header.strip(",;\t| \r") or not below:
            break
        text = text[len(header) + 1 :]
    if skipped:
        notes.append(f"{skipped} lines of comment before the header of {path.name} are left out.")
    if "\0" in header:
        raise ValueError("its header holds zero bytes; is it UTF-16, or no text?")
    separator = separator or max(_SEPARATORS, key=header.count)
    _check_header(next(csv.reader([header], delimiter=separator), []), path)
    # Text, because patient 007 is not patient 7.
    return pd.read_csv(
        io.StringIO(text), sep=separator, dtype=str, skipinitialspace=True, keep_default_na=False,
        na_values=[""],
    )  # fmt: skip


def _like_a_header(header: str, below: str) -> bool:
    """Whether a first line that begins with # names the columns: ``#image,label``."""
    line = below.partition("\n")[0]
    return any(header.count(mark) and header.count(mark) == line.count(mark) for mark in _SEPARATORS)


def _sheet(data: bytes, path: Path) -> pd.DataFrame:
    try:
        raw = pd.read_excel(
            io.BytesIO(data), engine="openpyxl", dtype=str, keep_default_na=False, na_values=[""]
        )
    except ImportError:
        raise DataError(
            f"{path} is a spreadsheet, and the package openpyxl that reads it is not installed.",
            remedy="Save it as CSV in UTF-8, or install it: pip install openpyxl",
        ) from None
    except Exception as error:  # zip, XML and openpyxl fail in many ways
        raise ValueError(f"its sheet is damaged or none: {error}") from error
    return raw


def _check_header(cells: list[str], path: Path) -> None:
    """Refuse a header that names a column twice: which of them is meant cannot be known."""
    names = [name.strip() for name in cells]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path} names columns more than once.", offenders=twice, remedy="Rename or remove all but one."
        )
