"""Studies of strata: those of Kermany's official test, one made to go missing, and remedies."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import cxrlib
from cxrlib.cohort import Cohort
from cxrlib.evaluation.metrics import Estimate
from cxrlib.lungs.masks import segment
from cxrlib.plots import strata as plots
from cxrlib.report.evidence.registry import Made, Run
from cxrlib.studies import harmonised as remedies
from cxrlib.studies import missing_stratum as missing
from cxrlib.studies import strata as study
from cxrlib.training.recipes import described, recipe

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
    return Made(numbers, plots.strata(numbers), cohort.content_hash(), _told(run))


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
    return Made(numbers, plots.pictures(images, answers.tolist(), titles), cohort.content_hash(), _told(run))


def missing_stratum(run: Run) -> Made:
    numbers: dict[str, Estimate] = {}
    if run.dataset == "phantom":
        cohort = missing.phantoms(run.preset, run.image_size, run.seed)
        strata = {"archive": cohort.table["stratum"].to_numpy()}
    else:
        cohort, numbers, _ = _with_stratum(run)
        strata = {"letter": cohort.table["stratum"].to_numpy(), "contrast": missing.contrasty(cohort)}
    shares = (0.0, 1.0) if run.preset == "smoke" else missing.SHARES
    found = {
        name: missing.missing_stratum(
            cohort.with_columns(stratum=inside), run.preset, run.seeds, shares=shares
        )
        for name, inside in strata.items()
    }
    for name, one in found.items():
        numbers |= {f"{name}.{key}": e for key, e in one.numbers.items()}
    return Made(numbers, plots.missing(found), cohort.content_hash(), _told(run))


def harmonised(run: Run) -> Made:
    small, told, large = _with_stratum(run)
    masked, arms = large, ["histograms", "matched"]
    if run.preset != "smoke":  # where no lungs are looked for
        masked, arms = segment(run.load(smoke=10_000, image_size=2 * run.image_size)), list(remedies.ARMS)
    found = remedies.harmonised(
        remedies.Pictures(small, large, masked), run.preset, run.seeds, arms=arms, choosing=run.seeds[:2]
    )
    return Made(told | found.numbers, plots.harmonised(found), small.content_hash(), _told(run))


def _told(run: Run) -> str:
    return described(recipe("residual", run.preset))


def _with_stratum(run: Run) -> tuple[Cohort, dict[str, Estimate], Cohort]:
    """Kermany's images, and the same at 224 pixels, with a column ``stratum``; and how well it is told.

    Under the preset smoke those that were read by eye alone.
    """
    cohort, labels = run.load(smoke=10_000), study.read_labels(LABELS)
    large = run.load(smoke=10_000, image_size=study.SIZE)
    rows = np.arange(len(large))
    if run.preset == "smoke":
        rows = np.flatnonzero(large.table["image_id"].isin(labels["image_id"]))
    inside, told = missing.stratum_of(large, labels, rows)
    return cohort.take(rows).with_columns(stratum=inside), told, large.take(rows).with_columns(stratum=inside)
