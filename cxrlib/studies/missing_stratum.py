"""A stratum of both classes whose healthy patients are taken from training: what becomes of its healthy.

What a second machine does to Kermany's official test is made again on purpose, where the truth is known:
the same images are asked about whether training had their like or not. Real radiographs have two strata, one
told by a small R that lies low in the image, and the fifth of the images whose greys spread most; of phantoms
it is what a second archive stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrlib.cohort import Cohort
from cxrlib.datasets import load
from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate, proportion
from cxrlib.io.cache import progress_bar
from cxrlib.phantom.latents import PhantomConfig
from cxrlib.studies.site_test import second_archive
from cxrlib.studies.strata import matches, sized, templates
from cxrlib.studies.study import Study, of_preset, study_of, train_all
from cxrlib.studies.study_stats import Draws, draws, mean_draws
from cxrlib.training.inference import predict
from cxrlib.training.recipes import recipe

SHARES = (0.0, 0.5, 0.75, 0.9, 1.0)
"""Shares of the stratum's healthy patients that are taken from training."""
PHANTOMS = {"smoke": 400, "course": 1200, "full": 3000}
GROUPS = {"healthy": 0, "ill": 1}

_SIZES = ((16, 15), (14, 13), (12, 11), (10, 9))  # of the letter, rows and columns at 224 pixels


def letter_features(cohort: Cohort, rows: np.ndarray) -> np.ndarray:
    """How well a small R matches in the lower two thirds of the left side, and above: (len(rows), 8).

    ``cohort``: Kermany's, 224 pixels a side.
    """
    letters = [sized(templates(cohort)[1], size) for size in _SIZES]
    found = []
    for row in rows:
        image = np.pad(np.asarray(cohort.images[row], np.float32), ((0, 0), (4, 0)), mode="edge")
        places = (image[75:200, :64], image[:75, :79])
        found.append([matches(place, letter).max() for place in places for letter in letters])
    return np.array(found, np.float32)


def detect(
    features: np.ndarray, image_ids: Sequence[str], labels: pd.DataFrame
) -> tuple[np.ndarray, dict[str, Estimate]]:
    """Whose small R lies low, by a logistic regression taught on all images that were read by eye.

    - ``labels``: of :func:`.strata.read_labels`.
    - Returns: bool (N,), and ``detector.sensitivity`` and ``detector.specificity``, tenfold cross-validated,
      with Wilson's intervals.
    """
    read = labels.set_index("image_id").reindex(list(image_ids))
    known = read["letter"].notna().to_numpy()
    low = ((read["letter"] == "small") & (read["place"] == "lower")).to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
    held_out = cross_val_predict(model, features[known], low[known], cv=10)
    yes = low[known]
    return model.fit(features[known], low[known]).predict(features).astype(bool), {
        "detector.sensitivity": proportion(int(held_out[yes].sum()), int(yes.sum())),
        "detector.specificity": proportion(int((~held_out[~yes]).sum()), int((~yes).sum())),
    }


def contrasty(cohort: Cohort, share: float = 0.2) -> np.ndarray:
    """The share of the images whose greys spread most, by the standard deviation, bool (N,).

    The limit is that of the images outside the official test.
    """
    spread = np.array([image.std() for image in cohort.images])
    return spread >= np.quantile(spread[(cohort.table["split"] != "test").to_numpy()], 1 - share)


def phantoms(preset: str, image_size: int, seed: int = 0) -> Cohort:
    """Phantoms without any confounder of which a second archive stores three in ten; column ``stratum``."""
    config = replace(PhantomConfig().unconfounded(), images_per_patient=1.0)
    cohort = load("phantom", n=of_preset(PHANTOMS, preset), image_size=image_size, seed=seed, config=config)
    rows = np.random.default_rng([seed, 41]).random(len(cohort)) < 0.3
    return second_archive(cohort, rows, seed=seed).with_columns(stratum=rows)


def asked(cohort: Cohort, seed: int = 0, share: float = 1 / 3) -> Cohort:
    """The patients of ``train`` and ``val``, of whom so many are asked about: they become ``test``.

    The official test is left out. ``cohort``: with a bool column ``stratum``.
    """
    cohort = cohort.take(np.flatnonzero(cohort.table["split"] != "test"))
    patients = np.unique(cohort.patients)
    chosen = np.random.default_rng([seed, 42]).permutation(len(patients))[: round(share * len(patients))]
    split = cohort.table["split"].mask(np.isin(cohort.patients, patients[chosen]), "test")
    return cohort.with_columns(split=split)


