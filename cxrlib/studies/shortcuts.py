"""What can be predicted from the table alone, without looking at an image.

A pixel-free classifier sees the columns that come with an image and no pixel of it. What it reaches is what a
network could reach by recognising the projection, the patient's age or the ward instead of the disease.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate, auc, bootstrap
from cxrlib.parallel import one_thread

if TYPE_CHECKING:
    from sklearn.pipeline import FeatureUnion, Pipeline

NIH_COLUMNS = ("view", "age", "sex", "follow_up")


@dataclass(frozen=True, eq=False)
class PixelFree:
    """What the columns of a table say of its label, on patients the model has not seen.

    - ``columns``: what the classifier saw.
    - ``scores``: float64, shape (N,): out-of-fold log-odds over those of the training folds' prevalence, so
      that scores of different folds compare. Above 0 is likelier than average.
    - ``folds``: int64, shape (N,): the fold in which each row was held out.
    - ``auc``: over all out-of-fold scores, with an interval from resampling patients.
    - ``chosen``: the kind of classifier that each fold's training part chose.
    - ``importance``: column -> loss of AUC when its values are shuffled among the held-out rows; empty unless
      asked for.
    """

    columns: tuple[str, ...]
    scores: np.ndarray
    folds: np.ndarray
    auc: Estimate
    chosen: tuple[str, ...]
    importance: dict[str, float] = field(default_factory=dict)


# One thread: the fits are small, and on a busy machine threads that wait for each other take minutes.
@one_thread
def pixel_free(
    table: pd.DataFrame,
    columns: Sequence[str] = NIH_COLUMNS,
    *,
    label: str = "label",
    kind: str | None = None,
    smallest_leaf: int = 50,
    folds: int = 5,
    seed: int = 0,
    replicates: int = 2000,
    shuffles: int = 0,
) -> PixelFree:
    """Predict the label from columns of the table, by cross-validation over patients.

    Two classifiers stand for choice in each fold: logistic regression (splines for numbers, indicators for
    categories) and gradient-boosted trees. The better one on a quarter of the fold's training patients is
    refitted to all of them and scores the held-out patients, who take no part in the choice. Patients are
    dealt to folds by a hash of their id, so the order of rows has no influence.

    - ``table``: one row an image: ``columns``, ``label`` (0/1), and ``patient_id`` (else each row is a
      patient).
    - ``columns``: numbers, booleans or categories; missing values are allowed and are a level of their own.
    - ``kind``: ``logistic`` or ``trees`` in every fold; None lets each fold choose.
    - ``smallest_leaf``: of the trees, in distinct rows: 1 where the columns have few values, or no leaf is
      large enough.
    - ``folds``: at least 2.
    - ``replicates``: resamplings of patients for the interval.
    - ``shuffles``: how often to shuffle each column for ``importance``.
    - Raises DataError: a column is missing, no columns were given, or a fold's training part holds one class
      only.
    """
    columns = tuple(columns)
    _check(table, columns, label)
    patients = _patients(table)
    # Fits depend on the rows' order in the last bits; sorting makes the result independent of it.
    order = np.lexsort((_row_keys(table), patients))
    table, patients = table.iloc[order], patients[order]
    labels = table[label].to_numpy(dtype=np.int64)
    features = encode(table, columns)
    held_out = patient_folds(patients, folds, seed=seed)
    inner = patient_folds(patients, 4, seed=seed + 1) == 0
    scores, chosen = np.empty(len(table)), []
    shuffled = np.empty((shuffles, len(columns), len(table)))
    rng = np.random.default_rng(seed)
    for fold in range(folds):
        test = held_out == fold
        _check_classes(labels[~test], fold, folds)
        taken = kind or _choose(features[~test], labels[~test], inner[~test])
        model = fit(taken, features[~test], labels[~test], smallest_leaf)
        chosen.append(taken)
        scores[test] = _score(model, features[test], labels[~test].mean())
        for repeat, column in np.ndindex(shuffles, len(columns)):
            mixed = features[test].copy()
            mixed.iloc[:, column] = mixed.iloc[rng.permutation(len(mixed)), column].to_numpy()
            shuffled[repeat, column, test] = _score(model, mixed, labels[~test].mean())
    estimate = bootstrap(labels, scores, patients, metrics=("auc",), replicates=replicates, seed=seed)["auc"]
    importance = {
        column: estimate.value - float(np.mean([auc(labels, shuffled[r, c]) for r in range(shuffles)]))
        for c, column in enumerate(columns if shuffles else ())
    }
    back = np.argsort(order)
    return PixelFree(columns, scores[back], held_out[back], estimate, tuple(chosen), importance)


def feature_by_feature(
    table: pd.DataFrame, columns: Sequence[str] = NIH_COLUMNS, **options: Any
) -> dict[str, PixelFree]:
    """:func:`pixel_free` for each column alone, and for all together under ``"metadata"``."""
    alone = {column: pixel_free(table, (column,), **{**options, "shuffles": 0}) for column in columns}
    return {"metadata": pixel_free(table, columns, **options), **alone}


def patient_folds(patients: ArrayLike, folds: int, *, seed: int = 0) -> np.ndarray:
    """A fold for each row, from a hash of its patient and the seed. int64, shape (N,), 0 … folds − 1."""
    if folds < 2:
        raise DataError(f"{folds} folds leave nothing to train on.", remedy="Use 2 or more.")
    codes, unique = pd.factorize(np.asarray(patients).astype(str))
    digests = (
        hashlib.sha256(f"fold:{seed}:{patient}".encode("utf-8", "surrogateescape")).digest()
        for patient in unique
    )
    return np.array([int.from_bytes(digest[:8], "big") % folds for digest in digests], dtype=np.int64)[codes]


def encode(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The columns as a classifier takes them: numbers as float, everything else as pandas categories.

    A missing category becomes the level ``"missing"``; a missing number stays NaN.
    """
    encoded: dict[str, pd.Series] = {}
    for column in columns:
        values = table[column]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            encoded[column] = values.astype(float)
        else:
            encoded[column] = values.astype(object).where(values.notna(), "missing").astype(str)
            encoded[column] = encoded[column].astype("category")
    return pd.DataFrame(encoded, index=table.index)


