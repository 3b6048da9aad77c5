"""Signs that an image carries beside the patient: letters, text, borders, electrodes, projection, exposure.

Each function takes one image, uint8 (H, W), bone bright, and gives a few numbers that a classifier of the
label then weighs. None looks at the texture of the lungs, so what they reach is not disease, with the
exceptions that their docstrings name. They were tuned on phantoms of other seeds than any benchmark's.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from cxrlib.images.borders import exposed_box
from cxrlib.images.burned_in import extreme
from cxrlib.images.polarity import bone_is_bright
from cxrlib.io.pixels import quantiles

TEMPLATE = Path(__file__).parent / "data" / "projection.npz"

_CELLS = 32  # of the projection's template
_PEAKS = 9


def contrast_of(image: np.ndarray) -> tuple[float, float]:
    """The 1st percentile, and how far the 99th is from it (at least 8 grey levels)."""
    low, high = quantiles(np.bincount(image[::2, ::2].ravel())[None], (0.01, 0.99))[:, 0]
    return float(low), max(float(high - low), 8.0)


def writing(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A lead letter, and a line of text, in the outer part of the film.

    Both are groups of narrow bright strokes (a top-hat, relative to the image's contrast): a letter is about
    as wide as high, text is much wider than high. At 64 pixels and below they run together. Returns
    ``letter`` and ``text``, float, (4,): strength (mean of the group's strongest third), whether there is
    one, and whether it is on the left or the right of the image; bool, (H, W): the strokes of both, and a
    pixel around them; and float32, (256,): the strongest stroke in each of 16 × 16 places, 0 where none is
    expected.
    """
    height, width = image.shape
    side = max(height, width)
    reach = max(3, 2 * round(0.018 * side) + 1)
    opened = extreme(extreme(image, reach, np.minimum), reach, np.maximum)
    hat = (image - opened).astype(np.float32) / np.float32(contrast_of(image)[1])
    rows, columns = _places(image.shape)
    outer = (rows < 0.22) | (np.abs(columns - 0.5) > 0.3) | (rows > 0.9)
    strokes = (hat > 0.15) & outer
    near = ndimage.maximum_filter(strokes, 2 * max(1, round(0.008 * side)) + 1, mode="constant")
    groups = ndimage.label(near)[0] * strokes
    best = {"letter": (0.0, 0.5, 0), "text": (0.0, 0.5, 0)}
    for number, box in enumerate(ndimage.find_objects(groups), 1):
        if box is None:
            continue
        high, wide = (box[0].stop - box[0].start) / height, (box[1].stop - box[1].start) / width
        if 0.02 <= high <= 0.11 and 0.014 <= wide <= 0.11 and 0.4 * high < wide < 2 * high:
            kind = "letter"
        elif 0.1 <= wide <= 0.45 and high <= 0.08 and wide > 2.5 * high:
            kind = "text"
        else:
            continue
        strengths = np.sort(hat[box][groups[box] == number])[::-1]
        strength = float(strengths[: max(3, len(strengths) // 3)].mean())
        if len(strengths) >= 3 and strength > best[kind][0]:
            best[kind] = (strength, (box[1].start + box[1].stop) / 2 / width, number)
    numbers = [which for _, _, which in best.values() if which]
    found = (
        ndimage.binary_dilation(np.isin(groups, numbers), np.ones((3, 3), bool)) if numbers else near & False
    )
    letter, text = (
        np.array(
            [strength, there := strength > 0.3, there and place < 0.5, there and place > 0.5], np.float32
        )
        for strength, place, _ in best.values()
    )
    edges = [np.linspace(0, length, 17).astype(int)[:-1] for length in image.shape]
    strongest = np.maximum.reduceat(np.maximum.reduceat(hat * outer, edges[0], 0), edges[1], 1)
    return letter, text, found, strongest.ravel().astype(np.float32)


def borders(image: np.ndarray) -> np.ndarray:
    """Collimation and film edges: how much of each side is without exposure (top, bottom, left, right, as
    shares of the side), and their sum. float32, (5,).
    """
    height, width = image.shape
    box = exposed_box(image)
    margins = [
        box.top / height,
        1 - (box.top + box.height) / height,
        box.left / width,
        1 - (box.left + box.width) / width,
    ]
    return np.array([*margins, sum(margins)], np.float32)


def electrodes(image: np.ndarray, found: np.ndarray | None = None) -> np.ndarray:
    """Small round bright things: electrodes, clips, buttons, valves. float32, (4,).

    What stands out in all directions at once is a spot (an image less its openings by lines); ribs, vessels
    and wires do not. The four strongest are compared with the image's ninth, logarithmically: exposure and
    resolution move all of them alike. ``found``: bool (H, W), letters and text, left out with the places
    where they usually are. Lines and tubes without an electrode are not seen. Calcified nodules are.
    """
    height, width = image.shape
    side = max(height, width)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), 0.006 * side)
    reach = max(7, 2 * round(0.04 * side) + 1)
    lines, around = _lines(reach), ((0, 0), *[(reach // 2,) * 2] * 2)  # beyond the edge it is mirrored
    (padded,) = np.pad(smooth[None], around, mode="symmetric")
    eroded = np.stack([_along(padded, line, np.minimum) for line in lines])
    again = np.pad(eroded, around, mode="symmetric")
    opened = np.max([_along(one, -line, np.maximum) for one, line in zip(again, lines, strict=True)], axis=0)
    rows, columns = _places(image.shape)
    off = np.abs(columns - 0.5)
    skip = ((rows < 0.2) & (off > 0.32)) | ((rows < 0.155) & (off > 0.21))
    skip |= (rows < 0.04) | (rows > 0.97) | (off > 0.46)
    if found is not None:
        skip |= found
    spot = np.where(skip, 0, smooth - opened)
    peaks = spot[(extreme(spot, reach, np.maximum) == spot) & (spot > 0)]
    strongest = np.zeros(_PEAKS)
    strongest[: len(peaks)] = np.sort(peaks)[::-1][:_PEAKS]
    return np.log((strongest[:4] + 1) / (strongest[-1] + 1)).astype(np.float32)


def exposure(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Greys of the upper mediastinum: seven quantiles and the spread, float32, (8,).

    Between the upper halves of the lungs there is neither lung nor border nor letter, and hardly heart. What
    a segmenter leaves out of a consolidated lung can get in, so a margin around the mask is left out too. NaN
    where hardly anything is left.
    """
    lungs = mask > 0
    rows = np.flatnonzero(lungs.any(axis=1))
    if not len(rows):
        return np.full(8, np.nan, np.float32)
    right = np.maximum.accumulate(lungs, axis=1)
    left = np.maximum.accumulate(lungs[:, ::-1], axis=1)[:, ::-1]
    margin = max(1, round(0.03 * max(image.shape)))
    near = ndimage.distance_transform_cdt(~lungs, "taxicab") <= margin
    upper = slice(0, (rows[0] + rows[-1]) // 2)
    values = image[upper][(right & left & ~near)[upper]]
    if len(values) < 10:
        return np.full(8, np.nan, np.float32)
    return np.append(np.quantile(values, np.linspace(0.1, 0.9, 7)), values.std()).astype(np.float32)


def polarity(image: np.ndarray) -> np.ndarray:
    """Whether the image is a negative (:mod:`cxrlib.images.polarity`): float32, (1,), 0 or 1."""
    return np.array([bone_is_bright(image) < 0], np.float32)


def projection(around: np.ndarray | None) -> np.ndarray:
    """How much a frontal radiograph looks like AP (mediastinum, heart, shoulder blades, arms): float32, (1,).

    A linear template over the neighbourhood of the lungs (:func:`around_lungs`), fitted to phantoms half of
    which were AP, ill or not in equal measure; NaN for None. See ``benchmarks/projection.py`` for what it
    reaches on radiographs whose projection is known.
    """
    weights, centre, spread = _template()
    score = np.nan if around is None else float(((around - centre) / spread) @ weights)
    return np.array([score], np.float32)


def sides(around: np.ndarray | None) -> np.ndarray:
    """What is on one side of the chest and not on the other, of :func:`around_lungs`: float32, (128,).

    A mirrored image has its negative. NaN for None.
    """
    if around is None:
        return np.full(_CELLS**2 // 8, np.nan, np.float32)
    cells = around[: _CELLS**2].reshape(_CELLS // 2, 2, _CELLS // 2, 2).mean(axis=(1, 3))
    return (cells - cells[:, ::-1])[:, : _CELLS // 4].ravel().astype(np.float32)


def around_lungs(image: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """What the projection's template sees: 32 × 32 greys around the lungs' box, each relative to its
    neighbourhood, and the box's shape. float64, (1025,); None where the mask is empty.
    """
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left, height, width = rows[0], columns[0], rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    steps = np.arange(_CELLS) / (_CELLS - 1)
    y, x = top + height * (1.2 * steps - 0.15), left + width * (1.24 * steps - 0.12)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), max(image.shape) / 128)
    cells = ndimage.map_coordinates(smooth, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")
    mean = ndimage.gaussian_filter(cells, 5)
    spread = np.sqrt(ndimage.gaussian_filter((cells - mean) ** 2, 5) + 9)
    return np.append(((cells - mean) / spread).ravel(), 3 * height / width)


@cache
def _template() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(TEMPLATE) as stored:
        return tuple(stored[name].astype(np.float64) for name in ("weights", "centre", "spread"))


@cache
def _places(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each pixel's middle, as shares of the sides, broadcastable."""
    return (np.arange(shape[0])[:, None] + 0.5) / shape[0], (np.arange(shape[1])[None, :] + 0.5) / shape[1]


@cache
def _lines(length: int) -> tuple[np.ndarray, ...]:
    """Eight line segments of so many pixels: rows and columns from the middle, (length, 2)."""
    along = np.arange(length) - length // 2
    angles = np.arange(8) * np.pi / 8
    return tuple(np.rint(np.outer(along, (np.sin(one), np.cos(one)))).astype(int) for one in angles)


def _along(padded: np.ndarray, line: np.ndarray, of: np.ufunc) -> np.ndarray:
    """The minimum or maximum of each pixel's neighbours on a line, which reaches as far as the padding."""
    reach = len(line) // 2
    height, across = padded.shape[0] - 2 * reach, padded.shape[1]
    # Rows end to end, so that each shift is one slice; what runs over a row's end is cut off.
    flat, found = padded.ravel(), np.empty(height * across, padded.dtype)
    first, *others = ((line + reach) @ (across, 1)).tolist()
    part = found[: height * across - 2 * reach]
    part[:] = flat[first : first + len(part)]
    for other in others:
        of(part, flat[other : other + len(part)], out=part)
    return found.reshape(height, across)[:, : across - 2 * reach]
