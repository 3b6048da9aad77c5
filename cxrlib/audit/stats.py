"""The statistics of an audit: held-out scores by patient, their AUC, and whether chance would do as well.

The p-value is that of the fitted procedure, :mod:`cxrlib.audit.ridge`, and not of scores taken as given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from cxrlib.audit.ridge import BATCH, COMPONENTS, STEP, Ridge, Turned, reduced
from cxrlib.evaluation.metrics import Estimate, bootstrap

PERMUTATIONS = 1999
_ENOUGH = 20  # exceedances after which more permutations would not change the verdict


@dataclass(frozen=True, eq=False)
class Held:
    """What a probe reaches on patients that its classifier has not seen.

    - ``auc``: over all held-out scores; interval from resampling patients, for this division into folds.
    - ``p_value``: one-sided, when labels are permuted over patients and all is refitted: of an AUC this
      large; where patients differ in their number of images, of a correlation this large of scores and
      labels when the sign of each patient's labels less their mean is turned (:class:`.Turned`).
    - ``scores``: float64, (N,): held-out scores; comparable within the probe, not between probes.
    """

    auc: Estimate
    p_value: float
    scores: np.ndarray


def held_out(
    features: np.ndarray | Iterable[np.ndarray],
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    replicates: int = 1000,
    components: int | None = COMPONENTS,
) -> Held:
    """Score every patient by a classifier trained on the others, and test it by permutation.

    - ``features``, ``components``: as for :func:`reduced`; None: they are reduced already.
    - ``labels``, ``patients``: 0/1 and ids, (N,).
    - ``permutations``: at most so many; fewer where 20 have been as good (Besag and Clifford 1991,
      doi:10.1093/biomet/78.2.301).
    - Raises DataError: a class has too few patients for the folds.
    """
    labels, patients = np.asarray(labels, dtype=np.int64), np.asarray(patients).astype(str)
    known = np.asarray(features) if components is None else reduced(features, components)
    ridge = Ridge(known, labels, patients, seed)
    del features, known
    scores = ridge.predicted(labels)
    if len(np.unique(np.bincount(ridge.codes))) == 1:
        found = aucs(labels[:, None], scores[:, None])[0]
        shuffled = _dealt(labels[ridge.rows], patients[ridge.rows], permutations, [seed, 77])
        values = (_aucs_from(found, block, ridge.by_fold(block.T).T) for block in shuffled)
        p_value = sequential_p(found, values)
    else:  # the number of images may itself go with label and feature, which permuting would keep
        turn = Turned(labels - labels.mean(), [ridge])
        p_value = sequential_p(float(turn.found.max()), turn.drawn(permutations, [seed, 77]))
    auc = bootstrap(labels, scores, patients, metrics=("auc",), replicates=replicates, seed=seed)["auc"]
    return Held(auc, p_value, scores)


def aucs(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AUC of each column: labels 0/1 and scores, both (N, P); ties count one half."""
    positives = labels.sum(axis=0)
    negatives = len(labels) - positives
    ranks = np.empty(labels.shape[1])
    # Only one class's ranks are asked for: to sort and to look up takes a third of ranking all.
    columns = zip(labels.T == 1, np.ascontiguousarray(scores.T), strict=True)
    for column, (ill, values) in enumerate(columns):
        ordered, mine = np.sort(values), np.sort(values[ill])
        below, upto = (np.searchsorted(ordered, mine, side) for side in ("left", "right"))
        ranks[column] = (below.sum() + upto.sum() + len(mine)) / 2
    return (ranks - positives * (positives + 1) / 2) / np.maximum(positives * negatives, 1)


class _Deals:
    """Labels dealt anew by :func:`permuted`, a bit each, drawn once for all that is asked of them."""

    def __init__(self, labels: np.ndarray, patients: np.ndarray, most: int, seed: list[int]):
        self.drawn = permuted(labels.astype(np.uint8), patients, most, seed, STEP)
        self.rows, self.kept = len(labels), list[np.ndarray]()

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in count():
            if number == len(self.kept):
                if (block := next(self.drawn, None)) is None:
                    return
                self.kept.append(np.packbits(block.T, axis=1))
            yield np.unpackbits(self.kept[number], axis=1, count=self.rows).T


_deals: dict[bytes, _Deals] = {}  # the last few: probes of one cohort ask for the same


def _dealt(labels: np.ndarray, patients: np.ndarray, most: int, seed: list[int]) -> Iterator[np.ndarray]:
    named = hashlib.sha256(repr((most, seed, patients.dtype)).encode())
    for part in (labels, patients):
        named.update(np.ascontiguousarray(part).tobytes())
    deals = _deals.pop(named.digest(), None) or _Deals(labels, patients, most, seed)
    _deals[named.digest()] = deals
    while len(_deals) > 4:
        del _deals[next(iter(_deals))]
    return iter(deals)