def _choose(features: pd.DataFrame, labels: np.ndarray, inner: np.ndarray) -> str:
    """The kind of classifier that ranks the ``inner`` rows (bool, (N,)) best after training on the others."""
    if min(labels[inner].sum(), (1 - labels[inner]).sum(), labels[~inner].sum()) < 5:
        return "logistic"  # too few to compare by: take the simpler
    aucs = {
        kind: auc(
            labels[inner], fit(kind, features[~inner], labels[~inner]).predict_proba(features[inner])[:, 1]
        )
        for kind in ("logistic", "trees")
    }
    return max(aucs, key=aucs.__getitem__)


def fit(kind: str, features: pd.DataFrame, labels: np.ndarray, smallest_leaf: int = 50) -> Pipeline:
    """A classifier, ``logistic`` or ``trees``, fitted to columns as :func:`encode` gives them."""
    # Few of a table's rows are distinct: one weighted row for each gives the same likelihood in less time.
    rows = features.assign(_label=labels).groupby([*features.columns, "_label"], observed=True, dropna=False)
    distinct = rows.size().rename("_weight").reset_index()
    values = distinct[list(features.columns)].astype(features.dtypes.to_dict())
    model = _logistic(features) if kind == "logistic" else _trees(smallest_leaf)
    weights = {f"{model.steps[-1][0]}__sample_weight": distinct["_weight"].to_numpy(dtype=float)}
    return model.fit(values, distinct["_label"].to_numpy(), **weights)


def _logistic(features: pd.DataFrame) -> Pipeline:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    numbers = [column for column in features if isinstance(features[column].dtype, np.dtype)]
    categories = [column for column in features if column not in numbers]
    splines = [(_spline(features[column]), [column]) for column in numbers]
    indicators = (OneHotEncoder(handle_unknown="ignore"), categories)
    transformer = make_column_transformer(*splines, indicators, sparse_threshold=0)
    return make_pipeline(transformer, LogisticRegression(max_iter=500))


def _spline(values: pd.Series) -> FeatureUnion:
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import SplineTransformer, StandardScaler

    # Counts and ages are skewed: knots at quantiles of the images put them where the images are.
    known = values.dropna().to_numpy() if values.notna().any() else np.zeros(1)
    knots = np.unique(np.quantile(known, np.linspace(0, 1, 5)))
    if len(knots) < 2:
        knots = np.array([knots[0], knots[0] + 1])
    spline = make_pipeline(
        SimpleImputer(strategy="constant", fill_value=float(np.median(known)), keep_empty_features=True),
        SplineTransformer(knots=knots[:, None], extrapolation="constant"),
        StandardScaler(),
    )
    return make_union(spline, MissingIndicator(features="all"))


def _trees(smallest_leaf: int) -> Pipeline:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline

    # Shallow and heavily shrunk: the signal is weak and the columns are few.
    trees = HistGradientBoostingClassifier(
        learning_rate=0.08,
        max_iter=60,
        max_leaf_nodes=8,
        min_samples_leaf=smallest_leaf,
        l2_regularization=10.0,
        categorical_features="from_dtype",
        early_stopping=False,
        random_state=0,
    )
    return make_pipeline(trees)


def _score(model: Pipeline, features: pd.DataFrame, prevalence: float) -> np.ndarray:
    probability = np.clip(model.predict_proba(features)[:, 1], 1e-6, 1 - 1e-6)
    return np.log(probability / (1 - probability)) - np.log(prevalence / (1 - prevalence))


def _patients(table: pd.DataFrame) -> np.ndarray:
    if "patient_id" in table:
        return table["patient_id"].astype(str).to_numpy()
    return _row_keys(table)


def _row_keys(table: pd.DataFrame) -> np.ndarray:
    column = table["image_id"] if "image_id" in table else pd.Series(np.arange(len(table)))
    return column.astype(str).to_numpy(dtype=str)


def _check(table: pd.DataFrame, columns: tuple[str, ...], label: str) -> None:
    missing = [column for column in (*columns, label) if column not in table]
    if missing or not columns:
        raise DataError(
            f"The table has no column {', '.join(map(repr, missing))}."
            if missing
            else "No columns were given.",
            remedy=f"Name some of its columns: {', '.join(map(repr, table.columns[:12]))}.",
        )


def _check_classes(labels: np.ndarray, fold: int, folds: int) -> None:
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"The training part of fold {fold + 1} of {folds} holds only one class.",
            remedy="Use fewer folds, or a table with more patients of the rarer class.",
        )
