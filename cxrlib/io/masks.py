"""A file that marks pixels -> a mask: read as one, not as a photograph."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from cxrlib.io.decode import decode, file_bytes, kind_of, resize

_LABELS = 16
"""Values up to this are numbers of regions (0 and 1; 0, 1 and 2), not greys."""


def read_mask(path: str | Path) -> np.ndarray:
    """What a mask file marks: bool, (H, W).

    Of a colour or palette image the brightest channel counts, so that dark red is no black; of an image with
    alpha what is neither black nor transparent, and of a black one what is not transparent. In files of 0
    and 1, or of a few numbered regions, all that is not 0 is marked; otherwise what has half of the file's
    greatest value, so that JPEG's noise and smoothed outlines do no harm.

    Raises a DecodeError, as :func:`cxrlib.io.decode.decode` does.
    """
    path = Path(path)
    data = file_bytes(path)
    kind = kind_of(path, data)
    gray = decode(path)  # its checks, whatever the mask is made of
    values = gray.astype(np.int64)
    if kind in ("PNG", "BMP"):
        with Image.open(io.BytesIO(data), formats=("PNG", "BMP")) as image:
            if image.getexif().get(0x0112, 1) == 1:
                values = _marked(image)
    top = values.max()
    return values > 0 if top <= _LABELS else values >= top // 2


def _marked(image: Image.Image) -> np.ndarray:
    if image.mode in ("P", "LA", "PA", "RGB", "RGBA"):
        pixels = np.asarray(image.convert("RGBA")).astype(np.int64)
        alpha, colour = pixels[..., 3], pixels[..., :3].max(axis=2)
        if alpha.min() == alpha.max():
            return colour
        seen = colour * alpha // 255
        return seen if seen.any() else alpha
    return np.asarray(image).astype(np.int64) * (255 if image.mode == "1" else 1)


@dataclass(frozen=True)
class MaskReader:
    """For :func:`cxrlib.io.cache.decode_files`: files are read as masks and resized as 0 and 255."""

    fit: str = "letterbox"
    key: ClassVar[str] = "masks 1"
    beside: ClassVar[dict[str, np.dtype]] = {}

    @staticmethod
    def read(path: str | Path, *, minimum: int | None = None) -> tuple[np.ndarray, tuple[int, int]]:
        mask = read_mask(path)
        return np.where(mask, np.uint8(255), np.uint8(0)), mask.shape

    def __call__(
        self, image: np.ndarray, row: int, shape: tuple[int, int], size: int, path: str
    ) -> tuple[np.ndarray]:
        return (resize(image, size, self.fit),)
