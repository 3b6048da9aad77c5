"""How good the predictions are, and how sure that is: metrics with intervals by patient, and tests.

A score counts as a positive prediction where it is at least the threshold. Curves to look at come from
scikit-learn (``roc_curve``, ``precision_recall_curve``); this module gives the numbers and their intervals.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cxrlib.errors import ConfigError, CxrWarning, DataError
from cxrlib.evaluation.delong import DeLong, delong
from cxrlib.evaluation.resampling import LEVEL, METRICS, Ranked, checked, draw_patients, patient_codes

__all__ = [
    "METRICS", "DeLong", "Estimate", "accuracy", "auc", "average_precision", "bootstrap",
    "bootstrap_difference", "bootstrap_mean", "choose_threshold", "delong", "evaluate",
    "over_seeds", "proportion", "sensitivity", "specificity",
]  # fmt: skip

THRESHOLD_RULES = ("youden", "sensitivity", "accuracy")


@dataclass(frozen=True)
class Estimate:
    """A number, the limits of its interval, the images behind it, and the training runs it is a mean over."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seeds: int | None = None

    def as_dict(self) -> dict[str, float | int]:
        """The fields that are not None, as plain numbers, for JSON."""
        kinds = {"value": float, "low": float, "high": float, "n": int, "seeds": int}
        return {name: kinds[name](value) for name, value in vars(self).items() if value is not None}

    def __format__(self, spec: str) -> str:
        """``f"{estimate:.1%}"`` gives ``93.4% (91.2%–95.1%)``; without a specification, three decimals.

        Limits with a sign are joined by "to", as a dash beside a minus cannot be read. Zero has no minus.
        """
        spec = spec or (".3f" if abs(self.value) < 10 else ".1f")
        spec = f"+z{spec[1:]}" if spec[0] == "+" else f"z{spec}"
        if self.low is None or self.high is None:
            return format(self.value, spec)
        value, low, high = (format(number, spec) for number in (self.value, self.low, self.high))
        dash = " to " if low[0] in "-+" else "–"
        return f"{value} ({low}{dash}{high})".replace("-", "−")

    def __str__(self) -> str:
        return format(self, "")


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve; tied scores count one half. ``labels`` 0/1 and ``scores``, shape (N,)."""
    return _point(labels, scores, "auc")


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean of the precision at each threshold, weighted by the gain in recall (no interpolation)."""
    return _point(labels, scores, "average_precision")


