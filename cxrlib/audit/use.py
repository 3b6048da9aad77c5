"""Whether pixels show an attribute, and whether a classifier's score follows it, with the label held fixed.

An attribute (a column, a sign, a fact of the file, the source) can tell the label without being a shortcut
of a network: no pixel may show it. And a network need not use what pixels show. Both are asked within the ill
and within the healthy, on patients held out, and tested by patient (:class:`cxrlib.audit.ridge.Turned`).
Detectability is after G-AUDIT (Drenkow et al., npj Digital Medicine 2026), here given the label: a column
that merely goes with the label could else be predicted from the disease. Pixels are asked as blocks and as
the signs that are measured in them, since blocks do not show a letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from cxrlib.audit.ridge import ROWS, Ridge, Turned, reduced
from cxrlib.audit.stats import aucs, normal_scores, sequential_p, within
from cxrlib.evaluation.metrics import Estimate, proportion
from cxrlib.evaluation.resampling import Ranked

SHRINKAGE, REPLICATES = 0.1, 300
LEVELS = 6  # that are shown


@dataclass(frozen=True, eq=False)
class Attribute:
    """What is asked about.

    - ``features``: float, (N, D), as the audit's probe has them.
    - ``value``: float, (N,): one number an image, 0 or 1 where there are two levels.
    - ``levels``: str, (N,): groups to report the classifier by.
    - ``in_pixels``: measured from the picture itself, so that whether pixels show it is no question.
    """

    features: np.ndarray
    value: np.ndarray
    levels: np.ndarray
    in_pixels: bool = False


@dataclass(frozen=True)
class Told:
    """How well one thing goes with another among images of one class.

    - ``concordance``: chance that of two images of one class the one with more of the attribute also scores
      higher, ties by half: the AUC where the attribute has two levels. One half is nothing. Interval by
      patient.
    - ``p_value``: one-sided, by turning the sign of each patient's differences from their class's mean.
    - ``healthy``, ``ill``: the concordance in either class alone.
    - ``explained``: share of the ranks' variance within a class, on held-out patients; 0 where none.
    """

    concordance: Estimate
    p_value: float
    healthy: float
    ill: float
    explained: float


def attribute(
    features: np.ndarray, labels: np.ndarray, column: pd.Series | None = None, *, in_pixels: bool = False
) -> Attribute:
    """An attribute from its probe's features (N, D) and, where it is one column, the column itself.

    A column of numbers is taken as its ranks, one of two values as 0 and 1. Anything else is put in the order
    in which it goes with the label (ridge, all images), which is what a network could exploit of it, and cut
    where it parts the classes best (Youden).
    """
    known = None if column is None else column.astype(object).where(column.notna(), "missing").astype(str)
    if known is not None and known.nunique() == 2:
        text = known.to_numpy()
        return Attribute(features, (text == max(set(text))).astype(float), text, in_pixels)
    if (
        column is not None
        and pd.api.types.is_numeric_dtype(column)
        and not pd.api.types.is_bool_dtype(column)
    ):
        value = rankdata(column.fillna(column.median()).to_numpy(float))
        group = np.searchsorted(np.unique(np.quantile(value, [1 / 3, 2 / 3])), value, side="left")
        levels = np.array([f"third {number + 1} of 3" for number in range(3)])[group]
        return Attribute(features, value, levels, in_pixels)
    order = _label_order(features, labels)
    value = (order >= _cut(order, labels)).astype(float)
    levels = np.where(value == 1, "as among the ill", "as among the healthy")
    if known is not None and known.nunique() <= LEVELS:
        levels = known.to_numpy()
    return Attribute(features, value, levels, in_pixels)


def use(
    found: Attribute,
    scores: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    seed: int = 0,
    permutations: int = 1999,
) -> Told:
    """How closely a classifier's scores (N,) follow an attribute among images of one class."""
    ranks = rankdata(scores)
    if (
        len(np.unique(found.value)) == 2
    ):  # the other way round, which is the AUC of the score for the attribute
        return told(ranks, found.value, labels, patients, seed, permutations)
    return told(found.features, ranks, labels, patients, seed, permutations)


