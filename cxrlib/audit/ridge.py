"""Ridge regression on the label, cross-validated by patient, of features too large for the memory.

It ranks as Fisher's discriminant does and has a closed form. So labels can be permuted, or signs turned, and
the whole cross-validation repeated for each as one product of matrices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from cxrlib.errors import DataError
from cxrlib.studies.shortcuts import patient_folds

FOLDS = 5
COMPONENTS = 150
BATCH, STEP = 250, 50  # permutations drawn, and asked, at a time
ROWS = 2048  # gone through at a time
_SHRINKAGE = 0.1  # the ridge's penalty, as a share of the images that it is trained on


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
    count, shift, total, gram = 0, np.zeros(1), np.zeros(1), np.zeros((1, 1))
    for part in parts:
        part = part.astype(float)
        if not count:  # near the mean, so that little is lost when the rest of it is taken off
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
    if components < width >= count:
        whole = np.concatenate(list(standard))
        values, vectors = _largest(whole @ whole.T, components)
        kept = vectors * np.sqrt(np.maximum(values, 0))
    else:
        turn = np.zeros((0, 0))
        if width > components:
            turn = _largest(gram[np.ix_(varying, varying)] / np.outer(spread, spread), components)[1]
        kept, row = np.empty((count, min(width, components))), 0
        for part in standard:
            kept[row : row + len(part)] = part @ turn if turn.size else part
            row += len(part)
    if width <= components:
        return kept
    # Scaled together, not each: a component that varies more is worth more until the labels say otherwise.
    kept /= np.sqrt(np.vdot(kept, kept) / kept.size - kept.mean() ** 2)
    return kept


def _largest(gram: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues, and their vectors."""
    values, vectors = eigh(gram, subset_by_index=[max(0, len(gram) - count), len(gram) - 1])
    return values, vectors


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
        # Behind the features stands to which group a row belongs: sums over groups are products too. Of few
        # features, such as levels of a column, many rows are equal: their scores have to be, after rounding.
        kind = np.float32 if self.width >= COMPONENTS else np.float64
        self.known = np.empty((len(held), self.width + len(self.sizes)), kind)
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
        kind = self.known.dtype
        sums = np.array([targets[:, fold].astype(kind) @ self.known[fold] for fold in self.folds])
        out = np.empty(targets.shape, np.float32)
        for number, fold in enumerate(self.folds):
            found = (sums.sum(axis=0) - sums[number]) @ self.weights[number].T
            out[:, fold] = found.astype(kind) @ self.known[fold].T
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
        values = values[first.rows][:, None]
        for one, sums in zip(ridges, self.sums, strict=True):
            for fold in self.folds:
                rows = slice(starts[fold.start], ends[fold.stop - 1])
                at = starts[fold] - rows.start
                sums[fold] = np.add.reduceat(one.known[rows] * values[rows], at, axis=0)
        self.found = self._with(np.ones((len(starts), 1), np.int8))[:, 0]

    def drawn(self, count: int, seed: list[int]) -> Iterator[np.ndarray]:
        """The best of the ridges for each of so many draws, in blocks."""
        for signs in turned(len(self.patients), count, seed):
            for start in range(0, signs.shape[1], STEP):
                yield self._with(signs[:, start : start + STEP]).max(axis=0)

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


def turned(patients: int, count: int, seed: list[int]) -> Iterator[np.ndarray]:
    """A sign for each patient, drawn anew so many times: int8, (patients, P ≤ 250), -1 or 1."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, BATCH):
        signs = np.empty((patients, min(BATCH, count - start)), np.int8)
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
