"""Whether a probability of 0.8 means eight in ten: reliability, its error, and scaling that mends part of it.

Everything here follows from sums over rows, so that a bootstrap by patient costs a matrix product.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_expit, logit

from cxrlib.errors import ConfigError, CxrWarning, DataError
from cxrlib.evaluation.eda import percentiles, resample_patients
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.resampling import LEVEL, check_probabilities, checked

STRATEGIES = ("quantile", "uniform")
_CLIP = 1e-7  # single precision rounds a probability closer to 1 than this to 1
_HOTTEST = 6.0  # |log temperature| at which the search for one ends


@dataclass(frozen=True)
class Scaling:
    """Logits times ``slope`` plus ``offset``: temperature scaling where the offset is 0.

    Reference: Guo et al., ICML 2017 (temperature), arXiv:1706.04599. Platt, Advances in Large Margin
    Classifiers, 1999 (slope and offset).
    """

    slope: float = 1.0
    offset: float = 0.0

    @property
    def temperature(self) -> float:
        """What the logits are divided by; above 1 the network was too sure of itself."""
        return 1 / self.slope

    def __call__(self, logits: ArrayLike) -> np.ndarray:
        """Probabilities, float64, of ``logits`` of any shape."""
        return expit(self.slope * np.asarray(logits, dtype=float) + self.offset)


def to_logits(probabilities: ArrayLike) -> np.ndarray:
    """Log odds, float64; probabilities are kept 1e-7 away from 0 and 1."""
    return logit(np.clip(np.asarray(probabilities, dtype=float), _CLIP, 1 - _CLIP))


def fit_temperature(labels: ArrayLike, logits: ArrayLike) -> Scaling:
    """The temperature with the smallest cross-entropy; give it the validation images.

    It changes no rank, so AUC and any operating point stay what they were. Logits that say nothing get a
    temperature in the hundreds, and with it probabilities near ½. Where they separate the classes, the best
    temperature would be 0, and a CxrWarning says so.
    """
    labels, logits = _checked_logits(labels, logits)

    def loss(log_temperature: float) -> float:
        return float(_cross_entropy(labels, logits * np.exp(-log_temperature)).mean())

    found = minimize_scalar(loss, bounds=(-_HOTTEST, _HOTTEST), method="bounded", options={"xatol": 1e-6})
    if found.x < -0.99 * _HOTTEST:
        warnings.warn("No temperature fits: the logits separate the two classes.", CxrWarning, stacklevel=2)
    return Scaling(slope=float(np.exp(-found.x)))


def fit_platt(labels: ArrayLike, logits: ArrayLike) -> Scaling:
    """Slope and offset with the smallest cross-entropy: Platt's scaling without his prior."""
    labels, logits = _checked_logits(labels, logits)
    start = fit_temperature(labels, logits)

    def loss(parameters: np.ndarray) -> tuple[float, list[np.floating]]:
        slope, offset = parameters
        error = expit(slope * logits + offset) - labels
        value = float(_cross_entropy(labels, slope * logits + offset).mean())
        return value, [np.mean(error * logits), np.mean(error)]

    slope, offset = minimize(loss, [start.slope, 0.0], jac=True, method="BFGS").x
    return Scaling(float(slope), float(offset))


