"""Two ways to be fooled by a test set: a patient on both sides of the split, and choosing by its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib.cohort import SPLITS, Cohort
from cxrlib.evaluation.metrics import Estimate, auc
from cxrlib.evaluation.resampling import Ranked, checked, patient_codes
from cxrlib.io.cache import progress_bar
from cxrlib.studies.overfitting import regulariser_runs
from cxrlib.studies.study import PLAIN, Study, budget, for_steps, study_of, train_all
from cxrlib.studies.study_stats import over_splits
from cxrlib.training.inference import predict

SHARES = (0.6, 0.15, 0.25)  # of training, validation and test


def split_by_image_and_by_patient(cohort: Cohort, seed: int = 0) -> tuple[Cohort, Cohort]:
    """The same images divided twice: without regard to patients, and with.

    Both have the same number of ill and of healthy images in train, val and test.
    """
    rng = np.random.default_rng([seed, 21])
    order = np.argsort(cohort.table["image_id"].to_numpy(), kind="stable")  # row order must not matter
    patients = cohort.table.groupby("patient_id").agg(ill=("label", "max"), images=("label", "size"))
    patients = patients.iloc[rng.permutation(len(patients))]
    # The patients of each class stand in line, and go where the middle of their images falls: so each part
    # has both classes even where patients are few.
    by_class = patients.groupby("ill")["images"]
    middle = (by_class.cumsum() - patients["images"] / 2) / by_class.transform("sum")
    part = pd.Series(np.searchsorted(np.cumsum(SHARES)[:2], middle), index=patients.index)
    by_patient = np.array(SPLITS, dtype=object)[part[cohort.patients].to_numpy()]
    by_image = np.empty(len(cohort), dtype=object)
    for label in (0, 1):
        mine = order[cohort.labels[order] == label]
        by_image[rng.permutation(mine)] = by_patient[mine]
    loose, strict = (cohort.table.assign(split=splits) for splits in (by_image, by_patient))
    return (
        replace(cohort, table=loose, allow_shared_patients=True),
        replace(cohort, table=strict, allow_shared_patients=False),
    )


def leaky_phantom(
    n: int, image_size: int = 64, seed: int = 0, fresh: int | None = None
) -> tuple[Cohort, Cohort]:
    """A phantom cohort in which to know the patient is to know the label, and a fresh one for the truth.

    Patients have up to twelve images, six to seven on average, all with the same label, and the disease is
    faint: to recognise a ribcage pays more than to find an opacity. The fresh cohort has the same disease in
    other patients, one image each. No confounder depends on the label in either.

    - Returns: (cohort of ``n`` images, fresh cohort of ``fresh`` images; None for twice as many)
    """
    from cxrlib.datasets import load
    from cxrlib.phantom.latents import PhantomConfig

    config = PhantomConfig(images_per_patient=8, persistence=1.0, severity=0.5).unconfounded()
    cohort = load("phantom", n=n, image_size=image_size, seed=seed + 1_000, config=config)
    single = replace(config, images_per_patient=1)
    return cohort, load("phantom", n=fresh or 2 * n, image_size=image_size, seed=seed + 2_000, config=single)


def leakage(
    cohort: Cohort, preset: str = "course", seed: int = 0, *, fresh: Cohort | None = None,
    store: str | Path | None = None, progress: bool | None = None,
) -> Study:  # fmt: skip
    """Test AUC when the same images are split by image and by patient, all else equal, over random splits.

    Both networks of a split have the same seed, steps, and numbers of ill and healthy images in each part,
    and are taken at their last step. ``fresh`` holds patients whom neither has seen: the truth.

    - Returns: Study: ``runs`` with ``split_seed``, ``arm`` (by image, by patient), ``test_auc``,
      ``train_auc``, ``shared`` (share of test images whose patient is in train), and with ``fresh``
      ``true_auc`` and ``optimism``; ``estimates`` with ``by_image.…``, ``by_patient.…``, ``inflation`` (by
      image − by patient). Intervals are Nadeau and Bengio's, over splits.
    """
    spend = budget(preset)
    cohort = _whole_patients(cohort, spend.split_images, seed)
    rows = []
    with progress_bar(2 * spend.splits, "leakage", progress, "training") as bar:
        for split_seed in range(seed, seed + spend.splits):
            divided = split_by_image_and_by_patient(cohort, split_seed)
            plain = replace(PLAIN, schedule="cosine", seed=split_seed)
            learns = [one.split("train") for one in divided]
            configs = [for_steps(plain, len(learn), spend.split_steps, looks=1) for learn in learns]
            trained = train_all(list(zip(divided, configs, strict=True)), store, bar)
            parts = zip(("by image", "by patient"), divided, learns, trained, strict=True)
            for arm, one, learn, run in parts:
                test = one.split("test")
                row: dict[str, float | str] = {
                    "split_seed": split_seed,
                    "arm": arm,
                    "train_images": len(learn),
                }
                row |= {"test_images": len(test), "test_prevalence": test.labels.mean()}
                row["shared"] = np.isin(test.patients, learn.patients).mean()
                row["train_auc"] = run.history["train_auc"].iloc[-1]
                row["test_auc"] = reached = auc(test.labels, predict(run.last, test.images))
                if fresh is not None:
                    row["true_auc"] = truth = auc(fresh.labels, predict(run.last, fresh.images))
                    row["optimism"] = reached - truth
                rows.append(row)
    runs = pd.DataFrame(rows)
    ratio = float((runs["test_images"] / runs["train_images"]).mean())
    numbers = {}
    columns = ["test_auc", "train_auc", "shared"] + (["true_auc", "optimism"] if fresh is not None else [])
    by_arm = {str(arm): group.set_index("split_seed") for arm, group in runs.groupby("arm")}
    for arm, group in by_arm.items():
        for column in columns:
            bounds = (-1, 1) if column == "optimism" else (0, 1)
            found = over_splits(group[column], ratio, bounds=bounds)
            numbers[f"{arm.replace(' ', '_')}.{column}"] = found
    difference = by_arm["by image"]["test_auc"] - by_arm["by patient"]["test_auc"]
    numbers["inflation"] = over_splits(difference, ratio)
    return study_of(runs, numbers)


def selection_optimism(
    labels: ArrayLike,
    scores: Sequence[ArrayLike] | np.ndarray,
    patients: ArrayLike | None = None,
    ks: Sequence[int] | None = None,
    *,
    draws: int = 200,
    fresh: tuple[ArrayLike, Sequence[ArrayLike] | np.ndarray] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """What is gained by picking the best of k models on a set, on that set and on another.

    Each draw halves the patients: the model is picked on one half and measured again on the other, or on
    ``fresh``. The mean over all choices of k of the K models is computed exactly. A gain is over the mean
    of all models on the same images, so that an easy half does not count as one.

    - ``scores``: shape (K, N): one row for each model.
    - ``ks``: how many models there are to pick from; None for 1, 2, 4, … and K.
    - ``fresh``: (labels, scores of shape (K, M)) of images that no choice has seen.
    - Returns: DataFrame: ``draw``, ``k``, ``gain_selected`` (where the choice was made), ``gain_fresh``,
      ``optimism``.
    """
    labels, scores = checked(labels, scores)
    codes, n_patients = patient_codes(labels, scores, patients)
    models = len(scores)
    ks = sorted({k for k in (ks or [*(2**i for i in range(10)), models]) if k <= models})
    rng = np.random.default_rng([seed, 22])
    halves = (rng.random((draws, n_patients)).argsort(axis=1) < n_patients // 2).astype(np.int64)
    ranked = [Ranked.of(labels, row, codes, 0.5) for row in scores]
    chosen_on = np.stack([r.measure(halves, ("auc",))[:, 0] for r in ranked], axis=1)
    if fresh is None:
        then_on = np.stack([r.measure(1 - halves, ("auc",))[:, 0] for r in ranked], axis=1)
    else:
        then_on = np.tile([auc(fresh[0], row) for row in fresh[1]], (draws, 1))
    rows = []
    for k in ks:
        # The i-th best of K is the best of a random k of them with this probability.
        weights = np.array([comb(models - 1 - i, k - 1) / comb(models, k) for i in range(models)])
        for draw, (here, there) in enumerate(zip(chosen_on, then_on, strict=True)):
            if not (np.isfinite(here).all() and np.isfinite(there).all()):
                continue
            best_first = np.argsort(-here, kind="stable")
            gains = [float(weights @ values[best_first] - values.mean()) for values in (here, there)]
            rows.append(
                {"draw": draw, "k": k, "gain_selected": gains[0], "gain_fresh": gains[1]}
                | {"optimism": gains[0] - gains[1]}
            )
    return pd.DataFrame(rows)


def selection(
    cohort: Cohort, preset: str = "course", seeds: Sequence[int] = (0, 1, 2), *,
    fresh: Cohort | None = None, draws: int = 200,
    store: str | Path | None = None, progress: bool | None = None,
) -> Study:  # fmt: skip
    """Pick the best of :func:`cxrlib.studies.overfitting.regularisers`' networks on half the test patients.

    - Returns: Study: ``runs`` as :func:`selection_optimism`; ``estimates`` with the gains and the optimism of
      the best of k, means over the halvings with the range of the middle 95% of them.
    """
    test = cohort.split("test")
    on_test, on_fresh = [], []
    for _, _, models in regulariser_runs(cohort, preset, seeds, store, progress):
        on_test += [predict(model, test.images) for model in models]
        if fresh is not None:
            on_fresh += [predict(model, fresh.images) for model in models]
    other = None if fresh is None else (fresh.labels, np.stack(on_fresh))
    runs = selection_optimism(test.labels, np.stack(on_test), test.patients, draws=draws, fresh=other)
    numbers = {"models": Estimate(len(on_test))}
    for k, group in runs.groupby("k"):
        for column in ("gain_selected", "gain_fresh", "optimism"):
            low, high = group[column].quantile([0.025, 0.975])
            numbers[f"k_{k}.{column}"] = Estimate(group[column].mean(), low, high, len(test) // 2)
    return study_of(runs, numbers)


def _whole_patients(cohort: Cohort, images: int | None, seed: int) -> Cohort:
    """About so many images, all of each patient taken."""
    if images is None or images >= len(cohort):
        return cohort
    codes = np.unique(cohort.patients, return_inverse=True)[1]
    place = np.random.default_rng([seed, 24]).permutation(codes.max() + 1)[codes]
    reached = np.cumsum(np.bincount(place))
    return cohort.take(np.flatnonzero(place <= np.searchsorted(reached, images)))
