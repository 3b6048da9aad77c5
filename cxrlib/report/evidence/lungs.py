"""Studies of preprocessing and of lung masks."""

from __future__ import annotations

import numpy as np

from cxrlib.cohort import concatenate
from cxrlib.datasets import load
from cxrlib.images.cohorts import preprocess, steps
from cxrlib.lungs.masks import segment
from cxrlib.lungs.study import TEST_SIDE, dice_numbers, dice_study, share
from cxrlib.plots import common as plots
from cxrlib.plots import preprocessing as preprocessing_plots
from cxrlib.report.evidence.registry import Made, Run
from cxrlib.studies import site_test as sites

REGIONS = {"whole": "whole image", "lungs": "lungs alone", "outside": "all but the lungs"}
ROW_NAMES = {
    "phantom_to_montgomery": "phantoms alone\n→ Montgomery (138)",
    "shipped_to_shenzhen": "phantoms, Montgomery\n→ Shenzhen (566)",
    "shenzhen_to_montgomery": "Shenzhen\n→ Montgomery (138)",
}


def site_test(run: Run) -> Made:
    stored = 2 * run.image_size  # files are larger than what a network sees
    cohort = run.load(smoke=40, image_size=stored)
    limit = 20 if run.preset == "smoke" else None
    nih = load("nih", data_dir=run.nih_dir, image_size=stored, limit=limit).with_columns(site="NIH")
    cohort = concatenate([cohort, nih], run.dataset)
    tests: dict[str, dict] = {label: {} for label in REGIONS.values()}
    for name, config in steps().items():
        one = preprocess(cohort, config, image_size=run.image_size)
        masked = one if one.lung_masks is not None else segment(one)
        there = np.asarray(masked.lung_masks).any(
            (1, 2)
        )  # where no lungs were found, there is nothing to leave out
        part = masked.take(np.asarray(there))
        for region, label in REGIONS.items():
            tests[label][name] = sites.site_test(
                part.images, part.table["site"], part.patients, masks=part.lung_masks, region=region,
                seed=run.seed,
            ).auc  # fmt: skip
    numbers = {
        f"{region}.{name.replace(' ', '_')}": told
        for region, label in REGIONS.items()
        for name, told in tests[label].items()
    }
    return Made(numbers, preprocessing_plots.site_auc(tests), cohort.content_hash())


def dice(run: Run) -> Made:
    found = dice_study(run.folder("data_dir"), preset=run.preset, seeds=run.seeds)
    numbers = dice_numbers(found)
    figure = preprocessing_plots.dice_by_image(found, numbers, ROW_NAMES)
    return Made(
        numbers, figure, load("lung_masks", data_dir=run.data_dir, image_size=TEST_SIDE).content_hash()
    )


def plausible(run: Run) -> Made:
    cohort = run.load(smoke=120, image_size=2 * run.image_size)
    found = segment(preprocess(cohort, image_size=run.image_size))
    right = found.table["lungs_plausible"].to_numpy()
    by_class = {"all": np.ones(len(found), bool), "pneumonia": found.labels == 1, "normal": found.labels == 0}
    rates = {name: share(right[rows]) for name, rows in by_class.items() if rows.any()}
    title = "Plausible lung masks"
    ax = plots.intervals(rates, title=title, xlabel="share of images (95% interval)", spec=".1%")
    ax.set_xlim(right=1)
    return Made(rates, ax, cohort.content_hash())
