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
from cxrlib.evaluation.metrics import Estimate, auc, proportion
from cxrlib.evaluation.resampling import LEVEL, check_patients, draw_patients

_ACQUISITION = (
    "view", "age", "sex", "follow_up", "site", "original_width", "original_height", "pixel_spacing",
)  # fmt: skip


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
