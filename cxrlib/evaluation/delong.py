"""DeLong's test of two AUCs on the same rows; :mod:`cxrlib.evaluation.metrics` has it among the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from cxrlib.errors import DataError
from cxrlib.evaluation.resampling import LEVEL, checked


@dataclass(frozen=True)
class DeLong:
    """A paired DeLong test: two AUCs, their difference a − b with its interval, z, and the two-sided p."""

    auc_a: float
    auc_b: float
    difference: float
    low: float
    high: float
    z: float
    p_value: float


def delong(labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike) -> DeLong:
    """Test whether two models' AUCs on the same rows differ.

    The covariance is DeLong's (DeLong et al., Biometrics 44:837–845, 1988, doi:10.2307/2531595), computed
    from midranks in O(N log N) (Sun, Xu, IEEE Signal Processing Letters 21:1389–1393, 2014,
    doi:10.1109/LSP.2014.2337313). Rows are taken as independent: with several images a patient use
    :func:`~cxrlib.evaluation.metrics.bootstrap_difference`. Where the difference has no variance, p is 1 if
    the AUCs agree and 0 if not.
    """
    labels, scores = checked(labels, [scores_a, scores_b])
    positive = labels == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if min(m, n) < 2:
        raise DataError(
            f"DeLong's test has {m} positive and {n} negative rows.", remedy="Give it two or more of each."
        )
    of_positives, of_negatives = np.empty((2, m)), np.empty((2, n))
    for i, row in enumerate(scores):
        ranks = _midranks(row)
        of_positives[i] = (ranks[positive] - _midranks(row[positive])) / n
        of_negatives[i] = 1 - (ranks[~positive] - _midranks(row[~positive])) / m
    areas = of_positives.mean(axis=1)
    covariance = np.cov(of_positives) / m + np.cov(of_negatives) / n
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = math.sqrt(variance) if variance > 1e-15 else 0.0  # rounding leaves about 1e-18 for equal scores
    if error:
        z = difference / error
    else:
        z = 0.0 if abs(difference) < 1e-12 else math.copysign(math.inf, difference)
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * error
    p_value = math.erfc(abs(z) / math.sqrt(2))
    return DeLong(
        float(areas[0]), float(areas[1]), difference, difference - half, difference + half, z, p_value
    )


def _midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; tied values share the mean of theirs."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[group]
