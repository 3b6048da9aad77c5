"""Data sets with known faults, to see what an audit says of them, and whether it names a stratum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxrlib.audit import kinds
from cxrlib.audit.asked import Shown
from cxrlib.audit.made import MADE
from cxrlib.audit.probes import Probes, ask_all, shaped
from cxrlib.audit.rules import PROBES, SIGNIFICANCE, WARNING_AUC
from cxrlib.audit.splits import between
from cxrlib.audit.stats import held_out, permuted, within
from cxrlib.audit.together import alone
from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate, proportion
from cxrlib.studies.study_stats import holm


def own_folder(cohort: Cohort, folder: str | Path, *, copies: int = 4, seed: int = 0) -> Path:
    """Write a cohort as someone would have it: PNG files, and ``labels.csv``, with faults of its own.

    The CSV (its path is returned) has ``image``, ``label``, ``patient_id``, ``split``, ``age`` and ``ward``.
    The ward goes along with the label: intensive care in 70% of those with and 25% of those without.
    ``copies`` images of the training part come again in the test part, under another patient and brighter.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 8])
    table = cohort.table[["image_id", "label", "patient_id", "split", "age"]].copy()
    intensive = rng.random(len(table)) < np.where(cohort.labels == 1, 0.7, 0.25)
    table["ward"] = np.where(intensive, "intensive care", "outpatients")
    table["image"] = table["image_id"] + ".png"
    for name, image in zip(table["image"], cohort.images, strict=True):
        Image.fromarray(np.asarray(image)).save(folder / name)
    again = rng.choice(np.flatnonzero(table["split"] == "train"), copies, replace=False)
    twins = table.iloc[again].assign(split="test")
    twins["patient_id"] = [f"copy-{number}" for number in range(copies)]
    twins["image"] = [f"copy-{number}.png" for number in range(copies)]
    for name, row in zip(twins["image"], again, strict=True):
        brighter = np.clip(0.9 * cohort.images[row].astype(float) + 20, 0, 255).astype(np.uint8)
        Image.fromarray(brighter).save(folder / name)
    columns = ["image", "label", "patient_id", "split", "age", "ward"]
    csv = folder / "labels.csv"
    pd.concat([table, twins])[columns].to_csv(csv, index=False)
    return csv


def skewed(cohort: Cohort, source: str = "site", keep: float = 0.25, seed: int = 0) -> Cohort:
    """A part of a pooled cohort in which the label is frequent in its largest source and rare in the others.

    Of the images that do not fit (healthy in the largest, ill elsewhere) a share ``keep`` stays, drawn at
    random. Raises a DataError where the cohort has no such column, or a single source.
    """
    if source not in cohort.table or cohort.table[source].nunique() < 2:
        raise DataError(
            f"The cohort {cohort.name!r} has no two sources in a column {source!r}.",
            remedy="Pool two hospitals, and name the column that tells them apart.",
        )
    largest = cohort.table[source].value_counts().index[0]
    fits = (cohort.table[source] == largest).to_numpy() == (cohort.labels == 1)
    drawn = np.random.default_rng([seed, 9]).random(len(cohort)) < keep
    return cohort.take(fits | drawn)


@dataclass(frozen=True)
class Named:
    """What an audit says of strata: numbers, and a row a kind of image: ``images``, ``ill`` (share), ``p``
    and the share of each stratum among its images that were read.
    """

    numbers: dict[str, Estimate]
    kinds: pd.DataFrame


