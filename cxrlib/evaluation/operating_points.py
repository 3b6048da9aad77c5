"""From scores to decisions: curves, thresholds chosen on one set of patients and what they do on another.

A threshold is a decision about people, so it is chosen on validation patients and judged on test patients;
and what an alarm is worth depends on how many of those examined are ill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib.errors import ConfigError, DataError
from cxrlib.evaluation.eda import percentiles, resample_patients
from cxrlib.evaluation.metrics import (
    Estimate,
    bootstrap_mean,
    candidates,
    choose_threshold,
    cut_at,
    proportion,
)
from cxrlib.evaluation.resampling import check_probabilities, checked, draw_patients, patient_codes

#: What is chosen where nothing else is said: a missed pneumonia weighs as much as ten false alarms.
MISS_COST = 10.0
SENSITIVITY = 0.95

#: Where the same network may stand, and the share of ill patients there. Of 2,574 children and young people
#: who had a radiograph in an emergency department because pneumonia was suspected, 16% had it (Neuman et al.,
#: Pediatrics 2011, doi:10.1542/peds.2010-3367). One in two hundred for screening is an assumption.
SETTINGS = {"screening": 0.005, "emergency": 0.16}

KINDS = ("roc", "precision_recall")


@dataclass(frozen=True)
class OperatingPoint:
    """One rule: its thresholds, one a training seed, and what they give on the two sets of patients.

    ``numbers``: ``val_sensitivity``, ``val_specificity``, ``val_cost``, and the same with ``test_``, each the
    mean over seeds with an interval by patient. The cost is in false alarms a patient examined.
    """

    rule: str
    title: str
    thresholds: tuple[float, ...]
    numbers: Mapping[str, Estimate]


def cost_threshold(
    labels: ArrayLike, scores: ArrayLike, miss_cost: float = MISS_COST, prevalence: float | None = None
) -> float:
    """The threshold with the smallest expected cost, where a miss costs ``miss_cost`` false alarms.

    ``prevalence``: share of ill patients where the network will be used; None for that of the labels.
    Returned is a threshold as of :func:`~cxrlib.evaluation.metrics.choose_threshold`.
    """
    given, (row,) = checked(labels, [scores])
    share = given.mean() if prevalence is None else prevalence
    if miss_cost <= 0 or not 0 < share < 1:
        raise ConfigError(
            f"A miss costs {miss_cost} and the prevalence is {share}.",
            remedy="Give a cost above 0 and a prevalence between 0 and 1.",
        )
    cuts, hits, rejected = candidates(given, row)
    missed, alarms = (hits[0] - hits) / hits[0], (rejected[-1] - rejected) / rejected[-1]
    cost = miss_cost * share * missed + (1 - share) * alarms
    return cut_at(cuts, int(np.argmin(np.round(cost, 12))))


def thresholds(
    labels: ArrayLike, scores: ArrayLike, *, sensitivity: float = SENSITIVITY, miss_cost: float = MISS_COST
) -> dict[str, float]:
    """A threshold for each rule; give it the validation images and probabilities.

    The rules are ``half`` (a probability of ½, chosen by nobody), ``sensitivity``, ``youden`` and ``cost``.
    """
    return {
        "half": 0.5,
        "sensitivity": choose_threshold(labels, scores, "sensitivity", at=sensitivity),
        "youden": choose_threshold(labels, scores, "youden"),
        "cost": cost_threshold(labels, scores, miss_cost),
    }


def not_too_sure(estimate: Estimate, cases: int) -> Estimate:
    """Wilson's interval where all of so many cases came out alike: resampling them gives no width at all."""
    if estimate.low != estimate.high or estimate.value not in (0, 1):
        return estimate
    wilson = proportion(estimate.value * cases, cases)
    return replace(estimate, low=wilson.low, high=wilson.high)


def cases(labels: ArrayLike, patients: ArrayLike | None, measure: str) -> int:
    """How many patients a sensitivity (the ill) or a specificity (the healthy) rests on."""
    mine = np.asarray(labels) == (measure == "sensitivity")
    return int(mine.sum() if patients is None else len(np.unique(np.asarray(patients)[mine].astype(str))))


