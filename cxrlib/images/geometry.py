"""Where the pixels of a processed image come from, and the way there and back for points, boxes and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from cxrlib.errors import DataError
from cxrlib.io.decode import placed

#: The columns of a preprocessed cohort's table that hold a :class:`Geometry`, all in pixels of the original.
GEOMETRY_COLUMNS = (
    "source_height", "source_width", "crop_top", "crop_left", "crop_height", "crop_width",
)  # fmt: skip


@dataclass(frozen=True)
class Geometry:
    """A part of an original image, letterboxed to a square.

    - ``height``, ``width``: of the original, in pixels.
    - ``top``, ``left``, ``crop_height``, ``crop_width``: the part that was kept, in the original's pixels;
      fractions where it was found on a reduced copy.
    - ``size``: side of the processed image, in pixels.
    - ``fit``: as in :func:`cxrlib.io.decode.resize`.

    Coordinates are continuous: the first pixel reaches from 0 to 1. Points are (x, y), boxes (x0, y0, x1,
    y1).
    """

    height: int
    width: int
    top: float
    left: float
    crop_height: float
    crop_width: float
    size: int
    fit: str = "letterbox"

    @classmethod
    def whole(cls, height: int, width: int, size: int, fit: str = "letterbox") -> Geometry:
        """Nothing cut off."""
        return cls(height, width, 0.0, 0.0, float(height), float(width), size, fit)

    @property
    def _affine(self) -> tuple[float, float, float, float]:
        """x' = x · sx + tx and y' = y · sy + ty, from the original to the processed image: sx, tx, sy, ty."""
        top, left, height, width = self.placed
        sx, sy = width / self.crop_width, height / self.crop_height
        return sx, left - self.left * sx, sy, top - self.top * sy

    @property
    def placed(self) -> tuple[int, int, int, int]:
        """Where the part lies in the processed image: top, left, height, width in its pixels."""
        # Sizes in whole pixels, as the image had them when it was resized.
        shape = (max(1, round(self.crop_height)), max(1, round(self.crop_width)))
        return placed(shape[0], shape[1], self.size, self.fit)

    def to_processed_points(self, points: ArrayLike) -> np.ndarray:
        """(…, 2) float points of the original -> of the processed image. May lie outside."""
        sx, tx, sy, ty = self._affine
        return np.asarray(points, np.float64) * (sx, sy) + (tx, ty)

    def to_original_points(self, points: ArrayLike) -> np.ndarray:
        """(…, 2) float points of the processed image -> of the original."""
        sx, tx, sy, ty = self._affine
        return (np.asarray(points, np.float64) - (tx, ty)) / (sx, sy)

    def to_processed_box(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of the original -> of the processed image, cut at its edges."""
        return _clipped(self.to_processed_points(_corners(box)), self.size, self.size)

    def to_original_box(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of the processed image -> of the original, cut at its edges."""
        return _clipped(self.to_original_points(_corners(box)), self.height, self.width)

    def to_processed_mask(self, mask: np.ndarray) -> np.ndarray:
        """uint8 0/1 (height, width) -> uint8 0/1 (size, size); a pixel counts where half its area does."""
        self._check(mask, (self.height, self.width))
        return self._resampled(mask, inverse=False)

    def to_original_mask(self, mask: np.ndarray) -> np.ndarray:
        """uint8 0/1 (size, size) -> uint8 0/1 (height, width); nothing outside the part that was kept."""
        self._check(mask, (self.size, self.size))
        return self._resampled(mask, inverse=True)

    def _resampled(self, mask: np.ndarray, inverse: bool) -> np.ndarray:
        top, left, height, width = self.placed
        processed = (left, top, left + width, top + height)
        original = (self.left, self.top, self.left + self.crop_width, self.top + self.crop_height)
        source, target = (processed, original) if inverse else (original, processed)
        shape = (self.height, self.width) if inverse else (self.size, self.size)
        rows = slice(max(0, round(target[1])), min(shape[0], round(target[3])))
        columns = slice(max(0, round(target[0])), min(shape[1], round(target[2])))
        result = np.zeros(shape, np.uint8)
        extent = (columns.stop - columns.start, rows.stop - rows.start)
        if min(extent) > 0:
            image = Image.fromarray((np.asarray(mask) > 0).astype(np.uint8) * np.uint8(255))
            box = tuple(np.clip(source, 0, (image.width, image.height) * 2))
            # Antialiased, so that half of the range is half of the area.
            part = image.resize(extent, Image.Resampling.BILINEAR, box=box)
            result[rows, columns] = np.asarray(part) >= 128
        return result

    def _check(self, mask: np.ndarray, shape: tuple[int, int]) -> None:
        if mask.shape != shape:
            raise DataError(
                f"The mask has the shape {mask.shape}, and its image {shape}.",
                remedy="Give the mask of this very image, at its resolution.",
            )


def _corners(box: Sequence[float]) -> np.ndarray:
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1, y1]], np.float64)


def _clipped(corners: np.ndarray, height: int, width: int) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = np.clip(corners, 0, (width, height))
    return float(x0), float(y0), float(x1), float(y1)