def _aucs_from(least: float, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """:func:`aucs`; where that is less than ``least``, a number between the two, which takes no sorting."""
    bounds = _bounds(labels.T == 1, scores.T)
    near = bounds >= least - 1e-9
    bounds[near] = aucs(labels[:, near], scores[:, near])
    return bounds


def _bounds(ill: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """What AUCs are not above: bins of scores are compared, and in the same bin the ill count as higher.

    ``ill``, ``scores``: bool and float, (P, N). Returns float, (P,).
    """
    count, rows = scores.shape
    bins, step, bounds = (256 if rows < 4096 else 4096), max(1, 2**17 // rows), np.empty(count)
    for start in range(0, count, step):
        part, mine = scores[start : start + step], ill[start : start + step]
        low, shape = part.min(axis=1, keepdims=True), (len(part), bins + 2)
        scale = bins / np.maximum(part.max(axis=1, keepdims=True) - low, 1e-30)
        places = ((part - low) * scale).astype(np.intp)  # in the scores' order, or equal
        places += shape[1] * np.arange(len(part))[:, None]
        every, positive = (
            np.bincount(some.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
            for some in (places, places[mine])
        )
        right = np.einsum("ij,ij->i", positive, np.cumsum(every - positive, axis=1))
        positives = positive.sum(axis=1)
        bounds[start : start + step] = right / np.maximum(positives * (rows - positives), 1)
    return bounds


def sequential_p(found: float, blocks: Iterable[np.ndarray]) -> float:
    """Share of permutations at least as good; stops at the 20th, where p is 20 over their number."""
    seen = better = 0
    for values in blocks:
        hits = np.flatnonzero(values >= found - 1e-12)
        if better + len(hits) >= _ENOUGH:
            return _ENOUGH / (seen + int(hits[_ENOUGH - better - 1]) + 1)
        better, seen = better + len(hits), seen + len(values)
    return (better + 1) / (seen + 1)


def permuted(
    values: np.ndarray, patients: np.ndarray, count: int, seed: list[int], batch: int = BATCH
) -> Iterator[np.ndarray]:
    """Blocks (N, P) of values (N,) dealt anew: patients with equally many images swap all of theirs.

    What is exchangeable without an effect is patients, not images: those of one patient resemble each other
    and so do their labels. Where all patients have as many, ``batch``, the largest P, changes no deal.
    """
    rng = np.random.default_rng(seed)
    codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)[1]
    rows, sizes = np.argsort(codes, kind="stable"), np.bincount(codes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    # For each number of images: a table of rows, one line a patient.
    tables = [rows[starts[sizes == size][:, None] + np.arange(size)] for size in np.unique(sizes)]
    for start in range(0, count, batch):
        block = np.empty((min(batch, count - start), len(values)), values.dtype)
        for table in tables:
            given, step = values[table], max(1, 2**16 // len(table))
            for first in range(0, len(block), step):
                deals = block[first : first + step]
                deals[:, table] = given[np.argsort(rng.random((len(deals), len(table))), axis=1)]
        yield block.T


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Each column's ranks as normal quantiles: (N, D), for features with long tails. Ties share theirs."""
    ranks = np.empty(values.shape)
    for column, own in zip(values.T, ranks.T, strict=True):  # all at once take five times their memory
        own[:] = rankdata(column, nan_policy="omit")
    ranks -= 0.5
    ranks /= len(values)
    return np.asarray(ndtri(ranks, out=ranks))


def within(labels: np.ndarray, scores: np.ndarray, other: np.ndarray, bins: int | None = 10) -> float:
    """AUC of ``scores`` among images that are alike in ``other``.

    Pairs of an ill and a healthy image count where both lie in the same of ``bins`` quantile groups of
    ``other`` (equal values stay together; None: only where it is equal). What another shortcut explains is
    gone from it.
    """
    return within_and_error(labels, scores, other, bins)[0]


def within_and_error(
    labels: np.ndarray, scores: np.ndarray, other: np.ndarray, bins: int | None = 10
) -> tuple[float, float]:
    """:func:`within`, and its standard error where ``scores`` tell nothing and images are patients."""
    edges = np.unique(other if bins is None else np.quantile(other, np.linspace(0, 1, bins + 1)[1:-1]))
    group = np.searchsorted(edges, other, side="left")
    right = pairs = squares = 0.0
    for number in np.unique(group):
        mine = group == number
        positives = int(labels[mine].sum())
        weight = positives * (int(mine.sum()) - positives)
        if weight:
            right += weight * aucs(labels[mine, None], scores[mine, None])[0]
            pairs += weight
            squares += weight * (int(mine.sum()) + 1) / 12  # Mann and Whitney 1947
    return (right / pairs, squares**0.5 / pairs) if pairs else (0.5, 0.0)


def sample_patients(patients: np.ndarray, images: int | None, seed: int = 0) -> np.ndarray:
    """bool, (N,): all images of patients, in the order of a hash, until there are ``images`` (None: all)."""
    if images is None or images >= len(patients):
        return np.ones(len(patients), bool)
    names, codes, sizes = np.unique(np.asarray(patients).astype(str), return_inverse=True, return_counts=True)
    draws = [
        hashlib.sha256(f"sample:{seed}:{name}".encode("utf-8", "surrogateescape")).digest() for name in names
    ]
    order = sorted(range(len(names)), key=draws.__getitem__)
    enough = int(np.searchsorted(np.cumsum(sizes[order]), images)) + 1
    return np.isin(codes, order[:enough])
