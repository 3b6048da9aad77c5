"""Studies of trainings: the networks of the course, and overfitting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.datasets import load
from cxrlib.evaluation.metrics import evaluate
from cxrlib.plots import common as plots
from cxrlib.plots import overfitting as overfitting_plots
from cxrlib.plots.training import network_comparison
from cxrlib.report.evidence.registry import Made, Run
from cxrlib.studies import leakage as leaks
from cxrlib.studies import overfitting
from cxrlib.training.inference import predict
from cxrlib.training.recipes import compare, described, recipe
from cxrlib.training.store import train_or_load

#: Of studies whose question needs another network than Kermany's other studies have.
BY_HEART = "LeNet without regularisers, which learns a few hundred images by heart in seconds"


def first_network(run: Run) -> Made:
    cohort = run.load(smoke=400)
    model, _ = train_or_load(cohort, recipe("lenet", run.preset, seed=run.seed))
    val = cohort.split("val")  # chapter 00 leaves the test images alone
    measured = evaluate(val.labels, predict(model, val.images), val.patients)
    large = load(run.dataset, image_size=256, seed=run.seed, limit=80).split("train")
    rows = np.concatenate([np.flatnonzero(large.labels == label)[:6] for label in (0, 1)])
    titles = [name for name in ("no pneumonia", "pneumonia") for _ in range(6)]
    grid = plots.image_grid(large.images[rows], titles, columns=6)
    numbers = {f"lenet.val_{name}": estimate for name, estimate in measured.items()}
    return Made(numbers, np.ravel(grid)[0], cohort.content_hash())


def official_test(run: Run) -> Made:
    cohort = run.load(smoke=400)
    found = compare(cohort, ("lenet", "double_conv", "residual"), preset=run.preset, seeds=run.seeds)
    figure = network_comparison(found.histories, found.numbers)
    told = described(recipe("residual", run.preset))
    return Made(found.numbers, figure, cohort.content_hash(), f"{told}; the others with their own recipes")


def gap(run: Run) -> Made:
    return _overfitting(run, overfitting.gap, overfitting_plots.gap)


def random_labels(run: Run) -> Made:
    return _overfitting(run, overfitting.random_labels, overfitting_plots.random_labels)


def dataset_size(run: Run) -> Made:
    return _overfitting(run, overfitting.dataset_size, overfitting_plots.dataset_size)


def capacity(run: Run) -> Made:
    return _overfitting(run, overfitting.capacity, overfitting_plots.capacity)


def regularisers(run: Run) -> Made:
    return _overfitting(run, overfitting.regularisers, overfitting_plots.regularisers)


def leakage(run: Run) -> Made:
    crowd, fresh = _crowd(run)
    known = leaks.leakage(crowd, run.preset, run.seed, fresh=fresh)
    studies = {f"phantoms, {len(crowd) / crowd.table['patient_id'].nunique():.1f} images a patient": known}
    content_hash, own = crowd.content_hash(), known
    if run.dataset != "phantom":
        cohort = _cohort(run)
        own, content_hash = leaks.leakage(cohort, run.preset, run.seed), cohort.content_hash()
        each = len(cohort) / cohort.table["patient_id"].nunique()
        studies[f"{run.dataset}, {each:.1f} images a patient"] = own
    numbers = own.numbers | {f"known_truth.{key}": estimate for key, estimate in known.numbers.items()}
    return Made(numbers, overfitting_plots.leakage(studies), content_hash, BY_HEART)


def selection(run: Run) -> Made:
    cohort, other = _cohort(run), None
    if run.dataset == "phantom":
        other = load("phantom", n=len(_crowd(run)[1]), image_size=run.image_size, seed=run.seed + 3_000)
    found = leaks.selection(cohort, run.preset, run.seeds, fresh=other)
    return Made(found.numbers, overfitting_plots.selection(found), cohort.content_hash(), BY_HEART)


def _overfitting(run: Run, study: Callable, figure: Callable) -> Made:
    cohort = _cohort(run)
    found = study(cohort, run.preset, run.seeds)
    return Made(found.numbers, figure(found), cohort.content_hash(), BY_HEART)


def _cohort(run: Run) -> Cohort:
    """The data set in memory; of phantoms half are for the test, as a gap takes many images to measure."""
    cohort = run.load(smoke=400)
    if run.dataset == "phantom":
        cohort = cohort.with_columns(split=split_by_patient(cohort.patients, (0.4, 0.1, 0.5), seed=run.seed))
    return cohort.with_images(np.array(cohort.images))


def _crowd(run: Run) -> tuple[Cohort, Cohort]:
    """Phantoms whose patients have several images each, and fresh patients."""
    n = {"smoke": 240, "course": 400, "full": 1500}[run.preset]
    return leaks.leaky_phantom(n, run.image_size, run.seed, fresh=n if run.preset == "smoke" else 1000)
