"""How good the lung masks are: Dice's coefficient on radiographs that the network was not trained on.

Three networks are trained, several seeds each, and each is measured on another hospital's radiographs than
those it saw. What ships is the second one's seed 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort
from cxrlib.datasets import load
from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate, proportion
from cxrlib.lungs.masks import lung_masks, predictor
from cxrlib.lungs.network import LungNet, LungTraining, dice, lung_probabilities, train_segmenter
from cxrlib.lungs.shipped import SIDE
from cxrlib.phantom.latents import CONFOUNDERS, Confounder, PhantomConfig

#: name -> (trained on, tested on)
ROWS = {
    "phantom_to_montgomery": (("phantom",), "Montgomery"),
    "shipped_to_shenzhen": (("phantom", "Montgomery"), "Shenzhen"),
    "shenzhen_to_montgomery": (("Shenzhen",), "Montgomery"),
}

TEST_SIDE = 256
"""Masks are compared at this many pixels a side."""

#: Everything that does not matter to where the lungs are, as often as not and independent of all else.
RANDOMISED = PhantomConfig.from_knobs(
    prevalence=0.5,
    severity=1.5,
    nuisance=2.0,
    images_per_patient=1,
    **{name: Confounder(0.5, 0.5) for name in CONFOUNDERS},
)
PHANTOMS = 4000

TRAINING = {
    "smoke": LungTraining(images=160, average_decay=0.5),
    "course": LungTraining(images=6_000, average_decay=0.98),
    "full": LungTraining(images=32_000),
}


def training_phantoms(n: int = PHANTOMS, seed: int = 0, **loading: Any) -> Cohort:
    """Phantoms for training the segmenter, at its size; their seeds are no other cohort's."""
    return load("phantom", n=n, image_size=SIDE, seed=9_000 + seed, config=RANDOMISED, **loading)


def hospital(data_dir: str | Path | None, site: str, image_size: int = SIDE) -> Cohort:
    """All radiographs of Montgomery or Shenzhen, with their masks."""
    cohort = load("lung_masks", data_dir=data_dir, image_size=image_size)
    rows = (cohort.table["site"] == site).to_numpy()
    if not rows.any():
        raise DataError(
            f"{data_dir} has no radiograph of {site!r}.",
            remedy=f"It has those of {', '.join(sorted(cohort.table['site'].unique()))}.",
        )
    return cohort.take(rows)


def trained(
    sources: Sequence[str],
    data_dir: str | Path | None = None,
    *,
    preset: str = "full",
    seed: int = 0,
    phantoms: int | None = None,
    progress: bool | None = None,
) -> LungNet:
    """The network trained on these sources (``phantom``, ``Montgomery``, ``Shenzhen``), kept in the store."""
    if phantoms is None:
        phantoms = 200 if preset == "smoke" else PHANTOMS
    cohorts = [
        training_phantoms(phantoms, seed, progress=progress)
        if name == "phantom"
        else hospital(data_dir, name)
        for name in sources
    ]
    return train_segmenter(cohorts, replace(TRAINING[preset], seed=seed), progress=progress)


def measure(
    cohort: Cohort,
    network: LungNet | None = None,
    *,
    weights: str | Path | None = None,
) -> pd.DataFrame:
    """Dice of every image of a cohort with reference masks, before implausible masks are taken out.

    - ``network``: the one to measure; None for the one that :func:`.segment` takes by ``weights``.
    - Returns: DataFrame: ``image_id``, ``patient_id``, ``dice``, ``problem`` ("" where the mask is
      plausible).
    """
    if cohort.lung_masks is None:
        raise DataError(
            f"The cohort {cohort.name!r} has no reference masks.", remedy="Use lung_masks or phantom."
        )
    predict = predictor(weights) if network is None else partial(lung_probabilities, network)
    masks, problems = lung_masks(predict(cohort.images), cohort.images.shape[1:], empty_implausible=False)
    table = cohort.table[["image_id", "patient_id"]]
    return table.assign(dice=dice(masks, cohort.lung_masks), problem=problems)


def dice_study(
    data_dir: str | Path,
    *,
    preset: str = "full",
    seeds: Sequence[int] = (0, 1, 2),
    rows: Sequence[str] = tuple(ROWS),
    progress: bool | None = None,
) -> pd.DataFrame:
    """Train and measure the networks of :data:`ROWS`; what is in the artefact store is not trained again.

    - Returns: DataFrame: ``row``, ``seed``, and the columns of :func:`measure`.
    """
    parts = []
    for row in rows:
        sources, tested_on = ROWS[row]
        cohort = hospital(data_dir, tested_on, TEST_SIDE)
        for seed in seeds:
            network = trained(sources, data_dir, preset=preset, seed=seed, progress=progress)
            parts.append(measure(cohort, network).assign(row=row, seed=seed))
    return pd.concat(parts, ignore_index=True)


def dice_numbers(study: pd.DataFrame, *, replicates: int = 2000, seed: int = 0) -> dict[str, Estimate]:
    """The study's numbers: for each row ``dice`` (mean over images and seeds), ``dice_worst_decile`` (mean of
    the worst tenth of the images), ``below_0.9`` and ``plausible`` (shares of the images).

    Intervals are 95% bootstrap intervals over patients; of the shares, Wilson's.
    """
    numbers = {}
    for row, part in study.groupby("row", sort=False):
        by_image = (
            part.assign(plausible=part["problem"] == "").groupby("patient_id")[["dice", "plausible"]].mean()
        )
        values, plausible = by_image["dice"].to_numpy(), by_image["plausible"].to_numpy(float)
        draws = np.random.default_rng(seed).integers(len(values), size=(replicates, len(values)))
        seeds = part["seed"].nunique()
        for name, statistic in (("dice", lambda x: x.mean(-1)), ("dice_worst_decile", _worst_decile)):
            low, high = np.percentile(statistic(values[draws]), [2.5, 97.5])
            numbers[f"{row}.{name}"] = Estimate(
                float(statistic(values)), float(low), float(high), n=len(values), seeds=seeds
            )
        for name, flags in (("below_0.9", values < 0.9), ("plausible", plausible)):
            numbers[f"{row}.{name}"] = replace(share(flags), seeds=seeds)
        per_seed = part.groupby("seed")["dice"].mean()
        numbers[f"{row}.dice_over_seeds"] = Estimate(
            float(per_seed.mean()),
            float(per_seed.min()),
            float(per_seed.max()),
            n=len(values),
            seeds=len(per_seed),
        )
    return numbers


def share(flags: np.ndarray) -> Estimate:
    """The share of images with a flag, shape (N,), bool or a mean over seeds, with Wilson's 95% interval."""
    return proportion(float(np.sum(flags)), len(flags))


def _worst_decile(values: np.ndarray) -> np.ndarray:
    count = max(1, values.shape[-1] // 10)
    return np.sort(values, axis=-1)[..., :count].mean(-1)
