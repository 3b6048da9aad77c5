"""Labels that are probably wrong, by a classifier that has not seen them: listed, not judged.

Confident learning (:func:`cxrlib.evaluation.label_errors.suspects`) needs probabilities of images held out of
training. The whole-image probe gives scores, and so may a user's classifier; they become probabilities by
Platt's scaling, for each fold of patients fitted to the other folds. What the lists are worth is counted on
phantoms with planted errors, in ``benchmarks/audit_labels.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cxrlib.audit.ridge import FOLDS, balanced_folds
from cxrlib.audit.stats import aucs
from cxrlib.cohort import Cohort
from cxrlib.errors import CxrWarning
from cxrlib.evaluation.calibration import fit_platt
from cxrlib.evaluation.label_errors import suspects

KNOWS = 0.80
"""AUC below which a classifier knows too little of the label to contradict it."""


@dataclass(frozen=True)
class Doubt:
    """A label to look at again.

    - ``image``, ``label``: the image's id, and its label as given, 0 or 1.
    - ``suspicion``: judge -> the probability that it gives the other label, of those judges that suspect it.
    """

    image: str
    label: int
    suspicion: Mapping[str, float]


@dataclass(frozen=True)
class Doubts:
    """Suspected labels, those that most judges suspect first; by judge how many; and which were not asked."""

    found: tuple[Doubt, ...] = ()
    judges: Mapping[str, int] | None = None
    limits: tuple[str, ...] = ()


NO_DOUBTS = Doubts()


def doubts(cohort: Cohort, scores: Mapping[str, np.ndarray], seed: int = 0) -> Doubts:
    """The labels that each judge suspects.

    - ``scores``: judge -> float, (N,): higher is more likely ill, in any unit; of images that it was not
      trained on.
    """
    labels, ids = cohort.labels, cohort.table["image_id"].to_numpy(str)
    suspected: dict[int, dict[str, float]] = {}
    judges, limits = {}, []
    for judge, values in scores.items():
        auc = float(aucs(labels[:, None], np.asarray(values, float)[:, None])[0])
        if auc < KNOWS:
            limits.append(
                f"Labels were not doubted by {judge}: with an AUC of {auc:.2f} it knows too little of them "
                f"(at least {KNOWS:.2f})."
            )
            continue
        table = suspects(labels, probabilities(values, labels, cohort.patients, seed))
        rows = np.flatnonzero(table["suspected"])
        judges[judge] = len(rows)
        for row, quality in zip(rows.tolist(), table["quality"].to_numpy()[rows].tolist(), strict=True):
            suspected.setdefault(row, {})[judge] = round(1 - quality, 4)
    order = sorted(suspected, key=lambda row: (-len(suspected[row]), -max(suspected[row].values()), ids[row]))
    found = tuple(Doubt(str(ids[row]), int(labels[row]), suspected[row]) for row in order)
    return Doubts(found, judges, tuple(limits))


def probabilities(scores: np.ndarray, labels: np.ndarray, patients: np.ndarray, seed: int = 0) -> np.ndarray:
    """Scores (N,) as probabilities, float64 (N,): Platt's scaling, each fold's by the other folds."""
    scores = np.asarray(scores, float)
    standard = (scores - scores.mean()) / max(float(scores.std()), 1e-12)
    fold = balanced_folds(labels, patients, FOLDS, seed)
    found = np.empty(len(scores))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CxrWarning)  # scores that separate the classes are no fault here
        for number in np.unique(fold):
            mine = fold == number
            found[mine] = fit_platt(labels[~mine], standard[~mine])(standard[mine])
    return found
