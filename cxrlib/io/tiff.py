"""TIFF pixels -> 8-bit grey: tifffile reads the file's structure, imagecodecs its compressions.

Pillow has no mode for colour of 16 bits, floats of 64 or integers of 12, and gives the upper bytes of some.
Ours is what neither does: what the pixels mean as grey, and that no strip is missing.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TiffFile

from cxrlib.errors import DecodeError
from cxrlib.io.pixels import (
    BAD_FILE,
    MAX_PIXELS,
    check_pixels,
    check_plausible,
    jpeg_frames,
    luma,
    oriented,
    over_black,
    palette_to_8_bit,
    to_8_bit,
    unsupported,
)

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it quotes what damaged tags hold

_CONVERT = "Save it as a plain TIFF or PNG of 8 or 16 bits, grey or RGB (magick IN -colorspace Gray OUT.png)."
_LOSSLESS = (1, 2, 3, 4, 5, 8, 32773, 32946, 50000)  # none, CCITT, LZW, deflate, PackBits, Zstandard
_JPEG = 7
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_ASSOCIATED, _UNASSOCIATED = 1, 2
_PREVIEW = 1  # bit of NewSubfileType


def read_tiff(path: Path, data: bytes) -> np.ndarray:
    """The one picture of a TIFF file, as :mod:`cxrlib.io.decode` says: uint8, (H, W), bone bright.

    Reduced previews on further pages are no second picture. Raises a DecodeError that says what is not
    supported, missing or damaged.
    """
    with TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        check_pixels(path, page.imagelength, page.imagewidth)
        _check_pages(path, file)
        _check_supported(path, page)
        _check_whole(path, page, data)
        # (planes, depth, height, width, samples): planes or samples are the channels
        stored = page.asarray(squeeze=False, maxworkers=1)[:, 0]
        values = stored[0] if stored.shape[0] == 1 else np.moveaxis(stored[..., 0], 0, -1)
        values = oriented(values, int(getattr(page.tags.get(274), "value", 1) or 1))
        return _gray(path, page, values)


def _check_pages(path: Path, file: TiffFile) -> None:
    for number in range(1, 9):  # counting them all would take a chain of a million empty ones long
        try:
            page: Any = file.pages[number]
        except IndexError:
            return
        if not int(page.subfiletype) & _PREVIEW:
            break
    raise unsupported(
        path, "holds several pages", "Save the page that counts as a file of its own (magick IN[0] OUT.png)."
    )


def _check_supported(path: Path, page: Any) -> None:
    bits = page.bitspersample
    if isinstance(bits, tuple) or page.dtype is None or np.dtype(page.dtype).kind not in "biuf":
        raise unsupported(path, f"holds pixels of {bits} bits in the format {page.sampleformat}", _CONVERT)
    if int(page.compression) not in (*_LOSSLESS, _JPEG):
        name = getattr(page.compression, "name", page.compression)
        raise unsupported(path, f"is a TIFF of the compression {name}", _CONVERT)
    kind = int(page.photometric)
    channels = page.samplesperpixel - len(page.extrasamples)
    fits = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _YCBCR: 3}.get(kind)
    if kind == _RGB and channels == 4:  # the extra sample is not said to be one
        fits = 4
    if fits != channels or page.samplesperpixel > channels + 1 or page.imagedepth != 1:
        name = {5: "CMYK"}.get(kind, getattr(page.photometric, "name", kind))
        raise unsupported(
            path, f"is a TIFF of the colours {name} with {page.samplesperpixel} samples a pixel", _CONVERT
        )


def _check_whole(path: Path, page: Any, data: bytes) -> None:
    """Strips and tiles that are missing would come out black: to tifffile a file may have holes."""
    wanted = int(np.prod(page.chunked))
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(places) < wanted or any(
        not 0 < start < start + size <= len(data) for start, size in places[:wanted]
    ):
        raise DecodeError(f"{path} is damaged or truncated: pixels are missing.", remedy=BAD_FILE)
    if int(page.compression) == _JPEG:
        for start, size in places[:wanted]:
            for _, _, height, width, _ in jpeg_frames(data[start : start + size]):
                if height * width > min(MAX_PIXELS, 4 * page.chunks[-3] * page.chunks[-2] + 2**16):
                    raise DecodeError(
                        f"{path} is damaged: a strip claims {width} × {height} pixels.", remedy=BAD_FILE
                    )


def _gray(path: Path, page: Any, values: np.ndarray) -> np.ndarray:
    kind, extra = int(page.photometric), int(page.extrasamples[0]) if page.extrasamples else 0
    check = "its photometric interpretation, bits per sample and alpha channel"
    if kind == _PALETTE:
        return _looked_up(path, page, values[..., 0])
    if kind == _YCBCR and int(page.compression) != _JPEG:  # JPEG comes as RGB
        if values.dtype != np.uint8:
            raise unsupported(path, "is a TIFF of YCbCr colours of more than 8 bits", _CONVERT)
        return np.ascontiguousarray(values[..., 0])
    colour = values[..., :3] if kind in (_RGB, _YCBCR) else values[..., 0]
    bits = int(page.bitspersample)
    if bits < 8 or colour.dtype == bool:
        colour = np.rint(colour * (255.0 / (2**bits - 1))).astype(np.uint8)
    elif colour.dtype != np.uint8:
        colour = to_8_bit(colour, path, bits if colour.dtype.kind == "u" and bits <= 16 else 16)
    gray = luma(np.ascontiguousarray(colour)) if colour.ndim == 3 else np.ascontiguousarray(colour)
    if values.dtype.itemsize > 1:
        check_plausible(path, values[..., 0], gray, check)
    if kind == _WHITE_IS_ZERO:
        gray = 255 - gray
    if extra == _UNASSOCIATED:  # associated alpha has been laid over black already
        gray = over_black(path, gray, values[..., -1])
    return gray


def _looked_up(path: Path, page: Any, indices: np.ndarray) -> np.ndarray:
    table = np.asarray(page.colormap).T  # (entries, 3), 16 bits
    gray = luma(palette_to_8_bit(table[None], path))[0][np.minimum(indices, len(table) - 1)]
    check_plausible(path, indices, gray, "its colour map")
    return gray
