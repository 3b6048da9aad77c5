"""DICOM pixels -> 8-bit grayscale, with rescale, window and photometric interpretation applied.

References: DICOM PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT and windows), C.7.6.3.1.2 (MONOCHROME1 and 2).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.filereader import dcmread
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array

from cxrlib.errors import DecodeError
from cxrlib.io.pixels import MAX_BYTES, check_pixels, check_scans, luma, stretched

_SIZ = b"\xff\x4f\xff\x51"  # how a JPEG 2000 code stream begins
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}  # JPEG's SOFn
_BARE = {0x01, 0xD8, *range(0xD0, 0xD8)}  # markers without a length
_REMEDY = (
    "Export the radiograph again as a single-frame DICOM image, or leave it out (skip_bad=True, --skip-bad)."
)


_silenced: ContextVar[bool] = ContextVar("silenced", default=False)
pydicom.config.logger.addFilter(lambda _: not _silenced.get())


@contextmanager
def silent() -> Iterator[None]:
    """Keep pydicom from logging: what it says of a damaged file quotes names and dates from its header.

    Of this thread alone: another one that ends earlier does not let it speak again.
    """
    token = _silenced.set(True)
    try:
        yield
    finally:
        _silenced.reset(token)


@silent()
def read_dicom(path: Path, data: bytes) -> np.ndarray:
    """The one frame of a DICOM file, as :mod:`cxrlib.io.decode` says.

    Parameters
    ----------
    path
        Named in errors.
    data
        The file's bytes, with or without the 128-byte preamble.

    Returns
    -------
    uint8, shape (H, W), bone bright.

    Raises
    ------
    DecodeError
        No pixels, several frames, too many pixels, or a photometric interpretation that is no greyscale,
        palette or colour image.
    """
    dataset = read_header(path, data, stop_before_pixels=False)
    if "Rows" not in dataset or "Columns" not in dataset:
        kind = dataset.get("Modality", "")
        what = f"a DICOM file of modality {str(kind)[:16]} without an image" if kind else "no DICOM image"
        raise DecodeError(f"{path} is {what}.", remedy=_REMEDY)
    check_pixels(path, int(dataset.Rows), int(dataset.Columns))
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise DecodeError(f"{path} holds {frames} frames.", remedy=_REMEDY)
    if "PixelData" not in dataset:
        raise DecodeError(f"{path} is a DICOM file without pixel data, or truncated.", remedy=_REMEDY)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset)
    _check_compressed(path, dataset)
    stored = pixel_array(dataset)
    if stored.shape[:2] != (int(dataset.Rows), int(dataset.Columns)):  # more data than the header says
        raise DecodeError(f"{path} holds pixels of the shape {stored.shape}.", remedy=_REMEDY)
    interpretation = str(dataset.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    if interpretation in ("MONOCHROME1", "MONOCHROME2") and stored.ndim == 2:
        gray = _windowed(dataset, stored)
        gray = 255 - gray if interpretation == "MONOCHROME1" else gray
        padding = _padding(dataset, stored)
        return gray if padding is None else np.where(padding, np.uint8(0), gray)
    if interpretation == "PALETTE COLOR" and stored.ndim == 2:
        return luma(_to_bytes(apply_color_lut(stored, dataset)))
    if stored.ndim == 3 and stored.shape[2] == 3:  # pixel_array has turned YBR into RGB
        return luma(_to_bytes(stored))
    raise DecodeError(
        f"{path} has the photometric interpretation {interpretation} and {stored.ndim} axes, which is not "
        "supported.",
        remedy=_REMEDY,
    )


@silent()
def read_header(path: Path, data: bytes, *, stop_before_pixels: bool = True) -> pydicom.Dataset:
    """The elements of a DICOM file; a DecodeError where it would inflate to more than any radiograph."""
    return dcmread(_Bounded(path, data), force=True, stop_before_pixels=stop_before_pixels)


class _Bounded(io.BytesIO):
    """A file whose rest, which pydicom reads at once only to inflate it, does not inflate without bounds."""

    def __init__(self, path: Path, data: bytes):
        super().__init__(data)
        self.path = path

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is None or size < 0:
            inflater, rest, total = zlib.decompressobj(-zlib.MAX_WBITS), data, 0
            while rest and total <= MAX_BYTES:
                total += len(inflater.decompress(rest, 2**20))
                rest = inflater.unconsumed_tail
            if total > MAX_BYTES:
                raise DecodeError(f"{self.path} inflates to more than any radiograph.", remedy=_REMEDY)
        return data


def _check_compressed(path: Path, dataset: pydicom.Dataset) -> None:
    """Raise a DecodeError where a compressed frame is of another size than the header says.

    Decoders allocate what the stream claims before anything is compared.
    """
    if not pydicom.uid.UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated:
        return
    rows, columns, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.get("SamplesPerPixel", 1))
    plain = rows * columns * samples * (int(dataset.BitsAllocated) // 8)
    if len(dataset.PixelData) > 2 * plain + 2**16:
        raise DecodeError(
            f"{path} is damaged: its compressed pixels take more room than uncompressed ones.", remedy=_REMEDY
        )
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    check_scans(path, frame, rows * columns)
    for height, width, components in _claimed(frame):
        if (height, width) != (rows, columns) or components not in (1, 3):
            raise DecodeError(
                f"{path} is damaged: its header says {columns} × {rows} pixels, its compressed pixels "
                f"{width} × {height} of {components} channels.",
                remedy=_REMEDY,
            )


def _claimed(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """(height, width, components) that JPEG, JPEG-LS and JPEG 2000 streams say of themselves."""
    position = frame.find(_SIZ)
    while position >= 0:
        facts = frame[position + 8 : position + 42]
        if len(facts) == 34:
            right, bottom, left, top = struct.unpack(">4I", facts[:16])
            yield bottom - top, right - left, struct.unpack(">H", facts[32:])[0]
        position = frame.find(_SIZ, position + 1)
    position = 2
    while frame[:2] == b"\xff\xd8" and len(head := frame[position : position + 10]) == 10:
        if head[0] != 0xFF:
            position += 1  # what lies between segments is skipped, as decoders do
        elif head[1] == 0xFF or head[1] in _BARE:
            position += 1 if head[1] == 0xFF else 2
        elif head[1] == 0xDA:
            return
        else:
            if head[1] in _FRAMES:
                yield (*struct.unpack(">HH", head[5:9]), head[9])
            position += 2 + struct.unpack(">H", head[2:4])[0]


def _windowed(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    """Stored values -> uint8 through the modality LUT and the first VOI LUT or window."""
    values = apply_modality_lut(stored, dataset)
    if dataset.get("VOILUTSequence"):
        return _looked_up(dataset.VOILUTSequence[0], values)
    window = _window(dataset)
    if window is not None:
        return np.rint(255 * apply_window(values, *window)).astype(np.uint8)
    untouched = "ModalityLUTSequence" not in dataset and (
        float(dataset.get("RescaleSlope", 1)) == 1 and float(dataset.get("RescaleIntercept", 0)) == 0
    )
    if int(dataset.BitsStored) <= 8 and not dataset.PixelRepresentation and untouched:
        top = 2 ** int(dataset.BitsStored) - 1
        return np.rint(np.minimum(stored, top) * (255.0 / top)).astype(np.uint8)
    padding = _padding(dataset, stored)
    return stretched(values, None if padding is None else ~padding)


def apply_window(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """A DICOM window, PS3.3 C.11.2.1.2–3: values of any shape -> float, 0–1, same shape.

    ``function``: LINEAR, LINEAR_EXACT or SIGMOID.
    """
    values = values.astype(np.float64)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width <= 1:  # the standard's own special case: a threshold
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _window(dataset: pydicom.Dataset) -> tuple[float, float, str] | None:
    def first(value: Any) -> float | None:
        if value is None or value == "":
            return None
        return float(value[0] if isinstance(value, (list, pydicom.multival.MultiValue)) else value)

    centre, width = first(dataset.get("WindowCenter")), first(dataset.get("WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if centre is None or width is None or width <= 0 or not np.isfinite([centre, width]).all():
        return None  # a width below one is outside the standard, and files with 0 for "none" exist
    return centre, width, function


def _looked_up(lut: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    count, first, bits = (int(value) for value in lut.LUTDescriptor)
    count = count or 2**16
    raw = lut.LUTData
    if isinstance(raw, bytes):
        # 8-bit entries may be packed two to a word, PS3.3 C.11.1.1.1; the length tells.
        table = np.frombuffer(raw, np.uint8 if len(raw) < 2 * count else np.dtype("<u2"))
    else:
        table = np.asarray(raw)
    table = table[:count].astype(np.float64)
    index = np.clip(values.astype(np.int64) - first, 0, len(table) - 1)
    return np.rint(np.clip(table[index] * (255.0 / (2**bits - 1)), 0, 255)).astype(np.uint8)


def _padding(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray | None:
    """bool, True where the pixel is padding outside the exposed field; None where the file has none."""
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((value, limit if isinstance(limit, int) else value))
    padding = (stored >= low) & (stored <= high)
    return padding if padding.any() else None


def _to_bytes(colour: np.ndarray) -> np.ndarray:
    if colour.dtype == np.uint8:
        return np.ascontiguousarray(colour)
    return (colour >> 8 * (colour.dtype.itemsize - 1)).astype(np.uint8)


def _guessed_syntax(dataset: pydicom.Dataset) -> pydicom.uid.UID:
    implicit, little = dataset.original_encoding
    if implicit:
        return pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
