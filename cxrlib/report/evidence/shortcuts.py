"""Studies of shortcuts: what a network sees, takes and keeps, and what takes a shortcut away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cxrlib.datasets import load
from cxrlib.lungs.masks import segment
from cxrlib.plots import remedies as remedy_plots
from cxrlib.plots import shortcuts as shortcut_plots
from cxrlib.report.evidence.registry import Made, Run
from cxrlib.studies import crop_study, region_study
from cxrlib.studies import dose_response as doses
from cxrlib.studies import explorer as explored
from cxrlib.studies import hospitals as elsewhere
from cxrlib.studies import remedies as cures
from cxrlib.studies.study import Study
from cxrlib.training.recipes import described, recipe


def regions(run: Run) -> Made:
    cohort = run.load(smoke=200)
    cohort = cohort.with_images(np.array(cohort.images))  # from the disk into memory
    if cohort.lung_masks is None:
        larger = segment(run.load(smoke=200, image_size=2 * run.image_size))
        masks = crop_study.smaller(larger, run.image_size).lung_masks
        cohort = cohort.with_images(cohort.images, lung_masks=masks)
    if run.dataset != "kermany":
        found = region_study.regions(cohort, run.preset, run.seeds)
        return Made(found.numbers, shortcut_plots.regions(found.numbers), cohort.content_hash())
    shifted = recipe("residual", run.preset)
    still = replace(shifted, augment=region_study.EXPOSURE)
    numbers = region_study.both_recipes(
        region_study.regions(cohort, run.preset, run.seeds, config=shifted, last=True),
        region_study.regions(cohort, run.preset, run.seeds, config=still, views=region_study.PARTS),
    )
    figure = shortcut_plots.regions(numbers, references={"the original project": 0.82})
    told = f"{described(shifted)}; still: images of varied exposure alone, lowest validation loss"
    return Made(numbers, figure, cohort.content_hash(), told)


def dose_response(run: Run) -> Made:
    # A lead letter is small: where it is planted, images have 128 pixels.
    plant, pixels = ("marker", 128) if run.preset == "full" else ("collimation", run.image_size)
    cohort = doses.unconfounded(run.preset, pixels, run.seed)
    found = doses.dose_response(cohort, run.preset, run.seeds, confounder=plant)
    return Made(found.numbers, shortcut_plots.dose_response(found, plant), cohort.content_hash())


def order_of_learning(run: Run) -> Made:
    cohort = doses.unconfounded(run.preset, run.image_size, run.seed)
    found = doses.order_of_learning(cohort, run.preset, run.seeds)
    return Made(found.numbers, shortcut_plots.order_of_learning(found), cohort.content_hash())


def hospitals(run: Run) -> Made:
    made = {"phantom": _phantoms, "kermany": _children, "lung_masks": _tuberculosis}
    return made[run.dataset](run)


def _phantoms(run: Run) -> Made:
    home, others = elsewhere.phantom_hospitals(run.preset, run.image_size, run.seed)
    alike = elsewhere.alike({"home": home, **others}, run.image_size)
    stored = elsewhere.other_hospital(home, others, run.preset, run.seeds)
    piped = elsewhere.other_hospital(alike.pop("home"), alike, run.preset, run.seeds)
    figure = shortcut_plots.hospitals(
        {"Trained at hospital A, as stored": stored, "The same after the pipeline": piped}
    )
    return Made(_prefixed({"as_stored": stored, "pipeline": piped}), figure, home.content_hash())


def _children(run: Run) -> Made:
    cohort = run.load(smoke=300)
    limit = 300 if run.preset == "smoke" else None
    nih = load("nih", data_dir=run.nih_dir, image_size=run.image_size, seed=run.seed, limit=limit)
    home = cohort.with_images(np.array(cohort.images), lung_masks=None)
    made = elsewhere.alike({"home": home, "NIH": nih}, run.image_size)
    clean = (made["NIH"].table["findings"] == "No Finding").to_numpy() | (made["NIH"].labels == 1)
    away = {"NIH": made["NIH"], "NIH, no other finding": made["NIH"].take(clean)}
    config = recipe("residual", run.preset)
    found = elsewhere.other_hospital(made["home"], away, run.preset, run.seeds, config=config, last=True)
    figure = shortcut_plots.hospitals({"Pneumonia, trained on Kermany's children": found})
    return Made(found.numbers, figure, cohort.content_hash(), described(config))


def _tuberculosis(run: Run) -> Made:
    both = run.load(smoke=300)
    sites = elsewhere.by_site(elsewhere.alike({"both": both}, run.image_size)["both"], seed=run.seed)
    studies = {
        name: elsewhere.other_hospital(
            one, {other: sites[other] for other in sites if other != name}, run.preset, run.seeds
        )
        for name, one in sites.items()
    }
    titled = {f"Tuberculosis, trained in {name}": found for name, found in studies.items()}
    return Made(_prefixed(studies), shortcut_plots.hospitals(titled), both.content_hash())


def _prefixed(studies: Mapping[str, Study]) -> dict:
    return {f"{name}.{key}": e for name, found in studies.items() for key, e in found.numbers.items()}


def remedies(run: Run) -> Made:
    planted = cures.planted_for(run.preset, run.image_size, run.seed)
    found = cures.remedies(planted, run.preset, run.seeds)
    return Made(found.numbers, remedy_plots.remedies(found), planted.confounded.content_hash())


def explorer(run: Run) -> Made:
    planted = explored.patients(run.preset, run.image_size, run.seed)
    found = explored.explorer(planted, run.preset, run.seeds)
    return Made(found.numbers, remedy_plots.explorer(found), planted.confounded.content_hash())


def crop(run: Run) -> Made:
    small = None
    if run.dataset == "phantom":  # letters dealt out at random, so that nothing needs a cure
        cohort = cures.planted_for(run.preset, run.image_size, run.seed).reference
    else:
        cohort = run.load(smoke=200)
        small = run.load(smoke=200, image_size=crop_study.budget(run.preset).size)
    found = crop_study.crop_study(cohort, run.preset, run.seeds, small=small)
    told = described(crop_study.settings(run.preset, run.seed))
    return Made(found.numbers, remedy_plots.crop(found), cohort.content_hash(), told)
