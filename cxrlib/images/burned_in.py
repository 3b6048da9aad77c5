"""Printed text in the pixels of a radiograph: names, dates and numbers that may say who the patient is.

What is looked for is a line of characters: narrow strokes, bright or dark, that stand close to each other in
a row or a column, as high as each other, with gaps between them. Nothing is read, so that a harmless
``PORTABLE`` counts as much as a name. How much is found is measured in ``benchmarks/burned_in.py``.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cxrlib.io.pixels import quantiles

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
    if max(image.shape) > LARGEST:
        smaller = Image.fromarray(image)
        smaller.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
        image = np.asarray(smaller)
    return int(bool(text_lines(image))) if max(image.shape) >= SMALLEST else -1


def text_lines(image: np.ndarray) -> list[tuple[slice, slice]]:
    """Where lines of at least :data:`CHARACTERS` printed characters are.

    - ``image``: uint8, shape (H, W), at the file's own resolution where the longer side is at most
      :data:`LARGEST`.
    - Returns: Rows and columns of each line; one may be found twice, as bright and as dark. Characters lower
      than 6 pixels or 0.8% of the longer side are not found, nor handwriting, nor single letters.
    """
    if min(image.shape) < 6:
        return []
    low, high = quantiles(np.bincount(image[::4, ::4].ravel())[None], (0.01, 0.99))[:, 0]
    contrast = max(float(high - low), 32.0)
    side, least = max(image.shape), int(_CONTRAST * contrast)
    strong = np.zeros((2, *image.shape), np.uint8)  # bright strokes, dark ones
    for rows, columns in _near(image, contrast):
        strong[:, rows, columns] = _hats(image, side, rows, columns)
    layers = []  # of both kinds the rows and columns, then the columns and rows
    for hat in strong:
        row, column = np.divmod(np.flatnonzero(hat > least), image.shape[1])
        strength = hat[row, column]
        turned = np.argsort(column.astype(np.uint16), kind="stable")
        layers += [(row, column, strength), (column[turned], row[turned], strength[turned])]
    found = []
    for layer, words in _words(layers, side).items():
        lines = [line for *line, count in _joined(words) if count >= CHARACTERS]
        found += [(along, down) if layer % 2 else (down, along) for down, along in lines]
    return found


def _near(image: np.ndarray, contrast: float) -> list[tuple[slice, slice]]:
    """The parts of the image that are steep enough for print, with a margin: boxes, which may overlap."""
    height, width = (-(-(length - (axis == 1)) // _BLOCK) for axis, length in enumerate(image.shape))
    least, rows = int(0.5 * _CONTRAST * contrast), np.zeros((height, width * _BLOCK), np.uint8)
    for number in range(height):  # as much at a time as the processor's cache holds
        part = image[number * _BLOCK : (number + 1) * _BLOCK]
        left, right = part[:, :-1], part[:, 1:]
        steps = np.maximum(left, right) - np.minimum(left, right) > least
        np.add.reduce(steps.view(np.uint8), axis=0, out=rows[number, : steps.shape[1]])
    counts = rows.reshape(height, width, _BLOCK).sum(2, np.int32)
    groups = ndimage.label(ndimage.binary_dilation(counts >= _EDGES, np.ones((3, 3), bool)))[0]
    tall, wide = (
        [*range(0, count * _BLOCK, _BLOCK), length]
        for count, length in zip(groups.shape, image.shape, strict=True)
    )
    return [
        (slice(tall[rows.start], tall[rows.stop]), slice(wide[columns.start], wide[columns.stop]))
        for rows, columns in ndimage.find_objects(groups)
    ]


def _hats(image: np.ndarray, side: int, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """How far each pixel of a part stands out as part of a narrow bright stroke, and of a dark one: uint8."""
    reach = max(5, 2 * round(_STROKE * side) + 1)
    around, inner = zip(*(_widened(part, reach - 1) for part in (rows, columns)), strict=True)
    part = image[around]
    opened = extreme(extreme(part, reach, np.minimum), reach, np.maximum)
    closed = extreme(extreme(part, reach, np.maximum), reach, np.minimum)
    return (part - opened)[inner], (closed - part)[inner]


def _widened(part: slice, by: int) -> tuple[slice, slice]:
    """A slice with so many more on either side where there are, and where in it the slice is."""
    start = max(0, part.start - by)
    return slice(start, part.stop + by), slice(part.start - start, part.stop - start)


def extreme(image: np.ndarray, size: int, of: np.ufunc) -> np.ndarray:
    """The minimum or maximum of ``size`` × ``size`` pixels (odd), in log2 of the size steps a direction."""
    far, neutral = size // 2, 255 if of is np.minimum else 0
    padded = np.full([side + 2 * far for side in image.shape], neutral, image.dtype)  # np.pad is slower
    padded[far : far + image.shape[0], far : far + image.shape[1]] = image
    image = padded
    for axis in (0, 1):
        done = 1
        while done < size:
            step = min(done, size - done)
            parts = (slice(None, -step), slice(step, None))
            first, second = (image[part] if axis == 0 else image[:, part] for part in parts)
            image, done = of(first, second), done + step
    return image


_Strokes = tuple[np.ndarray, np.ndarray, np.ndarray]  # row, column and strength of each pixel, in order
_Word = tuple[slice, slice, int]


def _words(layers: list[_Strokes], side: int) -> dict[int, list[_Word]]:
    """Groups of strokes as high as print: for each layer their rows, columns, and how many characters.

    All layers are gone through at once, one below the other. Strokes of a row with gaps as between letters
    are a run, and runs that touch one in the next row are a group.
    """
    tall = side + 2
    at = np.concatenate([(row + tall * n) * tall + column + 1 for n, (row, column, _) in enumerate(layers)])
    strength = np.concatenate([strength for _, _, strength in layers])
    if not len(at):
        return {}
    row, column = np.divmod(at, tall)
    begins = np.append(True, (np.diff(at) > max(2, round(_GAP * side)) + 1) | (np.diff(row) > 0))
    run = np.flatnonzero(begins)
    start, stop, ink = at[run], at[np.append(run[1:], len(at)) - 1] + 1, np.diff(run, append=len(at))
    # A run touches those of the row above that end no earlier than it begins and begin no later than it ends.
    first = np.searchsorted(stop, start - tall)
    touched = np.maximum(np.searchsorted(start, stop - tall, side="right") - first, 0)
    below = np.repeat(np.arange(len(run)), touched)
    above = np.arange(len(below)) + np.repeat(first - np.cumsum(touched) + touched, touched)
    graph = coo_array((np.ones(len(below), bool), (below, above)), shape=(len(run),) * 2)
    group = connected_components(graph, directed=False)[1]
    order = np.argsort(group, kind="stable")
    edges = np.flatnonzero(np.diff(group[order], prepend=-1))
    top, bottom = row[run][order][edges], row[run][order][np.append(edges[1:], len(order)) - 1] + 1
    left = np.minimum.reduceat(column[run][order], edges)
    right = np.maximum.reduceat((column[run] + stop - start)[order], edges)
    height, filled = bottom - top, np.add.reduceat(ink[order], edges) / ((bottom - top) * (right - left))
    fits = (height >= max(6, _HEIGHT[0] * side)) & (height <= _HEIGHT[1] * side)
    fits &= (filled >= _FILLED[0]) & (filled <= _FILLED[1])
    mine = group[np.cumsum(begins) - 1]
    kept = fits[mine]
    number = (np.cumsum(fits) - 1)[mine[kept]]
    box = top[fits], bottom[fits], left[fits], right[fits]
    characters = _characters(number, row[kept], column[kept], strength[kept], *box)
    words: dict[int, list[_Word]] = {}
    for which, count in enumerate(characters.tolist()):
        first_row, last_row, first_column, last_column = (int(one[which]) for one in box)
        layer = first_row // tall
        rows = slice(first_row % tall, last_row - layer * tall)
        words.setdefault(layer, []).append((rows, slice(first_column - 1, last_column - 1), count))
    return words


def _characters(
    word: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    strength: np.ndarray,
    top: np.ndarray,
    bottom: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
) -> np.ndarray:
    """How many pieces between two valleys of a word's ink are as high as it and no wider than a letter.

    Of each pixel its ``word``, place and ``strength``; of each word its box. Returns int, one a word.
    """
    height, width = bottom - top, right - left
    begin = np.cumsum(width + 1) - width - 1  # the words' columns side by side, an empty one after each
    of = np.repeat(np.arange(len(width)), width + 1)
    place = begin[word] + column - left[word]
    profile = np.bincount(place, strength, minlength=len(of)) / height[of]
    usual = begin + 1 + 0.9 * (width - 1)  # the 90th percentile; the empty column comes first
    below = usual.astype(int)
    ordered = profile[np.lexsort((profile, of))]
    beyond = ordered[np.minimum(below + 1, begin + width)]
    level = ordered[below] + (usual - below) * (beyond - ordered[below])
    high = np.append(False, profile > _VALLEY * level[of])
    edges = np.flatnonzero(np.diff(high))
    start, stop = edges[::2], edges[1::2]
    if not len(start):
        return np.zeros(len(width), int)
    uppermost, lowest = np.full(len(of), row.max(initial=0)), np.zeros(len(of), row.dtype)
    by_row = np.argsort(row, kind="stable")  # of what is written to one place, the last stays
    uppermost[place[by_row[::-1]]], lowest[place[by_row]] = row[by_row[::-1]], row[by_row]
    uppermost = np.minimum.reduceat(uppermost, edges)[::2]
    lowest = np.maximum.reduceat(lowest, edges)[::2]
    line, wide = height[of[start]], stop - start
    fits = (lowest - uppermost + 1 >= _FULL * line) & (0.1 * line <= wide) & (wide <= 1.5 * line)
    return np.bincount(of[start[fits]], minlength=len(width))


def _joined(words: list[_Word]) -> list[_Word]:
    """Words of the same height in the same rows, no further apart than they are high, as one line."""
    lines: list[_Word] = []
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
