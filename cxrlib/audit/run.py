"""An audit of a data set: what of its label can be predicted without the disease, and what to do about it.

    audit = audit_cohort(cxrlib.load("folder", data_dir=…, labels=…, patient_column=…))
    audit.severe

Every probe is shown something that is no disease (a corner, a letter, the file's header) or that may be, and
trained to predict the label; what it reaches on patients it has not seen is compared with what the whole
image gives the same light classifier. No network is trained. :mod:`cxrlib.audit.rules` says how findings are
judged.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import ChainMap
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.audit.asked import Shown, blocks
from cxrlib.audit.doubts import NO_DOUBTS, Doubts, doubts
from cxrlib.audit.features import VERSION as FEATURES
from cxrlib.audit.features import Rows, describe
from cxrlib.audit.files import duplicates, existing_paths, file_facts
from cxrlib.audit.interventions import Effect
from cxrlib.audit.models import Classifiers, doubtful, learnt_from, performance, tried
from cxrlib.audit.probes import TELLING, Finding, Probes, ask_all, signs_of
from cxrlib.audit.ridge import balanced_folds
from cxrlib.audit.rules import IN_PIXELS, PROBES, SEVERITIES, judged_count
from cxrlib.audit.splits import between
from cxrlib.audit.stats import PERMUTATIONS
from cxrlib.audit.together import Steps, alone
from cxrlib.audit.verdicts import Asked, Question, asking
from cxrlib.cohort import Cohort
from cxrlib.datasets.columns import lost_much
from cxrlib.datasets.labels import told
from cxrlib.errors import DataError
from cxrlib.images.burned_in import SMALLEST
from cxrlib.io.storage import make_folder
from cxrlib.lungs.masks import segment
from cxrlib.parallel import one_thread

__all__ = ["SCHEMA", "Audit", "Finding", "audit_cohort"]

SCHEMA = 3
"""Of ``audit.json``, which ``data/audit.schema.json`` describes; raised where a reader of the old one would
misunderstand the new."""

VERSION = 3
"""Raised by one whenever the same features may give other findings: kept probes are keyed by it."""

FEWEST = 20  # images of each class


@dataclass(frozen=True, eq=False)
class Audit:
    """Findings, worst first; what was audited; and what could not be checked.

    - ``attributes``: what tells the label, what pixels show of it and which classifier follows it.
    - ``classifiers``: name -> its threshold, and AUC, sensitivity and specificity on these images.
    - ``effects``: of changing the pictures, where a classifier was given that can be run.
    - ``doubts``: labels that are probably wrong.
    """

    findings: tuple[Finding, ...]
    facts: dict
    limits: tuple[str, ...]
    settings: dict
    attributes: tuple[Asked, ...] = ()
    classifiers: Mapping[str, dict] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    doubts: Doubts = NO_DOUBTS

    def __getitem__(self, name: str) -> Finding:
        """A finding by its probe's name."""
        return next(f for f in self.findings if f.probe.name == name)

    @property
    def severe(self) -> tuple[str, ...]:
        """Names of the severe findings that are not accepted, and of accepted ones that got worse."""
        return tuple(f.probe.name for f in self.findings if f.standing == "severe")

    @property
    def verdict(self) -> str:
        """The worst severity of the findings that are not accepted."""
        standings = [f.standing for f in self.findings if f.standing != "accepted"]
        return min(standings, key=SEVERITIES.index, default="fine")


# One thread: the products are small, and threads that wait for each other take longer on a busy machine.
@one_thread
def audit_cohort(cohort: Cohort, **options: Any) -> Audit:
    """Audit a cohort for itself, with the options of :func:`steps`; see there."""
    return alone(steps(cohort, **options))


