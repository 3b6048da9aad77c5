"""The statistics of an audit: held-out scores by patient, their AUC, and whether chance would do as well.

The classifier is ridge regression on the label, which ranks as Fisher's discriminant does and has a closed
form. So labels can be permuted and the whole cross-validation repeated for each permutation as one product of
matrices: the p-value is that of the fitted procedure, not of scores taken as given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.special import ndtri
from scipy.stats import rankdata

from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate, bootstrap
from cxrlib.studies.shortcuts import patient_folds

FOLDS = 5
PERMUTATIONS = 1999
_SHRINKAGE = 0.1  # the ridge's penalty, as a share of the images that it is trained on
_BATCH, _STEP = 250, 50  # permutations drawn, and asked, at a time
_BINS = 4096  # of scores, for a bound
ROWS = 2048  # gone through at a time
COMPONENTS = 150
_ENOUGH = 20  # exceedances after which more permutations would not change the verdict


@dataclass(frozen=True, eq=False)
class Held:
    """What a probe reaches on patients that its classifier has not seen.

    - ``auc``: over all held-out scores; interval from resampling patients, for this division into folds.
    - ``p_value``: one-sided, when labels are permuted over patients and all is refitted: of an AUC this
      large; where patients differ in their number of images, of a correlation this large of scores and
      labels when the sign of each patient's labels less their mean is turned (:class:`Turned`).
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
        dealt = labels[ridge.rows].astype(np.int8), patients[ridge.rows]
        shuffled = permuted(*dealt, permutations, [seed, 77], _STEP)
        values = (_aucs_from(found, block, ridge.by_fold(block.T).T) for block in shuffled)
        p_value = sequential_p(found, values)
    else:  # the number of images may itself go with label and feature, which permuting would keep
        turn = Turned(labels - labels.mean(), [ridge])
        p_value = sequential_p(float(turn.found.max()), turn.drawn(permutations, [seed, 77]))
    auc = bootstrap(labels, scores, patients, metrics=("auc",), replicates=replicates, seed=seed)["auc"]
    return Held(auc, p_value, scores)


class Ridge:
    """Ridge regression of any target on features, cross-validated by patient.

    Products of each fold's features with themselves and with a target say all that is asked: those of the
    other folds give the coefficients, and no training row is gone through again.

    - ``features``: float, (N, D), as :func:`reduced` gives them; ``labels``, ``patients``: (N,), for the
      folds; ``groups``: int, (N,): within which :class:`Turned` centres a target and what is predicted of it.
    - ``rows``: int, (N,): the rows fold by fold, and in these by patient; ``codes``: the patient of each.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        patients: np.ndarray,
        seed: int,
        groups: np.ndarray | None = None,
    ):
        held = balanced_folds(labels, patients, FOLDS, seed)
        codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)[1]
        groups = np.zeros(len(held), np.int64) if groups is None else groups
        self.rows, ends = np.lexsort((codes, held)), np.cumsum(np.bincount(held)).tolist()
        self.codes = codes[self.rows]
        self.folds = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        self.width, self.sizes = features.shape[1], np.bincount(groups)[:, None]
        # Behind the features stands to which group a row belongs: sums over groups are products too.
        self.known = np.empty((len(held), self.width + len(self.sizes)), np.float32)
        products, ranges = [], []
        for fold in self.folds:
            rows = self.rows[fold]
            part = np.concatenate(
                [features[rows], np.eye(len(self.sizes))[groups[rows]]], axis=1, dtype=float
            )
            self.known[fold] = part
            products.append(part.T @ part)
            ranges.append((part.min(axis=0), part.max(axis=0)))
        self.products = np.array(products)
        self.weights = np.array([self._weights(fold, np.array(ranges)) for fold in range(len(products))])

    def _weights(self, fold: int, ranges: np.ndarray) -> np.ndarray:
        """What takes the other folds' products with a target to the coefficients for this one."""
        width, others = self.width, np.arange(len(ranges)) != fold
        products, ranges = self.products[others].sum(axis=0), ranges[others, :, :width]
        count = products[width:, width:].sum()
        centre = products[:width, width:].sum(axis=1) / count
        varying = ranges[:, 1].max(axis=0) - ranges[:, 0].min(axis=0) > 1e-9
        gram = (products[:width, :width] - count * np.outer(centre, centre)) * np.outer(varying, varying)
        gram[np.diag_indices_from(gram)] += _SHRINKAGE * count + 1e-9
        centred = np.concatenate([np.eye(width), np.tile(-centre[:, None], len(self.sizes))], axis=1)
        weights = cho_solve(cho_factor(gram, lower=True), centred * varying[:, None])
        return np.concatenate([weights, np.tile(-centre @ weights, (len(self.sizes), 1))])

    def by_fold(self, targets: np.ndarray) -> np.ndarray:
        """What is predicted of targets on held-out patients: (P, N) -> float32, (P, N), both by ``rows``.

        Less the training part's mean, which is lower where the held-out part holds more positives, and would
        pull the AUC over pooled folds below one half.
        """
        sums = np.array([targets[:, fold].astype(np.float32) @ self.known[fold] for fold in self.folds])
        out = np.empty(targets.shape, np.float32)
        for number, fold in enumerate(self.folds):
            found = (sums.sum(axis=0) - sums[number]) @ self.weights[number].T
            out[:, fold] = found.astype(np.float32) @ self.known[fold].T
        return out

    def predicted(self, target: np.ndarray) -> np.ndarray:
        """The same of one target, (N,) -> float64, (N,), in the order of the features' rows."""
        out = np.empty(len(target))
        out[self.rows] = self.by_fold(target[None, self.rows])[0]
        return out

    def correlations(self, sums: np.ndarray, squares: float) -> np.ndarray:
        """Of targets with what is predicted of them, both less their groups' means: float, (P,).

        ``sums``: (folds, D + groups, P), ``known`` times the targets; ``squares``: of a target, their sum.
        """
        means = sums[:, self.width :].sum(axis=0) / self.sizes
        own = sums - self.products[:, :, self.width :] @ means
        found = self.weights @ (own.sum(axis=0) - own)
        along = self.products @ found
        mean = along[:, self.width :].sum(axis=0) / self.sizes
        predicted = (found * along).sum(axis=(0, 1)) - (self.sizes * mean**2).sum(axis=0)
        size = np.sqrt(np.maximum(predicted * (squares - (self.sizes * means**2).sum(axis=0)), 0))
        return np.asarray((found * own).sum(axis=(0, 1)) / np.where(size > 0, size, 1.0))


