"""How far one gets without a picture: what the columns of five public tables say of their own labels.

A column tells a label because a network could see in the picture what it says, or because it is medicine, or
both; :data:`SIGHT` has which. None of it is disease seen in a lung.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.datasets import PUBLISHED, nih_tables
from cxrlib.datasets.tabular import Published
from cxrlib.evaluation.metrics import Estimate, bootstrap
from cxrlib.parallel import one_thread
from cxrlib.studies import shortcuts

SHARED = ("view", "age", "sex")
OTHER_FINDINGS = ("Atelectasis", "Cardiomegaly", "Edema", "Effusion", "Pneumothorax")
_LEAF = 1  # of distinct rows: a column alone has few of them, and the trees' l2 penalty shrinks small leaves
_WAYS = {"CheXpert": ({"uncertain": "positive"}, {"uncertain": "negative"}, {"blank": "ignore"})}

#: Column -> may a network see it in the picture, and may it be medicine?
SIGHT: dict[str, tuple[str, str]] = {
    "view": ("yes: shoulder blades, heart, letters", "the sicker are taken in bed"),
    "age": ("yes: bones, aorta", "yes: risk rises with age"),
    "sex": ("yes: breasts, build", "perhaps"),
    "follow_up": ("only by what comes with it: devices, scars", "yes: who returns is ill"),
    "pixel_spacing": ("yes: the size of the chest, sharpness", "no: the machine"),
    "original_height": ("yes: the frame's shape", "no: the machine"),
    "original_width": ("yes: the frame's shape", "no: the machine"),
    "tube_current": ("yes: noise", "no: machine and ward"),
    "exposure": ("yes: noise, contrast", "little: build"),
    "exposure_time": ("yes: blur", "no: machine and ward"),
    "relative_exposure": ("yes: noise", "no: machine and ward"),
    "window_center": ("yes: brightness, where it is applied", "no: the machine"),
    "window_width": ("yes: contrast, where it is applied", "no: the machine"),
    "bits_stored": ("yes: steps of grey", "no: the machine"),
    "manufacturer": ("yes: tone, letters", "no: the machine"),
    "modality": ("yes: tone", "no: the machine"),
    "kvp": ("yes: contrast of bone", "no: machine and ward"),
    "sensitivity": ("yes: noise", "no: the machine"),
    "photometric": ("only by the machine that comes with it", "no: the machine"),
}

#: Data set -> AUCs for pneumonia of networks that saw the pixels, as their papers report them. The images,
#: labels and splits are the papers' own. For CheXpert, PadChest and Open-i no figure could be verified.
REPORTED: dict[str, dict[str, float]] = {
    "NIH": {"Wang 2017": 0.633, "CheXNet 2017": 0.768},
    "RSNA": {"Hurt 2020": 0.854},
}
CITATIONS = {
    "Wang 2017": "doi:10.1109/CVPR.2017.369",
    "CheXNet 2017": "arXiv:1711.05225",
    "Hurt 2020": "doi:10.1097/RTI.0000000000000505",
}
_COLUMNS = {
    "NIH": (*SHARED, "follow_up", "pixel_spacing", "original_height", "original_width"),
    "CheXpert": SHARED,
    "PadChest": (
        *SHARED, "tube_current", "exposure", "exposure_time", "relative_exposure", "window_center",
        "window_width", "bits_stored", "manufacturer", "modality", "pixel_spacing", "original_height",
        "original_width",
    ),
    "RSNA": (*SHARED, "pixel_spacing"),
    "Open-i": (
        "view", "age", "kvp", "exposure", "sensitivity", "bits_stored", "photometric", "modality",
        "pixel_spacing", "original_height", "original_width",
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Without:
    """What was measured.

    - ``numbers``: ``<data set>.<finding>.auc`` (trees, all columns), ``….linear.auc``, ``….<column>.auc``
      (trees, that column alone), ``….<policy>.auc``; ``<trained on>_to_<tested on>.pneumonia.auc``, shared
      columns only.
    - ``policies``: data set -> how its labels were made.
    """

    numbers: dict[str, Estimate] = field(default_factory=dict)
    policies: dict[str, object] = field(default_factory=dict)


def table(name: str, finding: str = "Pneumonia", **policy: str) -> tuple[pd.DataFrame, object]:
    """One of the five tables, frontal images, with ``label``, and how the label was made."""
    raw = _raw(name)
    if name == "NIH":
        return raw.assign(label=raw[finding].astype(int)), {"finding": finding}
    return replace(_source(name), read=lambda root: raw).table(None, finding=finding, **policy)


def _numbers(values: pd.Series) -> pd.Series:
    """Categories as numbers: alone, a category has too few distinct rows for the trees to part its levels."""
    if pd.api.types.is_numeric_dtype(values):
        return values
    codes = pd.Series(pd.factorize(values, sort=True)[0], values.index)
    return codes.where(codes >= 0).astype(float)


def _source(name: str) -> Published:
    return PUBLISHED[name.replace("-", "").lower()]


@cache
def _raw(name: str) -> pd.DataFrame:
    return nih_tables.metadata() if name == "NIH" else _source(name).read(None)


def study(
    names: Sequence[str] = tuple(_COLUMNS),
    others: Sequence[str] = OTHER_FINDINGS,
    *,
    folds: int = 5,
    replicates: int = 300,
    seed: int = 0,
) -> Without:
    """Pneumonia and the findings that the tables share, from their columns alone, on held-out patients.

    - ``names``: of the data sets: NIH, CheXpert, PadChest, RSNA, Open-i.
    - ``others``: findings besides pneumonia; a table that has none of a finding is passed over.
    - ``folds``, ``replicates``, ``seed``: as in :func:`cxrlib.studies.shortcuts.pixel_free`; intervals
      resample patients.
    """
    found, tables = Without(), {}
    options: dict[str, Any] = {"folds": folds, "replicates": replicates, "seed": seed}

    def ask(key: str, rows: pd.DataFrame, columns: Sequence[str], kind: str = "trees") -> None:
        found.numbers[key] = shortcuts.pixel_free(
            rows, columns, kind=kind, smallest_leaf=_LEAF, **options
        ).auc

    for name in names:
        rows, found.policies[name] = table(name)
        columns = _COLUMNS[name]
        ask(f"{name}.pneumonia.auc", rows, columns)
        ask(f"{name}.pneumonia.linear.auc", rows, columns, "logistic")
        for column in columns:
            ask(f"{name}.pneumonia.{column}.auc", rows.assign(**{column: _numbers(rows[column])}), (column,))
        for way in _WAYS.get(name, ()):
            label = ".".join("_".join(item) for item in way.items())
            ask(f"{name}.pneumonia.{label}.auc", table(name, **way)[0], columns)
        for finding in others:
            if finding in rows:
                ask(f"{name}.{finding.lower()}.auc", table(name, finding)[0], columns)
        tables[name] = rows[[c for c in ("image_id", "patient_id", *SHARED) if c in rows]].assign(
            label=rows["label"], view=rows["view"].replace("AP supine", "AP")
        )
    found.numbers.update(transfer(tables, **options))
    return found


@one_thread
def transfer(
    tables: Mapping[str, pd.DataFrame], *, folds: int = 5, replicates: int = 300, seed: int = 0
) -> dict[str, Estimate]:
    """Trees trained on one table and tested on another, with those of view, age and sex that both have.

    On the diagonal, held-out patients of the same table. RSNA's images are a part of NIH's.

    - Returns: ``<trained on>_to_<tested on>.pneumonia.auc`` for each pair.
    """
    numbers = {}
    for source, train in tables.items():
        for target, test in tables.items():
            columns = [column for column in SHARED if column in train and column in test]
            if source == target:
                asked: dict[str, Any] = {"folds": folds, "replicates": replicates, "seed": seed}
                auc = shortcuts.pixel_free(train, columns, kind="trees", smallest_leaf=_LEAF, **asked).auc
            else:
                encoded = shortcuts.encode(pd.concat([train, test]), columns)
                labels = train["label"].to_numpy()
                model = shortcuts.fit("trees", encoded.iloc[: len(train)], labels, _LEAF)
                scores = model.predict_proba(encoded.iloc[len(train) :])[:, 1]
                whose = test.get("patient_id")
                auc = bootstrap(
                    np.asarray(test["label"]),
                    scores,
                    whose,
                    metrics=("auc",),
                    replicates=replicates,
                    seed=seed,
                )["auc"]
            numbers[f"{source}_to_{target}.pneumonia.auc"] = auc
    return numbers
