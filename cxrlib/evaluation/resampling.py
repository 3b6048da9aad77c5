"""Drawing patients with replacement, and metrics of weighted rows fast enough to do it thousands of times.

The scores are sorted once. A replicate is then a count for each patient, and every metric follows from
cumulative sums of those counts along the sorted rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cxrlib.errors import DataError

METRICS = ("auc", "average_precision", "sensitivity", "specificity", "accuracy")
_NEEDS = {"sensitivity": (1,), "specificity": (0,), "accuracy": ()}  # the classes; the others need both
LEVEL = 0.95  # coverage that intervals aim at: limits at the 2.5th and 97.5th percentile
_CHUNK = 1 << 16  # replicates × rows held at once: small enough to stay in the processor's cache


def checked(
    labels: ArrayLike, list_of_scores: Sequence[ArrayLike] | np.ndarray, metrics: Sequence[str] = ("auc",)
) -> tuple[np.ndarray, np.ndarray]:
    """Labels as int64 (N,) and scores as float64 (S, N), or a DataError that says what is wrong with them.

    The classes that ``metrics`` need must be there.
    """
    labels = np.asarray(labels)
    if len(list_of_scores) and np.ndim(list_of_scores[0]) == 0:
        raise DataError(
            "The scores are one array where a list of arrays is wanted.",
            remedy="Put them into a list: [scores].",
        )
    rows = [np.asarray(row) for row in list_of_scores]
    if not rows:
        raise DataError("There are no scores.", remedy="Give one array of scores for each model.")
    if labels.ndim != 1 or any(row.shape != labels.shape for row in rows):
        shapes = ", ".join(str(row.shape) for row in rows)
        raise DataError(
            f"Labels have shape {labels.shape} and scores {shapes}.",
            remedy="Give one label and one score for each row.",
        )
    if not len(labels):
        raise DataError("There are no labels.", remedy="Check that the split or subgroup is not empty.")
    try:
        values, scores = labels.astype(float), np.array([row.astype(float) for row in rows])
    except (TypeError, ValueError) as error:
        raise DataError(
            "Labels or scores are not numbers.", remedy="Give 0/1 labels and real scores."
        ) from error
    wrong = np.flatnonzero(~np.isin(values, (0, 1)))
    if len(wrong):
        raise DataError(
            f"{len(wrong)} of {len(labels)} labels are neither 0 nor 1.",
            offenders=[f"row {row}: {labels[row]!r}" for row in wrong],
            remedy="Write 1 for pneumonia and 0 for its absence, or drop those rows.",
        )
    infinite = np.argwhere(~np.isfinite(scores))
    if len(infinite):
        raise DataError(
            f"{len(infinite)} scores are not finite.",
            offenders=[f"row {row}: {scores[model, row]}" for model, row in infinite],
            remedy="Look for a diverged model or a missing prediction before measuring.",
        )
    labels = values.astype(np.int64)
    for metric in metrics:
        for needed in _NEEDS.get(metric, (0, 1)):
            if not (labels == needed).any():
                raise DataError(
                    f"{metric} is undefined: all {len(labels)} labels are {1 - needed}.",
                    remedy="Measure it on rows of both classes.",
                )
    return labels, scores


def patient_codes(
    labels: np.ndarray, scores: np.ndarray, patients: ArrayLike | None
) -> tuple[np.ndarray, int]:
    """For each row its patient, 0 … P − 1, and P, numbered so that the order of the rows cannot matter."""
    if patients is None:
        order = np.lexsort((*scores, labels))  # rows that agree in everything are interchangeable
        codes = np.empty(len(labels), dtype=np.int64)
        codes[order] = np.arange(len(labels))
    else:
        patients = np.asarray(patients)
        check_patients(patients, len(labels))
        _, codes = np.unique(patients.astype(str), return_inverse=True)
    n_patients = int(codes.max()) + 1
    if n_patients < 2:
        raise DataError(
            "All rows are of one patient, so nothing can be said of others.",
            remedy="Measure on several patients, or ask for the number without an interval.",
        )
    return codes, n_patients


def check_patients(patients: np.ndarray, rows: int) -> None:
    """A DataError unless there is a patient, and no missing one, for each row."""
    if patients.shape != (rows,):
        raise DataError(
            f"There are {patients.size} patients for {rows} rows.", remedy="Give the patient of each row."
        )
    missing = np.flatnonzero([patient is None or patient != patient for patient in patients.tolist()])
    if len(missing):
        raise DataError(
            f"{len(missing)} of {rows} rows have no patient.",
            offenders=[f"row {row}" for row in missing],
            remedy="Name the patient of each, or drop those rows; images of one person belong together.",
        )


def check_probabilities(scores: np.ndarray) -> None:
    """A DataError where one of the scores, of any shape with the rows last, is no probability."""
    outside = np.argwhere((scores < 0) | (scores > 1))
    if len(outside):
        raise DataError(
            f"{len(outside)} scores are no probabilities.",
            offenders=[f"row {where[-1]}: {scores[tuple(where)]:.4g}" for where in outside],
            remedy="Give probabilities between 0 and 1; of logits, scipy.special.expit.",
        )


def draw_patients(n_patients: int, n_rows: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """How often each patient is drawn: int64, (B, P), each row summing to P, ``replicates`` rows in all."""
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // max(n_rows, n_patients))
    for start in range(0, replicates, size):
        n = min(size, replicates - start)
        drawn = rng.integers(0, n_patients, size=(n, n_patients), dtype=np.int32)
        drawn = drawn + np.arange(n, dtype=np.int64)[:, None] * n_patients
        yield np.bincount(drawn.ravel(), minlength=n * n_patients).reshape(n, n_patients)


@dataclass(frozen=True)
class Ranked:
    """One model's scores, sorted once, so that a replicate costs cumulative sums and no sorting."""

    positives: np.ndarray  # patient code of each positive row, by ascending score
    negatives: np.ndarray  # the same of each negative row
    below: np.ndarray  # for each positive: how many negatives score lower
    not_above: np.ndarray  # for each positive: how many negatives score lower or the same
    positives_below: np.ndarray  # for each positive: how many positives score lower
    missed: int  # positives below the threshold
    rejected: int  # negatives below the threshold

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray, codes: np.ndarray, threshold: float) -> Ranked:
        """Rank ``scores`` (N,) of rows with ``labels`` and patient ``codes``."""
        order = np.lexsort(
            (codes, scores)
        )  # by patient among ties, so that sums round alike in any row order
        is_positive = labels[order] == 1
        positives, negatives = order[is_positive], order[~is_positive]
        p, n = scores[positives], scores[negatives]
        return cls(
            positives=codes[positives],
            negatives=codes[negatives],
            below=np.searchsorted(n, p, side="left"),
            not_above=np.searchsorted(n, p, side="right"),
            positives_below=np.searchsorted(p, p, side="left"),
            missed=int(np.searchsorted(p, threshold, side="left")),
            rejected=int(np.searchsorted(n, threshold, side="left")),
        )

    def measure(self, counts: np.ndarray, metrics: Sequence[str]) -> np.ndarray:
        """Metrics, (B, M), where patient p is in replicate b ``counts[b, p]`` times; NaN where undefined."""
        weights = np.take(counts, self.positives, axis=1)
        sums = _Sums(weights, _cumulated(weights), _cumulated(np.take(counts, self.negatives, axis=1)))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([getattr(self, f"_{metric}")(sums) for metric in metrics], axis=1)

    def _auc(self, sums: _Sums) -> np.ndarray:
        lower = np.take(sums.negatives, self.below, axis=1) + np.take(sums.negatives, self.not_above, axis=1)
        return np.einsum("bi,bi->b", sums.weights, lower) / (2.0 * sums.n_positive * sums.n_negative)

    def _average_precision(self, sums: _Sums) -> np.ndarray:
        hits = sums.n_positive[:, None] - np.take(sums.positives, self.positives_below, axis=1)
        alarms = sums.n_negative[:, None] - np.take(sums.negatives, self.below, axis=1)
        precision = hits / np.maximum(hits + alarms, 1)  # 0 of 0 has weight 0
        return np.einsum("bi,bi->b", sums.weights, precision) / np.where(
            sums.n_negative > 0, sums.n_positive, np.nan
        )

    def _sensitivity(self, sums: _Sums) -> np.ndarray:
        return 1 - sums.positives[:, self.missed] / sums.n_positive

    def _specificity(self, sums: _Sums) -> np.ndarray:
        return sums.negatives[:, self.rejected] / sums.n_negative

    def _accuracy(self, sums: _Sums) -> np.ndarray:
        right = sums.n_positive - sums.positives[:, self.missed] + sums.negatives[:, self.rejected]
        return right / (sums.n_positive + sums.n_negative)


@dataclass(frozen=True)
class _Sums:
    """Counts along the sorted rows of B replicates."""

    weights: np.ndarray  # (B, positives): how often each positive row is drawn
    positives: np.ndarray  # (B, positives + 1): how often the first k positive rows are, together
    negatives: np.ndarray  # (B, negatives + 1)

    @property
    def n_positive(self) -> np.ndarray:
        return self.positives[:, -1]

    @property
    def n_negative(self) -> np.ndarray:
        return self.negatives[:, -1]


def _cumulated(weights: np.ndarray) -> np.ndarray:
    sums = np.zeros((weights.shape[0], weights.shape[1] + 1), dtype=np.int64)
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums
