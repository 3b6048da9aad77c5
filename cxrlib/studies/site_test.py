"""How well can a plain classifier of appearance tell where an image was taken?

If it can, so can a network, and it may use the hospital in place of the disease. The features see no anatomy
in particular: greys, a thumbnail, sharpness and noise (the power spectrum), and the frame. Resolution and
resampling before this project saw the files are in the sharpness and stay there, whatever is normalised: an
AUC well above 0.5 after all steps is to be expected between archives, and a reason for external tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError, DataError
from cxrlib.evaluation.eda_images import border
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.resampling import Ranked, draw_patients
from cxrlib.io.decode import resize
from cxrlib.parallel import one_thread
from cxrlib.studies.shortcuts import patient_folds

REGIONS = ("whole", "lungs", "outside")
_FILL = 128
_LEVELS = np.linspace(0.01, 0.99, 15)


@dataclass(frozen=True, eq=False)
class SiteTest:
    """How well sites can be told apart.

    - ``auc``: each site against all others, averaged over sites; interval from resampling patients.
    - ``pairs``: "A – B" -> AUC of the log-odds of A over B among the images of these two.
    - ``scores``: float64, (N, S): out-of-fold probabilities, columns as ``sites``.
    - ``sites``: the S sites' names, sorted.
    - ``region``: what the classifier saw.
    """

    auc: Estimate
    pairs: dict[str, Estimate]
    scores: np.ndarray
    sites: tuple[str, ...]
    region: str


# One thread: the fits are small, and threads that wait for each other take longer.
@one_thread
def site_test(
    images: np.ndarray,
    sites: ArrayLike,
    patients: ArrayLike,
    *,
    masks: np.ndarray | None = None,
    region: str = "whole",
    folds: int = 5,
    seed: int = 0,
    replicates: int = 500,
) -> SiteTest:
    """Tell sites apart by appearance, by cross-validation over patients.

    - ``images``: uint8, shape (N, S, S).
    - ``sites``, ``patients``: shape (N,): where each was taken, and of whom.
    - ``masks``: uint8 0/1 of the images' shape: the lungs. Needed for the regions "lungs" and "outside".
    - ``region``: "whole"; "lungs": only greys and texture inside the mask count, and everything else is one
      grey; "outside": the reverse. The mask's shape is kept out of greys and quantiles, and out of the
      thumbnail and the spectrum as far as the fill (the region's own mean) allows; the frame counts for
      "whole" and "outside".
    - Raises ConfigError, DataError: an unknown region; lengths differ, masks are missing, or there is a
      single site.
    """
    images, sites, patients = np.asanyarray(images), np.asarray(sites).astype(str), np.asarray(patients)
    names = tuple(sorted(set(sites.tolist())))
    _check(images, sites, patients, masks, region, names)
    features = np.stack(
        [appearance(image, None if masks is None else masks[row], region) for row, image in enumerate(images)]
    )
    codes = np.searchsorted(names, sites)
    held_out = patient_folds([f"{s}:{p}" for s, p in zip(sites, patients, strict=True)], folds, seed=seed)
    scores = np.zeros((len(images), len(names)))
    for fold in range(folds):
        train, test = held_out != fold, held_out == fold
        if len(np.unique(codes[train])) < len(names):
            raise DataError(
                f"The training part of fold {fold + 1} of {folds} misses a site.",
                remedy="Use fewer folds, or more patients of the smallest site.",
            )
        if test.any():
            model = make_pipeline(
                StandardScaler(), LogisticRegression(C=0.02, max_iter=300, class_weight="balanced")
            )
            scores[test] = model.fit(features[train], codes[train]).predict_proba(features[test])
    return _measured(codes, names, patients, scores, region, replicates, seed)


def appearance(image: np.ndarray, mask: np.ndarray | None = None, region: str = "whole") -> np.ndarray:
    """What an image looks like, whatever it shows.

    - ``image``: uint8, shape (S, S); mask: uint8 0/1, or None for the region "whole".
    - Returns: float64, 1-D: 32 shares of greys, 15 quantiles, a 16 × 16 blur, 16 rings of the log power
      spectrum, and for the regions with a frame its mean, spread, and shares of black and white.
    """
    if region == "whole" or mask is None:
        inside = np.ones(image.shape, bool)
    else:
        inside = (mask > 0) == (region == "lungs")
    values = image[inside] if inside.any() else np.full(1, _FILL, np.uint8)
    levels = np.bincount(values >> 3, minlength=32) / len(values)
    quantiles = np.quantile(values, _LEVELS) / 255
    # Filled with its own mean, the region's outline is as faint as a constant can make it.
    filled = np.where(inside, image, values.mean()).astype(np.float64)
    blur = _thumbnail(filled) / 255
    window = np.hanning(len(image))[:, None] * np.hanning(image.shape[1])[None, :]
    power = np.abs(np.fft.rfft2((filled - filled.mean()) * window)) ** 2
    rings = _rings(image.shape)
    spectrum = np.log(
        np.bincount(rings.ravel(), power.ravel(), 17)[:16] / np.bincount(rings.ravel(), minlength=17)[:16] + 1
    )
    if region == "lungs":
        return np.concatenate([levels, quantiles, blur.ravel(), spectrum])
    frame = image[border(image.shape, 0.05) & inside].astype(np.float64)
    frame = frame if len(frame) else np.zeros(1)
    edge = [frame.mean() / 255, frame.std() / 255, (frame < 6).mean(), (frame > 249).mean()]
    return np.concatenate([levels, quantiles, blur.ravel(), spectrum, edge])


def second_archive(
    cohort: Cohort,
    rows: np.ndarray,
    *,
    window: tuple[int, int] = (50, 205),
    padding: float = 0.08,
    negatives: float = 0.3,
    seed: int = 0,
) -> Cohort:
    """The same radiographs as another archive would store some of them; for showing what has to be undone.

    - ``rows``: bool, shape (N,): which images are stored that way.
    - ``window``: the greys that 0 and 255 become.
    - ``padding``: width of a black bar on every side, as a share of the image's.
    - ``negatives``: share of these images that is stored with bone dark.
    - Returns: Cohort with the masks moved along.
    """
    rows = np.flatnonzero(rows)
    size = cohort.images.shape[1]
    inner = max(1, round(size * (1 - 2 * padding)))
    place = slice((size - inner) // 2, (size - inner) // 2 + inner)
    arrays: dict[str, Any] = {}  # None for masks that there are none of
    for role in ("images", "lung_masks", "lesion_masks"):
        given = getattr(cohort, role)
        if given is None:
            arrays[role] = None
            continue
        arrays[role] = np.array(given)
        for row in rows:
            one = np.zeros(given.shape[1:], np.uint8)
            if role == "images":
                part = resize(given[row], inner, "stretch") * ((window[1] - window[0]) / 255) + window[0]
                one[place, place] = np.rint(part)
            else:
                one[place, place] = resize(255 * given[row], inner, "stretch") >= 128
            arrays[role][row] = one
    turned = rows[np.random.default_rng(seed).random(len(rows)) < negatives]
    arrays["images"][turned] = 255 - arrays["images"][turned]
    return cohort.with_images(arrays.pop("images"), **arrays)


def _measured(
    codes: np.ndarray,
    names: tuple[str, ...],
    patients: np.ndarray,
    scores: np.ndarray,
    region: str,
    replicates: int,
    seed: int,
) -> SiteTest:
    _, people = np.unique([f"{c}:{p}" for c, p in zip(codes, patients, strict=True)], return_inverse=True)
    logs = np.log(np.clip(scores, 1e-9, 1))
    each = [Ranked.of((codes == k).astype(int), logs[:, k], people, 0.0) for k in range(len(names))]
    pairs = {}
    for a, b in combinations(range(len(names)), 2):
        both = (codes == a) | (codes == b)
        difference = logs[both, a] - logs[both, b]
        labels = (codes[both] == a).astype(int)
        pairs[f"{names[a]} – {names[b]}"] = (
            int(both.sum()),
            Ranked.of(labels, difference, people[both], 0.0),
        )
    count = int(people.max()) + 1
    draws = [
        np.ones((1, count), np.int64),
        *draw_patients(count, len(codes), replicates, seed),
    ]

    def measured(ranked: Ranked) -> np.ndarray:
        return np.concatenate([ranked.measure(counts, ("auc",))[:, 0] for counts in draws])

    def estimate(values: np.ndarray, n: int) -> Estimate:
        low, high = np.nanpercentile(values[1:], (2.5, 97.5))
        return Estimate(float(values[0]), float(low), float(high), n)

    macro = np.mean([measured(one) for one in each], axis=0)
    of = {name: estimate(measured(ranked), n) for name, (n, ranked) in pairs.items()}
    return SiteTest(estimate(macro, len(codes)), of, scores, names, region)


def _thumbnail(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image.astype(np.float32)).resize((16, 16), Image.Resampling.BOX))


def _rings(shape: tuple[int, int]) -> np.ndarray:
    """Ring 0–15 of each frequency, from constant to Nyquist; 16 beyond."""
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    return np.minimum((radius / 0.5 * 16).astype(int), 16)


def _check(
    images: np.ndarray,
    sites: np.ndarray,
    patients: np.ndarray,
    masks: np.ndarray | None,
    region: str,
    names: tuple[str, ...],
) -> None:
    if region not in REGIONS:
        raise ConfigError(f"There is no region {region!r}.", remedy=f"Use one of {', '.join(REGIONS)}.")
    if images.ndim != 3 or images.dtype != np.uint8 or not len(images) == len(sites) == len(patients):
        raise DataError(
            f"There are {images.dtype} images of shape {images.shape}, {len(sites)} sites, {len(patients)} "
            "patients.",
            remedy="Give uint8 images (N, S, S), and one site and patient for each.",
        )
    if region != "whole" and (masks is None or masks.shape != images.shape):
        raise DataError(
            f"The region {region!r} needs the lungs, and masks are "
            f"{'not given' if masks is None else masks.shape}.",
            remedy="Give uint8 lung masks of the images' shape, or use region='whole'.",
        )
    if len(names) < 2:
        raise DataError(
            f"All images are of one site, {names[0] if names else '?'}.", remedy="Give two or more sites."
        )
