"""Studies of the residual network's errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from cxrlib.cohort import Cohort
from cxrlib.datasets import nih_tables
from cxrlib.errors import DataError
from cxrlib.evaluation import calibration as calibrate
from cxrlib.evaluation import label_errors as doubts
from cxrlib.evaluation import operating_points as thresholds
from cxrlib.evaluation import subgroups as groups
from cxrlib.evaluation.metrics import Estimate, bootstrap_mean, over_seeds, proportion
from cxrlib.lungs.masks import segment
from cxrlib.plots import errors as error_plots
from cxrlib.report.evidence.registry import Made, Run
from cxrlib.report.evidence.tables import error_replicates
from cxrlib.studies import attribution as heat
from cxrlib.studies import chexnet
from cxrlib.training.config import TrainConfig
from cxrlib.training.inference import predict_logits
from cxrlib.training.models import Classifier
from cxrlib.training.recipes import described, recipe
from cxrlib.training.store import train_or_load


@dataclass(frozen=True)
class Networks:
    """The residual networks, one a seed, and the logits of each, (N,), on validation and test images."""

    cohort: Cohort
    val: Cohort
    test: Cohort
    models: Sequence[Classifier]
    val_logits: Sequence[np.ndarray]
    test_logits: Sequence[np.ndarray]
    options: dict[str, Any]
    config: TrainConfig

    @property
    def recipe(self) -> str:
        return described(self.config)

    @property
    def val_scores(self) -> list[np.ndarray]:
        return [expit(logits) for logits in self.val_logits]

    @property
    def test_scores(self) -> list[np.ndarray]:
        return [expit(logits) for logits in self.test_logits]

    def points(self) -> dict[str, Any]:
        """The thresholds chosen on validation images, and what they become on the test images."""
        return thresholds.transfer(
            self.val.labels, self.val_scores, self.test.labels, self.test_scores,
            val_patients=self.val.patients, test_patients=self.test.patients, **self.options,
        )  # fmt: skip

    def measured(self) -> dict[str, Estimate]:
        return bootstrap_mean(self.test.labels, self.test_scores, self.test.patients, **self.options)

    def scaled(self) -> list[np.ndarray]:
        """Test probabilities after temperature scaling."""
        scalings = [calibrate.fit_temperature(self.val.labels, logits) for logits in self.val_logits]
        return [scale(logits) for scale, logits in zip(scalings, self.test_logits, strict=True)]


def networks(run: Run) -> Networks:
    """Trained, or fetched from the artefact store."""
    cohort = run.load(smoke=400)
    if run.dataset == "nih":  # images with a radiologist's box are kept for attribution
        cohort = heat.hold_out(cohort, _boxes()["image_id"])
    val, test = cohort.split("val"), cohort.split("test")
    models = [train_or_load(cohort, recipe("residual", run.preset, seed=seed))[0] for seed in run.seeds]
    of_val, of_test = ([predict_logits(model, part.images) for model in models] for part in (val, test))
    options = {"replicates": error_replicates(run), "seed": run.seed}
    return Networks(cohort, val, test, models, of_val, of_test, options, recipe("residual", run.preset))


def roc(run: Run) -> Made:
    n = networks(run)
    drawn, recalled = (
        thresholds.mean_curve(
            n.test.labels, n.test_scores, n.test.patients, kind,
            replicates=n.options["replicates"] // 2, seed=run.seed,
        )
        for kind in ("roc", "precision_recall")
    )  # fmt: skip
    numbers = n.measured()
    figure = error_plots.curves(drawn, recalled, numbers, n.points(), prevalence=n.test.labels.mean())
    prevalence = {"prevalence": Estimate(n.test.labels.mean(), n=len(n.test))}
    return Made(numbers | prevalence, figure, n.cohort.content_hash(), n.recipe)


def operating_points(run: Run) -> Made:
    n = networks(run)
    points = n.points()
    settings, values = (
        thresholds.predictive_values(
            n.test.labels,
            n.test_scores,
            points["youden"].thresholds,
            prevalences,
            n.test.patients,
            **n.options,
        )
        for prevalences in (thresholds.SETTINGS, np.geomspace(0.001, 0.8, 60))
    )
    figure = error_plots.operating_points(points, values, thresholds.SETTINGS)
    return Made(thresholds.estimates(points, settings), figure, n.cohort.content_hash(), n.recipe)


def calibration(run: Run) -> Made:
    n = networks(run)
    scalings = [calibrate.fit_temperature(n.val.labels, logits) for logits in n.val_logits]
    platt = [calibrate.fit_platt(n.val.labels, logits) for logits in n.val_logits]
    offset = [scale(logits) for scale, logits in zip(platt, n.test_logits, strict=True)]
    versions = {"as trained": n.test_scores, "temperature": n.scaled(), "with offset": offset}
    errors = {
        name: calibrate.calibration(n.test.labels, p, n.test.patients, **n.options)
        for name, p in versions.items()
    }
    diagrams = {
        name: calibrate.reliability(n.test.labels, np.mean(p, axis=0), n.test.patients, **n.options)
        for name, p in versions.items()
    }
    names = zip(("before", "after", "offset"), errors.values(), strict=True)
    numbers = {f"{when}.{key}": e for when, measured in names for key, e in measured.items()}
    numbers["temperature"] = over_seeds([scale.temperature for scale in scalings])
    return Made(numbers, error_plots.calibration(diagrams, errors), n.cohort.content_hash(), n.recipe)


def subgroups(run: Run) -> Made:
    n = networks(run)
    points = n.points()["youden"]
    scores, options = n.test_scores, {"thresholds": points.thresholds, **n.options}
    table, found = n.test.table, []
    divisions = groups.divisions(table)
    if len(divisions.columns):
        found.append(groups.by_subgroup(n.test.labels, scores, divisions, n.test.patients, **options))
    if "subtype" in table and table.loc[n.test.labels == 1, "subtype"].nunique() > 1:
        found.append(groups.by_subtype(n.test.labels, scores, table["subtype"], n.test.patients, **options))
    if not found:
        raise DataError(
            f"The table of {run.dataset} has no column that divides its patients.",
            remedy="Choose a data set with age, sex, view or kinds of disease.",
        )
    together = pd.concat(found, ignore_index=True)
    overall = {"auc": n.measured()["auc"].value} | {
        measure: points.numbers[f"test_{measure}"].value for measure in ("sensitivity", "specificity")
    }
    figure = error_plots.subgroups(together, overall)
    return Made(groups.estimates(together), figure, n.cohort.content_hash(), n.recipe)


def label_errors(run: Run) -> Made:
    """With CheXNet's scores, the labels of NIH that experts looked at again; else errors that are planted."""
    if run.chexnet_dir is not None:
        return _labels_that_experts_saw(run)
    n = networks(run)
    score = np.mean(n.scaled(), axis=0)
    planted, wrong = doubts.plant(n.test.labels, 0.08, n.test.patients, seed=run.seed)
    suspected = doubts.suspects(planted, score)["suspected"]
    found = doubts.agreement(suspected, wrong, planted, n.test.patients, **n.options)
    own = doubts.suspects(n.test.labels, score)
    numbers = {f"planted.{name}": estimate for name, estimate in found.items()}
    numbers["suspected"] = Estimate(own["suspected"].mean(), n=len(own))
    for value, part in own.groupby("label"):
        numbers[f"suspected.label_{value}"] = proportion(int(part["suspected"].sum()), len(part))
    title = "Planted errors: how often a label is wrong"
    return Made(
        numbers, error_plots.suspicion(found, ("healthy", "ill"), title), n.cohort.content_hash(), n.recipe
    )


