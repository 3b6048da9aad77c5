"""What every kind of image file is held to: limits, grey levels from deeper values, luma."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
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
_LEVELS = 20
"""A picture of fewer grey levels, from a file that has more, has lost them on the way."""
_BAND = 32  # nor does a radiograph fit between so few of 256
_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
_BARE = {0x01, 0xD8, *range(0xD0, 0xD8)}  # JPEG's markers without a length


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


def quantiles(counts: np.ndarray, shares: Sequence[float] | np.ndarray) -> np.ndarray:
    """Quantiles, as numpy has them, of whole numbers from 0, by how often each occurs: (Q, N).

    ``counts``: int, (N, D), whose rows have the same sum. ``shares``: Q, each from 0 to 1.
    """
    upto = np.cumsum(counts, axis=1)
    at = np.array(shares) * (upto[0, -1] - 1)
    below, above = (
        np.stack([np.argmax(upto > one, axis=1) for one in place]) for place in (np.floor(at), np.ceil(at))
    )
    return below + (at % 1)[:, None] * (above - below)


def depth(top: float, declared: int = 16) -> int:
    """The bits that values up to ``top`` use: those declared, unless they are too few or much too many.

    Detectors write 10 to 16 bits into 16-bit files, and headers of images and lookup tables often say 16.
    """
    if 2 ** (declared - 2) <= top < 2**declared:
        return declared
    return next(bits for bits in (8, 10, 12, 14, 16, 32, 64) if top < 2**bits)


def to_8_bit(values: np.ndarray, path: Path, declared: int = 16) -> np.ndarray:
    """Map values of any depth to 0–255 as :mod:`cxrlib.io.decode` says; ``declared``: bits by the header.

    Any shape; all channels of a colour image are mapped alike.
    """
    low, high = values.min(), values.max()
    if np.issubdtype(values.dtype, np.floating):
        if not np.isfinite([low, high]).all():
            count = int((~np.isfinite(values)).sum())
            raise DecodeError(f"{path} holds {count} pixels that are NaN or infinite.", remedy=BAD_FILE)
        if low >= 0 and high <= 1:
            return in_strips(values, lambda part: part * 255.0)
        if any((part != np.rint(part)).any() for part in strips(values)):
            return stretched(values)
    if low < 0 or high > 65_535:
        return stretched(values)
    factor = 255.0 / (2 ** depth(float(high), declared) - 1)
    return in_strips(values, lambda part: part * factor)


def oriented(values: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, …) as EXIF's or TIFF's orientation 1–8 says that it is to be looked at."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values[:, ::-1] if orientation in (2, 3, 6, 7) else values)


def check_plausible(path: Path, stored: np.ndarray, gray: np.ndarray, what: str) -> None:
    """Raise a DecodeError where the picture has lost nearly all the grey levels that the file has.

    ``stored``: (H, W), the file's own values; ``gray``: uint8 (H, W); ``what``: what to check in the file.
    """
    step = 1 + int((stored.size / 2**17) ** 0.5)
    values, levels = stored[::step, ::step].ravel(), gray[::step, ::step].ravel()
    low, high = np.percentile(values, (1, 99))
    inside = (values >= low) & (values <= high)  # a letter at full white, or a border, hides nothing
    for part, kept in ((values, levels), (values[inside], levels[inside])):
        had, has = len(np.unique(part)), np.unique(kept)
        if had >= 2 * _LEVELS and (
            len(has) < _LEVELS or (had > 4 * len(has) and int(has[-1]) - int(has[0]) < _BAND)
        ):
            raise DecodeError(
                f"{path} would come out in {len(has)} grey levels, {has[0]} to {has[-1]} of 255, and holds "
                f"{had} values or more, {values.min():g} to {values.max():g}.",
                remedy=f"Check {what}; export it again, or leave it out (skip_bad=True, --skip-bad).",
            )


def palette_to_8_bit(table: np.ndarray, path: Path) -> np.ndarray:
    """A palette's 16-bit entries -> uint8. Many writers shift 8 bits up rather than spread them."""
    if not (table % 256).any():
        return (table // 256).astype(np.uint8)
    return to_8_bit(table, path)


def over_black(path: Path, gray: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay ``gray`` over black. ``alpha``: of the same shape, up to the most that its depth holds, or 1.0."""
    bits = 8 * alpha.dtype.itemsize
    top = 2 ** (depth(float(alpha.max())) if bits > 8 else 8) - 1 if alpha.dtype.kind == "u" else 1.0
    if (alpha == top).all():
        return gray
    pairs = zip(strips(gray), strips(alpha), strict=True)
    laid = np.concatenate([np.rint(g * (a / top)).astype(np.uint8) for g, a in pairs])
    check_plausible(path, gray, laid, "its alpha channel, which hides the picture")
    return laid


def unsupported(path: Path, what: str, how: str) -> DecodeError:
    """The error for a whole file of a kind that is not read; ``how``: what converts it."""
    return DecodeError(
        f"{path} {what}, which is not read here.",
        remedy=f"{how} Or leave it out (skip_bad=True, --skip-bad).",
    )


def jpeg_frames(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """(SOF marker, bits, height, width, component ids) of each frame header before a JPEG's first scan."""
    position = 2
    while data[:2] == b"\xff\xd8" and len(head := data[position : position + 10]) == 10:
        if head[0] != 0xFF:
            position += 1  # what lies between segments is skipped, as decoders do
        elif head[1] == 0xFF or head[1] in _BARE:
            position += 1 if head[1] == 0xFF else 2
        elif head[1] == 0xDA:
            return
        else:
            if head[1] in _SOF:
                ids = data[position + 10 : position + 10 + 3 * head[9] : 3]
                yield (head[1], head[4], *struct.unpack(">HH", head[5:9]), ids)
            position += 2 + struct.unpack(">H", head[2:4])[0]


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