def transfer(
    val_labels: ArrayLike,
    val_scores: Sequence[ArrayLike],
    test_labels: ArrayLike,
    test_scores: Sequence[ArrayLike],
    *,
    val_patients: ArrayLike | None = None,
    test_patients: ArrayLike | None = None,
    sensitivity: float = SENSITIVITY,
    miss_cost: float = MISS_COST,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, OperatingPoint]:
    """Choose thresholds on validation images and see what becomes of them on test images.

    ``val_scores`` and ``test_scores`` hold one array of probabilities for each training seed, and each seed
    gets thresholds of its own. Returns rule -> OperatingPoint, in the order of :func:`thresholds`.
    """
    titles = {
        "half": "probability ½",
        "sensitivity": f"sensitivity {sensitivity:.0%}",
        "youden": "Youden",
        "cost": f"a miss costs {miss_cost:g} alarms",
    }
    for row in (*val_scores, *test_scores):
        check_probabilities(np.asarray(row, dtype=float))
    chosen = [thresholds(val_labels, row, sensitivity=sensitivity, miss_cost=miss_cost) for row in val_scores]
    points = {}
    for rule, title in titles.items():
        cuts = tuple(one[rule] for one in chosen)
        numbers: dict[str, Estimate] = {}
        for part, labels, scores, patients in (
            ("val", val_labels, val_scores, val_patients),
            ("test", test_labels, test_scores, test_patients),
        ):
            found = bootstrap_mean(
                labels, scores, patients, ("sensitivity", "specificity"), cuts, replicates, seed=seed
            )
            numbers |= {
                f"{part}_{name}": not_too_sure(estimate, cases(labels, patients, name))
                for name, estimate in found.items()
            }
            numbers[f"{part}_cost"] = _cost(labels, scores, patients, cuts, miss_cost, replicates, seed)
        points[rule] = OperatingPoint(rule, title, cuts, numbers)
    return points


