"""Several findings of the same images: looked at once, audited label by label, corrected together.

found = audit_findings(cohort, {"pneumonia": labels, "effusion": other_labels}, out="audit")
found.audits["effusion"].severe
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cxrlib.audit.features import VERSION, Rows, describe
from cxrlib.audit.models import Classifiers
from cxrlib.audit.page import content, environment, write
from cxrlib.audit.ridge import balanced_folds
from cxrlib.audit.rules import SEVERITIES
from cxrlib.audit.run import FEWEST, SCHEMA, Audit, read_headers, steps, work_folder
from cxrlib.audit.together import together
from cxrlib.cohort import Cohort
from cxrlib.errors import DataError
from cxrlib.evaluation.results import SCHEMA as RESULTS
from cxrlib.io.storage import atomic_path
from cxrlib.lungs.masks import segment
from cxrlib.parallel import one_thread


@dataclass(frozen=True, eq=False)
class Several:
    """Audits by finding, in the order in which they were asked for; and of which findings there is none."""

    audits: Mapping[str, Audit]
    limits: tuple[str, ...] = ()

    @property
    def severe(self) -> dict[str, tuple[str, ...]]:
        """Finding -> its severe ones, as :attr:`.Audit.severe`; findings without any are left out."""
        return {name: audit.severe for name, audit in self.audits.items() if audit.severe}

    @property
    def verdict(self) -> str:
        """The worst of the audits' verdicts."""
        return min((audit.verdict for audit in self.audits.values()), key=SEVERITIES.index)


@one_thread
def audit_findings(
    cohort: Cohort,
    labels: Mapping[str, np.ndarray],
    *,
    out: str | Path | None = None,
    resume: bool = False,
    classifiers: Mapping[str, Classifiers] | None = None,
    embeddings: np.ndarray | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Several:
    """Audit each finding of the same images, with one pass over these.

    - ``cohort``: all images; its own labels mean nothing.
    - ``labels``: finding -> float, (N,): 1, 0, or NaN where the image is left out of this finding's audit.
      One with fewer than 20 images of a class is left out whole, with a limit.
    - ``out``, ``resume``: as for one audit; each finding's work is in a folder of :func:`folder_of`.
    - ``classifiers``: finding -> as for one audit; ``embeddings``: the same; rows as the cohort's.
    - ``options``: of :func:`cxrlib.audit.run.steps`.
    - Raises DataError: no finding has 20 images of each class.
    """
    asked, limits = [], []
    for name, values in labels.items():
        ill, healthy = int((values == 1).sum()), int((values == 0).sum())
        why = f"{ill:,} images have it and {healthy:,} have not; {FEWEST} of each are needed."
        if min(ill, healthy) >= FEWEST:
            known = np.isfinite(values)
            try:
                given = values[known].astype(np.int64)
                balanced_folds(given, cohort.patients[known], 5, options.get("seed", 0))
            except DataError as error:
                why = error.message
            else:
                asked.append(name)
                continue
        limits.append(f"Finding {name!r} was not audited: {why}")
    if not asked:
        raise DataError(
            f"None of {len(labels)} findings has {FEWEST} images of each class.", offenders=limits,
            remedy="Name findings that are more frequent, or give more images.",
        )  # fmt: skip
    order = np.argsort(cohort.table["image_id"].to_numpy(str), kind="stable")
    cohort = cohort.take(order, lazy=True)
    with tempfile.TemporaryDirectory() if out is None else nullcontext(str(out)) as folder:
        work = work_folder(Path(folder) / "work", cohort, {"features": VERSION}, resume)
        masked = (
            cohort if cohort.lung_masks is not None else segment(cohort, workers=workers, progress=progress)
        )
        features = describe(masked, work, workers=workers, progress=progress)
        facts, unknown = read_headers(cohort, workers, progress)
        many = []
        for number, name in enumerate(asked, 1):
            known = np.flatnonzero(np.isfinite(labels[name][order]))
            part = labelled(cohort, name, labels[name][order])
            every = len(known) == len(cohort)
            many.append(steps(
                part, out=Path(folder) / folder_of(number, name), resume=resume, together=len(asked),
                features=features if every else Rows(features, known),
                headers=(facts.iloc[known].reset_index(drop=True), unknown),
                embeddings=None if embeddings is None else embeddings[order][known],
                classifiers=None if classifiers is None else classifiers[name].take(order[known]),
                workers=workers, progress=progress, **options,
            ))  # fmt: skip
        audits = together(many)
    return Several(dict(zip(asked, audits, strict=True)), tuple(limits))


def labelled(cohort: Cohort, finding: str, labels: np.ndarray) -> Cohort:
    """The images that have a label of a finding, with that label, under the finding's name."""
    known = np.isfinite(labels)
    part = cohort if known.all() else cohort.take(known, lazy=True)
    counts = cohort.info.get("classes_by_finding", {}).get(finding, {})
    part = replace(part, name=finding, info={**cohort.info, "classes": counts})
    return part.with_columns(label=labels[known].astype(np.int64))


def folder_of(number: int, finding: str) -> str:
    """The folder of a finding's page: its place from 1 on, and what of its name any system can write."""
    return f"{number}-{re.sub(r'[^a-z0-9]+', '-', finding.lower()).strip('-')[:40] or 'finding'}"


def contents(found: Several, **made_from: Any) -> dict:
    """What ``audit.json`` holds of several findings: of each what its own would."""
    return {
        "schema": RESULTS,
        "name": "audits",
        "audit_schema": SCHEMA,
        "verdict": found.verdict,
        "severe": {name: list(names) for name, names in found.severe.items()},
        "limits": list(found.limits),
        "audits": [
            {"finding": name, "folder": folder_of(number, name), "audit": content(audit, **made_from)}
            for number, (name, audit) in enumerate(found.audits.items(), 1)
        ],
    }


def write_all(
    found: Several, cohorts: Mapping[str, Cohort], out: str | Path, *, pictures: bool = True, **made_from: Any
) -> tuple[Path, Path]:
    """Write ``audit.json`` and ``audit.html`` of all findings into ``out``, and each one's into its folder.

    ``cohorts``: finding -> what :func:`labelled` gives.
    """
    out, rows = Path(out), []
    for number, (name, audit) in enumerate(found.audits.items(), 1):
        write(audit, cohorts[name], out / folder_of(number, name), pictures=pictures, **made_from)
        rows.append((name, folder_of(number, name), audit))
    rows.sort(key=lambda row: SEVERITIES.index(row[2].verdict))
    text = json.dumps(
        contents(found, **made_from), indent=1, ensure_ascii=False, allow_nan=False, default=str
    )
    html = (
        environment()
        .get_template("findings.html")
        .render(
            found=found,
            rows=rows,
            date=made_from.get("date"),
            called=rows[0][2].facts["called"] if rows else None,
        )
    )
    for name, body in {"audit.json": text + "\n", "audit.html": html}.items():
        with atomic_path(out / name) as temporary:
            temporary.write_text(body, encoding="utf-8", errors="replace")
    return out / "audit.json", out / "audit.html"