class Turned:
    """Correlations of a target with what is predicted of it when the signs of patients' values are turned.

    The wild bootstrap by cluster (Cameron, Gelbach and Miller 2008, doi:10.1162/rest.90.3.414): what the
    images of a patient have in common stays. Exchanging patients with as many images of each class would
    not do: how many images a patient has goes with what is asked (bedside films come in series), and who
    has as many as nobody else would exchange with nobody.

    - ``values``: float, (N,), with mean 0 in each group; ``ridges``: of the same rows and folds.
    - ``found``: float, (ridges,): with no sign turned.
    """

    def __init__(self, values: np.ndarray, ridges: Sequence[Ridge]):
        first = ridges[0]
        self.ridges, self.squares = ridges, float(values @ values)
        starts = np.flatnonzero(np.diff(first.codes, prepend=-1))
        ends = [*starts[1:].tolist(), len(values)]
        self.patients = first.codes[starts]
        self.folds = [slice(*np.searchsorted(starts, (fold.start, fold.stop))) for fold in first.folds]
        #: For each ridge its features times the values, summed over each patient.
        self.sums = [np.empty((len(starts), one.known.shape[1]), np.float32) for one in ridges]
        values = values[first.rows].astype(np.float32)[:, None]
        for one, sums in zip(ridges, self.sums, strict=True):
            for fold in self.folds:
                rows = slice(starts[fold.start], ends[fold.stop - 1])
                at = starts[fold] - rows.start
                sums[fold] = np.add.reduceat(one.known[rows] * values[rows], at, axis=0)
        self.found = self._with(np.ones((len(starts), 1), np.int8))[:, 0]

    def drawn(self, count: int, seed: list[int]) -> Iterator[np.ndarray]:
        """The best of the ridges for each of so many draws, in blocks."""
        for signs in turned(len(self.patients), count, seed):
            for start in range(0, signs.shape[1], _STEP):
                yield self._with(signs[:, start : start + _STEP]).max(axis=0)

    def _with(self, signs: np.ndarray) -> np.ndarray:
        """Of each ridge: signs (patients, P) -> (ridges, P)."""
        parts = [signs[self.patients[fold]].astype(np.float32) for fold in self.folds]
        return np.array([
            one.correlations(
                np.array([sums[fold].T @ part for fold, part in zip(self.folds, parts, strict=True)]),
                self.squares,
            )
            for one, sums in zip(self.ridges, self.sums, strict=True)
        ])  # fmt: skip


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