def without_healthy(cohort: Cohort, share: float, seed: int = 0) -> Cohort:
    """The cohort without so many of the stratum's healthy patients in ``train`` and in ``val``.

    Larger shares take away what smaller ones do, and more.
    """
    theirs = (cohort.table["stratum"] & (cohort.table["split"] != "test")).to_numpy() & (cohort.labels == 0)
    patients = np.unique(cohort.patients[theirs])
    if not len(patients):
        raise DataError("The stratum has no healthy patient.", remedy="Choose one with both classes.")
    order = np.random.default_rng([seed, 43]).permutation(len(patients))
    gone = np.isin(cohort.patients, patients[order[: round(share * len(patients))]])
    return cohort.take(np.flatnonzero(~(theirs & gone)))


def measured(part: Cohort, scores: Sequence[np.ndarray], replicates: int = 1000) -> dict[str, Draws]:
    """Right calls at ½ by class, in the stratum and among the others, and the AUC within each.

    - ``part``: the patients asked about; ``scores``: of each network, (N,).
    - Returns: ``healthy.stratum.specificity``, ``ill.stratum.sensitivity``, ``stratum.test_auc``, the same of
      ``others``, and ``test_auc``.
    """
    given, label = np.stack(scores), part.labels
    right = (given >= 0.5) == (label == 1)
    inside, found = part.table["stratum"].to_numpy(bool), {}
    for where, rows in (("stratum", inside), ("others", ~inside)):
        for kind, name in (("healthy", "specificity"), ("ill", "sensitivity")):
            own = rows & (label == GROUPS[kind])
            found[f"{kind}.{where}.{name}"] = mean_draws(
                right[:, own], part.patients[own], replicates=replicates
            )
        found[f"{where}.test_auc"] = draws(
            label[rows], given[:, rows], part.patients[rows], replicates=replicates
        )
    found["test_auc"] = draws(label, given, part.patients, replicates=replicates)
    return found


def missing_stratum(
    cohort: Cohort, preset: str = "course", seeds: Sequence[int] = (0,), *, shares: Sequence[float] = SHARES,
    progress: bool | None = None, replicates: int = 1000,
) -> Study:  # fmt: skip
    """Train with fewer and fewer of a stratum's healthy patients; ask about others of them.

    - ``cohort``: with a bool column ``stratum``.
    - Returns: Study: ``runs`` with ``share``, ``seed`` and what :func:`measured` names; ``estimates`` of it
      under ``missing_<per cent>``, the differences to none missing under ``missing_<per cent>_minus_0``, and
      how many images of each kind were trained on and asked about.
    - Raises DataError: the stratum has no healthy patient.
    """
    here = asked(cohort)
    part = here.split("test")
    numbers: dict[str, Estimate] = {}
    for name, split in (("asked", "test"), ("training", "train")):
        of_split = here.table["split"] == split
        for kind, label in GROUPS.items():
            count = of_split & here.table["stratum"] & (here.table["label"] == label)
            numbers[f"{name}.{kind}.stratum"] = Estimate(int(count.sum()))
            numbers[f"{name}.{kind}.all"] = Estimate(int((of_split & (here.table["label"] == label)).sum()))
    rows: list[dict[str, float]] = []
    none: dict[str, Draws] = {}
    configs = [recipe("residual", preset, seed=seed) for seed in seeds]
    trainings = [(without_healthy(here, share), config) for share in shares for config in configs]
    with progress_bar(len(trainings), "missing stratum", progress, "training") as bar:
        trained = train_all(trainings, None, bar, shelf=None)
    for place, share in enumerate(shares):
        runs = trained[place * len(seeds) :][: len(seeds)]
        found = measured(part, [predict(run.last, part.images) for run in runs], replicates)
        none = none or dict(found)
        numbers |= {f"missing_{100 * share:.0f}.{key}": drawn.estimate() for key, drawn in found.items()}
        if share != shares[0]:
            key = f"missing_{100 * share:.0f}_minus_{100 * shares[0]:.0f}"
            numbers |= {f"{key}.{name}": (found[name] - none[name]).estimate() for name in found}
        for k, seed in enumerate(seeds):
            rows.append({"share": share, "seed": seed} | {name: d.values[k] for name, d in found.items()})
    return study_of(pd.DataFrame(rows), numbers)


def stratum_of(
    large: Cohort, labels: pd.DataFrame, rows: np.ndarray
) -> tuple[np.ndarray, dict[str, Estimate]]:
    """Whether these rows of Kermany's images at 224 pixels are in the stratum, and how well it is told."""
    return detect(letter_features(large, rows), large.table["image_id"].to_numpy()[rows].tolist(), labels)