def _labels_that_experts_saw(run: Run) -> Made:
    doubted = chexnet.suspected_labels(chexnet.load(run.folder("chexnet_dir")))
    seen = doubted[doubted["opacity"].notna()]
    found = doubts.agreement(
        seen["suspected"], seen["wrong"], seen["label"], seen["patient_id"],
        replicates=error_replicates(run), seed=run.seed,
    )  # fmt: skip
    suspected = Estimate(doubted["suspected"].mean(), n=len(doubted))
    title = "NIH: labels that experts contradict"
    figure = error_plots.suspicion(found, ("no opacity", "opacity"), title)
    return Made(found | {"suspected": suspected, "relabelled": len(seen)}, figure)


def attribution(run: Run) -> Made:
    n = networks(run)
    ill = n.test.take(np.asarray(n.test.labels == 1))
    if run.dataset == "nih" and n.test.table["image_id"].isin(_boxes()["image_id"]).sum() > 1:
        ill = heat.with_boxes(n.test, _boxes())
    elif ill.lesion_masks is not None:
        ill = ill.take(np.asarray(ill.lesion_masks.any(axis=(1, 2))))
    most, few = {"smoke": (6, 3), "course": (48, 12), "full": (64, 16)}[run.preset]
    ill = ill.take(np.random.default_rng(run.seed).permutation(len(ill))[:most])
    if ill.lung_masks is None:
        ill = segment(ill, progress=False)
        ill = ill.take(ill.table["lungs_plausible"].to_numpy())
    maps = {method: heat.attribute(n.models[0], ill.images, method) for method in heat.METHODS}
    tolerance = max(1, run.image_size // 20)
    shares = {
        region: {
            method: heat.localisation(drawn, masks, ill.patients, tolerance=tolerance, **n.options)
            for method, drawn in maps.items()
        }
        for region, masks in heat.regions(ill).items()
        if masks.any()
    }
    some = ill.take(np.arange(min(len(ill), few)))
    cascade = heat.randomisation(
        n.models[0], some.images, patients=some.patients, options={"integrated_gradients": {"steps": 16}},
        **n.options,
    )  # fmt: skip
    numbers = heat.estimates(shares, cascade)
    return Made(numbers, error_plots.attribution(shares, cascade), n.cohort.content_hash(), n.recipe)


def _boxes() -> pd.DataFrame:
    return nih_tables.boxes().query("finding == 'Pneumonia'")