def _aucs_from(least: float, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """:func:`aucs`; where that is less than ``least``, a number between the two, which takes no sorting."""
    bounds = np.array([_bound(*column) for column in zip(labels.T == 1, scores.T, strict=True)])
    near = bounds >= least - 1e-9
    bounds[near] = aucs(labels[:, near], scores[:, near])
    return bounds


def _bound(ill: np.ndarray, scores: np.ndarray) -> float:
    """What an AUC is not above: bins of scores are compared, and in the same bin the ill count as higher."""
    low, scale = scores.min(), _BINS / max(np.ptp(scores), 1e-30)
    places = ((scores - low) * scale).astype(np.intp)  # in the scores' order, or equal
    positive = np.bincount(places[ill], minlength=_BINS + 2)
    negative = np.bincount(places, minlength=_BINS + 2) - positive
    return float(positive @ np.cumsum(negative) / max(int(positive.sum()) * int(negative.sum()), 1))


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
    values: np.ndarray, patients: np.ndarray, count: int, seed: list[int], batch: int = _BATCH
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
            given = values[table]
            for deal in block:
                deal[table] = given[np.argsort(rng.random(len(table)))]
        yield block.T


def turned(patients: int, count: int, seed: list[int]) -> Iterator[np.ndarray]:
    """A sign for each patient, drawn anew so many times: int8, (patients, P ≤ 250), -1 or 1."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, _BATCH):
        signs = np.empty((patients, min(_BATCH, count - start)), np.int8)
        for first in range(0, patients, ROWS):
            part = signs[first : first + ROWS]
            part[:] = rng.integers(0, 2, part.shape) * 2 - 1
        yield signs


def balanced_folds(labels: np.ndarray, patients: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for each row, by a hash of the patient; fewer folds where patients are few.

    Raises a DataError where even two folds leave one without both classes.
    """
    for count in range(folds, 1, -1):
        held = patient_folds(patients, count, seed=seed)
        trained = [labels[held != fold] for fold in range(count)]
        if all(len(np.unique(part)) == 2 for part in trained) and len(np.unique(held)) == count:
            return held
    raise DataError(
        f"{len(labels)} images of {len(np.unique(patients))} patients, {int(labels.sum())} ill, are too few "
        "to hold patients out.",
        remedy="Audit a data set with several patients of each class.",
    )


def reduced(features: np.ndarray | Iterable[np.ndarray], components: int = COMPONENTS) -> np.ndarray:
    """Unit variance, no NaN, no constant columns, and at most so many (principal) components; float64.

    ``features``: float, (N, D), or their rows in blocks, which can be gone through twice: then they are not
    in memory all at once. NaN becomes the column's median.
    """
    parts: Iterable[np.ndarray]
    if isinstance(features, np.ndarray):
        whole = features if features.ndim > 1 else features[:, None]
        if not (known := np.isfinite(whole)).all():
            whole = np.where(known, whole, np.nan).astype(float)
            middle = np.nan_to_num(np.nanmedian(np.where(known.any(0), whole, 0.0), axis=0))
            whole = np.where(known, whole, middle)
        parts = [whole[start : start + ROWS] for start in range(0, len(whole), ROWS)]
    else:
        parts = features
    count, shift, total, gram = 0, None, 0.0, 0.0
    for part in parts:
        part = part.astype(float)
        if shift is None:  # near the mean, so that little is lost when the rest of it is taken off
            shift = part.mean(axis=0)
        part -= shift
        count, total, gram = count + len(part), total + part.sum(axis=0), gram + part.T @ part
    if not np.isfinite(total).all():
        return reduced(np.concatenate(list(parts)), components)
    shift, gram = shift + total / count, gram - np.outer(total, total / count)
    spread = np.sqrt(np.maximum(np.diagonal(gram), 0) / count)
    varying = spread > 1e-9
    if not varying.any():
        return np.zeros((count, 1))
    shift, spread = shift[varying], spread[varying]
    width = len(spread)
    standard = ((part[:, varying] - shift) / spread for part in parts)
    if width <= components:
        return np.concatenate(list(standard))
    if count <= width:
        whole = np.concatenate(list(standard))
        values, vectors = _largest(whole @ whole.T, components)
        kept = vectors * np.sqrt(np.maximum(values, 0))
    else:
        vectors = _largest(gram[np.ix_(varying, varying)] / np.outer(spread, spread), components)[1]
        kept, row = np.empty((count, components)), 0
        for part in standard:
            kept[row : row + len(part)] = part @ vectors
            row += len(part)
    # Scaled together, not each: a component that varies more is worth more until the labels say otherwise.
    kept /= np.sqrt(np.vdot(kept, kept) / kept.size - kept.mean() ** 2)
    return kept


def _largest(gram: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues, and their vectors."""
    values, vectors = eigh(gram, subset_by_index=[max(0, len(gram) - count), len(gram) - 1])
    return values, vectors


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
