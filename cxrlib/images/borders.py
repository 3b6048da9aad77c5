"""What of an image file is radiograph: padding, film edges and collimation found on all four sides.

Two passes. :func:`flat_box` takes off lines without any content, whatever their grey, at full resolution;
taking one off never makes another less flat, so the order does not matter and padding added to an image
changes nothing. :func:`exposed_box` then looks, on a reduced copy of which it is known that bone is bright,
for dark borders that are noisy or askew, and for bright strips along the film's edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

#: A line is flat where its grey values span at most this (of 255). More would not scale with the intensities;
#: noisy borders are for the second pass.
FLAT_RANGE = 1

#: Side of the copy on which borders and markers are looked for, in pixels.
ANALYSIS_SIDE = 256

_DARK_TOLERANCE = 0.05  # of the image's contrast: how far from its median a dark border pixel may be
_BRIGHT_TOLERANCE = 0.015  # a saturated abdomen is bright, too; only what is all but constant may go
_STRAY = 0.03  # share of a border line that may be something else (a letter, dust)
_EDGE_REACH = 0.08  # of the side: within this, the edge of a tilted border (up to 4.5°) is crossed
_EDGE_SHARE = 0.45  # of the line: what must be exposed beyond the edge
_EDGE_CUT = 0.25  # cut a tilted edge where this share of the line is exposed
_EDGE_JUMP = 0.12  # of the contrast: a collimator's edge is steep, a shoulder's skin is not
_MOST = 0.45  # of a side: more is never taken off in the second pass


@dataclass(frozen=True)
class Box:
    """Part of an image: its first row and column, and its height and width, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the part: ``image[box.slices]``."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def flat_box(image: np.ndarray, tolerance: int = FLAT_RANGE) -> Box:
    """What is left of a uint8 (H, W) image when flat lines are taken off the outside until there is none.

    The whole image where everything is flat. ``tolerance``: grey levels that a flat line may span.
    """
    top, bottom, left, right = 0, image.shape[0], 0, image.shape[1]
    while True:
        part = image[top:bottom, left:right]
        rows = np.flatnonzero(np.ptp(part, axis=1) > tolerance)
        if not len(rows):
            return Box(0, 0, *image.shape)
        part = part[rows[0] : rows[-1] + 1]
        columns = np.flatnonzero(np.ptp(part, axis=0) > tolerance)
        if not len(columns):
            return Box(0, 0, *image.shape)
        found = (top + rows[0], top + rows[-1] + 1, left + columns[0], left + columns[-1] + 1)
        if found == (top, bottom, left, right):
            return Box(int(top), int(left), int(bottom - top), int(right - left))
        top, bottom, left, right = found


def reduced(image: np.ndarray, side: int = ANALYSIS_SIDE) -> np.ndarray:
    """A copy whose longer side has at most ``side`` pixels; antialiased. uint8."""
    height, width = image.shape
    if max(height, width) <= side:
        return image
    scale = side / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR, reducing_gap=3.0))


def exposed_box(image: np.ndarray) -> Box:
    """The exposed field of a reduced copy, uint8 (H, W), on which bone is bright; flat lines taken off
    before.

    A border is a run of lines, from the outside, whose pixels all but a few are within 5 % of the contrast
    (dark) or 1.5 % (bright) of one grey. Where the run ends in a steep edge that the lines cross within 8 %
    of the side, the border was askew, and the cut is made on that edge.
    """
    height, width = image.shape
    top, bottom, left, right = 0, height, 0, width
    if min(height, width) < 16:
        return Box(0, 0, height, width)
    low, high = np.percentile(image, (1, 99))
    if high - low < 2:
        return Box(0, 0, height, width)
    contrast = max(float(high - low), 8.0)
    middle = float(low + high) / 2
    work = image.astype(np.int16)
    for _ in range(4):
        before = (top, bottom, left, right)
        top += _depth(work[top:bottom, left:right], contrast, middle)
        bottom -= _depth(work[top:bottom, left:right][::-1], contrast, middle)
        left += _depth(work[top:bottom, left:right].T, contrast, middle)
        right -= _depth(work[top:bottom, left:right].T[::-1], contrast, middle)
        if before == (top, bottom, left, right):
            break
    if bottom - top < (1 - 2 * _MOST) * height or right - left < (1 - 2 * _MOST) * width:
        return Box(0, 0, height, width)
    return Box(int(top), int(left), int(bottom - top), int(right - left))


def _depth(lines: np.ndarray, contrast: float, middle: float) -> int:
    """How many of the first rows are border. int16, shape (L, M)."""
    count = len(lines)
    if min(lines.shape) < 4:
        return 0
    level = float(np.median(lines[0]))
    dark = level < middle
    tolerance = max((_DARK_TOLERANCE if dark else _BRIGHT_TOLERANCE) * contrast, 2.0)
    near = lines[: max(2, int(_MOST * count))]
    off = np.abs(near - level) > tolerance
    share = off.mean(axis=1)
    content = np.flatnonzero(share > _STRAY)
    if not len(content):
        return len(near)
    onset = int(content[0])
    if not dark or (onset == 0 and share[0] > _EDGE_CUT):
        return onset
    reach = max(3, int(_EDGE_REACH * count))
    window = share[onset : onset + reach]
    crossed = np.flatnonzero(window >= _EDGE_SHARE)
    if not len(crossed):
        return onset
    # How steep: what the pixels that become content on the way gain within two lines.
    end = onset + int(crossed[0])
    first = np.argmax(off[: end + 1], axis=0)
    entering = np.flatnonzero(off[: end + 1].any(axis=0) & (first >= onset))
    if len(entering) < 0.3 * lines.shape[1]:
        return onset
    inner = np.minimum(first[entering] + 2, count - 1)
    if np.median(lines[inner, entering]) - level < _EDGE_JUMP * contrast:
        return onset
    return onset + int(np.flatnonzero(window >= _EDGE_CUT)[0])
