"""Printed text in the pixels of a radiograph: names, dates and numbers that may say who the patient is.

What is looked for is a line of characters: narrow strokes, bright or dark, that stand close to each other in
a row or a column, as high as each other, with gaps between them. Nothing is read, so that a harmless
``PORTABLE`` counts as much as a name. How much is found is measured in ``benchmarks/burned_in.py``.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

#: Characters in a line from which on it counts: a lead letter with initials has fewer, a name or a date more.
CHARACTERS = 5
#: Images with a longer side of fewer pixels are not looked at: print cannot be read in them, and what looks
#: like it is something else.
SMALLEST = 200
#: Images are reduced to at most so many pixels on the longer side.
LARGEST = 1024

_HEIGHT = (0.008, 0.06)  # of the longer side; and at least 6 pixels
_STROKE = 0.006  # of the longer side: strokes are narrower than twice this
_CONTRAST = 0.16  # of the image's contrast: what a stroke stands out by
_GAP = 0.009  # of the longer side: the characters of a word are closer
_FILLED = (0.15, 0.75)  # how much of its box a line's strokes cover
_VALLEY = 0.35  # of a column's usual ink: between two characters there is less
_FULL = 0.5  # of the line's height: a character is at least so high
_UNEVEN = 0.2  # of the height: how far the words of a line may be higher or lower
_BLOCK = 32
_EDGES = 24  # steep steps in a block: there may be print


def printed(image: np.ndarray) -> int:
    """Whether a uint8 (H, W) image shows a line of text: 1 or 0; -1 where it is below :data:`SMALLEST`."""
    reduced = Image.fromarray(image)
    reduced.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    return int(bool(text_lines(np.asarray(reduced)))) if max(reduced.size) >= SMALLEST else -1


def text_lines(image: np.ndarray) -> list[tuple[slice, slice]]:
    """Where lines of at least :data:`CHARACTERS` printed characters are.

    - ``image``: uint8, shape (H, W), at the file's own resolution where the longer side is at most
      :data:`LARGEST`.
    - Returns: Rows and columns of each line; one may be found twice, as bright and as dark. Characters lower
      than 6 pixels or 0.8% of the longer side are not found, nor handwriting, nor single letters.
    """
    if min(image.shape) < 6:
        return []
    low, high = np.percentile(image[::4, ::4], (1, 99))
    contrast = max(float(high - low), 32.0)
    side = max(image.shape)
    found = []
    for rows, columns in _places(image, contrast):
        part = image[rows, columns]
        for dark_on_bright in (False, True):
            hat = _strokes(part, side, dark_on_bright)
            for turned in (False, True):
                for line in _lines(hat.T if turned else hat, contrast, side):
                    down, along = line[::-1] if turned else line
                    found.append((_moved(down, rows.start), _moved(along, columns.start)))
    return found


def _places(image: np.ndarray, contrast: float) -> list[tuple[slice, slice]]:
    """The parts of the image that are steep enough for print, with a margin: a quick look, all else is not
    worth a slow one."""
    steps = np.abs(np.diff(image.astype(np.int16), axis=1)) > 0.5 * _CONTRAST * contrast
    height, width = (-(-length // _BLOCK) for length in steps.shape)
    padding = [(0, height * _BLOCK - steps.shape[0]), (0, width * _BLOCK - steps.shape[1])]
    counts = np.pad(steps, padding).reshape(height, _BLOCK, width, _BLOCK).sum((1, 3))
    groups = ndimage.label(ndimage.binary_dilation(counts >= _EDGES, np.ones((3, 3), bool)))[0]
    return [
        (slice(rows.start * _BLOCK, rows.stop * _BLOCK), slice(columns.start * _BLOCK, columns.stop * _BLOCK))
        for rows, columns in ndimage.find_objects(groups)
    ]


def _strokes(part: np.ndarray, side: int, dark_on_bright: bool) -> np.ndarray:
    """How far each pixel stands out as part of a narrow stroke: int16, (H, W)."""
    reach = max(5, 2 * round(_STROKE * side) + 1)
    work = 255 - part if dark_on_bright else part
    return work.astype(np.int16) - ndimage.grey_opening(work, size=(reach, reach))


def _lines(hat: np.ndarray, contrast: float, side: int) -> list[tuple[slice, slice]]:
    ink = hat > _CONTRAST * contrast
    gap = max(2, round(_GAP * side))
    padded = np.pad(ink, ((0, 0), (gap, gap)))
    joined = ndimage.binary_closing(padded, np.ones((1, gap + 1), bool))[:, gap:-gap]
    groups = ndimage.label(joined, np.ones((3, 3)))[0]
    words = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(groups), 1):
        height = rows.stop - rows.start
        if height >= 6 and _HEIGHT[0] * side <= height <= _HEIGHT[1] * side:
            mine = ink[rows, columns] & (groups[rows, columns] == number)
            if _FILLED[0] <= mine.mean() <= _FILLED[1]:
                words.append((rows, columns, _characters(hat[rows, columns], mine)))
    return [(rows, columns) for rows, columns, count in _joined(words) if count >= CHARACTERS]


def _joined(words: list[tuple[slice, slice, int]]) -> list[tuple[slice, slice, int]]:
    """Words of the same height in the same rows, no further apart than they are high, as one line."""
    lines: list[tuple[slice, slice, int]] = []
    for rows, columns, count in sorted(words, key=lambda word: word[1].start):
        height = rows.stop - rows.start
        for place, (above, before, counted) in enumerate(lines):
            off = max(abs(rows.start - above.start), abs(rows.stop - above.stop))
            if off <= _UNEVEN * height and 0 <= columns.start - before.stop <= height:
                whole = slice(min(rows.start, above.start), max(rows.stop, above.stop))
                lines[place] = (whole, slice(before.start, columns.stop), counted + count)
                break
        else:
            lines.append((rows, columns, count))
    return lines


def _characters(hat: np.ndarray, ink: np.ndarray) -> int:
    """How many pieces between two valleys of the ink are as high as the line and no wider than a letter."""
    height = len(ink)
    profile = (hat * ink).mean(axis=0)
    pieces = ndimage.label(profile > _VALLEY * np.percentile(profile, 90))[0]
    count = 0
    for (piece,) in ndimage.find_objects(pieces):
        rows = np.flatnonzero(ink[:, piece].any(axis=1))
        wide = piece.stop - piece.start
        count += rows[-1] - rows[0] + 1 >= _FULL * height and 0.1 * height <= wide <= 1.5 * height
    return count


def _moved(one: slice, by: int) -> slice:
    return slice(one.start + by, one.stop + by)
