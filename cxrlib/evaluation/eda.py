"""The tables behind the notebook 01_eda: counts, prevalences and agreements, each with its interval.

Functions take a table with one row an image (``patient_id``, bool or 0/1 columns) and return a DataFrame.
Images of one patient resemble each other, so intervals come from resampling patients, not images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib.datasets.nih_tables import FINDINGS
from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate, auc, proportion
from cxrlib.evaluation.resampling import LEVEL, check_patients, draw_patients

_ACQUISITION = (
    "view", "age", "sex", "follow_up", "site", "original_width", "original_height", "pixel_spacing",
)  # fmt: skip


def finding_counts(table: pd.DataFrame, findings: Sequence[str]) -> pd.DataFrame:
    """How often each finding occurs, and how often it is the only one.

    Returns a DataFrame indexed by finding, most frequent first: ``images``, ``share`` (of all images),
    ``patients``, ``alone`` (images with no other finding).
    """
    marks = _marks(table, findings)
    single = marks.sum(axis=1) == 1
    rows = {
        finding: {
            "images": int(marks[:, i].sum()),
            "share": float(marks[:, i].mean()),
            "patients": int(table["patient_id"][marks[:, i]].nunique()),
            "alone": int((marks[:, i] & single).sum()),
        }
        for i, finding in enumerate(findings)
    }
    return pd.DataFrame.from_dict(rows, orient="index").sort_values("images", ascending=False)


def cooccurrence(table: pd.DataFrame, findings: Sequence[str]) -> pd.DataFrame:
    """Images that carry both findings; the diagonal counts the images of one. Square, symmetric, int."""
    marks = _marks(table, findings).astype(np.int64)
    return pd.DataFrame(marks.T @ marks, index=list(findings), columns=list(findings))


def lift(counts: pd.DataFrame, images: int) -> pd.DataFrame:
    """Co-occurrence over what independence would give: 1 is chance, NaN on the diagonal."""
    single = np.diag(counts).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = counts.to_numpy() * images / np.outer(single, single)
    np.fill_diagonal(ratio, np.nan)
    return pd.DataFrame(ratio, index=counts.index, columns=counts.columns)


def images_per_patient(table: pd.DataFrame) -> pd.Series:
    """How many images each patient has, most first; indexed by ``patient_id``."""
    return table["patient_id"].value_counts().rename("images")


def concentration(sizes: pd.Series) -> pd.DataFrame:
    """The Lorenz curve of :func:`images_per_patient`, largest patients first.

    Returns a DataFrame: ``patients`` and ``images``, cumulative shares from (0, 0) to (1, 1).
    """
    images = np.sort(sizes.to_numpy())[::-1].cumsum() / sizes.sum()
    patients = np.arange(1, len(sizes) + 1) / len(sizes)
    return pd.DataFrame({"patients": np.r_[0, patients], "images": np.r_[0, images]})


def image_split_leakage(
    table: pd.DataFrame, *, label: str = "label", test_fraction: float = 0.2, seed: int = 0
) -> dict[str, float]:
    """What a split drawn by image instead of by patient gives away, pixels unseen.

    Draws ``test_fraction`` of the images at random. Returns ``shared`` (share of test images whose patient is
    in training), ``shared_expected`` (the same in expectation: the mean of 1 − test_fraction^(n−1) over
    images of patients with n images), ``shared_positive`` (``shared`` of the images with the label),
    ``lookup_auc`` (AUC of the patient's share of positive training images; patients not seen get the
    prevalence).
    """
    patients, unique = pd.factorize(table["patient_id"])
    labels = table[label].to_numpy(dtype=np.int64)
    test = np.random.default_rng(seed).random(len(table)) < test_fraction
    seen = np.bincount(patients[~test], minlength=len(unique))
    positive = np.bincount(patients[~test], weights=labels[~test], minlength=len(unique))
    # One pseudo-image at the prevalence: a patient never seen gets the prevalence, one often seen their own.
    memory = (positive + labels[~test].mean()) / (seen + 1)
    shared = seen[patients[test]] > 0
    sizes = np.bincount(patients)[patients]
    return {
        "shared": float(shared.mean()),
        "shared_expected": float((1 - test_fraction ** (sizes - 1.0)).mean()),
        "shared_positive": float(shared[labels[test] == 1].mean()),
        "lookup_auc": auc(labels[test], memory[patients[test]]),
    }


def prevalence_by(
    table: pd.DataFrame, by: str | pd.Series, *, label: str = "label", replicates: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Share of images with the label within each level of a column.

    - ``by``: a column, or a Series aligned with the table (from ``pandas.cut``, say). Rows without a value
      drop.
    - ``replicates``: resamplings of patients. 0 skips them; so does a table without ``patient_id``.
    - Returns: DataFrame indexed by level: ``images``, ``patients``, ``positives``, ``prevalence``,
      ``wilson_low``, ``wilson_high`` (images taken as independent), ``low``, ``high`` (patients resampled;
      Wilson's where that was skipped).
    """
    levels, cells, patients = _cells(table, by, label)
    images, positives = np.split(cells.sum(axis=0).astype(int), 2)
    wilson = [proportion(k, n) for k, n in zip(positives, images, strict=True)]
    result = pd.DataFrame(
        {
            "images": images,
            "patients": [len(np.unique(patients[cells[:, i] > 0])) for i in range(len(levels))],
            "positives": positives,
            "prevalence": positives / images,
            "wilson_low": [estimate.low for estimate in wilson],
            "wilson_high": [estimate.high for estimate in wilson],
        },
        index=levels,
    )
    result["low"], result["high"] = result["wilson_low"], result["wilson_high"]
    if replicates and "patient_id" in table:
        of, over = np.split(resample_patients(cells, patients, replicates=replicates, seed=seed), 2, axis=1)
        with np.errstate(invalid="ignore"):
            result["low"], result["high"] = percentiles(over / of)
    return result