def sensitivity(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> float:
    """Share of the positives whose score is at least the threshold."""
    return _point(labels, scores, "sensitivity", threshold)


def specificity(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> float:
    """Share of the negatives whose score is below the threshold."""
    return _point(labels, scores, "specificity", threshold)


def accuracy(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> float:
    """Share of all rows that fall on the right side of the threshold."""
    return _point(labels, scores, "accuracy", threshold)


def bootstrap(
    labels: ArrayLike,
    scores: ArrayLike,
    patients: ArrayLike | None = None,
    metrics: Sequence[str] = METRICS,
    threshold: float = 0.5,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Metrics with 95% percentile intervals from resampling patients with replacement.

    - ``labels``, ``scores``: 0/1 and finite numbers, shape (N,).
    - ``patients``: shape (N,), whose image each row is; None treats every row as a patient of its own, which
      is too sure of itself where patients have several images.
    - ``threshold``: for sensitivity, specificity and accuracy; chosen on the validation split.
    - Raises DataError: lengths differ, a score is not finite, a label is neither 0 nor 1, or a class or a
      second patient is missing.

    The order of the rows does not matter. A replicate in which a metric is undefined (only one class drawn)
    is left out of that metric's interval, which is then conditional on the class being there; a CxrWarning
    says so where that is more than one replicate in twenty.
    """
    estimates = bootstrap_mean(labels, [scores], patients, metrics, threshold, replicates, seed)
    return {name: Estimate(e.value, e.low, e.high, e.n) for name, e in estimates.items()}


def bootstrap_mean(
    labels: ArrayLike,
    list_of_scores: Sequence[ArrayLike],
    patients: ArrayLike | None = None,
    metrics: Sequence[str] = METRICS,
    threshold: float | Sequence[float] = 0.5,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Each metric's mean over training seeds, with an interval from resampling the shared patients.

    ``list_of_scores`` holds one (N,) array for each seed; ``threshold`` is one number or one for each seed.
    In a replicate every seed is measured on the same drawn patients, so the interval is that of the mean for
    these trained models, without the spread over seeds (:func:`over_seeds`). Otherwise as :func:`bootstrap`.
    """
    values, draws, n = _replicates(labels, list_of_scores, patients, metrics, threshold, replicates, seed)
    limits = _percentile_limits(draws.mean(axis=1), metrics)
    return {
        name: Estimate(float(values[:, j].mean()), *limits[j], n=n, seeds=len(values))
        for j, name in enumerate(metrics)
    }


def bootstrap_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    patients: ArrayLike | None = None,
    metrics: Sequence[str] = METRICS,
    threshold: float | Sequence[float] = 0.5,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Each metric's difference a − b between two models, both measured on the same drawn patients.

    The paired comparison for patients with several images, where :func:`delong` would be too sure.
    """
    values, draws, n = _replicates(
        labels, [scores_a, scores_b], patients, metrics, threshold, replicates, seed
    )
    limits = _percentile_limits(draws[:, 0] - draws[:, 1], metrics)
    return {
        name: Estimate(float(values[0, j] - values[1, j]), *limits[j], n=n) for j, name in enumerate(metrics)
    }


def evaluate(
    labels: ArrayLike,
    scores: ArrayLike,
    patients: ArrayLike | None = None,
    threshold: float = 0.5,
    **options: Any,
) -> dict[str, Estimate]:
    """All five metrics with intervals by patient; options as for :func:`bootstrap`."""
    return bootstrap(labels, scores, patients, METRICS, threshold, **options)


def over_seeds(estimates: Sequence[Estimate | float]) -> Estimate:
    """The mean over training runs.

    Given plain numbers, ``low`` and ``high`` are the range over seeds, not a confidence interval. Given
    Estimates with limits, the limits are averaged, which is a slightly wide interval for the mean; where the
    scores themselves are at hand, use :func:`bootstrap_mean`.
    """
    runs = [run if isinstance(run, Estimate) else Estimate(float(run)) for run in estimates]
    if not runs:
        raise DataError("There is no run to average.", remedy="Give one number or Estimate for each seed.")
    values = [run.value for run in runs]
    if not np.isfinite(values).all():
        raise DataError(f"The runs to average are {values}.", remedy="Leave out the runs that failed.")
    sizes = {run.n for run in runs}
    limits = [(run.low, run.high) for run in runs if run.low is not None and run.high is not None]
    low, high = min(values), max(values)
    if len(limits) == len(runs):
        low, high = (float(np.mean(side)) for side in zip(*limits, strict=True))
    n = sizes.pop() if len(sizes) == 1 else None
    return Estimate(float(np.mean(values)), float(low), float(high), n, seeds=len(runs))


def choose_threshold(
    labels: ArrayLike, scores: ArrayLike, rule: str = "youden", at: float | None = None
) -> float:
    """A threshold for these scores; give it the validation split, never the test split.

    - ``rule``: ``youden``: largest sensitivity + specificity. ``accuracy``: largest accuracy.
      ``sensitivity``: the largest specificity with sensitivity at least ``at`` (0 < at ≤ 1). The lowest of
      equally good ones.
    - Returns: halfway between two scores that occur, or just above the largest where none should be positive.
    - Raises ConfigError, DataError: an unknown rule or a wrong ``at``; labels of one class only.
    """
    if rule not in THRESHOLD_RULES:
        raise ConfigError(
            f"There is no rule {rule!r} for choosing a threshold.", remedy=f"Use one of {THRESHOLD_RULES}."
        )
    if (rule == "sensitivity") != (at is not None) or (at is not None and not 0 < at <= 1):
        raise ConfigError(
            f"Rule {rule!r} was given at={at}.",
            remedy="Give at=0.9, say, for the rule 'sensitivity', and no `at` for the others.",
        )
    given, (row,) = checked(labels, [scores])
    cuts, hits, rejected = candidates(given, row)
    sensitivities, specificities = hits / hits[0], rejected / rejected[-1]
    if rule == "youden":
        best = int(np.argmax(np.round(sensitivities + specificities, 12)))
    elif rule == "accuracy":
        best = int(np.argmax(hits + rejected))
    else:
        assert at is not None  # refused above
        best = int(np.flatnonzero(sensitivities >= at - 1e-12)[-1])
        best = int(np.flatnonzero(rejected == rejected[best])[0])
    return cut_at(cuts, best)


def candidates(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The K scores that occur, ascending; true positives and true negatives, (K + 1,), of each as threshold.

    Entry k calls every score from the k-th on positive; the last entry calls none.
    """
    cuts, group = np.unique(scores, return_inverse=True)
    positives = np.bincount(group, weights=labels, minlength=len(cuts))
    negatives = np.bincount(group, weights=1 - labels, minlength=len(cuts))
    return cuts, np.append(np.cumsum(positives[::-1])[::-1], 0), np.append(0, np.cumsum(negatives))


def cut_at(cuts: np.ndarray, k: int) -> float:
    """The threshold of entry ``k`` of :func:`candidates`, halfway between two scores where it has two."""
    if k == 0:
        return float(cuts[0])
    if k == len(cuts):
        return float(np.nextafter(cuts[-1], np.inf))
    return float((cuts[k - 1] + cuts[k]) / 2)


def proportion(successes: float, total: int, level: float = LEVEL) -> Estimate:
    """A share with Wilson's interval (Wilson 1927, doi:10.1080/01621459.1927.10502953); rows independent."""
    if not 0 <= successes <= total or total < 1:
        raise DataError(
            f"{successes} of {total} is no share.", remedy="Give 0 ≤ successes ≤ total and total ≥ 1."
        )
    z, share = NormalDist().inv_cdf((1 + level) / 2), successes / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), int(total))


def _point(labels: ArrayLike, scores: ArrayLike, metric: str, threshold: float = 0.5) -> float:
    labels, rows = checked(labels, [scores], metrics=(metric,))
    ranked = Ranked.of(labels, rows[0], np.arange(len(labels)), threshold)
    return float(ranked.measure(np.ones((1, len(labels)), dtype=np.int64), (metric,))[0, 0])


def _replicates(
    labels: ArrayLike,
    list_of_scores: Sequence[ArrayLike],
    patients: ArrayLike | None,
    metrics: Sequence[str],
    threshold: float | Sequence[float],
    replicates: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Metrics of S models: as they are, (S, M); in each replicate, (R, S, M), NaN where undefined; and N."""
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ConfigError(f"There is no metric {unknown[0]!r}.", remedy=f"Use any of {METRICS}.")
    if replicates < 1:
        raise ConfigError(
            f"{replicates} replicates give no interval.", remedy="Draw at least 1, better 2000."
        )
    labels, scores = checked(labels, list_of_scores, metrics=metrics)
    codes, n_patients = patient_codes(labels, scores, patients)
    thresholds = np.broadcast_to(np.asarray(threshold, dtype=float), len(scores))
    ranked = [Ranked.of(labels, row, codes, t) for row, t in zip(scores, thresholds, strict=True)]
    values = np.array([r.measure(np.ones((1, n_patients), dtype=np.int64), metrics)[0] for r in ranked])
    chunks = draw_patients(n_patients, len(labels), replicates, seed)
    draws = np.concatenate(
        [np.stack([r.measure(counts, metrics) for r in ranked], axis=1) for counts in chunks]
    )
    return values, draws, len(labels)


def _percentile_limits(draws: np.ndarray, metrics: Sequence[str]) -> list[tuple[float, float]]:
    """(low, high) of each column of (R, M); replicates where it is NaN are left out."""
    limits = []
    for name, column in zip(metrics, draws.T, strict=True):
        defined = column[np.isfinite(column)]
        left_out = len(column) - len(defined)
        if not len(defined):
            raise DataError(
                f"No replicate drew the classes that {name} needs.",
                remedy="Gather more patients of the rarer class.",
            )
        if left_out > 0.05 * len(column):
            warnings.warn(
                f"{left_out} of {len(column)} replicates drew only one class and are left out of the "
                f"interval of {name}: there are too few patients of the rarer class for it to be trusted.",
                CxrWarning,
                stacklevel=4,
            )
        low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        limits.append((float(low), float(high)))
    return limits