def predictive_values(
    labels: ArrayLike,
    list_of_scores: Sequence[ArrayLike],
    cuts: Sequence[float],
    prevalences: Mapping[str, float] | Sequence[float] | np.ndarray,
    patients: ArrayLike | None = None,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """What an alarm and an all-clear mean where another share of the patients is ill (Bayes' theorem).

    Sensitivity and specificity are those of these images, one threshold a training seed, and are taken to be
    the same elsewhere. They need not be: the ill of a screening programme are less ill.

    - ``prevalences``: shares of ill patients, or a mapping from names to shares.
    - Returns: DataFrame indexed by name (or position): ``prevalence``; ``ppv`` (share of ill among the
      alarms), ``npv`` (share of healthy among the all-clears), ``alarms`` and ``missed`` (of 1,000 examined),
      each with ``_low`` and ``_high``.
    """
    names, given = None, prevalences
    if isinstance(prevalences, Mapping):
        names, given = list(prevalences), list(prevalences.values())
    shares = np.array(given, dtype=float)
    if not ((shares > 0) & (shares < 1)).all():
        raise ConfigError(
            f"The prevalences are {shares.tolist()}.", remedy="Give shares between 0 and 1: 0.16 for 16%."
        )
    sums, point = _decision_sums(labels, list_of_scores, patients, cuts, replicates, seed)

    def values(cells: np.ndarray) -> dict[str, np.ndarray]:  # (R, S, 4) -> name: (R, prevalences)
        with np.errstate(invalid="ignore", divide="ignore"):
            hit = (cells[..., 1] / cells[..., 0])[..., None] * shares
            alarm = (cells[..., 3] / cells[..., 2])[..., None] * (1 - shares)
            found = {
                "ppv": hit / (hit + alarm),
                "npv": (1 - shares - alarm) / (1 - hit - alarm),
                "alarms": 1000 * (hit + alarm),
                "missed": 1000 * (shares - hit),
            }
        return {name: array.mean(axis=1) for name, array in found.items()}

    table = pd.DataFrame({"prevalence": shares}, index=names)
    drawn = values(sums)
    for name, value in values(point[None]).items():
        table[name] = value[0]
        table[f"{name}_low"], table[f"{name}_high"] = percentiles(drawn[name])
    return table


def estimates(
    points: Mapping[str, OperatingPoint], settings: pd.DataFrame, rule: str = "youden"
) -> dict[str, Estimate]:
    """What is recorded: ``<rule>.<number>`` of each point and ``<rule>.<setting>.ppv`` etc. of one rule.

    ``settings`` comes from :func:`predictive_values` for that rule.
    """
    numbers = {f"{name}.{key}": e for name, point in points.items() for key, e in point.numbers.items()}
    about = points[rule].numbers["test_sensitivity"]
    for name, row in settings.iterrows():
        for key in ("ppv", "npv", "alarms", "missed"):
            numbers[f"{rule}.{name}.{key}"] = Estimate(
                row[key], row[f"{key}_low"], row[f"{key}_high"], about.n, about.seeds
            )
    return numbers


def mean_curve(
    labels: ArrayLike,
    list_of_scores: Sequence[ArrayLike],
    patients: ArrayLike | None = None,
    kind: str = "roc",
    *,
    grid: ArrayLike | None = None,
    replicates: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """A curve averaged vertically over training seeds, with a pointwise bootstrap band by patient.

    - ``kind``: ``roc``: sensitivity at each false-positive rate. ``precision_recall``: precision at the first
      threshold that reaches each recall.
    - ``grid``: values of ``x``, ascending, 0–1; None for 201 of them, evenly spaced.
    - Returns: DataFrame: ``x``, ``y``, ``low``, ``high``.
    """
    if kind not in KINDS:
        raise ConfigError(f"There is no curve {kind!r}.", remedy=f"Use one of {KINDS}.")
    labels, scores = checked(labels, list_of_scores)
    codes, n_patients = patient_codes(labels, scores, patients)
    grid = np.linspace(0, 1, 201) if grid is None else np.asarray(grid, dtype=float)
    orders = [np.argsort(-row, kind="stable") for row in scores]
    ranked = [
        (order, labels[order], np.append(np.diff(row[order]) != 0, True))
        for order, row in zip(orders, scores, strict=True)
    ]

    def curve(weights: np.ndarray) -> np.ndarray | None:
        drawn = []
        for order, positive, last_of_tie in ranked:
            w = weights[order]
            tp, fp = np.cumsum(w * positive)[last_of_tie], np.cumsum(w * (1 - positive))[last_of_tie]
            if not (tp[-1] and fp[-1]):
                return None
            if kind == "roc":
                drawn.append(np.interp(grid, np.append(0, fp) / fp[-1], np.append(0, tp) / tp[-1]))
            else:
                reached = np.searchsorted(tp / tp[-1], np.maximum(grid - 1e-9, 1e-12))
                drawn.append(tp[reached] / (tp[reached] + fp[reached]))
        return np.mean(drawn, axis=0)

    curves = []
    for counts in draw_patients(n_patients, len(labels), replicates, seed):
        curves += [one for weights in counts[:, codes] if (one := curve(weights)) is not None]
    if not curves:
        raise DataError("No replicate drew both classes.", remedy="Gather more patients of the rarer class.")
    low, high = percentiles(np.array(curves))
    return pd.DataFrame({"x": grid, "y": curve(np.ones(len(labels))), "low": low, "high": high})


def _cost(
    labels: ArrayLike,
    scores: Sequence[ArrayLike],
    patients: ArrayLike | None,
    cuts: Sequence[float],
    miss_cost: float,
    replicates: int,
    seed: int,
) -> Estimate:
    """False alarms a patient examined, a miss counted as ``miss_cost`` of them."""
    sums, point = _decision_sums(labels, scores, patients, cuts, replicates, seed)

    def cost(cells: np.ndarray) -> np.ndarray:
        spent = miss_cost * (cells[..., 0] - cells[..., 1]) + cells[..., 3]
        return (spent / (cells[..., 0] + cells[..., 2])).mean(axis=-1)

    low, high = percentiles(cost(sums)[:, None])
    return Estimate(float(cost(point)), float(low[0]), float(high[0]), len(np.asarray(labels)), len(scores))


def _decision_sums(
    labels: ArrayLike,
    list_of_scores: Sequence[ArrayLike],
    patients: ArrayLike | None,
    cuts: Sequence[float],
    replicates: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Positives, those called so, negatives, those called positive: (R, S, 4), and as they are, (S, 4)."""
    labels, scores = checked(labels, list_of_scores)
    called = scores >= np.broadcast_to(np.asarray(cuts, dtype=float), len(scores))[:, None]
    cells = np.stack(
        [np.stack([labels, labels * row, 1 - labels, (1 - labels) * row], axis=1) for row in called], axis=1
    ).astype(float)
    patients = np.arange(len(labels)) if patients is None else patients
    sums = resample_patients(cells.reshape(len(labels), -1), patients, replicates=replicates, seed=seed)
    return sums.reshape(replicates, len(scores), 4), cells.sum(axis=0)