def by_level(found: Attribute, scores: np.ndarray, labels: np.ndarray, threshold: float) -> list[dict]:
    """The classifier at each level: images, sensitivity, specificity, AUC; the commonest level first."""
    rows = []
    for level, count in pd.Series(found.levels).value_counts().head(LEVELS).items():
        mine = found.levels == level
        ill, healthy = mine & (labels == 1), mine & (labels == 0)
        row: dict = {"level": str(level), "images": int(count), "ill": int(ill.sum())}
        if ill.any():
            row["sensitivity"] = proportion(float((scores[ill] >= threshold).sum()), int(ill.sum())).as_dict()
        if healthy.any():
            right = float((scores[healthy] < threshold).sum())
            row["specificity"] = proportion(right, int(healthy.sum())).as_dict()
        if ill.any() and healthy.any():
            row["auc"] = float(aucs(labels[mine, None], scores[mine, None])[0])
        rows.append(row)
    return rows


def auc_within(found: Attribute, scores: np.ndarray, labels: np.ndarray) -> float:
    """The classifier's AUC over pairs of an ill and a healthy image of one level of the attribute."""
    codes = np.unique(found.levels, return_inverse=True)[1]
    return within(labels, scores, codes.astype(float), bins=None)


def worst_group(levels: Mapping[str, list[dict]], fewest: int = 20) -> dict | None:
    """The level at which the classifier is right least often among the ill or among the healthy."""
    worst: dict | None = None
    for name, rows in levels.items():
        for row in rows:
            for measure in ("sensitivity", "specificity"):
                if measure in row and row[measure]["n"] >= fewest:
                    found = {"attribute": name, "level": row["level"], "measure": measure, **row[measure]}
                    worst = found if worst is None or found["value"] < worst["value"] else worst
    return worst


def told(
    features: np.ndarray | Sequence[np.ndarray | Ridge],
    target: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    seed: int = 0,
    permutations: int = 1999,
) -> Told:
    """How well features (N, D), such as pixels, tell a target (N,) among images of one class.

    By ridge, both centred within class, on held-out patients. Of several arrays of features the one counts
    that tells the target best, and best of all in every permutation too, so that p pays for the choice.
    Each may be given as :func:`eye` makes it, where several targets are asked of it.
    """
    labels = np.asarray(labels, np.int64)
    binary = len(np.unique(target)) == 2
    wanted = target.astype(float)[:, None]
    wanted = _within_class(wanted if binary else normal_scores(wanted), labels)[:, 0]
    given = [features] if isinstance(features, np.ndarray) else features
    eyes = [one if isinstance(one, Ridge) else eye(one, labels, patients, seed) for one in given]
    turn = Turned(wanted, eyes)
    best = int(np.argmax(turn.found))
    r = float(turn.found[best])
    p_value = sequential_p(r, turn.drawn(permutations, [seed, 78]))
    scored = _within_class(eyes[best].predicted(wanted)[:, None], labels)[:, 0]
    low, high = np.percentile(_drawn(target, scored, labels, patients, seed), [2.5, 97.5])
    apart = [_concordance(target[labels == c], scored[labels == c], labels[labels == c]) for c in (0, 1)]
    estimate = Estimate(_concordance(target, scored, labels), float(low), float(high), n=len(labels))
    return Told(estimate, p_value, apart[0], apart[1], max(r, 0.0) ** 2)


def _concordance(value: np.ndarray, scored: np.ndarray, labels: np.ndarray) -> float:
    """Over pairs of images of one class; for a continuous value from the rank correlation (Kendall 1949)."""
    if len(np.unique(value)) == 2:
        return within((value == value.max()).astype(int), scored, labels.astype(float), bins=None)
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return _alike([(np.ones(len(mine), int), _Ranks(value[mine]), _Ranks(scored[mine])) for mine in rows])


def eye(
    features: np.ndarray | Iterable[np.ndarray], labels: np.ndarray, patients: np.ndarray, seed: int = 0
) -> Ridge:
    """Features (N, D), or blocks of their rows, ready to be asked for targets with the label held fixed."""
    labels = np.asarray(labels, np.int64)
    return Ridge(_within_class(reduced(features), labels), labels, patients, seed, labels)


