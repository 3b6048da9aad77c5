"""A real network's errors at full scale, without a pixel: CheXNet's scores beside NIH's tables.

The scores are those that the reproduction of CheXNet by Zech published (github.com/jrzech/reproduce-chexnet,
BSD 3-clause): a DenseNet-121's probabilities of 14 findings for each of 22,433 test images of ChestX-ray14.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.datasets import nih_tables
from cxrlib.datasets.nih_tables import FINDINGS
from cxrlib.errors import DataError
from cxrlib.evaluation import label_errors, subgroups
from cxrlib.evaluation.eda import percentiles
from cxrlib.evaluation.metrics import Estimate, choose_threshold

#: Words of a report that may stand for what the experts call an airspace opacity.
OPACITY_WORDS = ("Pneumonia", "Consolidation", "Infiltration")

VIEWS = ("PA", "AP")


def load(folder: str | Path) -> pd.DataFrame:
    """The published scores, joined with NIH's table.

    - ``folder``: holds ``preds.csv``: ``Image Index`` and ``prob_<finding>`` for each finding.
    - Returns: DataFrame, a row an image: the columns of :func:`cxrlib.datasets.nih_tables.metadata` and
      ``score_<finding>``, 0–1.
    - Raises DataError: the file or a column is missing, a score is no probability, or an image is not one of
      NIH's.
    """
    path = Path(folder).expanduser() / "preds.csv"
    if not path.is_file():
        raise DataError(
            f"{path} does not exist.",
            remedy="Name the folder that holds preds.csv of github.com/jrzech/reproduce-chexnet.",
        )
    columns = {"Image Index": "image_id"} | {f"prob_{name}": f"score_{name}" for name in FINDINGS}
    try:
        raw = pd.read_csv(path)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} cannot be read: {error}", remedy="Fetch the file again.") from error
    missing = [column for column in columns if column not in raw]
    if missing:
        raise DataError(
            f"{path.name} has no column {', '.join(map(repr, missing))}.", remedy="Fetch the file again."
        )
    scores = raw[list(columns)].rename(columns=columns)
    table = scores.merge(nih_tables.metadata(), on="image_id", how="left", validate="one_to_one")
    wrong = table["patient_id"].isna() | ~scores.drop(columns="image_id").apply(_in_range).all(axis=1)
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum())} rows of {path.name} are of no NIH image, or hold something else than "
            "probabilities.",
            offenders=table.loc[wrong, "image_id"],
            remedy="Fetch the file again.",
        )
    return table


def by_view(
    table: pd.DataFrame, finding: str = "Pneumonia", *, replicates: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """A finding's AUC taken apart by projection.

    An AUC is the share of pairs, one image with the finding and one without, that the score puts in the right
    order. In some pairs both images are of one view; in the others the view alone can decide.

    - Returns: ``all.auc``; ``PA.auc``, ``AP.auc`` and ``AP_minus_PA.auc``; ``same_view.auc`` (pairs within a
      view, together) and ``all_minus_same_view.auc``; ``AP_with_PA_without.auc`` and
      ``PA_with_AP_without.auc`` (pairs across views), each with its ``….share`` of all pairs; ``view.auc``
      (images without the finding: how well its score tells AP from PA); ``<view>.sensitivity`` and
      ``<view>.specificity`` at the one threshold that finds 80% of the finding in all images, with
      ``AP_minus_PA.…``. All by patient.
    """
    _check(table, finding)
    labels, scores = table[finding].to_numpy().astype(int), table[f"score_{finding}"].to_numpy(dtype=float)
    ap = (table["view"] == "AP").to_numpy()
    positive = labels == 1
    threshold = choose_threshold(labels, scores, "sensitivity", at=0.8)
    subsets = {
        "all": np.ones(len(table), dtype=bool),
        "PA": ~ap,
        "AP": ap,
        "AP_with_PA_without": (ap & positive) | (~ap & ~positive),
        "PA_with_AP_without": (~ap & positive) | (ap & ~positive),
    }
    drawn = subgroups.subset_draws(
        labels, [scores], subsets, table["patient_id"], thresholds=threshold, replicates=replicates, seed=seed
    )
    n = {name: int(rows.sum()) for name, rows in subsets.items()}
    numbers = {f"{name}.auc": _estimate(drawn[name]["auc"], n[name]) for name in subsets}
    pairs = {name: float(positive[rows].sum() * (~positive[rows]).sum()) for name, rows in subsets.items()}
    numbers |= {f"{name}.share": Estimate(pairs[name] / pairs["all"]) for name in subsets if name != "all"}
    # Weights are those of the sample: the question is the same set of pairs in every draw.
    weights = {view: pairs[view] / (pairs["PA"] + pairs["AP"]) for view in VIEWS}
    same = weights["PA"] * drawn["PA"]["auc"] + weights["AP"] * drawn["AP"]["auc"]
    numbers["same_view.auc"] = _estimate(same, len(table))
    numbers["same_view.share"] = Estimate((pairs["PA"] + pairs["AP"]) / pairs["all"])
    numbers["all_minus_same_view.auc"] = _estimate(drawn["all"]["auc"] - same, len(table))
    for measure in ("auc", "sensitivity", "specificity"):
        numbers[f"AP_minus_PA.{measure}"] = _estimate(drawn["AP"][measure] - drawn["PA"][measure], len(table))
        if measure != "auc":
            numbers |= {f"{view}.{measure}": _estimate(drawn[view][measure], n[view]) for view in VIEWS}
    healthy = ~positive
    told = subgroups.subset_draws(
        ap[healthy].astype(int),
        [scores[healthy]],
        {"view": np.ones(int(healthy.sum()), dtype=bool)},
        table["patient_id"].to_numpy()[healthy],
        measures=("auc",),
        replicates=replicates,
        seed=seed,
    )
    numbers["view.auc"] = _estimate(told["view"]["auc"], int(healthy.sum()))
    return numbers


def findings_by_view(
    table: pd.DataFrame, findings: Sequence[str] = FINDINGS, *, replicates: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Each finding's AUC in all images and in each view, with intervals by patient.

    - Returns: DataFrame indexed by finding: for ``all``, ``PA`` and ``AP``, ``<view>``, ``<view>_low``,
      ``<view>_high``; ``gap`` (AP − PA) with ``gap_low`` and ``gap_high``; ``PA_positives``,
      ``AP_positives``. Limits are NaN where a view has fewer than five images with the finding.
    """
    rows = {}
    ap = (table["view"] == "AP").to_numpy()
    subsets = {"all": np.ones(len(table), dtype=bool), "PA": ~ap, "AP": ap}
    for finding in findings:
        _check(table, finding)
        labels = table[finding].to_numpy().astype(int)
        drawn = subgroups.subset_draws(
            labels,
            [table[f"score_{finding}"].to_numpy(dtype=float)],
            subsets,
            table["patient_id"],
            measures=("auc",),
            replicates=replicates,
            seed=seed,
        )
        row: dict[str, float | None] = {}
        gap = drawn["AP"]["auc"] - drawn["PA"]["auc"]
        counts = {view: int(labels[subsets[view]].sum()) for view in VIEWS}
        few = {view for view in VIEWS if counts[view] < subgroups.FEWEST}
        for name, values in (*((view, drawn[view]["auc"]) for view in subsets), ("gap", gap)):
            estimate = _estimate(values, len(table))
            limits = (estimate.low, estimate.high)
            if name in few or (few and name == "gap"):
                limits = (np.nan, np.nan)  # resampling two images says next to nothing
            row |= {name: estimate.value, f"{name}_low": limits[0], f"{name}_high": limits[1]}
        rows[finding] = row | {f"{view}_positives": counts[view] for view in VIEWS}
    return pd.DataFrame.from_dict(rows, orient="index")