def reliability(
    labels: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    bins: int = 10,
    strategy: str = "quantile",
    replicates: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The points of a reliability diagram, with intervals by patient.

    - Returns: DataFrame with a row a bin that is not empty: ``probability`` (mean), ``frequency`` (share of
      positives), ``low``, ``high``, ``n``.
    """
    labels, (row,) = _checked(labels, [probabilities])
    cells = _cells(labels, row, bins, strategy)
    n, p, y = cells.sum(axis=0)
    sums = resample_patients(
        cells.reshape(len(labels), -1), _patients(labels, patients), replicates=replicates, seed=seed
    ).reshape(replicates, 3, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = percentiles(sums[:, 2] / sums[:, 0])
    return pd.DataFrame(
        {"probability": p / n, "frequency": y / n, "low": low, "high": high, "n": n.astype(int)}
    )


def calibration(
    labels: ArrayLike,
    list_of_probabilities: Sequence[ArrayLike] | np.ndarray,
    patients: ArrayLike | None = None,
    *,
    bins: int = 10,
    strategy: str = "quantile",
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """How far probabilities can be believed: means over training seeds, with intervals by patient.

    - ``list_of_probabilities``: one (N,) array for each training seed, 0–1.
    - ``bins``, ``strategy``: bins are equally full (``quantile``) or equally wide (``uniform``).
    - ``replicates``: 0 gives the numbers without intervals.
    - Returns: ``ece`` (mean distance of a bin's frequency of positives from its mean probability); ``bias``
      (mean probability − share of positives); ``log_loss`` (nats); ``brier``, and its parts, ``reliability −
      resolution + uncertainty + within``: squared distance of forecast and frequency in the bins, how far the
      bins' frequencies are from the overall one, variance of the labels, and what the spread of forecasts
      inside the bins adds; ``ece_floor``: the ECE that calibrated probabilities like these would show in so
      many images, with the range of 95% of draws. An ECE inside that range is no evidence of miscalibration.

    ECE, reliability and resolution cannot be negative, so noise adds to them, and resampling adds the noise
    again. The upper limit of their interval is lowered by the bias that the bootstrap shows and the lower
    limit by twice that, once for the resampling and once for the sample; for an ECE within the floor's range
    the lower limit is 0. (In simulated samples of 400 rows with true errors of 0.03, 0.10 and 0.12 the ECE's
    interval held the truth in 91%, 96% and 93% of 200 samples, and plain percentiles in 3%, 90% and 93%.)

    References: Murphy, Journal of Applied Meteorology 12:595–600, 1973; for bins, Stephenson et al., Weather
    and Forecasting 23:752–757, 2008, doi:10.1175/2007WAF2006116.1.
    """
    labels, probabilities = _checked(labels, list_of_probabilities)
    cells = np.concatenate(
        [
            np.concatenate([_cells(labels, row, bins, strategy), _losses(labels, row, bins)], axis=1)
            for row in probabilities
        ],
        axis=2,
    )
    shape = (len(probabilities), -1)
    point = _statistics(cells.sum(axis=0)[None], shape)
    draws = {}
    if replicates:
        sums = resample_patients(
            cells.reshape(len(labels), -1), _patients(labels, patients), replicates=replicates, seed=seed
        )
        draws = _statistics(sums.reshape(replicates, *cells.shape[1:]), shape)
    numbers = {}
    for name, (value,) in point.items():
        low = high = None
        if replicates:
            (low,), (high,) = percentiles(draws[name][:, None])
            if name in ("ece", "reliability", "resolution"):
                bias = max(0.0, float(np.nanmean(draws[name])) - value)
                low, high = max(0.0, low - 2 * bias), max(value, high - bias)
        numbers[name] = Estimate(float(value), low, high, n=len(labels), seeds=len(probabilities))
    if replicates:
        floor = _floor(probabilities, bins, strategy, min(replicates, 500), seed)
        numbers["ece_floor"] = floor
        if floor.high is not None and numbers["ece"].value <= floor.high:
            numbers["ece"] = replace(numbers["ece"], low=0.0)
    return numbers


def bin_edges(probabilities: ArrayLike, bins: int, strategy: str = "quantile") -> np.ndarray:
    """Inner edges of the bins, ascending: float64, at most ``bins − 1`` of them (ties merge bins)."""
    if strategy not in STRATEGIES or bins < 1:
        raise ConfigError(
            f"{bins} bins of kind {strategy!r} cannot be made.", remedy=f"Use 1 or more of {STRATEGIES}."
        )
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    return np.unique(np.quantile(np.asarray(probabilities), inner)) if strategy == "quantile" else inner


def _statistics(sums: np.ndarray, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Sums (R, 5, S × B) of rows, probabilities, labels, squared errors and losses -> name: (R,) means."""
    n, p, y, squared, losses = (sums[:, i].reshape(len(sums), *shape) for i in range(5))
    total = n.sum(axis=2)
    parts = _parts(n, p, y)
    brier = squared.sum(axis=2) / total
    found = {
        "ece": np.abs(p - y).sum(axis=2) / total,
        "bias": (p.sum(axis=2) - y.sum(axis=2)) / total,
        "log_loss": losses.sum(axis=2) / total,
        "brier": brier,
        **parts,
        "within": brier - (parts["reliability"] - parts["resolution"] + parts["uncertainty"]),
    }
    return {name: values.mean(axis=1) for name, values in found.items()}


def _parts(n: np.ndarray, p: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Murphy's three terms from each bin's rows, sum of probabilities and positives, (…, B)."""
    full = np.where(n > 0, n, 1)
    total = n.sum(axis=-1)
    share = y.sum(axis=-1) / total
    return {
        "reliability": ((p - y) ** 2 / full).sum(axis=-1) / total,
        "resolution": (n * (y / full - share[..., None]) ** 2).sum(axis=-1) / total,
        "uncertainty": share * (1 - share),
    }


def _cells(labels: np.ndarray, probabilities: np.ndarray, bins: int, strategy: str) -> np.ndarray:
    """(N, 3, B): 1, probability and label of each row in its bin."""
    codes = np.searchsorted(bin_edges(probabilities, bins, strategy), probabilities, side="right")
    cells = np.zeros((len(labels), 3, bins))
    cells[np.arange(len(labels)), :, codes] = np.stack([np.ones(len(labels)), probabilities, labels], axis=1)
    return cells


def _losses(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> np.ndarray:
    """(N, 2, B): squared error and cross-entropy of each row, in the first column."""
    cells = np.zeros((len(labels), 2, bins))
    cells[:, 0, 0] = (probabilities - labels) ** 2
    cells[:, 1, 0] = _cross_entropy(labels, to_logits(probabilities))
    return cells


def _floor(probabilities: np.ndarray, bins: int, strategy: str, draws: int, seed: int) -> Estimate:
    rng = np.random.default_rng(seed)
    by_seed = []
    for row in probabilities:
        cells = _cells(np.zeros(len(row)), row, bins, strategy)
        labels = (rng.random((draws, len(row))) < row).astype(float)
        by_seed.append(np.abs(cells[:, 1].sum(axis=0) - labels @ cells[:, 0]).sum(axis=1) / len(row))
    values = np.mean(by_seed, axis=0)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Estimate(float(values.mean()), float(low), float(high), len(probabilities[0]), len(probabilities))


def _cross_entropy(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Of each row, in nats."""
    return -np.where(labels == 1, log_expit(logits), log_expit(-logits))


def _patients(labels: np.ndarray, patients: ArrayLike | None) -> np.ndarray:
    return np.arange(len(labels)) if patients is None else np.asarray(patients)


def _checked_logits(labels: ArrayLike, logits: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    labels, (row,) = checked(labels, [logits], metrics=())
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"All {len(labels)} labels are {labels[0]}.",
            remedy="A scaling is fitted to images of both classes.",
        )
    if ((row >= 0) & (row <= 1)).all():
        warnings.warn(
            "All logits lie between 0 and 1: if they are probabilities, give to_logits(probabilities).",
            CxrWarning,
            stacklevel=3,
        )
    return labels, row


def _checked(
    labels: ArrayLike, list_of_probabilities: Sequence[ArrayLike] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = checked(labels, list_of_probabilities, metrics=("accuracy",))
    check_probabilities(probabilities)
    return labels, probabilities
