"""Studies of tables: NIH's labels, what is predicted without a pixel, and CheXNet's published scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.datasets import nih_tables
from cxrlib.errors import DataError
from cxrlib.evaluation import eda, eda_images
from cxrlib.evaluation.subgroups import estimate_of
from cxrlib.plots import common as plots
from cxrlib.plots import eda as eda_plots
from cxrlib.plots import errors as error_plots
from cxrlib.plots import pixel_free as public_plots
from cxrlib.plots import shortcuts as shortcut_plots
from cxrlib.report.evidence.registry import Made, Run
from cxrlib.studies import chexnet, score_metadata, shortcuts
from cxrlib.studies import pixel_free as public

PUBLISHED = {"ChestX-ray8 (Wang 2017)": 0.633, "CheXNet (Rajpurkar 2017)": 0.768}
"""AUCs that networks which saw NIH's pixels reported for pneumonia."""


def images_per_patient(run: Run) -> Made:
    nih = nih_tables.metadata()
    sizes = eda.images_per_patient(nih)
    curve = eda.concentration(sizes)
    leak = eda.image_split_leakage(nih, seed=run.seed)
    numbers: dict[str, Any] = {
        "patients": len(sizes),
        "most": sizes.max(),
        "single": (sizes == 1).mean(),
        "top_tenth.images": np.interp(0.1, curve["patients"], curve["images"]),
        "over_100": (sizes > 100).sum(),
    }
    numbers |= {f"by_image_split.{name}": value for name, value in leak.items()}
    return Made(numbers, eda_plots.images_per_patient(sizes, curve))


def age(run: Run) -> Made:
    nih = nih_tables.metadata()
    ages = nih["age"]
    numbers = {
        "median": ages.median(),
        "oldest": ages.max(),
        "under_18": (ages < 18).mean(),
        "missing": ages.isna().sum(),
    }
    return Made(numbers, eda_plots.ages(nih))


def view_prevalence(run: Run) -> Made:
    nih, rsna = nih_tables.metadata(), nih_tables.rsna_labels()
    options: dict[str, Any] = {"replicates": _replicates(run), "seed": run.seed}
    by_view, by_view_rsna = (
        eda.prevalence_by(nih, "view", **options),
        eda.prevalence_by(rsna, "view", replicates=0),
    )
    # Who is the same patient is unknown in RSNA's table, so its interval is by image, and too narrow.
    ratio, ratio_rsna = (eda.prevalence_ratio(table, "view", "AP", "PA", **options) for table in (nih, rsna))
    _, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for ax, title, rows, table in (
        (axes[0], "NIH: text-mined pneumonia", by_view, nih),
        (axes[1], "RSNA: radiologists' opacity", by_view_rsna, rsna),
    ):
        eda_plots.prevalence(rows, title, "view", overall=table["label"].mean(), ax=ax)
    numbers: dict[str, Any] = {
        "nih.ratio": ratio,
        "rsna.ratio": ratio_rsna,
        "nih.AP.share": (nih["view"] == "AP").mean(),
    }
    numbers |= eda.prevalence_estimates(by_view, "nih.") | eda.prevalence_estimates(by_view_rsna, "rsna.")
    return Made(numbers, axes[0])


def label_noise(run: Run) -> Made:
    relabelled = nih_tables.expert_labels().merge(
        nih_tables.metadata()[["image_id", *nih_tables.FINDINGS]], on="image_id"
    )
    three = ["Pneumonia", "Consolidation", "Infiltration"]
    pairs = {
        "pneumonia → opacity": (["Pneumonia"], "airspace_opacity"),
        "consolidation → opacity": (["Consolidation"], "airspace_opacity"),
        "any of pneumonia, consolidation,\ninfiltration → opacity": (three, "airspace_opacity"),
        "… or edema, atelectasis → opacity": ([*three, "Edema", "Atelectasis"], "airspace_opacity"),
        "nodule or mass": (["Nodule", "Mass"], "nodule_or_mass"),
        "pneumothorax": (["Pneumothorax"], "pneumothorax"),
    }
    noise = eda.label_agreement(relabelled, pairs, replicates=_replicates(run), seed=run.seed)
    keys = ["pneumonia", "consolidation", "three_words", "five_words", "nodule_or_mass", "pneumothorax"]
    numbers: dict[str, Any] = dict(eda.agreement_estimates(noise, keys))
    numbers["airspace_opacity.prevalence"] = relabelled["airspace_opacity"].mean()
    return Made(numbers, eda_plots.agreement(noise))