def steps(
    cohort: Cohort,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    source: str | None = "site",
    has_patients: bool | None = None,
    has_split: bool = True,
    features: Mapping[str, np.ndarray] | None = None,
    headers: tuple[pd.DataFrame, list[str]] | None = None,
    embeddings: np.ndarray | None = None,
    together: int = 1,
    classifiers: Classifiers | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    workers: int | None = None,
    progress: bool | None = None,
) -> Steps[Audit]:
    """Audit a cohort, in steps that yield p-values and are sent them corrected.

    - ``cohort``: any; ``path`` in its table lets files be looked at, ``allow_shared_patients`` lets patients
      be in two splits. Lungs are segmented unless it has lung masks.
    - ``out``: finished work is kept in ``out/work``; None: nowhere.
    - ``resume``: reuse what is there from an audit of the same data and settings; else it is removed.
    - ``source``: the column that says where an image comes from, if the table has it.
    - ``has_patients``, ``has_split``: whether they are known; None: patients are if any has two images.
    - ``features``: of :func:`cxrlib.audit.features.describe`, in the cohort's order, if at hand: to audit the
      same images with other labels, say. ``headers``: likewise of :func:`read_headers`.
    - ``embeddings``: float, (N, D), rows as the cohort's: what "the whole image" is then, instead of pixels.
    - ``together``: how many labels' p-values are corrected together.
    - ``classifiers``: whose scores are asked whether they follow what tells the label; rows as the cohort's.
    - ``permutations``: at most so many a probe, raised where the number of probes needs more.
    - Raises DataError: one class only, or fewer than 20 images of either.
    """
    _check(cohort, seed)
    parted = has_split and cohort.table["split"].nunique() > 1
    # The order of the rows must not matter to folds, permutations and chunks.
    order = np.argsort(cohort.table["image_id"].to_numpy(dtype=str), kind="stable")
    moved = bool((order != np.arange(len(order))).any())
    cohort = cohort.take(order, lazy=True) if moved else cohort
    classifiers = (classifiers or Classifiers.none(len(cohort))).take(order)
    settings = {"permutations": permutations, "seed": seed, "source": source, "version": [VERSION, FEATURES]}
    if together > 1:
        settings["together"] = together
    if embeddings is not None:
        settings["embeddings"] = hashlib.sha256(embeddings[order].tobytes()).hexdigest()[:16]
    with tempfile.TemporaryDirectory() if out is None else nullcontext(str(out)) as folder:
        work = work_folder(Path(folder) / "work", cohort, settings, resume)
        if features is not None:
            features = Rows(features, order) if moved else features
        else:
            masked = (
                cohort
                if cohort.lung_masks is not None
                else segment(cohort, workers=workers, progress=progress)
            )
            features = describe(masked, work / "features", workers=workers, progress=progress)
        if embeddings is not None:
            features = ChainMap({"whole": embeddings[order]}, features)  # type: ignore[arg-type]
        paths = existing_paths(cohort.table)
        if headers is None:
            facts, limits = read_headers(cohort, workers, progress)
        else:
            facts, limits = headers[0].iloc[order].reset_index(drop=True), list(headers[1])
        lines = None if paths is None else features["printed"]
        kept = None if out is None else work
        probes = Probes(cohort, kept, permutations, seed, progress, together, workers)
        findings, left_out = yield from ask_all(probes, features, facts, source)
        if embeddings is not None:
            findings = [_of_embeddings(one) if one.probe.name == "whole" else one for one in findings]
        views = {name: Shown(features, name) for name in ("whole", "frame")}
        apart, unasked = between(probes, views, parted)
        by_name = {found.probe.name: found for found in findings}
        questions = [
            Question(by_name[name], made, column, in_pixels=by_name[name].probe.group in IN_PIXELS)
            for name, (made, column) in probes.attributes.items()
            if not by_name[name].detail.get("disguise")
        ]
        attributes = yield from asking(
            cohort, questions, [Shown(features, "whole"), partial(signs_of, features)], classifiers.scores,
            classifiers.thresholds, seed=seed, permutations=permutations, progress=progress,
            together=together, workers=workers,
        )  # fmt: skip
        judges = {"the whole image": probes.held["whole"][1].scores}
        judges |= {str(name): values.to_numpy(float) for name, values in classifiers.scores.items()}
        doubted = doubts(cohort, judges, seed)
        effects = tried(classifiers, cohort, seed=seed, progress=progress)
        lungs_found = features["lungs_found"]
        pairs = duplicates(blocks(features, "thumbnail"), facts.get("sha256"))
    leaks, unknown = _leaks(cohort, pairs, has_patients, parted)
    if "burned_in" in facts:
        marked, unsaid = _burned_in(cohort, facts["burned_in"])
        leaks.append(marked)
        unknown += unsaid
    if lines is not None and (lines >= 0).any():
        leaks.append(_printed(cohort, lines, facts))
    elif lines is not None:
        unknown.append(
            "Whether files name a patient in printed text was not looked for: none has "
            f"{SMALLEST} pixels and can be read. (“Burned-in text” asks something else: whether marks like "
            "text tell the label.)"
        )
    limits += [*left_out, *unasked, *unknown, *doubted.limits, *_weaknesses(cohort, lungs_found)]
    findings += [*leaks, *apart]
    findings.sort(key=_rank)
    limits += _labels_and_columns(cohort)
    splits: Mapping = cohort.table["split"].value_counts().to_dict() if has_split else {}
    known = _facts(cohort, lungs_found) | {"splits": {str(k): int(v) for k, v in splits.items()}}
    measured = performance(classifiers, cohort, has_split=has_split)
    weak = list(doubtful(measured, by_name["whole"].auc).values())
    if measured and has_split:
        weak += learnt_from(cohort)
    limits = [*weak, *limits]
    return Audit(tuple(findings), known, tuple(limits), settings, attributes, measured, effects, doubted)


