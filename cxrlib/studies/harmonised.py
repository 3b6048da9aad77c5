"""Remedies for a stratum that has one class in training, chosen without the official test.

Each arm is trained where all of a stratum's healthy patients are missing (:mod:`.missing_stratum`) and asked
about others of them. The arm that is best there and the plain recipe then see the official test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage import exposure

from cxrlib.cohort import Cohort
from cxrlib.evaluation.metrics import Estimate
from cxrlib.images.markers import find_markers, inpaint
from cxrlib.images.regions import crop_to_lungs
from cxrlib.io.cache import progress_bar
from cxrlib.io.decode import resize
from cxrlib.parallel import fan_out
from cxrlib.studies.missing_stratum import asked, measured, without_healthy
from cxrlib.studies.study import Study, Trained, study_of, train
from cxrlib.studies.study_stats import Draws, draws, mean_draws
from cxrlib.training.callbacks import TrainingChange
from cxrlib.training.config import TrainConfig
from cxrlib.training.inference import predict
from cxrlib.training.invariance import Adversarial, AmplitudeExchange, HistogramExchange, MixStyle
from cxrlib.training.models import Classifier
from cxrlib.training.recipes import recipe

Change = Callable[[], TrainingChange]
#: Their mean is an arm's score.
SCORED = ("healthy.stratum.specificity", "ill.stratum.sensitivity")


@dataclass(frozen=True)
class Pictures:
    """The same images in the sizes that the arms need; all with a bool column ``stratum``.

    - ``small``: as the network sees them.
    - ``large``: for painting letters out; ``masked``: with lung masks, for cropping.
    """

    small: Cohort
    large: Cohort
    masked: Cohort

    @property
    def side(self) -> int:
        return int(self.small.images.shape[1])


@dataclass(frozen=True)
class Arm:
    """One remedy: what is done to all images, and what to the training.

    - ``drop``: whether the stratum is left out of training altogether, so that it goes with neither class.
    """

    title: str
    images: Callable[[Pictures], np.ndarray] | None = None
    changes: tuple[Change, ...] = ()
    drop: bool = False


def _each(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Pictures], np.ndarray]:
    """A change of single images at the network's size, from greys in 0–1 to greys in 0–1."""

    def of(pictures: Pictures) -> np.ndarray:
        return np.stack(
            [np.rint(255 * np.clip(change(image / 255), 0, 1)) for image in pictures.small.images]
        ).astype(np.uint8)

    return of


def painted_out(pictures: Pictures) -> np.ndarray:
    """Letters and print filled from around them, on the large images."""
    found = [resize(inpaint(image, find_markers(image)), pictures.side) for image in pictures.large.images]
    return np.stack(found)


def cropped(pictures: Pictures) -> np.ndarray:
    """The lungs' box with a margin of 5%."""
    return crop_to_lungs(pictures.masked, 0.05, size=pictures.side).images


def matched(pictures: Pictures) -> np.ndarray:
    """Every image with the mean greys of the training's: the darkest pixel gets their darkest, and so on."""
    images = np.asarray(pictures.small.images).reshape(len(pictures.small), -1)
    training = (pictures.small.table["split"] == "train").to_numpy()
    mean = np.sort(images[training], axis=1).mean(axis=0)
    made = np.empty(images.shape, np.uint8)
    for row, image in enumerate(images):
        made[row, np.argsort(image, kind="stable")] = np.rint(mean)
    return made.reshape(pictures.small.images.shape)


def _equalised(image: np.ndarray) -> np.ndarray:
    return np.asarray(exposure.equalize_hist(image))  # type: ignore[no-untyped-call]


def _clahe(image: np.ndarray) -> np.ndarray:
    return np.asarray(exposure.equalize_adapthist(image, clip_limit=0.02))


def _local_contrast(image: np.ndarray) -> np.ndarray:
    """Each pixel against the mean and the spread around it (a Gaussian an eighth of the side wide)."""
    wide = image.shape[0] / 8
    left = image - ndimage.gaussian_filter(image, wide)
    spread = np.sqrt(ndimage.gaussian_filter(left**2, wide)) + 0.02
    return np.asarray(0.5 + left / spread / 6)


ARMS: dict[str, Arm] = {
    "plain": Arm("the plain recipe"),
    "letters": Arm("letters and print painted out", painted_out),
    "crop": Arm("cropped to the lungs' box", cropped),
    "equalised": Arm("histogram equalised", _each(_equalised)),
    "matched": Arm("histogram matched to the mean", matched),
    "clahe": Arm("CLAHE", _each(_clahe)),
    "local_contrast": Arm("local contrast", _each(_local_contrast)),
    "histograms": Arm("greys exchanged between patients", changes=(HistogramExchange,)),
    "amplitudes": Arm("Fourier amplitudes exchanged", changes=(AmplitudeExchange,)),
    "mixstyle": Arm("channel statistics mixed (MixStyle)", changes=(MixStyle,)),
    "balanced": Arm("the stratum left out of training", drop=True),
    "adversarial": Arm("adversarial head", changes=(partial(Adversarial, "stratum"),)),
}


def together(best: Sequence[str]) -> Arm:
    """Several arms in one: the first one's images, and all changes of training."""
    arms = [ARMS[name] for name in best]
    pictures = next((arm.images for arm in arms if arm.images is not None), None)
    changes = tuple(change for arm in arms for change in arm.changes)
    return Arm("the best two together", pictures, changes, any(arm.drop for arm in arms))


