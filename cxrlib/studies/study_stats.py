"""The statistics of a study that trains several networks: what is chance of patients, what of training runs.

A network's AUC varies with the patients it is tested on and with the seed it was trained with. An interval
that ignores either is too narrow. Here both variances are added, and the quantile is Student's with
Satterthwaite's degrees of freedom, since three seeds say little about their own spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate, proportion
from cxrlib.evaluation.resampling import Ranked, checked, draw_patients, patient_codes


@dataclass(frozen=True, eq=False)
class Draws:
    """A metric of S trained networks on the same images, and on resampled patients.

    - ``values``: float64, shape (S,): one for each seed.
    - ``replicates``: float64, shape (R, S): the same in each resampling of patients; NaN where undefined.
    - ``n``: images.
    - ``shared``: of :func:`pooled`: a variance over seeds, and its degrees of freedom.
    - ``bounds``: what the metric cannot pass; intervals end there.
    - ``cases``: of a share: its patients. Where all came out alike, resampling gives no width, and Wilson's
      interval of so many stands there.

    ``a - b`` is the difference of two sets of networks seed by seed. It is paired over patients too where
    both were drawn on the same images with the same seed.
    """

    values: np.ndarray
    replicates: np.ndarray
    n: int
    shared: tuple[float, int] | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)
    cases: int | None = None

    def __sub__(self, other: Draws) -> Draws:
        return Draws(self.values - other.values, self.replicates - other.replicates, min(self.n, other.n))

    def estimate(self, level: float = 0.95) -> Estimate:
        """The mean over seeds with an interval over patients and seeds; one seed: over patients alone."""
        error, df = self._error()
        half = _quantile((1 + level) / 2, df) * error
        value = float(self.values.mean())
        if self.cases and value in (0.0, 1.0):
            wilson = proportion(value * self.cases, self.cases, level)
            return Estimate(value, wilson.low, wilson.high, self.n, len(self.values))
        low, high = max(value - half, self.bounds[0]), min(value + half, self.bounds[1])
        return Estimate(value, low, high, self.n, len(self.values))

    def p_value(self) -> float:
        """Two-sided, of the mean being zero."""
        error, df = self._error()
        value = abs(float(self.values.mean()))
        if error == 0:
            return 1.0 if value == 0 else 0.0
        return _two_sided(value / error, df)

    def _error(self) -> tuple[float, float]:
        """Standard error and degrees of freedom."""
        seeds = len(self.values)
        means = self.replicates.mean(axis=1)
        of_patients = float(np.nanvar(means, ddof=1)) if len(means) > 1 else 0.0
        variance, own_df = (float(self.values.var(ddof=1)), seeds - 1) if seeds > 1 else (0.0, 1)
        if self.shared is not None:
            variance, own_df = max(variance, self.shared[0]), self.shared[1]
        of_seeds = variance / seeds
        total = of_patients + of_seeds
        df = math.inf if of_seeds <= 1e-15 else total**2 / (of_seeds**2 / own_df)
        return math.sqrt(total), df


def pooled(family: Mapping[str, Draws]) -> dict[str, Draws]:
    """The same comparisons, with a spread over seeds that they share.

    Two or three seeds that happen to agree make an interval far too narrow. Comparisons made with the same
    seeds borrow from each other: each takes the mean of their variances, or its own where that is larger.
    """
    seeds = {len(one.values) for one in family.values()}
    if len(seeds) != 1 or seeds == {1}:
        return dict(family)
    common = float(np.mean([one.values.var(ddof=1) for one in family.values()]))
    shared = (common, len(family) * (seeds.pop() - 1))
    return {name: replace(one, shared=shared) for name, one in family.items()}


def draws(
    labels: ArrayLike,
    list_of_scores: Sequence[ArrayLike] | np.ndarray,
    patients: ArrayLike | None = None,
    metric: str = "auc",
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Draws:
    """Measure networks of several seeds on the same images and on resampled patients.

    ``list_of_scores``: one (N,) array a training seed, aligned with ``labels`` and ``patients``.
    """
    labels, scores = checked(labels, list_of_scores, metrics=(metric,))
    codes, n_patients = patient_codes(labels, scores, patients)
    ranked = [Ranked.of(labels, row, codes, 0.5) for row in scores]
    once = np.ones((1, n_patients), dtype=np.int64)
    values = np.array([r.measure(once, (metric,))[0, 0] for r in ranked])
    chunks = draw_patients(n_patients, len(labels), replicates, seed)
    drawn = [np.stack([r.measure(counts, (metric,))[:, 0] for r in ranked], axis=1) for counts in chunks]
    return Draws(values, np.concatenate(drawn), len(labels), bounds=(0.0, 1.0))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values that may be compared with 0.05 although there are several of them.

    Holm, A simple sequentially rejective multiple test procedure, Scand J Stat 6:65–70, 1979.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def over_splits(
    values: ArrayLike,
    test_share: float,
    level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """The mean over random splits of one data set, with Nadeau and Bengio's corrected interval.

    The splits share most of their images, so the naive standard error is too small; they add the ratio of
    test to training images to 1/R (Machine Learning 52:239–281, 2003, doi:10.1023/A:1024068626366).
    ``test_share``: test images over training images. ``bounds``: what the values cannot pass, as 0 and 1. One
    split has no interval.
    """
    measured = np.asarray(values, dtype=float)
    mean, splits = float(measured.mean()), len(measured)
    if splits < 2:
        return Estimate(mean, seeds=splits)
    error = math.sqrt(measured.var(ddof=1) * (1 / splits + test_share))
    half = _quantile((1 + level) / 2, splits - 1) * error
    return Estimate(mean, max(mean - half, bounds[0]), min(mean + half, bounds[1]), seeds=splits)


@dataclass(frozen=True)
class PowerLaw:
    """``error = a · n ** -b``, fitted as a straight line in the logarithms.

    - ``a``, ``b``: the fit.
    - ``b_error``: standard error of b.
    - ``residual``: standard deviation of log error around the line.
    - ``mean_log``, ``spread_log``, ``points``: of log n: mean, sum of squares around it, and how many runs
      were fitted; for intervals.
    """

    a: float
    b: float
    b_error: float
    residual: float
    mean_log: float
    spread_log: float
    points: int

    def __call__(self, n: ArrayLike) -> np.ndarray:
        """The fitted error at n training images."""
        return self.a * np.asarray(n, dtype=float) ** -self.b

    def predict(self, n: float, runs: int = 1, level: float = 0.95) -> Estimate:
        """The error at n images, with a prediction interval for the mean of so many runs (geometric)."""
        leverage = 1 / self.points + (math.log(n) - self.mean_log) ** 2 / self.spread_log
        half = _quantile((1 + level) / 2, self.points - 2) * self.residual * math.sqrt(1 / runs + leverage)
        centre = float(self(n))
        return Estimate(centre, centre * math.exp(-half), centre * math.exp(half), seeds=runs)

    def exponent(self, level: float = 0.95) -> Estimate:
        """b with its interval."""
        half = _quantile((1 + level) / 2, self.points - 2) * self.b_error
        return Estimate(self.b, self.b - half, self.b + half)


def fit_power_law(n: ArrayLike, error: ArrayLike) -> PowerLaw:
    """Fit ``error = a · n ** -b`` to runs (Hestness et al. 2017, arXiv:1712.00409).

    Two parameters and not three: with a floor, ``a · n ** -b + c``, and four or five sizes, a, b and c trade
    off against each other and the fit is whatever it was started from. A floor that matters shows in the
    extrapolation, whose errors then lie above the line.

    - ``n``, ``error``: training images and error (1 − AUC, say) of each run, shape (R,), at least three runs,
      two sizes.
    """
    n, error = np.asarray(n, dtype=float), np.asarray(error, dtype=float)
    if len(n) < 3 or len(np.unique(n)) < 2 or not (error > 0).all():
        raise DataError(
            f"A power law cannot be fitted to {len(n)} runs of {len(np.unique(n))} sizes, "
            f"{int((error <= 0).sum())} of them without error.",
            remedy="Give three runs or more, of two sizes or more, with errors above zero.",
        )
    x, y = np.log(n), np.log(error)
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    intercept = float(y.mean() - slope * x.mean())
    residual = math.sqrt(float(((y - intercept - slope * x) ** 2).sum()) / (len(x) - 2))
    return PowerLaw(
        math.exp(intercept), -slope, residual / math.sqrt(spread), residual, float(x.mean()), spread, len(x)
    )


def _quantile(level: float, df: float) -> float:
    from scipy.stats import t

    return NormalDist().inv_cdf(level) if math.isinf(df) else float(t.ppf(level, df))


def _two_sided(statistic: float, df: float) -> float:
    from scipy.stats import norm, t

    return float(2 * (norm.sf(statistic) if math.isinf(df) else t.sf(statistic, df)))


def mean_draws(values: ArrayLike, patients: ArrayLike, *, replicates: int = 1000, seed: int = 0) -> Draws:
    """The mean over images of a share that S networks give for each, as :class:`Draws`.

    ``values``: (S, N), from 0 to 1, such as 1 where a prediction flips. ``patients``: (N,). Resamples as
    :func:`draws` does, so that both may be subtracted.
    """
    values = np.asarray(values, dtype=float)
    _, codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    n_patients = int(codes.max()) + 1
    if n_patients < 2:
        raise DataError("All rows are of one patient.", remedy="Measure on several patients.")
    sums = np.stack([np.bincount(codes, weights=row, minlength=n_patients) for row in values], axis=1)
    sizes = np.bincount(codes, minlength=n_patients)
    chunks = draw_patients(n_patients, values.shape[1], replicates, seed)
    drawn = np.concatenate([(counts @ sums) / (counts @ sizes)[:, None] for counts in chunks])
    return Draws(values.mean(axis=1), drawn, values.shape[1], bounds=(0.0, 1.0), cases=n_patients)


def worst_draws(groups: Sequence[Draws]) -> Draws:
    """The smallest of several metrics of the same networks and resamplings, network by network."""
    return Draws(
        np.min([group.values for group in groups], axis=0),
        np.min([group.replicates for group in groups], axis=0),
        min(group.n for group in groups),
        bounds=groups[0].bounds,
    )


def ratio_draws(above: Draws, below: Draws, nothing: float = 0.0) -> Draws:
    """What part of the way from ``nothing`` to ``below`` does ``above`` reach, in the mean over seeds?

    A ratio of means, made linear at its value (the delta method), so that a draw with ``below`` close
    to ``nothing`` does not upset the interval. Trust it where ``below`` is several standard errors away.
    """
    scale = float(below.values.mean()) - nothing
    if scale == 0:
        raise DataError("The ratio has a denominator of zero.", remedy="Compare what differs.")
    ratio = (float(above.values.mean()) - nothing) / scale
    values, replicates = (
        ratio + (getattr(above, part) - nothing - ratio * (getattr(below, part) - nothing)) / scale
        for part in ("values", "replicates")
    )
    return Draws(values, replicates, min(above.n, below.n))
