"""Studies of the strata in Kermany's official test: numbers, and pictures of healthy children."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import cxrlib
from cxrlib.evaluation.metrics import Estimate
from cxrlib.plots import strata as plots
from cxrlib.report.evidence.registry import Made, Run
from cxrlib.studies import strata as study

LABELS = Path(cxrlib.__file__).parents[1] / "figures" / "kermany" / "strata_labels.csv"


def strata(run: Run) -> Made:
    labels, cohort = study.read_labels(LABELS), run.load(smoke=10_000)
    large, rows = run.load(smoke=10_000, image_size=study.SIZE), None
    if run.preset == "smoke":  # every image takes 20 ms: those that were read are enough to see that it runs
        rows = np.flatnonzero(cohort.table["image_id"].isin(labels["image_id"]))
    features = study.letter_features(large, rows)
    if rows is not None:
        some, features = features, np.zeros((len(large), features.shape[1]), np.float32)
        features[rows] = some
    scores = study.networks(cohort, run.preset, run.seeds)
    rest = cohort.take(np.flatnonzero(~study.first_numbers(cohort.table)))
    without_first = study.networks(rest, run.preset, run.seeds, of=cohort.images)
    numbers = study.strata(cohort.table, features, scores, labels, without_first)
    return Made(numbers, plots.strata(numbers), cohort.content_hash())


def strata_pictures(run: Run) -> Made:
    cohort, large = run.load(smoke=10_000), run.load(smoke=10_000, image_size=study.SIZE)
    ids = study.pictured(study.read_labels(LABELS), seed=0)
    where = {name: i for i, name in enumerate(cohort.table["image_id"])}
    rows = np.array([where[name] for name in ids])
    answers = study.networks(cohort, run.preset, run.seeds, of=cohort.images[rows]).mean(axis=0)
    images = np.array(large.images[rows])
    for machine in (slice(4, 8), slice(12, 16)):
        images[machine] = study.painted(images[machine])
    titles = [
        f"{part},\n{kind}"
        for part in ("held out of training", "official test")
        for kind in ("other machines", "second machine")
    ]
    numbers = {
        f"answer.{Path(name).parts[0]}.{Path(name).stem}": Estimate(float(p), n=1, seeds=len(run.seeds))
        for name, p in zip(ids, answers, strict=True)
    }
    return Made(numbers, plots.pictures(images, answers.tolist(), titles), cohort.content_hash())
