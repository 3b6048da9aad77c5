"""The classifiers of an audit: their scores on its images, how good they are, and one that can be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.audit.classifiers import Feed, Scorer
from cxrlib.audit.files import existing_paths
from cxrlib.audit.interventions import Effect, Scene, intervene
from cxrlib.audit.stats import sample_patients
from cxrlib.cohort import SPLITS, Cohort
from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import Estimate, auc, bootstrap
from cxrlib.io.cache import decode_files
from cxrlib.io.decode import resize
from cxrlib.lungs.masks import segment

TRIED = 600  # that interventions are tried on: whole patients


@dataclass(frozen=True, eq=False)
class Classifiers:
    """What is known of the classifiers that are audited.

    - ``scores``: float, a column a classifier, rows as the cohort's.
    - ``thresholds``: classifier -> the score from which on it calls ill.
    - ``scorer``: the one that can be run, and its ``name``; ``images``: uint8 (N, S, S), what it is shown.
    """

    scores: pd.DataFrame
    thresholds: Mapping[str, float] = field(default_factory=dict)
    scorer: Scorer | None = None
    name: str = ""
    images: np.ndarray | None = None

    @classmethod
    def none(cls, rows: int) -> Classifiers:
        """No classifier."""
        return cls(pd.DataFrame(index=range(rows)))

    @property
    def fed(self) -> dict[str, Any] | None:
        """How the one that is run is fed: pixels a side, range and channels, and what is ``taken`` of several
        columns that it answers with; None where none is run.
        """
        if self.scorer is None or self.images is None:
            return None
        feed = self.scorer.feed or Feed(value_range="0-255")  # a function is given the greys as they are
        size = self.scorer.size or int(self.images.shape[1])
        taken = {"taken": self.scorer.taken} if self.scorer.taken else {}
        return {"size": size, "range": feed.value_range, "channels": feed.channels or 1} | taken

    def take(self, order: np.ndarray) -> Classifiers:
        """The same with its rows in another order."""
        images = None if self.images is None else self.images[order]
        return replace(self, scores=self.scores.iloc[order].reset_index(drop=True), images=images)


def model_images(cohort: Cohort, size: int | None) -> np.ndarray:
    """The cohort's images at the size that a classifier wants, from their files where there are any.

    Returns uint8 (N, S, S), letterboxed or stretched as the cohort's.
    """
    paths = existing_paths(cohort.table)
    if size is None or size == cohort.images.shape[1]:
        return cohort.images
    if paths is None:
        return np.stack([resize(image, size, "stretch") for image in cohort.images])
    return decode_files(paths, size, fit=cohort.info.get("fit", "letterbox")).images


def thresholds(scores: pd.DataFrame, given: float | None) -> dict[str, float]:
    """The threshold of each classifier: the one that is given, or one half where scores are probabilities."""
    if given is None and len(scores.columns) and (scores.min().min() < 0 or scores.max().max() > 1):
        raise ConfigError(
            "The scores are no probabilities, and no threshold is given.",
            remedy="Give the score from which on the classifier calls ill, as --threshold: 0 for logits. "
            "Where another column that --model answers with holds a probability, name it: --model-output.",
        )
    return {str(name): 0.5 if given is None else given for name in scores}


def performance(
    classifiers: Classifiers, cohort: Cohort, *, has_split: bool = False
) -> dict[str, dict[str, Any]]:
    """Of each classifier the threshold, and AUC, sensitivity and specificity with intervals by patient; how
    it was ``fed``, if it was run; and ``by_split`` the images and the AUC (None where one class only is
    there, without an interval where fewer than 10 patients of a class are), where splits are known.
    """
    found: dict[str, dict] = {}
    for name, scores in classifiers.scores.items():
        threshold = classifiers.thresholds[str(name)]
        numbers = bootstrap(
            cohort.labels, scores, cohort.patients, ("auc", "sensitivity", "specificity"), threshold, 1000
        )
        found[str(name)] = {"threshold": threshold} | {key: one.as_dict() for key, one in numbers.items()}
        if str(name) == classifiers.name and (fed := classifiers.fed):
            found[classifiers.name]["fed"] = fed
        if has_split:
            split = cohort.table["split"].to_numpy(str)
            found[str(name)]["by_split"] = {
                part: {"n": int((split == part).sum()), "auc": _auc(cohort, scores.to_numpy(), split == part)}
                for part in SPLITS
                if (split == part).any()
            }
    return found


def _auc(cohort: Cohort, scores: np.ndarray, rows: np.ndarray) -> dict[str, Any] | None:
    labels, patients = cohort.labels[rows], cohort.patients[rows]
    fewest = min(len(set(patients[labels == one])) for one in (0, 1))
    if fewest < 10:
        return Estimate(auc(labels, scores[rows]), n=len(labels)).as_dict() if fewest else None
    return bootstrap(labels, scores[rows], patients, ("auc",), replicates=1000)["auc"].as_dict()


def doubtful(measured: Mapping[str, dict], whole: Estimate | None = None) -> dict[str, str]:
    """Classifiers that tell the label less than they should, by :func:`performance`: name -> what to do.

    ``whole``: the AUC of the audit's light probe of the whole image.
    """
    said = {}
    for name, one in measured.items():
        found = Estimate(**one["auc"])
        taken = one.get("fed", {}).get("taken", {})
        if found.low is None or found.high is None:
            continue
        if found.low > 0.5:
            if whole is not None and whole.low is not None and found.high < whole.low:
                said[name] = (
                    f"{name} tells the label less well, with an AUC of {found}, than this audit's light "
                    f"probe of the whole image, {whole}. That may be so where it was trained elsewhere, or "
                    "leaves a shortcut alone. Else check "
                    + ("--model-size, --model-range and --model-channels." if "fed" in one else "its scores.")
                )
            continue
        if found.high < 0.5:
            remedy = "give 1 − score (for logits, −score) in --scores"
            if taken:
                another = 1 - taken["column"] if taken["of"] == 2 else "of another column"
                remedy = f"give --model-output {another}"
            said[name] = (
                f"{name} is very probably reversed: its AUC on these images is {found}, below one half, so "
                "that high scores go with the healthy. What is said of it here is not to be used. To mend "
                f"it, {remedy}; and see that the right label counts as ill (--set positive=…)."
            )
        else:
            check = "the file of --scores"
            if "fed" in one:
                check = "--model-size, --model-range, --model-channels and --model-output"
            said[name] = (
                f"{name} was not shown to tell the label on these images: its AUC is {found}, and the "
                f"interval holds one half. What it is said to use means little. Check {check}."
            )
    return said


def learnt_from(cohort: Cohort) -> list[str]:
    """A warning where images of an audit of classifiers are marked as training images."""
    train = int((cohort.table["split"] == "train").sum())
    others = "the others alone (--split, or a CSV of their lines)" if train < len(cohort) else "others"
    return [
        f"{train:,} of the {len(cohort):,} images are marked as training images. If the classifier learnt "
        f"from them, its AUC here is too good and what it uses may differ: audit {others}."
    ][: bool(train)]


def tried(
    classifiers: Classifiers, cohort: Cohort, *, seed: int = 0, progress: bool | None = None
) -> tuple[Effect, ...]:
    """What changing the pictures does to the classifier that can be run; nothing where none can."""
    if classifiers.scorer is None or classifiers.images is None:
        return ()
    rows = sample_patients(cohort.patients, TRIED, seed)
    part = cohort.take(rows)
    masked = part if part.lung_masks is not None else segment(part, progress=progress)
    assert masked.lung_masks is not None
    images = np.array(classifiers.images[rows])
    masks = np.stack([resize(255 * mask, images.shape[1]) >= 128 for mask in masked.lung_masks])
    scene = Scene(images, masks.astype(np.uint8), part.labels, part.patients, seed)
    threshold = classifiers.thresholds[classifiers.name]
    ids = part.table["image_id"].to_numpy(str)
    effects = intervene(scene, classifiers.scorer, threshold, progress=progress)[1]
    return tuple(
        replace(one, most_changed=tuple(str(ids[int(row)]) for row in one.most_changed)) for one in effects
    )
