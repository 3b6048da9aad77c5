"""The probes of an audit: each is shown something, and asked for the label of patients it has not seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.audit.features import LOOKS, SIGNS
from cxrlib.audit.files import DIMENSIONS, ENCODING, SIZE
from cxrlib.audit.rules import PROBES, Probe, column_probe, judged
from cxrlib.audit.stats import Held, held_out, normal_scores, within
from cxrlib.audit.tables import asked_columns, column_features, levels_by_label
from cxrlib.cohort import Cohort
from cxrlib.evaluation.metrics import Estimate
from cxrlib.io.storage import atomic_path, read_arrays
from cxrlib.parallel import progress_bar
from cxrlib.studies.study_stats import holm

TELLING = 8  # images kept as evidence, half from each end
_DISGUISE = 0.995  # AUC from which on a column is the label in other words, or as good as that
_WHICH = (
    "Decide which it is. The label in other words (a diagnosis, a report) is no input: keep it away from "
    "training. Anything else, such as a hospital or a device, is a shortcut beside which no result on these "
    "images can be believed: collect both classes in the same way."
)
_RANKED = ("marker", "text", "border", "devices", "projection")
_SOURCES = 10  # that are told from pixels


@dataclass(frozen=True, eq=False)
class Finding:
    """What one probe found, and its severity: severe, warning, note or fine.

    - ``auc``, ``p_value``, ``p_holm``: on held-out patients, with its interval; by permutation, and corrected
      over all probes. None for counts.
    - ``share``: (AUC − ½) over the whole image's; None where that is not above ½.
    - ``images``: for counts: how many images are concerned.
    - ``explained_by``, ``left``: another finding that it goes along with, and the AUC left among images alike
      in that.
    - ``detail``: more, by probe: pairs, levels, reasons.
    - ``telling``: image ids, most label-like first, least last.
    - ``reused``: taken from an earlier audit of the same data.
    """

    probe: Probe
    severity: str
    auc: Estimate | None = None
    p_value: float | None = None
    p_holm: float | None = None
    share: float | None = None
    images: int | None = None
    explained_by: str | None = None
    left: float | None = None
    detail: dict = field(default_factory=dict)
    telling: tuple[str, ...] = ()
    reused: bool = False


class Probes:
    """The probes of one cohort, each kept on disk when it is finished."""

    def __init__(
        self, cohort: Cohort, work: Path, permutations: int, seed: int, progress: bool | None = None
    ):
        self.cohort, self.work, self.permutations, self.seed = cohort, work, permutations, seed
        self.progress = progress
        self.held: dict[str, tuple[Probe, Held, bool, dict]] = {}
        #: How an attribute's features are made, and its column if it is one; views are no attributes.
        self.attributes: dict[str, tuple[Callable[[], np.ndarray], pd.Series | None]] = {}

    def ask(self, probe: Probe, features: Callable[[], np.ndarray], **detail: object) -> Held:
        """Have the label predicted for held-out patients, or take what was found before."""
        held, reused = self._hold(probe.name, features, self.cohort.labels)
        self.held[probe.name] = (probe, held, reused, detail)
        return held

    def told(self, name: str, features: Callable[[], np.ndarray], labels: np.ndarray) -> Estimate:
        """How well something else than the label can be told; not judged with the probes."""
        return self._hold(name, features, labels)[0].auc

    def _hold(self, name: str, features: Callable[[], np.ndarray], labels: np.ndarray) -> tuple[Held, bool]:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]  # a column's name may be no file's
        file = self.work / f"probe-{digest}.npz"
        if (kept := _kept(file)) is not None:
            return kept, True
        held = held_out(
            features(), labels, self.cohort.patients, seed=self.seed, permutations=self.permutations
        )
        auc = held.auc
        numbers = np.asarray([auc.value, auc.low, auc.high, auc.n, held.p_value])
        with atomic_path(file) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, numbers=numbers, scores=held.scores)
        return held, False


def ask_all(
    probes: Probes, features: Mapping[str, np.ndarray], facts: pd.DataFrame, source: str | None
) -> tuple[list[Finding], list[str]]:
    """Every probe that the cohort allows, judged together; and which columns were not asked, and why.

    - ``features``: of :func:`cxrlib.audit.features.describe`.
    - ``facts``: of :func:`cxrlib.audit.files.file_facts`, or some of its columns, or none.
    - ``source``: the table's column of where images come from, or None.
    """
    table, labels = probes.cohort.table, probes.cohort.labels
    source = source if source in table and table[source].nunique() > 1 else None
    columns, left_out = asked_columns(table, without=[source] if source else [])
    groups = {
        name: [c for c in group if c in facts and facts[c].nunique(dropna=False) > 1]
        for name, group in (("dimensions", DIMENSIONS), ("encoding", ENCODING), ("file_size", SIZE))
    }
    jobs: list[tuple[Probe, Callable[[], np.ndarray], dict]] = []
    for name in (*LOOKS, *SIGNS):
        jobs.append((PROBES[name], lambda name=name: _shaped(name, features[name]), {}))  # type: ignore[misc]
    for name, group in groups.items():
        if group:
            levels = {column: levels_by_label(facts[column], labels) for column in group}
            jobs.append((PROBES[name], partial(column_features, facts, group), {"levels": levels}))
    for column in columns:
        levels = {column: levels_by_label(table[column], labels)}
        jobs.append((column_probe(column), partial(column_features, table, [column]), {"levels": levels}))
    if source:
        detail = {"levels": {source: levels_by_label(table[source], labels, _SOURCES)}}
        jobs.append((PROBES["source"], lambda: column_features(table, [source]), detail))
    named = {column_probe(column).name: column for column in columns} | ({"source": source} if source else {})
    for probe, made, _ in jobs:
        if probe.group != "view":
            values = table[named[probe.name]] if probe.name in named else None
            probes.attributes[probe.name] = (made, values)
    # The smallest p-value that there can be must stay below 0.05 after correction for so many probes.
    probes.permutations = max(probes.permutations, 40 * (len(jobs) + 1))
    with progress_bar(len(jobs) + 1, "Probing", probes.progress, unit="probe") as bar:
        for probe, made, detail in jobs:
            probes.ask(probe, made, **detail)
            bar.update(1)
        aucs = {column: probes.held[column_probe(column).name][1].auc.value for column in columns}
        together = [column for column, auc in aucs.items() if auc < _DISGUISE]
        if len(together) > 1:
            probes.ask(PROBES["metadata"], lambda: column_features(table, together))
        if source:
            probes.held["source"][3].update(_told_apart(probes, features["whole"], source))
        bar.update(1)
    findings = _judged(probes)
    for column in set(columns) - set(together):
        found = findings[column_probe(column).name]
        findings[found.probe.name] = replace(
            found, severity="warning", probe=replace(found.probe, advice=_WHICH),
            detail=found.detail | {"disguise": True},
        )  # fmt: skip
    if source:
        findings["source"] = _seen(findings["source"])
    limits = [f"Column {column!r} was not asked: {why}." for column, why in left_out.items()]
    return list(_explained(probes, findings).values()), limits


def telling(cohort: Cohort, scores: np.ndarray) -> tuple[str, ...]:
    """The ids of the images with the highest scores, then of those with the lowest; one a patient."""
    ids, patients = cohort.table["image_id"].to_numpy(str), cohort.patients
    chosen = []
    for order in (np.argsort(-scores, kind="stable"), np.argsort(scores, kind="stable")):
        first: dict[str, str] = {}
        for row in order[: 20 * TELLING]:
            first.setdefault(patients[row], ids[row])
        chosen.append(list(first.values())[: TELLING // 2])
    return (*chosen[0], *chosen[1][::-1])


def _shaped(name: str, values: np.ndarray) -> np.ndarray:
    """Signs have long tails: their ranks are given beside them."""
    return np.concatenate([values, normal_scores(values)], axis=1) if name in _RANKED else values


def _judged(probes: Probes) -> dict[str, Finding]:
    """A finding for each probe, corrected together."""
    corrected = holm([held.p_value for _, held, _, _ in probes.held.values()])
    whole = probes.held["whole"][1].auc
    room = whole.value - 0.5 if whole.low is not None and whole.low > 0.5 else None
    findings = {}
    for (name, (probe, held, reused, detail)), p_holm in zip(probes.held.items(), corrected, strict=True):
        share = None if room is None else (held.auc.value - 0.5) / room
        severity = judged(probe, held.auc, float(p_holm), share)
        found = Finding(probe, severity, held.auc, held.p_value, float(p_holm), share, detail=detail)
        findings[name] = replace(found, telling=telling(probes.cohort, held.scores), reused=reused)
    return findings


def _explained(probes: Probes, findings: dict[str, Finding]) -> dict[str, Finding]:
    """Where images alike in a stronger sign show nothing more, the weaker one is an echo of it.

    Signs are gone through from the strongest down, then the views. A sign that has lost three quarters of its
    excess is a warning at most; a view that merely shows a sign is not let off, but told which it shows.
    """
    labels = probes.cohort.labels
    findings = dict(findings)
    aucs = {name: found.auc.value for name, found in findings.items() if found.auc is not None}
    causes: list[str] = []
    flagged = [f for f in findings.values() if f.severity in ("severe", "warning")]
    named = [f for f in flagged if f.probe.group in ("sign", "file")]
    views = [f for f in flagged if f.probe.group == "view"]
    for found in [*sorted(named, key=lambda f: -aucs[f.probe.name]), *views]:
        own, excess = probes.held[found.probe.name][1].scores, aucs[found.probe.name] - 0.5
        left = {cause: within(labels, own, probes.held[cause][1].scores) - 0.5 for cause in causes}
        cause = min(left, key=lambda c: abs(left[c]), default=None)
        if cause is not None and abs(left[cause]) < 0.6 * excess:
            echo = abs(left[cause]) < 0.25 * excess and found.probe.group != "view"
            severity = "warning" if echo else found.severity
            found = replace(found, severity=severity, explained_by=cause, left=0.5 + left[cause])
            findings[found.probe.name] = found
        if found.severity == "severe" and found.probe.group != "view":
            causes.append(found.probe.name)
    return findings


def _told_apart(probes: Probes, whole: np.ndarray, source: str) -> dict[str, object]:
    """How well each source is told from the others by pixels, and the whole image's AUC within sources."""
    column = probes.cohort.table[source].astype(object)
    values = column.where(column.notna(), "missing").astype(str)
    told = {}
    for number, name in enumerate(values.value_counts().index[:_SOURCES]):
        mine = (values == name).to_numpy().astype(np.int64)
        if 20 <= mine.sum() <= len(mine) - 20:
            told[name] = probes.told(f"source {number}", lambda: whole, mine).as_dict()
    codes = np.unique(values, return_inverse=True)[1]
    scores = probes.held["whole"][1].scores
    labels = probes.cohort.labels
    mixed = any(0 < labels[codes == code].mean() < 1 for code in np.unique(codes))
    inside = within(labels, scores, codes.astype(float), bins=None) if mixed else None
    return {"told_from_pixels": told, "whole_within_sources": inside}


def _seen(found: Finding) -> Finding:
    """A source that goes with the label is severe if pixels show it, or if no source has both classes; one
    that does not is a note if they do.
    """
    if found.detail["whole_within_sources"] is None:
        return replace(found, severity="severe")
    visible = max((auc["low"] for auc in found.detail["told_from_pixels"].values()), default=0.0) >= 0.7
    if found.severity == "severe" and not visible:
        return replace(found, severity="warning")
    if found.severity == "fine" and visible:
        return replace(found, severity="note")
    return found


def _kept(file: Path) -> Held | None:
    if (stored := read_arrays(file)) is None:
        return None
    try:
        value, low, high, n, p = stored["numbers"].tolist()
        return Held(Estimate(value, low, high, int(n)), p, stored["scores"])
    except (ValueError, KeyError, TypeError, OverflowError):  # whole, but of something else
        return None
