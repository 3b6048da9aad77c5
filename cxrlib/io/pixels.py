"""What every kind of image file is held to: limits, grey levels from deeper values, luma."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cxrlib.errors import DecodeError

MAX_PIXELS = 50_000_000
"""An image with more is refused before it is decoded. The largest radiographs have some 25 million."""

MAX_BYTES = 2**28

MAX_SCANNED = 500_000_000
"""Pixels times scans of a JPEG: each of thousands of empty scans costs as much time as a whole image."""

BAD_FILE = "Fetch the file again, or leave it out (skip_bad=True, --skip-bad)."
_PERCENTILES = (0.1, 99.9)


def stretched(values: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Map the 0.1st percentile to 0 and the 99.9th to 255, linearly; a constant image becomes black.

    ``valid``: bool of the same shape; only these pixels set the percentiles.
    """
    sample = values if valid is None or not valid.any() else values[valid]
    low, high = np.percentile(sample, _PERCENTILES)
    if high <= low:
        # More than 99.8 % of the pixels are equal; whatever else there is still shows.
        low, high = float(sample.min()), float(sample.max())
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    if not np.isfinite(float(high) - float(low)):
        return stretched(values / np.asarray(4, values.dtype), valid)
    factor = 255.0 / (float(high) - float(low))
    return in_strips(values, lambda part: np.clip((part - float(low)) * factor, 0, 255))


def strips(values: np.ndarray) -> list[np.ndarray]:
    """The image in strips of some million pixels, so that wide intermediate types do not multiply memory."""
    return np.array_split(values, 1 + values.size // 2**20)


def in_strips(values: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``function`` of the image, rounded to uint8; it is given float64."""
    return np.concatenate([np.rint(function(p.astype(float))).astype(np.uint8) for p in strips(values)])


def luma(rgb: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (H, W), ITU-R BT.601; equal channels come out unchanged."""
    return np.asarray(Image.fromarray(rgb).convert("L"))


def check_pixels(path: Path, height: int, width: int) -> None:
    """Raise a DecodeError where an image would not fit into :data:`MAX_PIXELS`."""
    if height < 1 or width < 1:
        raise DecodeError(f"{path} is an image of {width} × {height} pixels.", remedy=BAD_FILE)
    if height * width > MAX_PIXELS:
        raise too_large(path, f"{width:,} × {height:,}")


def check_scans(path: Path, data: bytes, pixels: int) -> None:
    """Raise a DecodeError where a JPEG asks for more work than :data:`MAX_SCANNED`."""
    scans = data.count(b"\xff\xda")
    if scans > 10 and scans * pixels > MAX_SCANNED:
        raise DecodeError(f"{path} is a JPEG of {scans:,} scans.", remedy="Save it again as a plain JPEG.")


def too_large(path: Path, found: str) -> DecodeError:
    return DecodeError(
        f"{path} claims to have {found} pixels; the limit is {MAX_PIXELS:,}.",
        remedy="Check that it is a radiograph, and reduce it if it is.",
    )
