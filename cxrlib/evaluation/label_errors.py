"""Single cases: the hardest ones, the most confident mistakes, and labels that are probably wrong.

A confident mistake is either the network's or the label's. Confident learning (Northcutt, Jiang, Chuang, JAIR
70:1373–1411, 2021, doi:10.1613/jair.1.12125) ranks the second kind; whether it is right takes somebody who
looks again, or a set whose errors are known because they were planted.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib.errors import ConfigError, DataError
from cxrlib.evaluation.eda import percentiles, resample_patients
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.resampling import check_probabilities, checked


def hardest(labels: ArrayLike, probabilities: ArrayLike, image_ids: ArrayLike | None = None) -> pd.DataFrame:
    """All rows, those first to whose label the least probability was given.

    Returns a DataFrame: ``row`` (position), ``image_id`` where given, ``label``, ``probability`` (of
    pneumonia), ``given_to_label`` (probability of the label), ``loss`` (cross-entropy, nats).
    """
    given, (p,) = _checked(labels, probabilities)
    right = np.where(given == 1, p, 1 - p)
    table = pd.DataFrame({"row": np.arange(len(given)), "label": given, "probability": p})
    if image_ids is not None:
        table.insert(1, "image_id", np.asarray(image_ids))
    table["given_to_label"], table["loss"] = right, -np.log(np.maximum(right, 1e-12))
    return table.sort_values(["given_to_label", "row"], ignore_index=True)


def undecided(labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5) -> np.ndarray:
    """Positions of all rows, those whose log odds are nearest the threshold's first. int64, (N,)."""
    _, (p,) = _checked(labels, probabilities)
    clipped = np.clip(np.append(p, threshold), 1e-7, 1 - 1e-7)
    odds = np.log(clipped / (1 - clipped))
    return np.argsort(np.abs(odds[:-1] - odds[-1]), kind="stable")


def suspects(labels: ArrayLike, probabilities: ArrayLike) -> pd.DataFrame:
    """Which labels confident learning takes for wrong.

    As many of each kind are suspected as the estimated joint distribution of given and true labels says: what
    cleanlab's ``find_label_issues`` gives by its ``prune_by_noise_rate``, without the 62 MB that cleanlab and
    scikit-learn add to an installation.

    - ``labels``: as given, 0/1, shape (N,).
    - ``probabilities``: of label 1, from a network that did not see the row in training.
    - Returns: DataFrame aligned with the rows: ``label``, ``probability``, ``quality`` (probability of the
      given label) and ``suspected`` (bool).
    """
    given, (p,) = _checked(labels, probabilities)
    if len(np.unique(given)) < 2:
        raise DataError(
            f"All {len(given)} labels are {given[0]}.", remedy="Confident learning needs both classes."
        )
    quality = np.where(given == 1, p, 1 - p)
    return pd.DataFrame(
        {"label": given, "probability": p, "quality": quality, "suspected": _suspected(given, p)}
    )


def _suspected(given: np.ndarray, p: np.ndarray) -> np.ndarray:
    """bool (N,): of each class as many as are estimated wrong, those with the largest margins first."""
    both = np.stack([1 - p, p], axis=1)
    sure = both >= np.array([both[given == label, label].mean() for label in (0, 1)]) - 1e-6
    meant = np.where(sure.all(axis=1), both.argmax(axis=1), sure.argmax(axis=1))
    found = np.zeros(len(given), dtype=bool)
    for label in (0, 1):
        rows = np.flatnonzero(given == label)
        counted = meant[rows][sure[rows].any(axis=1)]
        right, wrong = max(int((counted == label).sum()), 1), int((counted != label).sum())
        count = min(round(len(rows) * wrong / (right + wrong)), len(rows) - 1)
        found[rows[np.argsort(both[rows, label] - both[rows, 1 - label])[:count]]] = True
    return found & (both.argmax(axis=1) != given)


def plant(
    labels: ArrayLike, rate: float, patients: ArrayLike | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Turn a share of each class's labels round; labels (int64) and wrong (bool), shape (N,).

    ``rate``: 0 up to ½. ``patients``: where given, all or none of a patient's images of one label are turned:
    a wrong entry in a record.
    """
    if not 0 <= rate < 0.5:
        raise ConfigError(f"The rate is {rate}.", remedy="Give a share from 0 up to, not including, a half.")
    labels = np.asarray(labels).astype(np.int64)
    owners = np.arange(len(labels)) if patients is None else np.asarray(patients)
    codes = pd.factorize(pd.Series(owners).astype(str) + pd.Series(labels).map({0: " 0", 1: " 1"}))[0]
    wrong = (np.random.default_rng(seed).random(codes.max() + 1) < rate)[codes]
    return np.where(wrong, 1 - labels, labels), wrong


def agreement(
    suspected: ArrayLike,
    wrong: ArrayLike,
    labels: ArrayLike | None = None,
    patients: ArrayLike | None = None,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """How often the suspicion is right, where it is known which labels are wrong. All arrays have shape (N,).

    - ``labels``: as given; with them everything is also told for each label apart (``label_0.…``,
      ``label_1.…``): a suspicion can be right by knowing no more than which label is the less reliable one.
    - Returns: ``precision`` (share of the suspects whose label is wrong), ``base`` (share of all whose label
      is wrong), ``unsuspected`` (the same of those not suspected), ``recall`` (share of the wrong labels that
      are suspected), ``lift`` (precision minus base); intervals by patient. What has no image behind it is
      left out.
    """
    suspected, wrong = np.asarray(suspected, dtype=bool), np.asarray(wrong, dtype=bool)
    if suspected.shape != wrong.shape:
        raise DataError(
            f"There are {suspected.size} suspicions for {wrong.size} labels.", remedy="Give one for each row."
        )
    patients = np.arange(len(wrong)) if patients is None else np.asarray(patients)
    groups = {"": np.ones(len(wrong), dtype=bool)}
    if labels is not None:
        groups |= {f"label_{value}.": np.asarray(labels) == value for value in (0, 1)}
    numbers = {}
    for prefix, inside in groups.items():
        cells = np.stack([inside, suspected, wrong, suspected & wrong], axis=1) & inside[:, None]
        cells = cells.astype(float)
        draws = _shares(resample_patients(cells, patients, replicates=replicates, seed=seed))
        sums = cells.sum(axis=0)
        counts = {"precision": sums[1], "base": sums[0], "unsuspected": sums[0] - sums[1], "recall": sums[2]}
        for name, value in _shares(sums[None]).items():
            if np.isfinite(value[0]):
                (low,), (high,) = percentiles(draws[name][:, None])
                n = int(counts.get(name, sums[0]))
                numbers[f"{prefix}{name}"] = Estimate(float(value[0]), low, high, n)
    return numbers


def _shares(sums: np.ndarray) -> dict[str, np.ndarray]:
    rows, suspected, wrong, both = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "precision": both / suspected,
            "base": wrong / rows,
            "unsuspected": (wrong - both) / (rows - suspected),
            "recall": both / wrong,
            "lift": both / suspected - wrong / rows,
        }


def _checked(labels: ArrayLike, probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """int64 (N,) and float64 (1, N)."""
    labels, rows = checked(labels, [probabilities], metrics=())
    check_probabilities(rows)
    return labels, rows
