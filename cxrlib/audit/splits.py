"""Whether validation and test come from where training does: each probe is asked for the split, by class.

The classes are asked apart, so that a test with more of the ill is no difference. All questions are corrected
together, by Holm, apart from those of the label: they are another family. A difference is never severe: a
test from elsewhere may be what was wanted, and then has to be called one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cxrlib.audit.asked import Asking, Made
from cxrlib.audit.probes import DISGUISE, Finding, Probes, telling
from cxrlib.audit.rules import PROBES, SEVERITIES, judged_apart
from cxrlib.audit.stats import Held, sample_patients
from cxrlib.errors import DataError
from cxrlib.parallel import progress_bar
from cxrlib.studies.study_stats import holm

FEWEST = 20  # images of a class on either side
MOST = 1000  # images of a class on either side, about: further patients are left out
_CLASSES = {1: "ill", 0: "healthy"}


def between(
    probes: Probes, views: Mapping[str, Made], has_split: bool = True
) -> tuple[list[Finding], list[str]]:
    """A finding for each of validation and test that the cohort has, and what could not be asked.

    ``views``: how features of views are made, (N, D) each, that are asked beside the probes' attributes. A
    finding's AUC is that of its first question; ``detail["rows"]`` has all, established ones first, then by
    AUC.
    """
    if not has_split:
        return [], []
    table, labels, patients = probes.cohort.table, probes.labels, probes.patients
    split, ids = table["split"].to_numpy(str), table["image_id"].to_numpy(str)
    made = {**views, **{name: function for name, (function, _) in probes.attributes.items()}}
    parts, limits = {}, []
    for other in ("val", "test"):
        for label, kind in _CLASSES.items():
            sides = [np.flatnonzero((split == side) & (labels == label)) for side in ("train", other)]
            sides = [rows[sample_patients(patients[rows], MOST)] for rows in sides]
            if min(map(len, sides)) >= FEWEST:
                parts[other, kind] = np.sort(np.concatenate(sides))
            elif other in split:
                few = min(map(len, sides))
                limits.append(f"{other} was not compared with train, {kind}: only {few} images.")
    targets = {one: (split[rows] == one[0]).astype(np.int64) for one, rows in parts.items()}
    permutations = max(probes.permutations, 40 * (len(parts) * len(made) + 1))
    questions = [
        (function, [
            Asking(f"{name} {other} {kind}", targets[other, kind], permutations, rows)
            for (other, kind), rows in parts.items()
        ])
        for name, function in made.items()
    ]  # fmt: skip
    with progress_bar(len(parts) * len(made), "Comparing splits", probes.progress, unit="question") as bar:
        answers = probes.found(questions if parts else [], bar.update)
    asked: list[tuple[str, str, str, np.ndarray, Held]] = []
    for name in made:
        for (other, kind), rows in parts.items():
            held, _ = answers[f"{name} {other} {kind}"]
            if isinstance(held, DataError):
                limits.append(f"{other} against train, {kind}, {name}: too few patients.")
            else:
                asked.append((name, other, kind, rows, held))
    corrected = holm([held.p_value for *_, held in asked]).tolist() if asked else []
    found: dict[str, list[tuple[dict, Held]]] = {}
    for (name, other, kind, rows, held), p_holm in zip(asked, corrected, strict=True):
        row = {
            "probe": name, "title": probes.held[name][0].title, "class": kind, "auc": held.auc.as_dict(),
            "p": held.p_value, "p_holm": p_holm, "severity": judged_apart(held.auc, p_holm),
            "telling": list(telling(ids[rows], patients[rows], held.scores)),
        }  # fmt: skip
        if probes.held[name][0].group == "table" and held.auc.value >= DISGUISE:
            row["severity"] = "note"  # the split in other words, as a column of the archive's own parts is
        found.setdefault(other, []).append((row, held))
    return [_finding(other, rows) for other, rows in found.items()], limits


def _finding(other: str, rows: list[tuple[dict, Held]]) -> Finding:
    rows = sorted(rows, key=lambda r: (SEVERITIES.index(r[0]["severity"]), -r[1].auc.value))
    best, held = rows[0]
    return Finding(
        PROBES[f"split_{other}"], best["severity"], held.auc, held.p_value, best["p_holm"],
        detail={"rows": [row for row, _ in rows]}, telling=tuple(best["telling"]),
    )  # fmt: skip
