"""For whom a network fails: metrics by subgroup and their differences, each with an interval."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib.errors import DataError
from cxrlib.evaluation.eda import percentiles
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.operating_points import cases, not_too_sure
from cxrlib.evaluation.resampling import Ranked, checked, draw_patients, patient_codes

Name = TypeVar("Name", bound=Hashable)
Group = tuple[Hashable, str]
"""A division (a column's name), and one of its groups."""
Compared = dict[Group, tuple[np.ndarray, np.ndarray]]
"""The rows of each group, and those that they are compared with: bool (N,)."""

MEASURES = ("auc", "sensitivity", "specificity")

_NEEDS = {"auc": (0, 1), "average_precision": (0, 1), "sensitivity": (1,), "specificity": (0,)}

#: Patients of each class that an AUC's interval needs: resampling fewer says next to nothing.
FEWEST = 5

#: Columns that divide patients, and not their disease.
COLUMNS = ("sex", "age_band", "view", "site")


def age_band(years: pd.Series, edges: Sequence[float] = (0, 18, 40, 60, 75, 130)) -> pd.Series:
    """Ages as ordered bands such as ``40–59``; bands that hold nobody are left out, missing ages stay so."""
    whole = [int(edge) for edge in edges]
    names = [f"{low}–{high - 1}" for low, high in itertools.pairwise(whole[:-1])]
    bands = pd.cut(years, whole, right=False, labels=[*names, f"{whole[-2]}+"])
    return bands.cat.remove_unused_categories().rename("age_band")


def divisions(table: pd.DataFrame) -> pd.DataFrame:
    """Those of :data:`COLUMNS` that the table has and that divide it, ages in bands; its rows."""
    if "age" in table and "age_band" not in table:
        table = table.assign(age_band=age_band(table["age"]))
    return table[[name for name in COLUMNS if name in table and table[name].nunique() > 1]]


def by_subgroup(
    labels: ArrayLike,
    list_of_scores: Sequence[ArrayLike] | np.ndarray,
    groups: pd.DataFrame,
    patients: ArrayLike | None = None,
    *,
    thresholds: float | Sequence[float] | np.ndarray = 0.5,
    measures: Sequence[str] = MEASURES,
    replicates: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Metrics of the images of each subgroup, and how far each is from all other images.

    Values come from fairlearn's MetricFrame (Weerts et al., JMLR 24(257), 2023, arXiv:2303.16626), one for
    each training seed, and are averaged. Intervals come from resampling patients, who bring all their images.

    - ``groups``: one column a division, aligned with the labels; rows without a value drop out of that
      division.
    - ``thresholds``: one, or one a training seed, chosen on validation images.
    - Returns: DataFrame, one row a division, group and measure: ``division``, ``group``, ``measure``,
      ``value``, ``low``, ``high``, ``gap`` (value minus that of the division's other images), ``gap_low``,
      ``gap_high``, ``n``, ``positives``, ``patients``, ``seeds``. A measure that needs a class which the
      group lacks has no row; an AUC of fewer than five patients of a class has no interval (NaN). Where all
      of a group are right, or all wrong, the interval is Wilson's, and that of the gap Newcombe's.
    """
    labels, scores = checked(labels, list_of_scores)
    cuts = np.broadcast_to(np.asarray(thresholds, dtype=float), len(scores))
    groups = pd.DataFrame(groups)
    if len(groups) != len(labels):
        raise DataError(
            f"There are {len(groups)} rows of groups for {len(labels)} labels.",
            remedy="Give one for each row.",
        )
    compared: Compared = {}
    values: dict[tuple[Hashable, str, str], float] = {}
    for division in groups:
        column = groups[division].reset_index(drop=True)
        known = column.notna().to_numpy()
        if not known.any():
            raise DataError(f"The column {division!r} is empty.", remedy="Leave it out, or fill it.")
        frames = [
            _metric_frame(labels[known], row[known], column[known].astype(str), cut, measures)
            for row, cut in zip(scores, cuts, strict=True)
        ]
        for group in _levels(column):
            rows = known & (column.astype(str) == group).to_numpy()
            compared[division, group] = (rows, known & ~rows)
            for measure in measures:
                values[division, group, measure] = float(np.mean([f.loc[group, measure] for f in frames]))
    options: dict[str, Any] = {
        "thresholds": cuts,
        "measures": measures,
        "replicates": replicates,
        "seed": seed,
    }
    return _table(labels, scores, patients, compared, values, **options)


def by_subtype(
    labels: ArrayLike,
    list_of_scores: Sequence[ArrayLike] | np.ndarray,
    subtypes: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    measures: Sequence[str] = ("auc", "sensitivity"),
    **options: Any,
) -> pd.DataFrame:
    """Each subtype of the disease against all healthy images: a stratum that the label does not name.

    ``subtypes``: one for each row; those of healthy rows are not looked at. Options as for
    :func:`by_subgroup`, and the same DataFrame, division ``subtype``; the gap is to the other subtypes.
    """
    labels, scores = checked(labels, list_of_scores)
    kinds = pd.Series(np.asarray(subtypes, dtype=object)).fillna("").astype(str).to_numpy()
    if len(kinds) != len(labels):
        raise DataError(
            f"There are {len(kinds)} subtypes for {len(labels)} labels.", remedy="Give one for each row."
        )
    compared: Compared = {}
    healthy = labels == 0
    for kind in sorted(set(kinds[~healthy]) - {""}):
        ill = ~healthy & (kinds == kind)
        compared["subtype", kind] = (healthy | ill, healthy | (~healthy & ~ill))
    if not compared:
        raise DataError(
            "No ill row has a subtype.", remedy="Give a subtype for each row, as the column 'subtype' has."
        )
    return _table(labels, scores, patients, compared, {}, measures=measures, **options)


def estimates(table: pd.DataFrame) -> dict[str, Estimate]:
    """The table as numbers to record: ``<division>.<group>.<measure>`` and ``….gap`` where there is one."""
    numbers = {}
    for row in table.to_dict("records"):
        key, counts = f"{row['division']}.{_word(row['group'])}.{row['measure']}", (row["n"], row["seeds"])
        numbers[key] = estimate_of(row["value"], row["low"], row["high"], *counts)
        if np.isfinite(row["gap"]):
            numbers[f"{key}_gap"] = estimate_of(row["gap"], row["gap_low"], row["gap_high"], *counts)
    return numbers


def estimate_of(
    value: float, low: float, high: float, n: int | None = None, seeds: int | None = None
) -> Estimate:
    """An Estimate whose limits are None where they are NaN."""
    return Estimate(value, None if np.isnan(low) else low, None if np.isnan(high) else high, n, seeds)


def subset_draws(
    labels: ArrayLike,
    list_of_scores: Sequence[ArrayLike] | np.ndarray,
    subsets: Mapping[Name, np.ndarray],
    patients: ArrayLike | None = None,
    *,
    thresholds: float | Sequence[float] | np.ndarray = 0.5,
    measures: Sequence[str] = MEASURES,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[Name, dict[str, np.ndarray]]:
    """Metrics of several subsets (name -> bool (N,)) in the same bootstrap replicates, so that they can be
    compared.

    Returns name -> measure -> float64 (1 + replicates,): first the value, then the draws, means over training
    seeds; NaN in draws that hold no row of a class. A measure whose class the subset lacks is left out.
    """
    labels, scores = checked(labels, list_of_scores)
    cuts = np.broadcast_to(np.asarray(thresholds, dtype=float), len(scores))
    codes, n_patients = patient_codes(labels, scores, patients)
    ranked = {
        name: [
            Ranked.of(labels[rows], row[rows], codes[rows], cut)
            for row, cut in zip(scores, cuts, strict=True)
        ]
        for name, rows in subsets.items()
    }
    collected: dict[Name, list[np.ndarray]] = {name: [] for name in subsets}
    once = np.ones((1, n_patients), dtype=np.int64)
    for counts in itertools.chain([once], draw_patients(n_patients, len(labels), replicates, seed)):
        for name, several in ranked.items():
            collected[name].append(np.mean([one.measure(counts, measures) for one in several], axis=0))
    found = {}
    for name, rows in subsets.items():
        values = np.concatenate(collected[name]).T
        classes = set(np.unique(labels[rows]))
        found[name] = {
            measure: row
            for measure, row in zip(measures, values, strict=True)
            if classes and set(_NEEDS.get(measure, ())) <= classes
        }
    return found


def _table(
    labels: np.ndarray,
    scores: np.ndarray,
    patients: ArrayLike | None,
    compared: Compared,
    values: Mapping[tuple[Hashable, str, str], float],
    **options: Any,
) -> pd.DataFrame:
    """The tidy table; options as for :func:`subset_draws`, ``values`` instead of those that it finds."""
    masks = {mask.tobytes(): mask for both in compared.values() for mask in both}
    drawn = subset_draws(labels, scores, masks, patients, **options)
    codes, _ = patient_codes(labels, scores, patients)
    rows = []
    for (division, group), (mask, rest) in compared.items():
        inside, outside = drawn[mask.tobytes()], drawn[rest.tobytes()]
        for measure, found in inside.items():
            found[0] = values.get((division, group, measure), found[0])
            mine = _interval(measure, found, labels[mask], codes[mask])
            row = {"division": division, "group": group, "measure": measure, "value": mine.value}
            row |= {"low": _number(mine.low), "high": _number(mine.high)}
            row |= {"gap": np.nan, "gap_low": np.nan, "gap_high": np.nan}
            if measure in outside:
                theirs = _interval(measure, outside[measure], labels[rest], codes[rest])
                row["gap"] = float(found[0] - outside[measure][0])
                row["gap_low"], row["gap_high"] = _gap_limits(mine, theirs, found - outside[measure])
            row |= {"n": int(mask.sum()), "positives": int(labels[mask].sum())}
            row |= {"patients": len(np.unique(codes[mask])), "seeds": len(scores)}
            rows.append(row)
    return pd.DataFrame(rows)


def _interval(measure: str, found: np.ndarray, labels: np.ndarray, codes: np.ndarray) -> Estimate:
    """A measure's value (first of ``found``) and interval; none where too few patients carry it."""
    value = float(found[0])
    if measure in ("auc", "average_precision"):
        fewest = min(len(np.unique(codes[labels == label])) for label in (0, 1))
        if fewest < FEWEST:
            return Estimate(value, n=len(labels))
    estimate = Estimate(value, *_limits(found[1:]), n=len(labels))
    return not_too_sure(estimate, cases(labels, codes, measure))


def _gap_limits(mine: Estimate, theirs: Estimate, gaps: np.ndarray) -> tuple[float, float]:
    """The bootstrap's interval; Newcombe's where one of the two single ones has no draws behind it.

    Newcombe, Statistics in Medicine 17:873–890, 1998, method 10.
    """
    if mine.low is None or mine.high is None or theirs.low is None or theirs.high is None:
        return np.nan, np.nan
    if 0 < mine.value < 1 and 0 < theirs.value < 1:
        return _limits(gaps[1:])
    below = np.hypot(mine.value - mine.low, theirs.high - theirs.value)
    above = np.hypot(mine.high - mine.value, theirs.value - theirs.low)
    return float(gaps[0] - below), float(gaps[0] + above)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _limits(draws: np.ndarray) -> tuple[float, float]:
    (low,), (high,) = percentiles(draws[:, None])
    return float(low), float(high)


def _metric_frame(
    labels: np.ndarray, scores: np.ndarray, groups: pd.Series, threshold: float, measures: Sequence[str]
) -> pd.DataFrame:
    from fairlearn.metrics import MetricFrame

    functions = {name: _single_class_safe(name, threshold) for name in measures}
    frame = MetricFrame(metrics=functions, y_true=labels, y_pred=scores, sensitive_features=groups)
    return frame.by_group


def _single_class_safe(name: str, threshold: float) -> Callable[[ArrayLike, ArrayLike], float]:
    """The metric as MetricFrame calls it; NaN where a group lacks the class it needs."""
    from cxrlib.evaluation import metrics

    function = getattr(metrics, name)
    options = {} if name in ("auc", "average_precision") else {"threshold": threshold}

    def measure(y_true: ArrayLike, y_pred: ArrayLike) -> float:
        try:
            return function(np.asarray(y_true), np.asarray(y_pred), **options)
        except DataError:
            return float("nan")

    return measure


def _levels(column: pd.Series) -> list[str]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [str(level) for level in column.cat.categories if (column == level).any()]
    return sorted(column.dropna().astype(str).unique())


def _word(group: str) -> str:
    return "".join(c if c.isalnum() or c in "_+-" else "_" for c in str(group))