def best_two(score: Mapping[str, float]) -> list[str]:
    """The best arm of the images and the best one of the training, by their score."""
    kinds = [
        [name for name in score if name in ARMS and name != "plain" and (ARMS[name].images is None) == kind]
        for kind in (False, True)
    ]
    return [max(names, key=lambda name: score[name]) for names in kinds]


def harmonised(
    pictures: Pictures, preset: str = "course", seeds: Sequence[int] = (0, 1, 2), *,
    arms: Sequence[str] = tuple(ARMS), choosing: Sequence[int] | None = None, progress: bool | None = None,
    replicates: int = 1000,
) -> Study:  # fmt: skip
    """Each arm where the stratum's healthy are missing; the best and the plain recipe on the official test.

    The score of an arm is the mean of the stratum's specificity and sensitivity at ½, over the seeds. The
    best arm of the images and the best of the training are then tried together as one more arm.

    - ``seeds``: of the trainings that see the official test; ``choosing``: of the arms, by default the same.
    - Returns: Study: ``runs`` a row for each network of an arm; ``estimates`` of :func:`.measured` under the
      arm's name, ``<arm>.score``, ``<arm>.chosen`` (1 or 0), and of ``plain`` and ``best`` ``test_auc``,
      ``test_specificity``, ``test_sensitivity`` on the official test with ``best_minus_plain.…``.
    """
    choosing = seeds if choosing is None else choosing
    tried = {name: ARMS[name] for name in dict.fromkeys(("plain", *arms))}
    seen: dict[str, Cohort] = {}
    found: dict[str, dict[str, Draws]] = {}
    official = {}
    with progress_bar(
        (len(tried) + 1) * len(choosing) + 2 * len(seeds), "remedies", progress, "training"
    ) as bar:
        for name, arm in tried.items():
            seen[name], found[name] = _tried(arm, pictures, preset, choosing, replicates)
            bar.update(len(choosing))
        tried["together"] = together(best_two({name: _score(one) for name, one in found.items()}))
        seen["together"], found["together"] = _tried(
            tried["together"], pictures, preset, choosing, replicates
        )
        bar.update(len(choosing))
        score = {name: _score(one) for name, one in found.items()}
        best = max((name for name in score if name != "plain"), key=lambda name: score[name])
        for key, name in (("plain", "plain"), ("best", best)):
            official[key] = _official(seen[name], tried[name], preset, seeds, replicates)
            bar.update(len(seeds))
    numbers: dict[str, Estimate] = {}
    rows = []
    for name, one in found.items():
        # The AUC of those asked about, which is not that of the official test.
        named = {key.replace("test_auc", "asked_auc"): drawn for key, drawn in one.items()}
        numbers |= {f"{name}.{key}": drawn.estimate() for key, drawn in named.items()}
        numbers[f"{name}.score"] = Estimate(score[name], seeds=len(choosing))
        numbers[f"{name}.chosen"] = Estimate(float(name == best))
        for k, seed in enumerate(choosing):
            rows.append({"arm": name, "seed": seed} | {key: d.values[k] for key, d in named.items()})
    for key, measures in official.items():
        numbers |= {f"{key}.test_{metric}": drawn.estimate() for metric, drawn in measures.items()}
    for metric, drawn in official["best"].items():
        numbers[f"best_minus_plain.test_{metric}"] = (drawn - official["plain"][metric]).estimate()
    return study_of(pd.DataFrame(rows), numbers)


def _tried(
    arm: Arm, pictures: Pictures, preset: str, seeds: Sequence[int], replicates: int
) -> tuple[Cohort, dict[str, Draws]]:
    """All images as the arm shows them, and what its networks say of those asked about."""
    seen = pictures.small
    if arm.images is not None:
        seen = seen.with_images(arm.images(pictures), lung_masks=None)
    here = asked(seen)
    part = here.split("test")
    models = trained(without_healthy(here, 1.0), arm, preset, seeds)
    return seen, measured(part, [predict(model, part.images) for model in models], replicates)


def _score(found: Mapping[str, Draws]) -> float:
    return float(np.mean([found[one].values for one in SCORED]))


def trained(cohort: Cohort, arm: Arm, preset: str, seeds: Sequence[int]) -> list[Classifier]:
    """The arm's last networks, one a seed."""
    if arm.drop:
        kept = ~cohort.table["stratum"].to_numpy(bool) | (cohort.table["split"] == "test").to_numpy()
        cohort = cohort.take(np.flatnonzero(kept))
    changes = [change() for change in arm.changes]
    one = partial(_train, cohort, changes)
    configs = [recipe("residual", preset, seed=seed) for seed in seeds]
    fan_out(one, [(config,) for config in configs])
    return [one(config).last for config in configs]


def _train(cohort: Cohort, changes: Sequence[TrainingChange], config: TrainConfig) -> Trained:
    return train(cohort, config, changes=changes, shelf="remedies" if changes else None)


def _official(
    cohort: Cohort, arm: Arm, preset: str, seeds: Sequence[int], replicates: int
) -> dict[str, Draws]:
    test = cohort.split("test")
    scores = np.stack([predict(model, test.images) for model in trained(cohort, arm, preset, seeds)])
    found = {"auc": draws(test.labels, scores, test.patients, replicates=replicates)}
    for name, label in (("specificity", 0), ("sensitivity", 1)):
        own = test.labels == label
        right = (scores[:, own] >= 0.5) == (label == 1)
        found[name] = mean_draws(right, test.patients[own], replicates=replicates)
    return found
