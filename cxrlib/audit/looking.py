"""What an audit needs of a file at its own resolution, found while it is decoded, and not in a second time.

    with beside(Look):
        cohort = cxrlib.load("folder", …)

gives the cohort that ``load`` gives, with its lung masks, and :func:`cxrlib.audit.features.describe` finds
there which files show print and how their pictures were made. Any other cohort's files are decoded for that.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cxrlib.audit.made import made
from cxrlib.cohort import Cohort
from cxrlib.errors import DecodeError
from cxrlib.images.burned_in import SMALLEST, printed
from cxrlib.io.decode import decode, placed, resize
from cxrlib.io.storage import read_array
from cxrlib.lungs.masks import lung_masks, made_by
from cxrlib.lungs.shipped import shipped_probabilities

VERSION = 4
"""Raised by one whenever the same images may give other features: what is kept is keyed by it."""

#: The features of :func:`cxrlib.audit.made.made` of what is too small, or cannot be read any more: NaN.
_BLANK = made(np.zeros((64, 64), np.uint8))

_ROW = np.dtype(
    [("path", "S16"), ("problem", "S80"), ("printed", np.int8)]
    + [(name, np.float32, part.shape) for name, part in _BLANK.items()]
)


@dataclass(frozen=True)
class Look:
    """For :func:`cxrlib.io.cache.decode_files`: the resized image, its lungs, and what the file shows.

    ``size``: pixels a side of the image; ``fit``: as of :func:`cxrlib.io.decode.resize`.
    """

    size: int
    fit: str
    label: ClassVar[str] = "Decoding"

    @property
    def key(self) -> str:
        return f"look {VERSION} {self.fit} {made_by()}"

    @property
    def beside(self) -> Mapping[str, np.dtype]:
        return {"lungs": np.dtype((np.uint8, (self.size, self.size))), "looked": _ROW}

    def __call__(
        self, image: np.ndarray, row: int, shape: tuple[int, int], size: int, path: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        small = resize(image, size, self.fit)
        masks, problems = lung_masks(shipped_probabilities(small[None]), small.shape)
        pixels = image if image.shape == shape else None  # decoded at a fraction of its size
        found = np.zeros((), _ROW)
        found["path"], found["problem"] = named(path), problems[0]
        field = placed(*shape, size, self.fit)
        for name, value in look_at(small, masks[0], field, path, True, pixels).items():
            found[name] = value
        return small, masks[0], found


def look_at(
    image: np.ndarray,
    mask: np.ndarray,
    field: tuple[int, int, int, int],
    path: str | None,
    whole: bool,
    pixels: np.ndarray | None = None,
) -> dict[str, Any]:
    """How a picture was made, by its file if there is one, and whether print is in it (``printed``, int).

    ``field``: top, left, height and width of what is image and not padding. ``whole``: the field is all of
    the file, so that the mask says where lungs are in it. ``pixels``: the file's, where they are at hand.
    """
    top, left, height, width = field
    lungs, text = mask[top : top + height, left : left + width], -2
    if path is None:
        pixels = image[top : top + height, left : left + width]
    else:
        try:
            pixels = decode(path) if pixels is None else pixels
        except DecodeError:
            return {**_BLANK, "printed": np.int8(-1)}
        text = printed(pixels)
    # In a smaller picture a letter fills a tile, and would pass for how the picture was made.
    small = min(pixels.shape) < SMALLEST
    features = _BLANK if small else made(pixels, lungs if whole or path is None else None)
    return {**features, "printed": np.int8(text)}


@dataclass(frozen=True)
class Found:
    """What was found in a cohort's files when they were decoded.

    - ``masks``: of the cohort as it is now, (N, H, W).
    - ``looked``, ``lungs``: what is kept, (K, …). ``rows``: where in it an image is, int (N,), or -1.
    """

    masks: np.ndarray
    looked: np.ndarray
    lungs: np.ndarray
    rows: np.ndarray

    def of(self, rows: Sequence[int]) -> list[np.void | None]:
        """What holds still of these images: the mask is the one that was found, and not empty."""
        found: list[np.void | None] = []
        for row in rows:
            there, mask = self.rows[row], self.masks[row]
            same = there >= 0 and mask.any() and np.array_equal(mask, self.lungs[there])
            found.append(self.looked[there].copy() if same else None)
        return found


def found_before(cohort: Cohort) -> Found | None:
    """What :class:`Look` found in the files of this cohort; None where it has not looked at them."""
    folder = cohort.info.get("looked")
    if folder is None or cohort.lung_masks is None:
        return None
    try:
        names = ("looked", "lungs")
        looked, lungs = (read_array(Path(folder) / f"{name}.npy", mmap_mode="r") for name in names)
    except (OSError, ValueError):  # the cache is gone: the files are there
        return None
    if looked.dtype != _ROW or lungs.shape[1:] != cohort.lung_masks.shape[1:]:
        return None
    there = {path: row for row, path in enumerate(looked["path"].tolist())}
    rows = np.array([there.get(named(path), -1) for path in cohort.table["path"].astype(str)])
    return Found(cohort.lung_masks, looked, lungs, rows)


def named(path: str) -> bytes:
    """16 hexadecimal digits for a path."""
    whole = os.path.abspath(path).encode("utf-8", "surrogateescape")
    return hashlib.sha256(whole).hexdigest()[:16].encode()