def pixel_free(run: Run) -> Made:
    if run.dataset == "public":
        return _public(run)
    options, table = _options(run), nih_tables.metadata()
    if run.preset == "smoke":  # a fifth of the patients is enough to see that it runs
        table = table[split_by_patient(table["patient_id"], (0.8, 0.0, 0.2), seed=run.seed) == "test"]
    blind = shortcuts.feature_by_feature(table, shuffles=_replicates(run) // 200, **options)
    radiologists = shortcuts.pixel_free(nih_tables.rsna_labels(), ("view", "age", "sex"), **options)
    rows = {"all four columns": blind["metadata"].auc}
    rows |= {name.replace("_", "-"): blind[name].auc for name in shortcuts.NIH_COLUMNS}
    rows["RSNA labels: view, age, sex"] = radiologists.auc
    references = {"chance": 0.5} | PUBLISHED
    axis = plots.intervals(rows, title="Pneumonia from the table alone", xlabel="AUC", references=references)
    numbers: dict[str, Any] = {f"{name}.auc": blind[name].auc for name in blind} | {
        "rsna.metadata.auc": radiologists.auc
    }
    numbers |= {
        f"metadata.{column}.importance": loss for column, loss in blind["metadata"].importance.items()
    }
    published = zip(("reference.wang2017.auc", "reference.chexnet2017.auc"), PUBLISHED.values(), strict=True)
    return Made(numbers | dict(published), axis)


def _public(run: Run) -> Made:
    """The five public tables; under smoke the smallest alone."""
    names = ("Open-i",) if run.preset == "smoke" else None
    replicates = {"smoke": 20, "course": 100, "full": 300}[run.preset]
    options: dict[str, Any] = {} if names is None else {"names": names, "others": ()}
    numbers: dict[str, Any] = dict(public.study(replicates=replicates, seed=run.seed, **options).numbers)
    axis = public_plots.without_a_picture(numbers)
    reported = {
        f"reported.{name}.{paper.replace(' ', '_')}.auc": auc
        for name, papers in public.REPORTED.items()
        for paper, auc in papers.items()
    }
    return Made(numbers | reported, axis)


def cohort_pixel_free(run: Run) -> Made:
    cohort = run.load(smoke=400, course=2000)
    title = f"{cohort.name}: label from the table alone"
    return _columns_alone(cohort, eda.metadata_columns(cohort.table), title, **_options(run))


def without_pixels(run: Run) -> Made:
    cohort = run.load(smoke=300)
    known = ("view", "age", "sex", "follow_up")
    columns = [name for name in eda.metadata_columns(cohort.table) if name in known]
    return _columns_alone(cohort, columns, "Without an image", seed=run.seed, replicates=300)


def class_means(run: Run) -> Made:
    cohort = run.load(smoke=400, course=2000)
    without, with_label, effect = eda_images.class_means(cohort)
    border = eda_images.border(effect.shape)
    numbers = {
        "border.effect": np.abs(effect[border]).mean(),
        "centre.effect": np.abs(effect[~border]).mean(),
    }
    return Made(numbers, eda_plots.class_means(without, with_label, effect), cohort.content_hash())


def metadata(run: Run) -> Made:
    numbers = score_metadata.chexnet_metadata(_chexnet(run), seed=run.seed)
    return Made(numbers, shortcut_plots.metadata(numbers, shortcuts.NIH_COLUMNS))


def chexnet_by_view(run: Run) -> Made:
    table, replicates = _chexnet(run), error_replicates(run)
    by_view = chexnet.by_view(table, replicates=replicates, seed=run.seed)
    by_finding = chexnet.findings_by_view(table, replicates=replicates // 4, seed=run.seed)
    numbers = {
        f"finding.{finding}.{key}": estimate_of(row[key], row[f"{key}_low"], row[f"{key}_high"])
        for finding, row in by_finding.iterrows()
        for key in ("all", "PA", "AP", "gap")
    }
    return Made(by_view | numbers, error_plots.chexnet(by_view, by_finding))


def error_replicates(run: Run) -> int:
    """Bootstrap replicates of the studies of errors."""
    return {"smoke": 200, "course": 1000, "full": 2000}[run.preset]


def _columns_alone(cohort: Cohort, columns: Sequence[str], title: str, **options: Any) -> Made:
    if not columns:
        raise DataError(
            f"The table of {cohort.name} has no column that could predict its labels.",
            remedy="Choose another data set.",
        )
    found = shortcuts.feature_by_feature(cohort.table, columns, **options)
    rows = {name.replace("metadata", "all columns").replace("_", " "): v.auc for name, v in found.items()}
    axis = plots.intervals(rows, title=title, xlabel="AUC", references={"chance": 0.5})
    return Made({f"{name}.auc": v.auc for name, v in found.items()}, axis, cohort.content_hash())


def _replicates(run: Run) -> int:
    return {"smoke": 100, "course": 500, "full": 2000}[run.preset]


def _options(run: Run) -> dict[str, Any]:
    return {"replicates": _replicates(run), "folds": 2 if run.preset == "smoke" else 5, "seed": run.seed}


def _chexnet(run: Run) -> pd.DataFrame:
    return chexnet.load(run.folder("chexnet_dir"))
