"""Shortcuts planted into phantoms: who has one, the image with it, and its twin without.

Phantoms are rendered twice, with and without a confounder, everything else identical to the bit. So its
agreement with the disease can be set to anything without changing a patient, and every test image has a
twin that differs in the confounder alone. A prediction that flips between the twins is due to it.

:func:`planted` and :func:`twins` do this to phantoms at hand; :func:`pairs` renders patients for
:mod:`cxrlib.studies.remedies`, in one hospital and another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.datasets import load
from cxrlib.errors import ConfigError, DataError
from cxrlib.images.markers import find_markers, inpaint
from cxrlib.images.regions import crop_to_lungs, keep_lungs
from cxrlib.lungs.masks import segment
from cxrlib.phantom import phantom
from cxrlib.phantom.latents import CONFOUNDERS, Confounder, PhantomConfig
from cxrlib.studies.study_stats import Draws, draws, mean_draws

#: The embedded cohort's disease at one hospital, with nothing that goes along with it.
PLAIN_WORLD = replace(PhantomConfig().unconfounded(), exposure=Confounder(0.0, 0.5))
#: Another hospital and archive: its exposure, its collimation, more devices, AP and text; no correlation.
OTHER_HOSPITAL = replace(
    PLAIN_WORLD,
    exposure=Confounder(1.0, 0.5),
    collimation=Confounder(0.7, 0.5),
    devices=Confounder(0.45, 0.5),
    projection=Confounder(0.6, 0.5),
    portable=Confounder(0.5, 0.5),
)
SPLIT = (0.5, 0.2, 0.3)

#: What may be done to the images themselves, in this order.
STEPS = ("inpaint", "crop", "mask")


def flags(cohort: Cohort, agreement: float, seed: int = 0) -> np.ndarray:
    """Who has a confounder at this agreement: bool (N,).

    In each split it is in a share ``agreement`` of the ill and ``1 - agreement`` of the healthy images, to
    the nearest image. Who they are follows from their ids and the seed, not from the order of rows; raising
    the agreement moves no one twice.
    """
    if not 0 <= agreement <= 1:
        raise ConfigError(f"The agreement is {agreement}.", remedy="Give a share from 0 to 1.")
    present = np.zeros(len(cohort), dtype=bool)
    ids, splits = cohort.table["image_id"].to_numpy(dtype=str), cohort.table["split"].to_numpy(dtype=str)
    rng = np.random.default_rng([seed, 31])
    place = np.empty(len(cohort))
    place[np.argsort(ids, kind="stable")] = rng.random(len(cohort))
    for split in np.unique(splits):
        for label, share in ((1, agreement), (0, 1 - agreement)):
            rows = np.flatnonzero((splits == split) & (cohort.labels == label))
            rows = rows[np.argsort(place[rows], kind="stable")]
            present[rows[: round(share * len(rows))]] = True
    return present


def planted(cohort: Cohort, confounder: str, present: np.ndarray) -> Cohort:
    """The phantoms with the confounder where ``present`` (bool, (N,)) says; only what changes is rendered.

    - Raises ConfigError: the cohort is no phantom, or there is no such confounder.
    - Raises DataError: ``present`` has not one value a row.
    """
    _check(confounder)
    present = np.asarray(present, dtype=bool)
    if present.shape != (len(cohort),):
        raise DataError(
            f"There are {present.shape} flags for {len(cohort)} images.", remedy="Give one flag an image."
        )
    rows = np.flatnonzero(present != _now(cohort, confounder))
    if not len(rows):
        return cohort
    changed = phantom.twin(cohort.take(rows), **{confounder: present[rows]})
    arrays = {}
    for role in ("images", "lung_masks", "lesion_masks"):
        arrays[role] = np.array(getattr(cohort, role))
        arrays[role][rows] = getattr(changed, role)
    columns = {}
    for name in ("view", "site", *CONFOUNDERS):
        columns[name] = cohort.table[name].to_numpy(copy=True)
        columns[name][rows] = changed.table[name].to_numpy()
    return cohort.with_images(arrays.pop("images"), **arrays).with_columns(**columns)


def twins(cohort: Cohort, confounder: str) -> tuple[np.ndarray, np.ndarray]:
    """Every image without the confounder, and with it; uint8, (N, H, W) each."""
    _check(confounder)
    now = _now(cohort, confounder)
    other = planted(cohort, confounder, ~now)
    pick = now[:, None, None]
    return np.where(pick, other.images, cohort.images), np.where(pick, cohort.images, other.images)


@dataclass(frozen=True, eq=False)
class Twins:
    """What networks of several seeds say of test images without and with a confounder.

    - ``labels``, ``patients``: shape (N,).
    - ``without``, ``present``: probabilities, float, shape (S, N): of the images without, and with it.
    - ``flags``: bool, (N,): where the confounder is when its correlation with the disease holds as in
      training.
    - ``replicates``: resamplings of patients for the intervals.
    """

    labels: np.ndarray
    patients: np.ndarray
    without: np.ndarray
    present: np.ndarray
    flags: np.ndarray
    replicates: int = 1000

    def auc(self, where: str) -> Draws:
        """AUC where the correlation ``holds``, is ``absent`` (every image in both states) or ``reversed``."""
        if where == "absent":
            labels, patients = np.tile(self.labels, 2), np.tile(self.patients, 2)
            both = np.hstack([self.without, self.present])
            return draws(labels, both, patients, replicates=self.replicates)
        if where not in ("holds", "reversed"):
            raise ConfigError(f"A correlation cannot be {where!r}.", remedy="Use holds, absent or reversed.")
        shown = self.flags if where == "holds" else ~self.flags
        scores = np.where(shown, self.present, self.without)
        return draws(self.labels, scores, self.patients, replicates=self.replicates)

    def flips(self, thresholds: float | Sequence[float] = 0.5) -> Draws:
        """Share of images whose call at the threshold (one, or one a seed) differs between the twins."""
        cuts = np.broadcast_to(np.asarray(thresholds, dtype=float), len(self.without))[:, None]
        return self._share((self.without >= cuts) != (self.present >= cuts))

    def towards_ill(self, thresholds: float | Sequence[float] = 0.5) -> Draws:
        """Share of images that are called ill only with the confounder."""
        cuts = np.broadcast_to(np.asarray(thresholds, dtype=float), len(self.without))[:, None]
        return self._share((self.without < cuts) & (self.present >= cuts))

    def _share(self, hits: np.ndarray) -> Draws:
        return mean_draws(hits, self.patients, replicates=self.replicates)


@dataclass(frozen=True, eq=False)
class Pairs:
    """One set of patients, rendered with and without a confounder.

    - ``off``, ``on``: without it in any image, and with it in every image: the same rows, else identical to
      the bit.
    - ``external``: patients of another hospital, where it is independent of the disease.
    - ``column``: which confounder.
    - ``present``: bool (N,): in which images of the confounded cohort it is.
    - ``unrelated``: bool (N,): the same, drawn without a look at the label.
    """

    off: Cohort
    on: Cohort
    external: Cohort
    column: str
    present: np.ndarray
    unrelated: np.ndarray

    @property
    def confounded(self) -> Cohort:
        """What a hospital would hand out: the confounder goes along with the disease."""
        return self._mixed(self.present)

    @property
    def reference(self) -> Cohort:
        """The same patients, but the confounder says nothing."""
        return self._mixed(self.unrelated)

    def take(self, rows: ArrayLike) -> Pairs:
        """Some of the patients here, by position or as a mask; all of those elsewhere."""
        rows = np.asarray(rows)
        return replace(
            self,
            off=self.off.take(rows),
            on=self.on.take(rows),
            present=self.present[rows],
            unrelated=self.unrelated[rows],
        )

    def seen(self, steps: Sequence[str]) -> Pairs:
        """The same through some of :data:`STEPS`."""
        return replace(
            self, off=seen(self.off, steps), on=seen(self.on, steps), external=seen(self.external, steps)
        )

    def _mixed(self, present: np.ndarray) -> Cohort:
        on, off, pick = self.on.lung_masks, self.off.lung_masks, present[:, None, None]
        images = np.where(pick, self.on.images, self.off.images)
        masks = None if on is None or off is None else np.where(pick, on, off)
        cohort = self.off.with_images(images, lung_masks=masks)
        return cohort.with_columns(**{self.column: present})


def pairs(
    n: int = 4000,
    image_size: int = 128,
    seed: int = 0,
    *,
    column: str = "marker",
    agreement: float = 0.95,
    config: PhantomConfig = PLAIN_WORLD,
    elsewhere: PhantomConfig = OTHER_HOSPITAL,
    external: int = 1000,
    find_lungs: bool = True,
    progress: bool | None = None,
    **loading: Any,
) -> Pairs:
    """Render patients with and without a confounder.

    - ``n``, ``external``: images here and at the other hospital.
    - ``agreement``: share of the ill who have it, and of the healthy who have not; see :func:`flags`.
    - ``find_lungs``: find the lungs as one has to on real images (:func:`cxrlib.lungs.masks.segment`, on
      images without their letters); else take the phantom's own masks.
    - ``loading``: as for :func:`cxrlib.load`: ``cache_dir``, ``workers``.
    """
    _check(column)

    def rendered(count: int, number: int, world: PhantomConfig, rate: float) -> Cohort:
        changed: dict[str, Any] = {column: Confounder(rate, 0.5)}
        world = replace(world, **changed)
        cohort = load("phantom", n=count, image_size=image_size, seed=number, config=world,
                      progress=progress, **loading)  # fmt: skip
        cohort = cohort.with_images(cohort.images, lesion_masks=None)
        cohort = cohort.with_columns(split=split_by_patient(cohort.patients, SPLIT, seed=number))
        if not find_lungs:
            return cohort
        found = segment(seen(cohort, ("inpaint",)), progress=progress, cache_dir=loading.get("cache_dir"))
        return cohort.with_images(cohort.images, lung_masks=found.lung_masks)

    off, on = (rendered(n, seed, config, rate) for rate in (0.0, 1.0))
    other = rendered(external, seed + 50_000, elsewhere, 0.5)
    present, unrelated = flags(off, agreement, seed), flags(off, 0.5, seed + 1)
    return Pairs(off, on, other, column, present, unrelated)


def seen(cohort: Cohort, steps: Sequence[str]) -> Cohort:
    """A cohort through some of :data:`STEPS`: letters filled, cropped to the lungs' box, the rest black.

    - Raises ConfigError: an unknown step.
    """
    unknown = [step for step in steps if step not in STEPS]
    if unknown:
        raise ConfigError(f"There is no step {unknown[0]!r}.", remedy=f"Use {', '.join(STEPS)}.")
    if "inpaint" in steps:
        cohort = cohort.with_images(
            np.stack([inpaint(image, find_markers(image)) for image in cohort.images])
        )
    if "crop" in steps:
        cohort = crop_to_lungs(cohort, margin=0.0)
    if "mask" in steps:
        cohort = keep_lungs(cohort)
    return cohort


def _now(cohort: Cohort, confounder: str) -> np.ndarray:
    phantom.latents_of(cohort.take(np.arange(1)))  # no phantom: says so
    return cohort.table[confounder].to_numpy(dtype=bool)


def _check(confounder: str) -> None:
    if confounder not in CONFOUNDERS:
        raise ConfigError(
            f"There is no confounder {confounder!r}.", remedy=f"Use one of {', '.join(CONFOUNDERS)}."
        )