def suspected_labels(table: pd.DataFrame, words: Sequence[str] = OPACITY_WORDS) -> pd.DataFrame:
    """Which text-mined labels CheXNet's scores cast doubt on, and what the experts say of them.

    The label is whether the report has any of the words; its probability is that any of these findings is
    there, were they independent. Confident learning sees all images; the experts relabelled some of them.

    - Returns: DataFrame as of :func:`.suspects` with ``image_id``, ``patient_id``, and of the relabelled ones
      ``opacity`` (1, 0; NaN where no expert looked) and ``wrong`` (the experts disagree with the label).
    """
    mined = table[list(words)].any(axis=1).astype(int)
    absent = np.prod([1 - table[f"score_{word}"].to_numpy(dtype=float) for word in words], axis=0)
    found = label_errors.suspects(mined, 1 - absent)
    found.insert(0, "patient_id", table["patient_id"].to_numpy())
    found.insert(0, "image_id", table["image_id"].to_numpy())
    experts = nih_tables.expert_labels().set_index("image_id")["airspace_opacity"]
    found["opacity"] = found["image_id"].map(experts.astype(float))
    found["wrong"] = found["opacity"].notna() & (found["opacity"] != found["label"])
    return found


def _in_range(column: pd.Series) -> pd.Series:
    """bool: is it a probability? What is no number at all is none."""
    return pd.to_numeric(column, errors="coerce").between(0, 1)


def _check(table: pd.DataFrame, finding: str) -> None:
    if finding not in FINDINGS:
        raise DataError(f"NIH has no finding {finding!r}.", remedy=f"Use one of {', '.join(FINDINGS)}.")
    if set(table["view"]) != set(VIEWS):
        raise DataError(
            f"The views are {sorted(set(table['view']))}.", remedy="Give images of both views, PA and AP."
        )


def _estimate(values: np.ndarray, n: int) -> Estimate:
    (low,), (high,) = percentiles(values[1:, None])
    return Estimate(float(values[0]), float(low), float(high), n)
