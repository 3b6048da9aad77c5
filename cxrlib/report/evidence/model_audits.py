"""Studies that audit classifiers: what of an attribute tells the label, shows in pixels, and is followed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.audit import study as method
from cxrlib.audit import use
from cxrlib.audit.classifiers import Feed, Scorer
from cxrlib.audit.features import describe
from cxrlib.audit.interventions import Effect
from cxrlib.audit.models import Classifiers, performance, tried
from cxrlib.audit.page import numbers as numbers_of
from cxrlib.audit.plots import attributes as draw
from cxrlib.audit.probes import Finding
from cxrlib.audit.ridge import balanced_folds
from cxrlib.audit.rules import column_probe
from cxrlib.audit.run import Audit, audit_cohort
from cxrlib.audit.stats import held_out
from cxrlib.audit.tables import column_features
from cxrlib.audit.verdicts import VERDICTS, Asked, Use
from cxrlib.cohort import Cohort
from cxrlib.evaluation.metrics import Estimate, choose_threshold
from cxrlib.lungs.masks import segment
from cxrlib.report.evidence.registry import Made, Run
from cxrlib.report.evidence.strata import LABELS
from cxrlib.studies import chexnet, missing_stratum
from cxrlib.studies import strata as study
from cxrlib.studies.hospitals import STEPS
from cxrlib.studies.study import for_steps
from cxrlib.studies.study_stats import holm
from cxrlib.training.inference import predict
from cxrlib.training.models import Classifier
from cxrlib.training.recipes import described, recipe
from cxrlib.training.store import train_or_load

SIDE = 256  # pixels that signs are looked for in
_COLUMNS = ("view", "age", "sex", "follow_up")
_ROLES = ["image_id", "patient_id", "label", "split"]


def model_audit(run: Run) -> Made:
    return {"nih": _nih, "kermany": _kermany, "lung_masks": _tuberculosis}[run.dataset](run)


def _kermany(run: Run) -> Made:
    """The course's networks on images that they were not trained on: by what every image has, and by what was
    read off some of them.
    """
    small, large = run.load(smoke=10_000), run.load(smoke=10_000, image_size=study.SIZE)
    labels = study.read_labels(LABELS).set_index("image_id")
    table = large.table[_ROLES]
    known = table["image_id"].isin(labels.index)
    held = table["split"].ne("train")
    if run.preset == "smoke":  # some of those that were read are enough to see that it runs
        held &= known & (np.arange(len(table)) % 3 == 0)
    rows = np.flatnonzero(held)
    # The detector learns on images that were read, none of the test, and tells of those that were held out.
    asked = np.flatnonzero(held | known)
    machine = missing_stratum.stratum_of(large, labels.reset_index(), asked)[0][np.isin(asked, rows)]
    networks = [train_or_load(small, recipe("residual", run.preset, seed=seed))[0] for seed in run.seeds]
    images = small.images[rows]
    names = [f"seed_{seed}" for seed in run.seeds]
    scores = pd.DataFrame({name: predict(one, images) for name, one in zip(names, networks, strict=True)})
    everyone = large.take(rows)
    official = everyone.table["split"].eq("test").to_numpy()
    # Without their paths: these copies were scaled and written again, so that their files say nothing.
    everyone = replace(
        everyone, table=everyone.table[_ROLES].assign(official_test=official, second_machine=machine)
    )
    everyone, features = _looked_at(everyone)
    given = Classifiers(scores, dict.fromkeys(names, 0.5), None, "", images)
    options: dict[str, Any] = {"seed": run.seed, "has_patients": True, "source": None}
    all_held = audit_cohort(everyone, classifiers=given, features=features, **options)
    read = np.flatnonzero(known[held])
    seen = everyone.take(read)
    attributes = labels.loc[seen.table["image_id"], list(study.ATTRIBUTES)].reset_index(drop=True)
    seen = replace(seen, table=seen.table[[*_ROLES, "official_test"]].assign(**attributes))
    features = {name: values[read] for name, values in features.items()}
    by_eye = audit_cohort(seen, classifiers=given.take(read), features=features, **options)
    numbers: dict[str, Any] = {}
    effects: dict[str, tuple[Effect, ...]] = {}
    for name, network in zip(names, networks, strict=True):
        scorer = Scorer(name, partial(_probabilities, network), Feed(run.image_size, "0-255", 1))
        effects[name] = tried(replace(given, scorer=scorer, name=name), everyone, seed=run.seed)
        numbers |= _effects(name, effects[name])
    numbers |= _audited("held_out", all_held) | _audited("read", by_eye)
    hand = [one for one in by_eye.attributes if one.probe.group == "table"]
    panels = {
        f"All {len(everyone):,} held-out images": all_held.attributes,
        f"The {len(seen):,} of them that were read by eye": hand,
    }
    return Made(
        numbers, draw(panels, effects), small.content_hash(), described(recipe("residual", run.preset))
    )


def _probabilities(network: Classifier, batch: np.ndarray) -> np.ndarray:
    """Of a batch as a Scorer makes it, float32 (N, 1, S, S), 0–255."""
    return predict(network, batch[:, 0].astype(np.uint8))


def _nih(run: Run) -> Made:
    """CheXNet's published scores: use and utility in the whole table, visibility where there are pixels.

    The scores come without a threshold. It is put where 80% of these very ill are found, so sensitivity says
    nothing here and is not recorded.
    """
    table = chexnet.load(run.folder("chexnet_dir"))
    images = run.load(smoke=10_000, image_size=SIDE)
    if run.preset == "smoke":  # a quarter of the patients is enough to see that it runs
        with_pixels = table["patient_id"].isin(images.table["patient_id"])
        table = table[with_pixels | (table["patient_id"].astype(str).str[-1] < "3")].reset_index(drop=True)
    permutations = 199 if run.preset == "smoke" else 1999
    labels, patients = table["Pneumonia"].to_numpy(int), table["patient_id"].to_numpy(str)
    scores = table["score_Pneumonia"].to_numpy(float)
    threshold = choose_threshold(labels, scores, "sensitivity", at=0.8)
    given = Classifiers(pd.DataFrame({"CheXNet": scores}), {"CheXNet": threshold})
    where = {name: row for row, name in enumerate(table["image_id"])}
    pictured = images.take(np.flatnonzero(images.table["image_id"].isin(list(where))))
    pictured = replace(pictured, table=pictured.table[[*_ROLES, *_COLUMNS]])
    mine = given.take(np.array([where[name] for name in pictured.table["image_id"]]))
    subset = audit_cohort(
        pictured, classifiers=mine, source=None, has_patients=True, has_split=False, seed=run.seed,
        permutations=permutations,
    )  # fmt: skip
    visible = {one.probe.name: one for one in subset.attributes}
    options: dict[str, Any] = {"seed": run.seed, "permutations": permutations}
    held, told, found = {}, {}, {}
    for column in _COLUMNS:
        features = column_features(table, [column])
        held[column] = held_out(features, labels, patients, **options)
        found[column] = use.attribute(features, labels, table[column])
        told[column] = use.use(found[column], scores, labels, patients, **options)
    tells = holm([one.p_value for one in held.values()])
    followed = holm([one.p_value for one in told.values()])
    whole = []
    for k, column in enumerate(_COLUMNS):
        probe, one = column_probe(column), held[column]
        levels = use.by_level(found[column], scores, labels, threshold)
        within = use.auc_within(found[column], scores, labels)
        whole.append(
            Asked(
                Finding(probe, "fine", one.auc, one.p_value, float(tells[k])),
                visible[probe.name].visible, visible[probe.name].p_visible,
                {"CheXNet": Use(told[column], float(followed[k]), within, levels)},
            )
        )  # fmt: skip
    whole.sort(key=lambda one: VERDICTS.index(one.verdict))
    numbers = _attributes("table", whole) | _audited("pictured", subset)
    numbers |= {"table.images": Estimate(len(table)), "table.ill": Estimate(int(labels.sum()))}
    cohort = Cohort(np.zeros((len(table), 1, 1), np.uint8), table.assign(label=labels, split="test"))
    numbers |= _performance("table", performance(given, cohort))
    numbers = {name: value for name, value in numbers.items() if not name.endswith(".CheXNet.sensitivity")}
    panels = {
        f"Columns: use and utility from {len(table):,} images,\nvisibility from {len(pictured):,}": whole,
        f"Signs: all from {len(pictured):,} images ({int(pictured.labels.sum())} ill)": [
            one for one in subset.attributes if one.probe.group != "table"
        ],
    }
    return Made(numbers, draw(panels, {}), images.content_hash())


def _tuberculosis(run: Run) -> Made:
    """Montgomery and Shenzhen pooled, as they are and with the ill in one and the healthy in the other: each
    patient is scored by one of five networks that have not seen it.
    """
    small, large = run.load(smoke=200), run.load(smoke=200, image_size=SIDE)
    small, large = (replace(one, table=one.table[[*_ROLES, "site"]]) for one in (small, large))
    numbers: dict[str, Any] = {}
    panels = {}
    config = for_steps(recipe("residual", run.preset, seed=run.seed), len(small) * 3 // 5, STEPS[run.preset])
    for name, title in (("as_published", "As published"), ("skewed", "With the ill in Shenzhen, mostly")):
        shown, seen = (
            one if name == "as_published" else method.skewed(one, seed=run.seed) for one in (small, large)
        )
        fold = balanced_folds(shown.labels, shown.patients, 5, run.seed)
        scores = np.zeros(len(shown))
        for number in range(int(fold.max()) + 1):
            split = np.select([fold == number, fold == (number + 1) % 5], ["test", "val"], "train")
            network, _ = train_or_load(replace(shown, lung_masks=None).with_columns(split=split), config)
            scores[fold == number] = predict(network, shown.images[fold == number])
        audit = audit_cohort(
            seen, classifiers=Classifiers(pd.DataFrame({"network": scores}), {"network": 0.5}),
            has_patients=True, has_split=False, seed=run.seed,
        )  # fmt: skip
        numbers |= _audited(name, audit)
        panels[f"{title}: {len(seen)} images, {int(seen.labels.sum())} ill"] = audit.attributes
    return Made(numbers, draw(panels, {}), small.content_hash(), described(config))


def _looked_at(cohort: Cohort) -> tuple[Cohort, Mapping[str, np.ndarray]]:
    """The cohort with lung masks, and the features that audits of all or of some of its images need."""
    masked = segment(cohort)
    with TemporaryDirectory(prefix="audit-") as folder:
        return masked, dict(describe(masked, Path(folder)))  # read now: the folder goes


def _audited(part: str, audit: Audit) -> dict[str, Estimate]:
    kept = {
        f"{part}.{key}": value
        for key, value in numbers_of(audit).items()
        if not key.endswith((".p", ".share"))
    }
    found = kept | _attributes(part, audit.attributes) | _performance(part, audit.classifiers)
    return found | {
        f"{part}.images": Estimate(audit.facts["images"]),
        f"{part}.ill": Estimate(audit.facts["ill"]),
    }


def _attributes(part: str, asked: Iterable[Asked]) -> dict[str, Estimate]:
    """``<part>.<probe>.visible``, ``.use.<classifier>`` with Holm's p and classes apart, ``.used_by`` (how
    many follow it), and whether it is useful and seen (0 or 1).
    """
    numbers: dict[str, Estimate] = {}
    for one in asked:
        key = f"{part}.{one.probe.name}"
        if one.finding.auc is not None:
            numbers[f"{key}.auc"] = one.finding.auc
        if one.visible is not None and one.p_visible is not None:
            numbers |= {
                f"{key}.visible": one.visible.concordance,
                f"{key}.visible.p_holm": Estimate(one.p_visible),
            }
        for name, by in one.uses.items():
            numbers[f"{key}.use.{name}"] = by.told.concordance
            parts = {"p_holm": by.p_holm, "healthy": by.told.healthy, "ill": by.told.ill,
                     "explained": by.told.explained, "auc_within": by.auc_within}  # fmt: skip
            numbers |= {f"{key}.use.{name}.{what}": Estimate(float(value)) for what, value in parts.items()}
        numbers |= {
            f"{key}.used_by": Estimate(len(one.used_by), n=len(one.uses)),
            f"{key}.useful": Estimate(int(one.useful)), f"{key}.seen": Estimate(int(one.seen)),
        }  # fmt: skip
    return numbers


def _performance(part: str, classifiers: Mapping[str, dict]) -> dict[str, Any]:
    return {
        f"{part}.{name}.{measure}": Estimate(value) if measure == "threshold" else Estimate(**value)
        for name, measures in classifiers.items() for measure, value in measures.items()
        if measure not in ("fed", "by_split")
    }  # fmt: skip


def _effects(name: str, effects: Iterable[Effect]) -> dict[str, Estimate]:
    """``<network>.<intervention>.flips``, ``.control_flips``, ``.excess``, ``.auc_change``, ``.believed``."""
    numbers: dict[str, Estimate] = {}
    for one in effects:
        key = f"{name}.{one.name}"
        measured = {measure: getattr(one, measure) for measure in ("flips", "control_flips", "excess")}
        numbers |= {f"{key}.{measure}": value for measure, value in measured.items() if value is not None}
        numbers |= {
            f"{key}.auc_change": one.auc_change, f"{key}.believed": Estimate(int(one.believed)),
            f"{key}.touched": Estimate(one.touched),
        }  # fmt: skip
    return numbers
