"""Another hospital: the same network on the patients it comes from, and on those of others.

Zech et al., Variable generalization performance of a deep learning model to detect pneumonia in chest
radiographs, PLOS Medicine 15:e1002683, 2018, doi:10.1371/journal.pmed.1002683.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.datasets import load
from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.images.cohorts import preprocess
from cxrlib.io.cache import progress_bar
from cxrlib.phantom.latents import Confounder, PhantomConfig
from cxrlib.studies.region_study import network
from cxrlib.studies.site_test import second_archive
from cxrlib.studies.study import Study, for_steps, of_preset, study_of, train_all
from cxrlib.studies.study_stats import Draws, draws
from cxrlib.training.config import TrainConfig
from cxrlib.training.inference import predict

#: Phantoms of hospital A, all splits, and of each of the others.
PHANTOMS = {"smoke": (120, 40), "course": (800, 220), "full": (4000, 1000)}

#: What goes along with illness in hospital A: the ill are X-rayed in bed, and carry lines and electrodes.
BEDSIDE = ("projection", "portable", "devices")

#: A small hospital's images are shown until there are so many steps.
STEPS = {"smoke": 4, "course": 150, "full": 400}


def alike(cohorts: Mapping[str, Cohort], image_size: int, **options: Any) -> dict[str, Cohort]:
    """All cohorts through the same pipeline, at the same size; ``options`` as of ``preprocess``."""
    return {name: preprocess(one, image_size=image_size, **options) for name, one in cohorts.items()}


def other_hospital(
    cohort: Cohort, external: Mapping[str, Cohort], preset: str = "course", seeds: Sequence[int] = (0,), *,
    config: TrainConfig | None = None, last: bool = False, store: str | Path | None = None,
    progress: bool | None = None, replicates: int = 1000,
) -> Study:  # fmt: skip
    """Train on one hospital; test on its own test patients and on all images of others.

    - ``cohort``: the hospital to train on; its validation images choose when to stop.
    - ``config``, ``last``: as in :func:`.region_study.regions`.
    - ``external``: name to Cohort; all their images are tested, whatever split they are in.
    - Returns: Study: ``runs`` with ``tested_on``, ``seed``, ``auc``, ``images``, ``ill``, ``patients``;
      ``estimates`` ``internal.test_auc``, ``<name>.auc`` and ``<name>.minus_internal`` (p-values are Holm's
      over the externals), blanks and punctuation in names written as ``_``.
    - Raises DataError: there is no external cohort; one has images of another size or another preprocessing,
      holds one class only, or shares patients with the training.
    """
    shelf = "shortcuts" if config is None else None
    config = network(preset) if config is None else config
    _check(cohort, external)
    images = int((cohort.table["split"] == "train").sum())
    if config.epochs * (images // config.batch_size) < STEPS[preset]:
        config = for_steps(config, images, STEPS[preset])
    with progress_bar(len(seeds), "hospitals", progress, unit="training") as bar:
        trainings = [(cohort, replace(config, seed=seed)) for seed in seeds]
        runs = train_all(trainings, store, bar, shelf=shelf)
    rows: list[dict[str, object]] = []
    numbers: dict[str, Estimate] = {}
    p: dict[str, float] = {}
    inside: Draws | None = None
    for place, (name, one) in enumerate({"internal": cohort.split("test"), **external}.items()):
        scores = [predict(run.last if last else run.best, one.images) for run in runs]
        # Other patients: other draws, so that the difference is not taken for a paired one.
        drawn = draws(one.labels, scores, one.patients, replicates=replicates, seed=place)
        for seed, value in zip(seeds, drawn.values, strict=True):
            counts = {"images": len(one), "ill": int(one.labels.sum())}
            counts["patients"] = one.table["patient_id"].nunique()
            rows.append({"tested_on": name, "seed": seed, "auc": value} | counts)
        key = word(name)
        if inside is None:
            inside, numbers["internal.test_auc"] = drawn, drawn.estimate()
            continue
        drop = drawn - inside
        numbers |= {f"{key}.auc": drawn.estimate(), f"{key}.minus_internal": drop.estimate()}
        p[f"{key}.minus_internal"] = drop.p_value()
    return study_of(pd.DataFrame(rows), numbers, [p])


def word(name: str) -> str:
    """A hospital's name as part of a number's: letters, digits and ``_``."""
    return "_".join("".join(c if c.isalnum() else " " for c in name).split())


def phantom_hospitals(
    preset: str = "course", image_size: int = 64, seed: int = 0, **loading: Any
) -> tuple[Cohort, dict[str, Cohort]]:
    """Hospital A, where illness goes along with bedside images, and hospitals that differ in one thing each.

    - Returns: A, and ``other machines`` (another exposure, stored by another archive), ``other habits``
      (illness has nothing to do with where the image is taken), and ``hospital B`` (both).
    """
    at_a, elsewhere = of_preset(PHANTOMS, preset)
    free = replace(PhantomConfig().unconfounded(), exposure=Confounder(0.0, 0.5))
    at_bedside: dict[str, Any] = {name: Confounder(0.5, 0.85) for name in BEDSIDE}
    habits = replace(free, **at_bedside)
    options = {"image_size": image_size, **loading}
    hospital_a = load("phantom", n=at_a, seed=seed, config=habits, **options)
    found = {}
    for place, (name, config, machines) in enumerate(
        (("other machines", habits, True), ("other habits", free, False), ("hospital B", free, True))
    ):
        config = replace(config, exposure=Confounder(1.0 if machines else 0.0, 0.5))
        one = load("phantom", n=elsewhere, seed=seed + 1000 * (place + 1), config=config, **options)
        found[name] = second_archive(one, np.ones(len(one), bool), seed=seed) if machines else one
    return hospital_a, found


def by_site(
    cohort: Cohort, shares: tuple[float, float, float] = (0.6, 0.15, 0.25), seed: int = 0
) -> dict[str, Cohort]:
    """The cohort's sites as cohorts of their own, each divided by patient anew; site to Cohort.

    - Raises DataError: the table has no ``site``.
    """
    if "site" not in cohort.table:
        raise DataError(
            f"The cohort {cohort.name!r} has no column 'site'.", remedy="Name its hospitals in one."
        )
    found = {}
    for site in sorted(cohort.table["site"].unique()):
        one = cohort.take((cohort.table["site"] == site).to_numpy())
        found[str(site)] = one.with_columns(split=split_by_patient(one.patients, shares, seed=seed))
    return found


def _check(cohort: Cohort, external: Mapping[str, Cohort]) -> None:
    if not external or "internal" in external:
        raise DataError(
            "There is no other hospital to test on." if not external else "A hospital is called 'internal'.",
            remedy="Give a mapping of names to cohorts; 'internal' is the training hospital's own test.",
        )
    own = set(cohort.patients)
    for name, one in external.items():
        differing = [
            f"{what}: {there!r} there, {here!r} at home"
            for what, there, here in (
                ("image size", one.images.shape[1:], cohort.images.shape[1:]),
                ("preprocessing", one.info.get("preprocess"), cohort.info.get("preprocess")),
            )
            if there != here
        ]
        if differing:
            raise DataError(
                f"The images of {name} are not like those of {cohort.name}.",
                offenders=differing,
                remedy="Take all through the same pipeline: cxrlib.studies.hospitals.alike.",
            )
        if len(np.unique(one.labels)) < 2:
            raise DataError(
                f"All {len(one)} images of {name} have the label {one.labels[0] if len(one) else '?'}.",
                remedy="Test on images of both classes.",
            )
        shared = own & set(one.patients)
        if shared:
            raise DataError(
                f"{len(shared)} patients of {name} are also in {cohort.name}.",
                offenders=sorted(shared),
                remedy="Test on other patients, or give ids that say which hospital they are of.",
            )