def _within_class(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Values (N, D), which are changed, less their class's mean."""
    classes = np.eye(labels.max() + 1)
    means = np.zeros((len(classes), values.shape[1]))
    parts = [slice(start, start + ROWS) for start in range(0, len(values), ROWS)]
    for part in parts:
        means += classes[labels[part]].T @ values[part]
    means /= np.maximum(np.bincount(labels), 1)[:, None]
    for part in parts:
        values[part] -= means[labels[part]]
    return values


def _cut(order: np.ndarray, labels: np.ndarray) -> float:
    """The value from which on most of the ill and fewest of the healthy lie."""
    values, codes = np.unique(order, return_inverse=True)
    ill = np.bincount(codes, labels, len(values)) / max(labels.sum(), 1)
    healthy = np.bincount(codes, 1 - labels, len(values)) / max((1 - labels).sum(), 1)
    gain = np.cumsum((ill - healthy)[::-1])[::-1]
    return float(values[1:][np.argmax(gain[1:])]) if len(values) > 1 else np.inf


def _label_order(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label's ridge prediction from the features, (N,)."""
    known = reduced(features)
    gram = known.T @ known + SHRINKAGE * len(known) * np.eye(known.shape[1])
    return known @ np.linalg.solve(gram, known.T @ (labels - labels.mean()))


def _drawn(
    value: np.ndarray, scored: np.ndarray, labels: np.ndarray, patients: np.ndarray, seed: int
) -> np.ndarray:
    """:func:`_concordance` of patients drawn with replacement, once a replicate: float, (replicates,)."""
    codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)[1]
    people, rng = codes.max() + 1, np.random.default_rng([seed, 79])
    draws = (np.bincount(rng.integers(0, people, people), minlength=people) for _ in range(REPLICATES))
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(np.unique(value)) == 2:
        more = value == value.max()
        ranked = [Ranked.of(more[mine], scored[mine], codes[mine], 0.0) for mine in rows]
        sides = [mine[more[mine] == one] for mine in rows for one in (False, True)]
        sizes = np.array([np.bincount(codes[side], minlength=people) for side in sides])
        found = []
        for counts in draws:
            pairs = np.prod((sizes @ counts).reshape(-1, 2), axis=1)
            each = [one.measure(counts[None], ("auc",))[0, 0] for one in ranked]
            right = np.where(pairs > 0, each, 0.0) @ pairs
            found.append(right / pairs.sum() if pairs.any() else 0.5)
        return np.array(found)
    classes = [(codes[mine], _Ranks(value[mine]), _Ranks(scored[mine])) for mine in rows]
    return np.array([_alike([(counts[who], a, b) for who, a, b in classes]) for counts in draws])


class _Ranks:
    """Mid-ranks of values (N,) of which each occurs so many times, sorted once."""

    def __init__(self, values: np.ndarray):
        self.order = np.argsort(values, kind="stable")
        self.level = np.unique(values, return_inverse=True)[1]
        self.ends = np.cumsum(np.bincount(self.level)) - 1

    def less_mean(self, times: np.ndarray) -> np.ndarray:
        upto = np.cumsum(times[self.order])[self.ends]
        below = np.concatenate([[0], upto[:-1]])
        return np.asarray(((below + upto - times.sum()) / 2)[self.level])


def _alike(classes: list[tuple[np.ndarray, _Ranks, _Ranks]]) -> float:
    """The concordance from the rank correlation in each class, by how many there are."""
    total = weight = 0.0
    for times, first, second in classes:
        count = int(times.sum())
        a, b = first.less_mean(times), second.less_mean(times)
        size = np.sqrt((times * a) @ a * ((times * b) @ b))
        if count > 2 and size > 0:
            total += count * float((times * a) @ b / size)
            weight += count
    return 0.5 + float(np.arcsin(np.clip(total / weight, -1, 1))) / np.pi if weight else 0.5
