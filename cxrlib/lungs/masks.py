"""Lung fields of any cohort: where the lungs are, and whether that can be believed.

    cohort = segment(load("kermany", data_dir=…))
    cohort.table["lungs_plausible"].mean()

A mask that cannot be a pair of lungs is not passed on: it is left empty, and the table says why.
:mod:`cxrlib.images.regions` cuts images by the masks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from cxrlib.cohort import Cohort
from cxrlib.errors import CheckpointError, DataError, course_packages
from cxrlib.io.storage import allocate, atomic_path, cache_root, data_offset, read_array, stored
from cxrlib.lungs.shipped import SHIPPED_ONNX, shipped_probabilities
from cxrlib.parallel import progress_bar, run_jobs

VERSION = 2
"""Raised by one whenever the same weights may give other masks: the cache is keyed by it."""

UNSURE = 0.4
"""The most that unsure pixels may be, as a share of the mask: see NOTES.md for what images show."""

#: From images, uint8 (N, H, W), to probabilities of lung, float32 (N, S, S).
Predictor = Callable[[np.ndarray], np.ndarray]

_CHUNK = 256


def segment(
    cohort: Cohort,
    *,
    weights: str | Path | None = None,
    cache_dir: str | Path | None = None,
    workers: int | None = None,
    progress: bool | None = None,
) -> Cohort:
    """Find the lung fields of every image.

    - ``cohort``: any; masks that it has are replaced.
    - ``weights``: a file of ``cxr lungs train``, which needs torch; None for the network that ships, which
      does not.
    - ``cache_dir``, ``workers``, ``progress``: as in :func:`cxrlib.load`; ``weights`` run in one process,
      with torch's threads. A segmentation that was cut off is taken up again.
    - Returns: The cohort with ``lung_masks`` (uint8 0/1, (N, H, W); a read-only memory map) and the columns
      ``lungs_plausible`` (bool) and ``lungs_problem`` (what is wrong, or ""). Implausible masks are empty.
    - Raises MissingPackage: ``weights`` are given, and torch is not installed.
    - Raises CheckpointError: the weights file cannot be used.
    - Raises DataError: there are no images.
    """
    if not len(cohort):
        raise DataError(f"The cohort {cohort.name!r} is empty.", remedy="Give at least one image.")
    predictor(weights)  # an error now and not in a worker
    root = cache_root() if cache_dir is None else Path(cache_dir)
    facts = f"{made_by(weights)} {cohort.content_hash()}"
    entry = root / "lungs" / hashlib.sha256(facts.encode()).hexdigest()[:20]
    stored(
        entry,
        lambda partial: _segment_into(partial, cohort, weights, workers, progress),
        needed=cohort.images.size,
    )
    masks = read_array(entry / "masks.npy", mmap_mode="r")
    problems = json.loads((entry / "problems.json").read_text(encoding="utf-8"))
    return cohort.with_images(
        cohort.images,
        lung_masks=masks,
        table=cohort.table.assign(
            lungs_plausible=[not problem for problem in problems], lungs_problem=problems
        ),
    )


def lung_masks(
    probabilities: np.ndarray, shape: tuple[int, int], *, empty_implausible: bool = True
) -> tuple[np.ndarray, list[str]]:
    """Masks from a network's probabilities: the two largest regions, holes filled, checked.

    - ``probabilities``: float32, (N, S, S): of lung.
    - ``shape``: height and width of the masks, in pixels; they cover the same field.
    - ``empty_implausible``: leave masks empty that :func:`problem_with` objects to.
    - Returns: uint8 0/1, (N, *shape); and what is wrong with each, or "".
    """
    cleaned = np.stack([_two_largest(p) for p in probabilities]) if len(probabilities) else probabilities
    problems = [
        problem_with(mask > 0.5) or _doubt(probability)
        for mask, probability in zip(cleaned, probabilities, strict=True)
    ]
    if empty_implausible:
        cleaned = cleaned * np.array([not problem for problem in problems], np.float32).reshape(-1, 1, 1)
    sized = _stretched(_stretched(cleaned, shape[1], axis=2), shape[0], axis=1)
    return (sized > 0.5).astype(np.uint8), problems


def _stretched(values: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Linear interpolation between the centres of pixels along one axis, not antialiased. float32."""
    there = values.shape[axis]
    if there == length:
        return values
    at = ((np.arange(length) + 0.5) * there / length - 0.5).clip(0, there - 1)
    before = at.astype(np.intp)
    share = (at - before).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    after = np.take(values, np.minimum(before + 1, there - 1), axis)
    return np.take(values, before, axis) * (1 - share) + after * share


def problem_with(mask: np.ndarray) -> str:
    """Why a mask, bool (S, S), cannot be a pair of lungs on a frontal radiograph; "" where it can.

    The bounds are wide: 702 of the 704 reference masks of Montgomery and Shenzhen pass, and the phantom's.
    """
    regions, count = ndimage.label(mask)
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:] / mask.size
    areas = np.sort(areas[areas > 0.005])[::-1]
    if len(areas) == 0:
        return "no lung found"
    if len(areas) == 1:
        return "one region instead of two"
    if len(areas) > 2:
        return f"{len(areas)} regions instead of two"
    if not 0.06 <= areas.sum() <= 0.65:
        return f"covers {areas.sum():.0%} of the image"
    if areas[1] < 0.2 * areas[0]:
        return "one lung has less than a fifth of the other's area"
    two = [1 + int(k) for k in np.argsort(np.bincount(regions.ravel())[1:])[-2:]]
    (y0, x0), (y1, x1) = (np.argwhere(regions == k).mean(axis=0) / mask.shape for k in two)
    if abs(x0 - x1) < 0.15 or abs(y0 - y1) > 0.2:
        return "the two regions do not lie side by side"
    if not (0.2 < (x0 + x1) / 2 < 0.8 and 0.2 < (y0 + y1) / 2 < 0.8):
        return "not in the middle of the image"
    for box, region in zip(ndimage.find_objects(regions), range(1, count + 1), strict=True):
        if region in two:
            height, width = (part.stop - part.start for part in box)
            if (regions[box] == region).sum() < 0.2 * height * width:
                return "a region has no lung's shape"
            if height < 0.9 * width:
                return "a region is wider than high"
    return ""


