"""Where letters, plates and burned-in text are: small, bright, sharp-edged things near the edge of the film.

They are looked for on a reduced copy (:data:`.ANALYSIS_SIDE`) on which bone is bright. Strokes are what is
narrower than a few hundredths of the image and stands out on both sides (top-hats: a straight edge, however
steep, does not). Strokes close to each other are one group, and a group counts where it is bright and steep,
compact, and lies in the outer part, away from the lungs. Devices there (clips, the ends of wires) are found
as well; lead letters laid on the lungs are not.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_STROKE = 0.027  # of the longer side: strokes are narrower
_FAINT, _STRONG = 0.13, 0.24  # of the contrast: what belongs to a stroke, and what makes one
_STEEP = 0.17  # of the contrast from a pixel to the next: ribs are bright and narrow, and softer
_BRIGHT = 0.60  # of the way from the 1st to the 99th percentile: lead and ink are brighter
_SIDES, _TOP, _BOTTOM = 0.20, 0.22, 0.10  # of the sides: the outer part
_GAP = 0.010  # of the longer side: letters of a word are closer
_LONGEST, _HIGHEST = (
    0.40,
    0.16,
)  # of the longer side: no text is longer in one and higher in the other direction
_FILL = 0.18  # of its bounding box: text covers more, a wire less
_SMALLEST = 1.2e-4  # of the area


def find_markers(image: np.ndarray) -> np.ndarray:
    """Letters, plates and text, bool (H, W).

    ``image``: uint8, at most some 256 pixels a side; bone is bright.
    """
    height, width = image.shape
    found = np.zeros(image.shape, bool)
    if min(height, width) < 24:
        return found
    low, high = np.percentile(image[::2, ::2], (1, 99))
    contrast = float(high - low)
    if contrast < 8:
        return found
    side = max(height, width)
    hat = _strokes(image, side, low + 0.7 * contrast)
    # Coarse pixels make steep edges of everything.
    scale = contrast * min(max((256 / side) ** 0.5, 1.0), 1.5)
    ink = hat > _FAINT * scale
    gap = max(1, round(_GAP * side))
    labels, _ = ndimage.label(ndimage.binary_dilation(ink, np.ones((3, 3), bool), iterations=gap))
    labels *= ink
    seeds = labels[(hat > _STRONG * scale) & _outer(height, width)]
    boxes = ndimage.find_objects(labels)
    for number in np.unique(seeds[seeds > 0]):
        box = boxes[number - 1]
        inside = labels[box] == number
        if _is_marker(image[box], hat[box], inside, side, image.size, low + _BRIGHT * contrast, scale):
            _add(found, box, inside, gap)
    return found


def _is_marker(
    image: np.ndarray, hat: np.ndarray, inside: np.ndarray, side: int, size: int, bright: float, scale: float
) -> bool:
    rows, columns = inside.shape
    area = int(inside.sum())
    short, long = sorted((rows, columns))
    if area < max(3, _SMALLEST * size) or long > _LONGEST * side or short > _HIGHEST * side:
        return False
    if area < _FILL * rows * columns:
        return False
    best = max(3, area // 4)
    return (
        np.sort(image[inside])[-best] >= bright
        and np.sort(hat[inside])[-best] >= _STRONG * scale
        and np.sort(_steps(image)[inside])[-best] >= _STEEP * scale
    )


def _steps(image: np.ndarray) -> np.ndarray:
    """The largest difference to a neighbour in the row or column. int16, (H, W)."""
    padded = np.pad(image.astype(np.int16), 1, mode="edge")
    centre = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.max([np.abs(centre - one) for one in neighbours], axis=0)


def _add(found: np.ndarray, box: tuple[slice, slice], inside: np.ndarray, gap: int) -> None:
    """Mark a group, the holes of its letters, and the plate below them."""
    margin = gap + 1
    rows = slice(max(box[0].start - margin, 0), box[0].stop + margin)
    columns = slice(max(box[1].start - margin, 0), box[1].stop + margin)
    mask = np.zeros(found[rows, columns].shape, bool)
    top, left = box[0].start - rows.start, box[1].start - columns.start
    mask[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    mask = ndimage.binary_dilation(mask, np.ones((3, 3), bool))
    found[rows, columns] |= ndimage.binary_fill_holes(mask)


def _strokes(image: np.ndarray, side: int, bright: float) -> np.ndarray:
    """How far a pixel stands out as part of a narrow bright or, on a bright plate, dark stroke."""
    reach = max(7, 2 * round(_STROKE * side / 2) + 1)
    work = image.astype(np.int16)
    hat = work - _around(_around(image, reach, np.minimum), reach, np.maximum)  # less its grey opening
    closed = _around(_around(image, reach, np.maximum), reach, np.minimum)
    return np.maximum(hat, np.where(closed >= bright, closed - work, 0))


def _around(image: np.ndarray, reach: int, of: np.ufunc) -> np.ndarray:
    """The minimum or maximum over a square of ``reach`` (odd) pixels a side around each, within the image.

    Whole lines at a time: eight times as fast as SciPy's filters.
    """
    for _ in range(2):  # from row to row of the image, then of its transpose
        image = np.pad(image, ((reach // 2, reach // 2), (0, 0)), mode="edge")
        covered = 1
        while covered < reach:
            step = min(covered, reach - covered)
            image = of(image[:-step], image[step:])
            covered += step
        image = np.ascontiguousarray(image.T)
    return image


def inpaint(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill the masked pixels smoothly from around them (a pyramid of means; Gortler et al. 1996, push–pull).

    ``image``: uint8 (H, W); ``mask``: bool. The image itself where the mask is empty or leaves nothing.
    """
    if not mask.any() or mask.all():
        return image
    filled = _push_pull(np.where(mask, 0, image).astype(np.float32), (~mask).astype(np.float32))
    return np.where(mask, np.clip(filled + 0.5, 0, 255).astype(np.uint8), image)


def _push_pull(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means at half the resolution, down to one pixel, fill what has no weight. float32, (H, W)."""
    height, width = values.shape
    if max(height, width) == 1:
        return values / np.maximum(weights, 1e-6)
    shape = (-(-height // 2), 2, -(-width // 2), 2)
    pad = ((0, height % 2), (0, width % 2))
    total = np.pad(weights, pad).reshape(shape).sum(axis=(1, 3))
    sums = np.pad(values * weights, pad).reshape(shape).sum(axis=(1, 3))
    mean = np.where(total > 0, sums / np.maximum(total, 1e-6), 0).astype(np.float32)
    coarse = _push_pull(mean, np.minimum(total, 1).astype(np.float32))
    rows = np.clip((np.arange(height) - 0.5) / 2, 0, coarse.shape[0] - 1)
    columns = np.clip((np.arange(width) - 0.5) / 2, 0, coarse.shape[1] - 1)
    return values * weights + (1 - weights) * _bilinear(coarse, rows, columns)


def _bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    v, u = (rows - top)[:, None].astype(np.float32), (columns - left)[None, :].astype(np.float32)
    lower, right = np.minimum(top + 1, len(image) - 1), np.minimum(left + 1, image.shape[1] - 1)
    along = image[:, left] * (1 - u) + image[:, right] * u
    return along[top] * (1 - v) + along[lower] * v


def _outer(height: int, width: int) -> np.ndarray:
    outer = np.ones((height, width), bool)
    rows = slice(round(_TOP * height), height - round(_BOTTOM * height))
    outer[rows, round(_SIDES * width) : width - round(_SIDES * width)] = False
    return outer
