"""What part of a published score can be had without the image: from the view, the age, the sex, the visit.

A network sees pixels only, but pixels show the projection, and something of age and sex. If the table's
columns predict the score, the score holds what the columns hold, by whatever way it came there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingRegressor

from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.resampling import draw_patients, patient_codes
from cxrlib.parallel import one_thread
from cxrlib.studies import chexnet
from cxrlib.studies.shortcuts import NIH_COLUMNS, encode, patient_folds, pixel_free
from cxrlib.studies.study_stats import draws

SCALES = ("logit", "rank")


@dataclass(frozen=True, eq=False)
class Explained:
    """A score predicted from columns, for patients that the model has not seen.

    - ``columns``: what the model saw.
    - ``predicted``: name of the scale to float64 (N,): out of fold.
    - ``r2``: name of the scale to the share of the score's variance that the columns explain; intervals from
      resampling patients.
    """

    columns: tuple[str, ...]
    predicted: dict[str, np.ndarray]
    r2: dict[str, Estimate]


# One thread: the fits are small, and threads that wait for each other take longer.
@one_thread
def explained(
    table: pd.DataFrame,
    scores: ArrayLike,
    columns: Sequence[str] = NIH_COLUMNS,
    *,
    folds: int = 5,
    replicates: int = 1000,
    seed: int = 0,
) -> Explained:
    """Predict a score from columns of the table, by cross-validation over patients (boosted trees).

    - ``table``: ``patient_id`` and the columns: numbers, booleans or categories, missing values allowed.
    - ``scores``: probabilities, shape (N,). Predicted are their logit, and their rank from 0 to 1, which no
      monotone change of the score alters.
    - Raises DataError: a column is missing, lengths differ, a score is no probability, or all scores are
      equal.
    """
    columns, scores = tuple(columns), np.asarray(scores, dtype=float)
    _check(table, scores, columns)
    features = encode(table, columns)
    held_out = patient_folds(table["patient_id"], folds, seed=seed)
    predicted, r2 = {}, {}
    for scale, target in zip(SCALES, (logit(scores), ranks(scores)), strict=True):
        predicted[scale] = np.empty(len(table))
        for fold in range(folds):
            test = held_out == fold
            if test.any():
                model = _trees().fit(features[~test], target[~test])
                predicted[scale][test] = model.predict(features[test])
        r2[scale] = r_squared(target, predicted[scale], table["patient_id"], replicates=replicates, seed=seed)
    return Explained(columns, predicted, r2)


def r_squared(
    target: ArrayLike,
    predicted: ArrayLike,
    patients: ArrayLike | None,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """1 − residual over total sum of squares, with an interval from resampling patients; below 0: useless."""
    target, predicted = np.asarray(target, dtype=float), np.asarray(predicted, dtype=float)
    codes, count = patient_codes(np.zeros(len(target), int), target[None], patients)
    # Sums a patient suffice: n, target, target², residual².
    centred = target - target.mean()
    parts = (np.ones(len(target)), centred, centred**2, (target - predicted) ** 2)
    sums = np.stack([np.bincount(codes, part, count) for part in parts], axis=1)

    def measure(counts: np.ndarray) -> np.ndarray:
        n, first, second, residual = (counts @ sums).T
        return 1 - residual / (second - first**2 / n)

    (value,) = measure(np.ones((1, count)))
    drawn = [measure(counts) for counts in draw_patients(count, len(target), replicates, seed)]
    low, high = np.quantile(np.concatenate(drawn), (0.025, 0.975)) if drawn else (None, None)
    return Estimate(float(value), low, high, len(target))


def chexnet_metadata(
    table: pd.DataFrame,
    finding: str = "Pneumonia",
    columns: Sequence[str] = NIH_COLUMNS,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """What view, age, sex and follow-up number say of CheXNet's score, and of the label through it.

    - ``table``: of :func:`cxrlib.studies.chexnet.load`, or any with the columns, ``patient_id``,
      ``<finding>`` and ``score_<finding>``.
    - Returns: ``metadata.r2_logit`` and ``metadata.r2_rank``, the same of each column alone
      (``view.r2_rank``, …). AUCs for the label of: ``score`` (CheXNet's), ``predicted_score`` (the part of it
      that the columns predict), ``rest_of_score`` (what is left of it), ``metadata`` (the columns fitted to
      the label itself); all ``….auc``. By view: ``PA.auc``, ``AP.auc``, ``same_view.auc`` (pairs matched for
      view) and ``all_minus_same_view.auc``, as :func:`cxrlib.studies.chexnet.by_view` defines them.
    """
    options: dict[str, Any] = {"replicates": replicates, "seed": seed}
    views = chexnet.by_view(table, finding, **options)  # which checks the finding and the views
    scores, labels = table[f"score_{finding}"].to_numpy(dtype=float), table[finding].to_numpy(dtype=int)
    numbers: dict[str, Estimate] = {}
    for name, some in (("metadata", tuple(columns)), *((column, (column,)) for column in columns)):
        found = explained(table, scores, some, **options)
        numbers |= {f"{name}.r2_{scale}": e for scale, e in found.r2.items()}
        if name == "metadata":
            part = found.predicted["logit"]
    for name, values in (
        ("score", logit(scores)), ("predicted_score", part), ("rest_of_score", logit(scores) - part),
    ):  # fmt: skip
        numbers[f"{name}.auc"] = draws(labels, [values], table["patient_id"], **options).estimate()
    own = pixel_free(table.assign(label=labels), columns, **options)
    numbers["metadata.auc"] = own.auc
    wanted = ("PA", "AP", "same_view", "all_minus_same_view")
    return numbers | {f"{name}.auc": views[f"{name}.auc"] for name in wanted}


def logit(probability: ArrayLike) -> np.ndarray:
    """Log odds; 0 and 1 are taken for the nearest float32 that is neither."""
    p = np.clip(np.asarray(probability, dtype=float), 1e-7, 1 - 1e-7)
    return np.log(p / (1 - p))


def ranks(values: np.ndarray) -> np.ndarray:
    """Places in ascending order as shares, 0 to 1; equal values share theirs."""
    return (rankdata(values) - 0.5) / len(values)


def _trees() -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        learning_rate=0.1, max_iter=80, max_leaf_nodes=12, min_samples_leaf=50, l2_regularization=10.0,
        categorical_features="from_dtype", early_stopping=False, random_state=0,
    )  # fmt: skip


def _check(table: pd.DataFrame, scores: np.ndarray, columns: tuple[str, ...]) -> None:
    missing = [column for column in (*columns, "patient_id") if column not in table]
    if missing or not columns:
        raise DataError(
            f"The table has no column {', '.join(map(repr, missing))}."
            if missing
            else "No columns were given.",
            remedy=f"Name some of its columns: {', '.join(map(repr, table.columns[:12]))}.",
        )
    if scores.shape != (len(table),):
        raise DataError(
            f"There are scores of shape {scores.shape} for {len(table)} rows.",
            remedy="Give one score a row.",
        )
    wrong = ~((scores >= 0) & (scores <= 1))
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum())} scores are no probabilities.",
            offenders=[f"row {row}: {scores[row]}" for row in np.flatnonzero(wrong)],
            remedy="Give numbers from 0 to 1.",
        )
    if np.ptp(scores) == 0:
        raise DataError("All scores are equal: there is nothing to explain.", remedy="Check the scores.")
