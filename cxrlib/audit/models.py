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
from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import bootstrap
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
        """How the one that is run is fed: pixels a side, range and channels; None where none is run."""
        if self.scorer is None or self.images is None:
            return None
        feed = self.scorer.feed or Feed(value_range="0-255")  # a function is given the greys as they are
        size = self.scorer.size or int(self.images.shape[1])
        return {"size": size, "range": feed.value_range, "channels": feed.channels or 1}

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
            remedy="Give the score from which on the classifier calls ill, as --threshold.",
        )
    return {str(name): 0.5 if given is None else given for name in scores}


def performance(classifiers: Classifiers, cohort: Cohort) -> dict[str, dict]:
    """Of each classifier the threshold, and AUC, sensitivity and specificity with intervals by patient; and
    how it was ``fed``, if it was run.
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
    return found


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
