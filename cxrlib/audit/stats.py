"""The statistics of an audit: held-out scores by patient, their AUC, and whether chance would do as well.

The classifier is ridge regression on the label, which ranks as Fisher's discriminant does and has a closed
form. So labels can be permuted and the whole cross-validation repeated for each permutation as one product of
matrices: the p-value is that of the fitted procedure, not of scores taken as given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
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
_BATCH = 250
_ENOUGH = 20  # exceedances after which more permutations would not change the verdict


@dataclass(frozen=True, eq=False)
class Held:
    """What a probe reaches on patients that its classifier has not seen.

    - ``auc``: over all held-out scores; interval from resampling patients, for this division into folds.
    - ``p_value``: one-sided, when labels are permuted over patients and all is refitted: of an AUC this
      large; where patients differ in their number of images, of a correlation this large of scores and
      labels when the sign of each patient's labels less their mean is turned (:func:`turned`).
    - ``scores``: float64, (N,): held-out scores; comparable within the probe, not between probes.
    """

    auc: Estimate
    p_value: float
    scores: np.ndarray


def held_out(
    features: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    replicates: int = 1000,
) -> Held:
    """Score every patient by a classifier trained on the others, and test it by permutation.

    - ``features``: float, (N, D). NaN becomes the column's median; constant columns are ignored.
    - ``labels``, ``patients``: 0/1 and ids, (N,).
    - ``permutations``: at most so many; fewer where 20 have been as good (Besag and Clifford 1991,
      doi:10.1093/biomet/78.2.301).
    - Raises DataError: a class has too few patients for the folds.
    """
    labels = np.asarray(labels, dtype=np.int64)
    score = cross_validated(reduced(features), labels, patients, seed)
    scores = score(labels[:, None].astype(np.float32))[:, 0].astype(float)
    found = aucs(labels[:, None], scores[:, None])[0]
    if len(np.unique(np.unique(np.asarray(patients).astype(str), return_counts=True)[1])) == 1:
        shuffled = permuted(labels.astype(np.int8), patients, permutations, [seed, 77])
        p_value = sequential_p(found, (aucs(block, score(block.astype(np.float32))) for block in shuffled))
    else:  # the number of images may itself go with label and feature, which permuting would keep
        centred = labels - labels.mean()
        drawn = turned(centred, patients, permutations, [seed, 77])
        r = float(_correlations(score, centred[:, None])[0])
        p_value = sequential_p(r, (_correlations(score, block) for block in drawn))
    auc = bootstrap(labels, scores, patients, metrics=("auc",), replicates=replicates, seed=seed)["auc"]
    return Held(auc, p_value, scores)


def _correlations(score: Callable[[np.ndarray], np.ndarray], targets: np.ndarray) -> np.ndarray:
    """Of each column of targets, (N, P), with what is predicted of it."""
    scored = score(targets.astype(np.float32)).astype(float)
    scored, targets = scored - scored.mean(axis=0), targets - targets.mean(axis=0)
    size = np.sqrt((scored**2).sum(axis=0) * (targets**2).sum(axis=0))
    return np.asarray((scored * targets).sum(axis=0) / np.where(size > 0, size, 1.0))


def cross_validated(
    features: np.ndarray, labels: np.ndarray, patients: np.ndarray, seed: int, *, centred: bool = True
) -> Callable[[np.ndarray], np.ndarray]:
    """A function of targets, (N, P), that gives what ridge predicts of them on held-out patients, float32.

    ``centred``: take the training part's mean off the targets first. It is not added again: it is lower where
    the held-out part holds more positives, and would pull the AUC over pooled folds below one half.
    """
    held = balanced_folds(labels, patients, FOLDS, seed)
    parts = [_fold(features, held == fold) for fold in range(int(held.max()) + 1)]

    def predicted(many: np.ndarray) -> np.ndarray:
        out = np.empty(many.shape, np.float32)
        for test, train, steps in parts:
            found = many[train] - many[train].mean(axis=0) if centred else many[train]
            for step in steps:
                found = step @ found
            out[test] = found
        return out

    return predicted


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


def sequential_p(found: float, blocks: Iterable[np.ndarray]) -> float:
    """Share of permutations at least as good; stops at the 20th, where p is 20 over their number."""
    seen = better = 0
    for values in blocks:
        hits = np.flatnonzero(values >= found - 1e-12)
        if better + len(hits) >= _ENOUGH:
            return _ENOUGH / (seen + int(hits[_ENOUGH - better - 1]) + 1)
        better, seen = better + len(hits), seen + len(values)
    return (better + 1) / (seen + 1)


def permuted(values: np.ndarray, patients: np.ndarray, count: int, seed: list[int]) -> Iterator[np.ndarray]:
    """Blocks (N, P ≤ 250) of values (N,) dealt anew: patients with equally many images swap all of theirs.

    What is exchangeable without an effect is patients, not images: those of one patient resemble each other
    and so do their labels.
    """
    rng = np.random.default_rng(seed)
    codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)[1]
    rows, sizes = np.argsort(codes, kind="stable"), np.bincount(codes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    # For each number of images: a table of rows, one line a patient.
    tables = [rows[starts[sizes == size][:, None] + np.arange(size)] for size in np.unique(sizes)]
    for start in range(0, count, _BATCH):
        block = np.empty((len(values), min(_BATCH, count - start)), values.dtype)
        for table in tables:
            deals = np.argsort(rng.random((block.shape[1], len(table))), axis=1)
            block[table] = values[table][deals].transpose(1, 2, 0)
        yield block


def turned(values: np.ndarray, patients: np.ndarray, count: int, seed: list[int]) -> Iterator[np.ndarray]:
    """Blocks (N, P ≤ 250) of values (N,), with mean 0 in each class, whose sign is drawn anew by patient.

    The wild bootstrap by cluster (Cameron, Gelbach and Miller 2008, doi:10.1162/rest.90.3.414): what the
    images of a patient have in common stays. Exchanging patients with as many images of each class would
    not do: how many images a patient has goes with what is asked (bedside films come in series), and who
    has as many as nobody else would exchange with nobody.
    """
    rng = np.random.default_rng(seed)
    codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)[1]
    for start in range(0, count, _BATCH):
        signs = rng.integers(0, 2, (codes.max() + 1, min(_BATCH, count - start))) * 2 - 1
        yield values[:, None] * signs[codes]


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


def reduced(features: np.ndarray, components: int = 150) -> np.ndarray:
    """Unit variance, no NaN, no constant columns, and at most so many (principal) components; float64."""
    features = np.array(features, dtype=np.float64)
    if features.ndim == 1:
        features = features[:, None]
    known = np.isfinite(features)
    if not known.all():
        features[~known] = np.nan
        middle = np.nan_to_num(np.nanmedian(np.where(known.any(0), features, 0.0), axis=0))
        features = np.where(known, features, middle)
    spread = _spread(features)
    if not (spread > 1e-9).all():
        features = features[:, spread > 1e-9]
    features -= features.mean(axis=0)
    features /= _spread(features)
    if not features.shape[1]:
        return np.zeros((len(features), 1))
    if features.shape[1] <= components:
        return features
    tall = len(features) > features.shape[1]
    gram = features.T @ features if tall else features @ features.T
    last = len(gram) - 1
    values, vectors = eigh(gram, subset_by_index=[max(0, last - components + 1), last])
    kept = features @ vectors if tall else vectors * np.sqrt(np.maximum(values, 0))
    # Scaled together, not each: a component that varies more is worth more until the labels say otherwise.
    return kept / kept.std()


def _spread(values: np.ndarray) -> np.ndarray:
    """Each column's standard deviation, a few at a time: numpy copies what it is asked for."""
    parts = [values[:, start : start + 64].std(axis=0) for start in range(0, values.shape[1], 64)]
    return np.concatenate(parts) if parts else np.zeros(0)


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Each column's ranks as normal quantiles: (N, D), for features with long tails. Ties share theirs."""
    ranks = rankdata(values, axis=0, nan_policy="omit")
    return ndtri((ranks - 0.5) / len(values))


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


def _fold(features: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Held-out rows, training rows, and the matrices that take the ones' centred labels to the others'
    scores.
    """
    train = ~test
    centre, spread = features[train].mean(axis=0), features[train].std(axis=0)
    varying = spread > 1e-9
    known, tested = ((features[rows] - centre)[:, varying] for rows in (train, test))
    gram = known.T @ known
    gram[np.diag_indices_from(gram)] += _SHRINKAGE * len(known) + 1e-9
    weights = cho_solve(cho_factor(gram, lower=True), known.T)
    # Whichever order needs fewer multiplications for many permutations.
    direct = len(tested) * len(known) <= weights.size + tested.size
    steps = [tested @ weights] if direct else [weights, tested]
    return test, train, [step.astype(np.float32) for step in steps]


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