def _rank(found: Finding) -> tuple:
    """Worst first: counts before the rest, by strength, and what another finding explains behind it."""
    counted = 0.0 if found.probe.group == "split" else 1.0
    strength = counted if found.auc is None else abs(found.auc.value - 0.5)
    return SEVERITIES.index(found.severity), found.shown_by_another, -strength


def _of_embeddings(found: Finding) -> Finding:
    what = "The embedding of the image that the user gave, and not its pixels."
    return replace(found, probe=replace(found.probe, what=what))


def read_headers(
    cohort: Cohort, workers: int | None = None, progress: bool | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Facts of the files, or what is known without them, and what is not."""
    if (paths := existing_paths(cohort.table)) is not None:
        return file_facts(paths, workers=workers, progress=progress), []
    facts = pd.DataFrame(index=range(len(cohort)))
    if {"original_height", "original_width"} <= set(cohort.table):
        facts["height"] = cohort.table["original_height"].astype(float)
        facts["width"] = cohort.table["original_width"].astype(float)
        facts["aspect"] = facts["width"] / facts["height"]
    return facts, [
        "File sizes, encodings and printed text were not looked at: there are no files, or some are gone.",
        "How pictures were made was looked at in the images as they are given, not in their files.",
    ]


def _weaknesses(cohort: Cohort, lungs_found: np.ndarray) -> list[str]:
    limits = []
    if lungs_found.mean() < 0.9:
        limits.append(
            f"Lungs were found in {lungs_found.mean():.0%} of the images; in the others, views of the lungs "
            "use a typical outline, and the projection is not known."
        )
    rarer = min(cohort.labels.sum(), len(cohort) - cohort.labels.sum())
    if rarer < 150:
        limits.append(f"The rarer class has {rarer} images: weak shortcuts will be missed.")
    return limits


def _labels_and_columns(cohort: Cohort) -> list[str]:
    """Where labels have more values than two, and which columns lost values, or have some spelt two ways."""
    counts = cohort.info.get("classes") or {}
    said = [told(counts)] if sum(map(len, counts.values())) > 2 else []
    return [*said, *lost_much(cohort.info.get("readings", {})), *cohort.info.get("spelt_alike", ())]


def _leaks(
    cohort: Cohort, pairs: pd.DataFrame, has_patients: bool | None, has_split: bool
) -> tuple[list[Finding], list[str]]:
    """Patients in two splits and pictures that occur twice; and what of that cannot be checked."""
    table, findings, limits = cohort.table, [], []
    ids, split, patients = table["image_id"].to_numpy(str), table["split"].to_numpy(str), cohort.patients
    if has_patients is None:
        has_patients = bool(table["patient_id"].duplicated().any())
    if not has_patients:
        limits.append(
            "No patients are known, so each image counts as a patient of its own: whether patients are in "
            "two splits cannot be checked, and intervals are too narrow if patients have several images."
        )
    if not has_split:
        limits.append("No split was given, or only one: nothing can be said of leaks between splits.")
    tested = max(int((split != "train").sum()), 1)
    if has_patients and has_split:
        parts = table.groupby("patient_id")["split"].transform("nunique").to_numpy()
        shared = list(dict.fromkeys(patients[parts > 1]))
        # The images are named and not the patients: their ids have no business on a page that goes around.
        examples = [ids[patients == patient][:10].tolist() for patient in shared[:20]]
        detail = {"patients": len(shared), "examples": examples}
        findings.append(_counted("patients", int(((parts > 1) & (split != "train")).sum()), tested, detail))
    a, b = pairs["a"].to_numpy(int), pairs["b"].to_numpy(int)
    kinds = {"duplicates": a != b, "duplicate_labels": cohort.labels[a] != cohort.labels[b]}
    if has_patients:
        kinds["duplicate_patients"] = patients[a] != patients[b]
    if has_split:
        kinds["duplicate_splits"] = split[a] != split[b]
    for name, mine in kinds.items():
        rows = np.unique(np.concatenate([a[mine], b[mine]]))
        if name == "duplicate_splits":
            rows = rows[split[rows] != "train"]
        examples = [[ids[i], ids[j]] for i, j in zip(a[mine][:20], b[mine][:20], strict=True)]
        exact = int(pairs["exact"].to_numpy()[mine].sum())
        detail = {"pairs": int(mine.sum()), "exact": exact, "examples": examples}
        of = tested if name == "duplicate_splits" else len(table)
        shown = tuple(dict.fromkeys(one for pair in examples for one in pair))[:TELLING]
        findings.append(replace(_counted(name, len(rows), of, detail), telling=shown))
    return findings, limits


def _burned_in(cohort: Cohort, said: pd.Series) -> tuple[Finding, list[str]]:
    """The DICOM files whose header says that there is text in the pixels; and of how many none says so."""
    ids = cohort.table["image_id"].to_numpy(str)
    marked = ids[(said == "YES").to_numpy()].tolist()
    dicom, unsaid = int(said.notna().sum()), int((said == "unsaid").sum())
    limits = [
        f"The headers of {unsaid:,} of {dicom:,} DICOM files do not say whether annotations, which may name "
        "the patient, are burned into the pixels."
    ]
    return _marked("burned_in", marked, dicom=dicom, unsaid=unsaid), limits[: bool(unsaid)]


def _printed(cohort: Cohort, lines: np.ndarray, facts: pd.DataFrame) -> Finding:
    """The files in whose pixels there is a line of text; no picture of them is shown."""
    shown = cohort.table["image_id"].to_numpy(str)[lines > 0].tolist()
    said = facts.get("burned_in", pd.Series(index=facts.index, dtype=object))
    denied = int(((said == "NO").to_numpy() & (lines > 0)).sum())
    return _marked("printed_text", shown, looked_at=int((lines >= 0).sum()), denied=denied)


def _marked(name: str, files: list[str], **detail: int) -> Finding:
    severity = "warning" if files else "fine"
    return Finding(PROBES[name], severity, images=len(files), detail=detail | {"files": files})


def _counted(name: str, concerned: int, of: int, detail: dict) -> Finding:
    return Finding(PROBES[name], judged_count(PROBES[name], concerned, of), images=concerned, detail=detail)


def _check(cohort: Cohort, seed: int) -> None:
    labels = cohort.labels
    ill, healthy = int(labels.sum()), int((1 - labels).sum())
    if min(ill, healthy) < FEWEST:
        only = "all" if not min(ill, healthy) else f"only {min(ill, healthy)} of {len(labels)}"
        which = int(ill > healthy) if not min(ill, healthy) else int(ill < healthy)
        raise DataError(
            f"{cohort.name}: {only} images have the label {which}, and {FEWEST} of each are needed for "
            "an audit.",
            remedy="Give both classes (label_column, positive), and a larger --sample if one was drawn.",
        )
    balanced_folds(labels, cohort.patients, 5, seed)


def work_folder(root: Path, cohort: Cohort, settings: dict, resume: bool) -> Path:
    """Where work on a cohort with these settings is kept; what is there of others goes, unless resumed."""
    digest = hashlib.sha256(cohort.content_hash().encode())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(cohort.table.to_csv(index=False).encode("utf-8", "surrogateescape"))
    digest.update(b"own masks" if cohort.lung_masks is not None else b"")
    work = root / digest.hexdigest()[:16]
    for other in root.glob("*") if root.is_dir() else ():
        if other != work or not resume:
            shutil.rmtree(other, ignore_errors=True)
    make_folder(work)
    return work


def _facts(cohort: Cohort, lungs_found: np.ndarray) -> dict:
    return {
        "name": cohort.name,
        "called": cohort.info.get("called"),
        "images": len(cohort),
        "patients": int(cohort.table["patient_id"].nunique()),
        "ill": int(cohort.labels.sum()),
        "image_size": int(cohort.images.shape[1]),
        "skipped": list(cohort.info.get("skipped", ())),
        "lungs_found": round(float(lungs_found.mean()), 4),
        "content_hash": cohort.content_hash(),
        "columns": dict(cohort.info.get("readings", {})),
        "classes": dict(cohort.info.get("classes", {})),
        "embeddings": cohort.info.get("embeddings"),
    }