def prevalence_ratio(
    table: pd.DataFrame,
    by: str,
    over: str,
    under: str,
    *,
    label: str = "label",
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """How many times as frequent the label is at one level of a column as at another.

    Resamples patients; a table without ``patient_id`` is resampled by image.
    """
    levels, cells, patients = _cells(table, by, label)
    a, b, k = list(levels).index(over), list(levels).index(under), len(levels)

    def ratio(sums: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (sums[:, k + a] / sums[:, a]) / (sums[:, k + b] / sums[:, b])

    draws = ratio(resample_patients(cells, patients, replicates=replicates, seed=seed))
    low, high = percentiles(draws[:, None])
    total = cells.sum(axis=0)
    return Estimate(float(ratio(total[None])[0]), float(low[0]), float(high[0]), int(total[a] + total[b]))


def prevalence_estimates(prevalences: pd.DataFrame, prefix: str = "") -> dict[str, Estimate]:
    """:func:`prevalence_by` as numbers to record: ``<prefix><level>.prevalence`` -> Estimate."""
    return {
        f"{prefix}{str(level).replace('–', '_')}.prevalence": Estimate(
            r.prevalence, r.low, r.high, int(r.images)
        )
        for level, r in prevalences.iterrows()
    }


AGREEMENT = ("sensitivity", "specificity", "ppv", "npv", "kappa")


def label_agreement(
    table: pd.DataFrame,
    pairs: Mapping[str, tuple[Sequence[str], str]],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How well text-mined labels say what the experts say.

    - ``pairs``: row name -> (text-mined bool columns, any of which counts; the expert column taken as truth).
    - Returns: DataFrame indexed by row name: ``n``, ``tp``, ``fp``, ``fn``, ``tn``, ``prevalence`` (of the
      expert label), and for each of :data:`AGREEMENT` the value with ``_low`` and ``_high`` from resampled
      patients. Kappa is Cohen's (doi:10.1177/001316446002000104).
    """
    rows = {}
    for name, (mined, expert) in pairs.items():
        said = table[list(mined)].any(axis=1).to_numpy(dtype=bool)
        true = table[expert].to_numpy(dtype=bool)
        cells = np.column_stack([said & true, said & ~true, ~said & true, ~said & ~true]).astype(float)
        counts = cells.sum(axis=0)
        values = _agreement(counts[None])
        totals = resample_patients(cells, table["patient_id"], replicates=replicates, seed=seed)
        draws = _agreement(totals)
        row = {"n": len(table), **dict(zip(("tp", "fp", "fn", "tn"), counts.astype(int), strict=True))}
        row["prevalence"] = float(true.mean())
        for measure in AGREEMENT:
            low, high = percentiles(draws[measure][:, None])
            row[measure] = float(values[measure][0])
            row[f"{measure}_low"], row[f"{measure}_high"] = float(low[0]), float(high[0])
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def agreement_estimates(table: pd.DataFrame, names: Sequence[str]) -> dict[str, Estimate]:
    """:func:`label_agreement` as numbers to record: ``<name>.<measure>``, with a name for each row."""
    return {
        f"{name}.{m}": Estimate(row[m], row[f"{m}_low"], row[f"{m}_high"], int(row["n"]))
        for name, (_, row) in zip(names, table.iterrows(), strict=True)
        for m in AGREEMENT
    }


def table_by_label(table: pd.DataFrame, columns: Sequence[str], label: str = "label") -> pd.DataFrame:
    """Each column's mean without and with the label, and how far apart they are.

    A column of numbers or booleans is one row; of categories, one row a category (as shares), the first only
    where there are two. Returns a DataFrame indexed by column (``view = AP``): ``without``, ``with``,
    ``difference`` (in units of the pooled standard deviation; 0.2 is small, 0.8 large).
    """
    positive = table[label].to_numpy() == 1
    described = {}
    for column in columns:
        values = table[column]
        if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            described[column] = values.astype(float)
        else:
            categories = sorted(values.dropna().unique())
            # Of two, one says it all.
            for category in categories if len(categories) > 2 else categories[:1]:
                described[f"{column} = {category}"] = (values == category).astype(float)
    rows = {}
    for name, values in described.items():
        without, with_label = values[~positive], values[positive]
        spread = np.sqrt((without.var() + with_label.var()) / 2)
        difference = (with_label.mean() - without.mean()) / spread if spread > 0 else 0.0
        rows[name] = {"without": without.mean(), "with": with_label.mean(), "difference": difference}
    return pd.DataFrame.from_dict(rows, orient="index")


def metadata_columns(table: pd.DataFrame) -> list[str]:
    """The columns that describe how, when and of whom an image was taken, and that vary.

    Leaves out ids, paths, the label and what follows from it (subtype, other findings), so that they can be
    given to a pixel-free classifier without giving the answer away.
    """
    known = [column for column in _ACQUISITION if column in table]
    switches = [
        column
        for column in table.columns
        if pd.api.types.is_bool_dtype(table[column]) and column not in (*FINDINGS, "no_finding")
    ]
    return [column for column in [*known, *switches] if table[column].nunique() > 1]


def resample_patients(
    cells: np.ndarray, patients: ArrayLike, *, replicates: int, seed: int = 0
) -> np.ndarray:
    """Sums (replicates, K) of the columns of ``cells``, (N, K), over patients drawn with all their rows."""
    patients = np.asarray(patients)
    check_patients(patients, len(cells))
    unique, codes = np.unique(patients.astype(str), return_inverse=True)
    per_patient = np.column_stack([np.bincount(codes, weights=c, minlength=len(unique)) for c in cells.T])
    draws = draw_patients(len(unique), len(unique), replicates, seed)
    return np.concatenate([times.astype(float) @ per_patient for times in draws])


def percentiles(draws: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval of each column of ``draws`` (replicates, K), NaN left out."""
    tail = 100 * (1 - level) / 2
    low, high = np.nanpercentile(draws, [tail, 100 - tail], axis=0)
    return low, high


def _agreement(counts: np.ndarray) -> dict[str, np.ndarray]:
    tp, fp, fn, tn = counts.T
    n = counts.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = (tp + tn) / n
        chance = ((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)) / n**2
        return {
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "ppv": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "kappa": (observed - chance) / (1 - chance),
        }


def _cells(table: pd.DataFrame, by: str | pd.Series, label: str) -> tuple[pd.Index, np.ndarray, np.ndarray]:
    """The levels, (N, 2K) counts of each row by level (images, then positives), and the rows' patients."""
    groups = table[by] if isinstance(by, str) else by
    known = groups.notna().to_numpy()
    codes, levels = pd.factorize(groups[known], sort=True)
    labels = table[label].to_numpy(dtype=float)[known]
    cells = np.zeros((len(codes), 2 * len(levels)))
    rows = np.arange(len(codes))
    cells[rows, codes], cells[rows, len(levels) + codes] = 1.0, labels
    patients = table["patient_id"].to_numpy()[known] if "patient_id" in table else rows
    return pd.Index(levels, name=groups.name), cells, patients


def _marks(table: pd.DataFrame, findings: Sequence[str]) -> np.ndarray:
    missing = [finding for finding in findings if finding not in table]
    if missing:
        raise DataError(
            f"The table has no column {', '.join(map(repr, missing))}.",
            remedy="Name findings that the table has, one bool column each.",
        )
    return table[list(findings)].to_numpy(dtype=bool)