def _doubt(probability: np.ndarray) -> str:
    """Radiographs the right way up have few unsure pixels beside sure ones; noise and negatives have many."""
    unsure = ((probability > 0.15) & (probability < 0.85)).sum() / max((probability > 0.5).sum(), 1)
    return "the network is unsure of the outline" if unsure > UNSURE else ""


def _two_largest(probability: np.ndarray) -> np.ndarray:
    """The probabilities with all regions but the two largest, of at least half a percent, set to zero.

    Lungs that touch, as they do at the apices of children, are parted where they are narrowest.
    """
    regions, areas = _regions(probability > 0.5)
    if len(areas) and areas.max() > 0.8 * areas.sum():
        regions, areas = _parted(regions, areas)
    keep = [k + 1 for k in np.argsort(areas)[-2:] if areas[k] > 0.005 * probability.size]
    kept = np.isin(np.arange(len(areas) + 1), keep)[regions]
    around, edges = ndimage.label(~kept)[0], np.zeros(kept.size + 2, bool)
    for edge in (around[0], around[-1], around[:, 0], around[:, -1]):
        edges[edge] = True
    holes = ~(kept | edges[around])
    # Just outside a region the probability is kept, so that the outline is interpolated between pixels.
    near = kept | (_grown(_grown(kept)) & (probability <= 0.5))
    return np.where(holes, np.float32(1), np.where(near, probability, np.float32(0)))


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask, and the pixels above, below, left and right of it."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected regions, numbered from 1, and their areas in pixels."""
    regions, count = ndimage.label(mask)
    return regions, np.bincount(regions.ravel(), minlength=count + 1)[1:]


def _parted(regions: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest region in two, if taking off its rim does that and leaves both of some size."""
    whole = regions == 1 + areas.argmax()
    for depth in range(1, 9):
        cores, sizes = _regions(ndimage.binary_erosion(whole, iterations=depth))
        two = np.argsort(sizes)[-2:] + 1
        if len(sizes) >= 2 and sizes[two[0] - 1] > 0.15 * areas.max():
            far = [ndimage.distance_transform_edt(cores != k) for k in two]
            line = ndimage.binary_dilation(far[0] <= far[1]) & (far[0] > far[1])
            return _regions(whole & ~line)
    return regions, areas


def predictor(weights: str | Path | None = None) -> Predictor:
    """A function from images, uint8 (N, H, W), to probabilities of lung, float32 (N, S, S)."""
    if weights is None:
        return shipped_probabilities
    with course_packages("Weights of your own"):
        from cxrlib.lungs.network import load_network, lung_probabilities
    network = load_network(weights)
    return lambda images: lung_probabilities(network, images)


def made_by(weights: str | Path | None = None) -> str:
    """What masks are made by: other words where the same image may have another mask."""
    path = SHIPPED_ONNX if weights is None else Path(weights)
    try:
        return f"{VERSION} cxrlib {hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError as error:
        raise CheckpointError(
            f"The weights {path} cannot be read: {error.strerror}.", remedy="Check the path."
        ) from error


def _segment_into(
    partial: Path, cohort: Cohort, weights: str | Path | None, workers: int | None, progress: bool | None
) -> None:
    """Write masks.npy and problems.json, chunk by chunk; what a killed run did is taken over."""
    state, masks_file = partial / "done.json", partial / "masks.npy"
    try:
        problems = json.loads(state.read_text(encoding="utf-8"))
        offset = data_offset(masks_file)
    except (OSError, ValueError):
        problems, offset = [], allocate(masks_file, cohort.images.shape)
    starts, done = range(len(problems), len(cohort), _CHUNK), dict[int, list[str]]()
    small = weights is not None or len(cohort) - len(problems) < 2 * _CHUNK
    with progress_bar(len(cohort), "Finding lungs", progress, initial=len(problems)) as bar:
        for first in range(0, len(starts), 16):  # a memory-mapped cohort is never held whole
            jobs = [(cohort.images[s : s + _CHUNK], s, weights) for s in starts[first : first + 16]]
            for start, masks, found in run_jobs(_segment_chunk, jobs, workers, small=small):
                with open(masks_file, "r+b") as file:
                    file.seek(offset + start * masks[0].size)
                    file.write(masks.data)
                done[start] = found
                while len(problems) in done:  # chunks may end in another order
                    problems += done.pop(len(problems))
                with atomic_path(state) as temporary:
                    temporary.write_text(json.dumps(problems), encoding="utf-8")
                bar.update(len(found))
    state.replace(partial / "problems.json")


def _segment_chunk(
    images: np.ndarray, start: int, weights: str | Path | None
) -> tuple[int, np.ndarray, list[str]]:
    masks, problems = lung_masks(predictor(weights)(images), images.shape[1:])
    return start, np.ascontiguousarray(masks), problems
