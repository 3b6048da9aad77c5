"""What ``cxr audit`` reads besides images and one label: several findings, embeddings, what is accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxrlib.cli.console import echo
from cxrlib.errors import ConfigError, CxrError

if TYPE_CHECKING:
    from cxrlib.audit.accepted import Accepted
    from cxrlib.audit.models import Classifiers
    from cxrlib.cohort import Cohort


def named_findings(text: str | None) -> list[str]:
    """The findings of ``--findings``, separated by commas; none without it."""
    if text is None:
        return []
    names = [one.strip() for one in text.split(",")]
    if not all(names) or len({one.lower() for one in names}) < len(names):
        raise ConfigError(
            f"--findings {text!r} names a finding twice, or none between two commas.",
            remedy="Name columns, or values of the label column: --findings pneumonia,effusion.",
        )
    return names


def csv_of(root: Path, labels: Path) -> Path | None:
    """The labels' CSV, from the working folder or from the images', or None where there is none."""
    return next((path for path in (labels.expanduser(), root / labels) if path.is_file()), None)


def header_and_images(root: Path, labels: Path, image_column: str) -> tuple[list[str], list[str] | None]:
    """The CSV's columns, and its images in its order; nothing where it cannot be read: that is told later."""
    from cxrlib.io.tables import read_table

    path = csv_of(root, labels)
    if path is not None:
        with suppress(CxrError):
            table = read_table(path)[0]
            images = table[image_column].astype(str).tolist() if image_column in table else None
            return list(map(str, table)), images
    return [], None


def of_split(splits: pd.Series, split: str, given: bool = True) -> np.ndarray:
    """Which images are of a split, bool (N,); a ConfigError where none is, or the CSV has no splits."""
    rows = splits.to_numpy(str) == split
    if not given or not rows.any():
        there = ", ".join(dict.fromkeys(splits.astype(str))) if given else "none, since no column is named"
        raise ConfigError(
            f"There are no images of the split {split!r} for --split; there are: {there}.",
            remedy="Name train, val or test, and with a CSV the column of splits: --set split_column=….",
        )
    return rows


def finding_files(
    root: Path, findings: Sequence[str], header: Sequence[str], given: Mapping[str, Any], **reading: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of all images that have a label of any finding, and its info.

    A finding is a column of the CSV, or else a value of its label column, alone in a cell or among others.
    The table has a column ``finding 1``, … of labels for each: 1, 0 or NaN. ``reading``: of ``folder.files``.
    """
    from cxrlib.datasets import folder

    nowhere = [one for one in findings if one not in header]
    if nowhere and "positive" in given:
        raise ConfigError(
            f"positive is set, and the CSV has no column {nowhere[0]!r} for --findings.",
            remedy="Name columns of the CSV, or leave positive out: a finding is then the positive value.",
        )
    label_column = str(given.get("label_column", "label"))
    if nowhere and header and label_column not in header:
        raise ConfigError(
            f"--findings: {nowhere[0]!r} is no column of the CSV, and there is no label column "
            f"{label_column!r} whose values it could be one of.",
            offenders=header,
            remedy="Name one of these columns, or the label column: --set label_column=….",
        )
    gone = {name for one in [*findings, label_column] for name in (one, f"csv_{one}") if one in header}
    own = [column for column in header if column in {f"finding {n}" for n in range(1, len(findings) + 1)}]
    if own:
        raise ConfigError(
            f"The CSV has a column {own[0]!r}, which is what the audit calls its labels.",
            remedy="Rename the column.",
        )
    parts: list[pd.DataFrame] = []
    counts: dict[str, Any] = {}
    info: dict[str, Any] = {}
    for number, one in enumerate(findings, 1):
        label = {"label_column": one} if one in header else {"label_column": label_column, "positive": one}
        table, info = folder.files(root, allow_shared_patients=True, **reading, **{**given, **label})
        counts[one] = info["classes"]
        values = table["label"].astype(float)
        parts.append(table.drop(columns=[*(gone & set(table) - {"label"}), "label"]).assign(
            **{f"finding {number}": values}
        ))  # fmt: skip
    union = pd.concat(parts).groupby("image_id", sort=False).first().reset_index()
    readings = {name: one for name, one in dict(info["readings"]).items() if name not in gone}
    return union.assign(label=0), {**info, "readings": readings, "classes": {}, "classes_by_finding": counts}


def taken_out(cohort: Cohort, findings: Sequence[str]) -> tuple[Cohort, dict[str, np.ndarray]]:
    """The cohort without the columns of :func:`finding_files`, and the labels that were in them."""
    columns = [f"finding {number}" for number in range(1, len(findings) + 1)]
    labels = {
        one: cohort.table[column].to_numpy(float) for one, column in zip(findings, columns, strict=True)
    }
    return replace(cohort, table=cohort.table.drop(columns=columns)), labels


def by_finding(classifiers: Classifiers, findings: Sequence[str]) -> dict[str, Classifiers]:
    """The classifiers to ask about each finding: the column of its name, and those of no finding's name."""
    names = {one.lower() for one in findings}
    chosen = {}
    for one in findings:
        mine = [c for c in classifiers.scores if str(c).lower() == one.lower() or str(c).lower() not in names]
        thresholds = {name: classifiers.thresholds[name] for name in map(str, mine)}
        chosen[one] = replace(classifiers, scores=classifiers.scores[mine], thresholds=thresholds)
    return chosen


def embedded(
    cohort: Cohort, path: Path, listed: Sequence[str] | None, *, quiet: bool
) -> tuple[Cohort, np.ndarray]:
    """The embeddings of the cohort's images, and the cohort that knows of them."""
    from cxrlib.audit.embeddings import read_embeddings

    values = read_embeddings(path, cohort.table["image_id"].to_numpy(str), listed)
    if not quiet:
        order = ""
        if path.suffix.lower() == ".npy" and listed:
            order = f", in the CSV's order: row 1 is {listed[0]}, row {len(listed)} is {listed[-1]}"
        echo(f"embeddings: {values.shape[1]} numbers an image from {path.name}{order}")
    return replace(cohort, info={**cohort.info, "embeddings": path.name}), values


def accepted(
    path: Path | None, root: Path | None, labels: Path | None, cohort: Cohort, findings: Sequence[str]
) -> tuple[Accepted, ...]:
    """The entries of ``--accept``, or of the ``audit.toml`` beside the labels where there is one."""
    from cxrlib.audit.accepted import NAME, read_accepted

    if path is None:
        csv = None if root is None or labels is None else csv_of(root, labels)
        path = None if csv is None else csv.with_name(NAME)
        if path is None or not path.is_file():
            return ()
        echo(f"accepted findings: {path}", err=True)
    return read_accepted(path, list(cohort.table.columns), findings)