def strata_named(
    cohort: Cohort,
    features: Mapping[str, np.ndarray],
    strata: Mapping[str, np.ndarray],
    read: np.ndarray,
    work: Path,
    *,
    seed: int = 0,
) -> Named:
    """Whether findings of an audit of the data name strata that were read off the images by eye.

    - ``features``: of :func:`cxrlib.audit.features.describe`; ``work``: a folder for finished probes.
    - ``strata``: bool (N,) by name; ``read``: bool (N,), which images were looked at.
    - Returns: ``<stratum>.<probe>.auc``: how far the probe's held-out score of the label parts the stratum
      from the other images of the same class, by the images read; interval over images. Of the kinds of
      image that the audit lists and in which the stratum is most of the images read:
      ``<stratum>.kinds.count``, ``.found`` (the share of the stratum in them), ``.purity``, ``.share_ill``
      (of all images in them). ``split_<part>.established`` and ``split_<part>.<probe>.<class>.auc``.
    """
    labels, ids = cohort.labels, cohort.table["image_id"].to_numpy(str)
    probes = Probes(cohort, work, 999, seed, False)
    alone(ask_all(probes, features, pd.DataFrame(index=range(len(cohort))), None))
    numbers: dict[str, Estimate] = {}
    rng = np.random.default_rng([seed, 12])
    drawn = [np.flatnonzero(read), *rng.choice(np.flatnonzero(read), (300, int(read.sum())))]
    for stratum, mine in strata.items():
        for name, (probe, held, _, _) in probes.held.items():
            if probe.group != "table":
                told = [
                    within(mine[rows].astype(int), held.scores[rows], labels[rows].astype(float), bins=None)
                    for rows in drawn
                ]
                low, high = np.percentile(told[1:], (2.5, 97.5))
                numbers[f"{stratum}.{name}.auc"] = Estimate(told[0], low, high, n=int(read.sum()))
    codes, away = kinds.grouped(features, seed)
    found = kinds.uneven(codes, away, labels, cohort.patients, probes.permutations, seed)
    table = pd.DataFrame(
        {"images": len(one.rows), "ill": one.ill / len(one.rows), "p": one.p} for one in found
    )
    for stratum, mine in strata.items():
        table[stratum] = [
            mine[one.rows][read[one.rows]].mean() if read[one.rows].any() else np.nan for one in found
        ]
    for stratum, mine in strata.items():
        its = [
            one.rows for one, share in zip(found, table[stratum], strict=True)
            if one.p < SIGNIFICANCE and share > 0.5
        ]  # fmt: skip
        rows = np.concatenate([*its, np.empty(0, int)]).astype(int)
        hits = int((mine & read)[rows].sum())
        numbers[f"{stratum}.kinds.count"] = Estimate(len(its), n=len(found))
        numbers[f"{stratum}.kinds.found"] = proportion(hits, int((mine & read).sum()))
        if len(rows):
            numbers[f"{stratum}.kinds.purity"] = proportion(hits, int(read[rows].sum()))
            numbers[f"{stratum}.kinds.share_ill"] = proportion(int(labels[rows].sum()), len(rows))
    numbers["share_ill"] = proportion(int(labels.sum()), len(ids))
    for one in between(probes, {name: Shown(features, name) for name in ("whole", "frame")})[0]:
        asked = [row for row in one.detail["rows"] if not row["probe"].startswith("column_")]
        told_apart = sum(row["p_holm"] < SIGNIFICANCE for row in asked)
        numbers[f"{one.probe.name}.established"] = Estimate(told_apart, n=len(asked))
        for row in asked:
            if row["probe"] in ("whole", "frame", "texture", "kinds"):
                numbers[f"{one.probe.name}.{row['probe']}.{row['class']}.auc"] = Estimate(**row["auc"])
    return Named(numbers, table)


def clean_alarms(
    cohort: Cohort, features: Mapping[str, np.ndarray], work: Path, *, cohorts: int = 60, seed: int = 0
) -> dict[str, Estimate]:
    """How often new labels, dealt to patients by lot, and new splits by patient raise an alarm.

    - Returns: ``clean.<probe>.alarms`` for the probes of how pictures were made and the kinds of image, and
      ``clean.any.alarms``: cohorts with a warning or worse, corrected by Holm over these alone, which is less
      than an audit corrects; ``clean.splits.alarms``: of a sixth as many splits, those with any part told
      apart by these probes.
    """
    names = [*MADE, "mirrored"]
    codes, away = kinds.grouped(features, seed)
    known = {name: shaped(name, features[name]) for name in names}
    alarms = dict.fromkeys((*MADE, "mirrored", "kinds", "any", "splits"), 0)
    (dealt,) = permuted(cohort.labels.astype(np.int8), cohort.patients, cohorts, [seed, 90])
    for number, labels in enumerate(dealt.T.astype(np.int64)):
        asked = {
            name: held_out(known[name], labels, cohort.patients, seed=seed, permutations=999, replicates=20)
            for name in names
        }
        uneven = kinds.uneven(codes, away, labels, cohort.patients, 999, seed)
        p_values = [*(held.p_value for held in asked.values()), min(one.p for one in uneven)]
        corrected = dict(zip([*names, "kinds"], holm(p_values), strict=True))
        raised = {
            name for name in names if asked[name].auc.value >= WARNING_AUC
        } | {"kinds"}  # fmt: skip
        raised = {name for name in raised if corrected[name] < SIGNIFICANCE}
        for name in [*raised, *(["any"] if raised else [])]:
            alarms[name] += 1
        if number % 6:
            continue
        split = split_by_patient(cohort.patients, seed=1000 + number)
        folder = work / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        probes = Probes(
            cohort.with_columns(split=np.where(split == "test", "test", "train")), folder, 199, seed, False
        )
        for name in names:
            probes.ask(PROBES[name], partial(np.asarray, known[name]))
            probes.attributes[name] = (partial(np.asarray, known[name]), None)
        alarms["splits"] += any(one.severity != "fine" for one in between(probes, {})[0])
    counts = {name: cohorts if name != "splits" else -(-cohorts // 6) for name in alarms}
    return {f"clean.{name}.alarms": proportion(count, counts[name]) for name, count in alarms.items()}
