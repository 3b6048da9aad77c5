"""DICOM pixels -> 8-bit grayscale, with rescale, window and photometric interpretation applied.

References: DICOM PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT and windows), C.7.6.3.1.2 (MONOCHROME1 and 2).

pydicom decodes the pixels. Lookup tables, unused bits and padding are ours, because pydicom believes the
header where exporters are known to write what the data contradict:

- A table is as deep as its entries, not as its descriptor says; its first value has the sign that lets it
  meet the pixels; its bytes are in the order in which it is smooth; it has the entries that are there.
- Bits above those stored are cut off, or kept, whichever gives the smoother picture; pixels that fill the
  upper bits (HighBit 15 of 12) are shifted down if the lower ones are empty.
- Padding has the sign that occurs; a few pixels amid the others' values are no padding.
- Colour JPEG whose components are numbered 1, 2, 3 is YCbCr, as all decoders of JPEG take it.
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
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from cxrlib.errors import DecodeError
from cxrlib.io.pixels import (
    MAX_BYTES,
    check_pixels,
    check_plausible,
    check_scans,
    depth,
    jpeg_frames,
    luma,
    palette_to_8_bit,
    stretched,
    to_8_bit,
    unsupported,
)

_SIZ = b"\xff\x4f\xff\x51"  # how a JPEG 2000 code stream begins
_REMEDY = (
    "Export the radiograph again as a single-frame DICOM image, or leave it out (skip_bad=True, --skip-bad)."
)
_CONVERT = "Convert it to uncompressed DICOM (gdcmconv --raw IN OUT, or dcmdjpeg)."
_CHECK = "its window, lookup tables, rescale slope and bits stored"
_DEFAULTS = {
    "SamplesPerPixel": 1, "PixelRepresentation": 0, "PhotometricInterpretation": "MONOCHROME2",
}  # fmt: skip
_OPTIONAL = (
    "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "ModalityLUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit", "NumberOfFrames", "BitsStored",
    "HighBit", "PlanarConfiguration", *_DEFAULTS,
)  # fmt: skip

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

    - ``path``: named in errors.
    - ``data``: the file's bytes, with or without the 128-byte preamble.
    - Returns: uint8, shape (H, W), bone bright.
    - Raises DecodeError: no pixels, several frames, too many pixels, or a photometric interpretation that is
      no greyscale, palette or colour image.
    """
    dataset = read_header(path, data, stop_before_pixels=False)
    if "Rows" not in dataset or "Columns" not in dataset:
        kind = dataset.get("Modality", "")
        what = f"a DICOM file of modality {str(kind)[:16]} without an image" if kind else "no DICOM image"
        raise DecodeError(f"{path} is {what}.", remedy=_REMEDY)
    check_pixels(path, int(dataset.Rows), int(dataset.Columns))
    _leave_out_empty(dataset)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise unsupported(
            path, f"holds {frames} frames", "Export the one that counts as a single-frame image."
        )
    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(dataset.dir()):
        raise DecodeError(f"{path} is a DICOM file without pixel data, or truncated.", remedy=_REMEDY)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset)
    if "PixelData" not in dataset:
        stored = pixel_array(dataset)
        gray = to_8_bit(stored, path)
        check_plausible(path, stored, gray, _CHECK)
        return 255 - gray if dataset.PhotometricInterpretation == "MONOCHROME1" else gray
    _check_compressed(path, dataset)
    stored = _stored(dataset)
    if stored.shape[:2] != (int(dataset.Rows), int(dataset.Columns)):  # more data than the header says
        raise DecodeError(f"{path} holds pixels of the shape {stored.shape}.", remedy=_REMEDY)
    interpretation = str(dataset.PhotometricInterpretation).strip()
    if interpretation in ("MONOCHROME1", "MONOCHROME2") and stored.ndim == 2:
        padding = _padding(dataset, stored)
        gray = _windowed(path, dataset, stored, padding)
        picture = stored if padding is None else np.where(padding, stored[~padding][0], stored)
        check_plausible(path, picture, gray, _CHECK)
        gray = 255 - gray if interpretation == "MONOCHROME1" else gray
        return gray if padding is None else np.where(padding, np.uint8(0), gray)
    if interpretation == "PALETTE COLOR" and stored.ndim == 2:
        count, first = (int(dataset.RedPaletteColorLookupTableDescriptor[i]) for i in (0, 1))
        table = apply_color_lut(np.arange(first, first + (count or 2**16))[None], dataset)
        shades = luma(palette_to_8_bit(table, path) if table.dtype != np.uint8 else table)[0]
        gray = shades[np.clip(stored.astype(np.int64) - first, 0, len(shades) - 1)]
        check_plausible(path, stored, gray, "its palette")
        return gray
    if stored.ndim == 3 and stored.shape[2] == 3:  # pixel_array has turned YBR into RGB
        if stored.dtype == np.uint8:
            return luma(np.ascontiguousarray(stored))
        bits = int(dataset.BitsStored)
        colour = stored >> bits - 16 if bits > 16 else stored
        gray = luma(to_8_bit(colour, path, min(bits, 16)))
        check_plausible(path, stored[..., 0], gray, _CHECK)
        return gray
    raise unsupported(
        path,
        f"has the photometric interpretation {interpretation} and {stored.ndim} axes",
        "Export it again in greyscale.",
    )


def _leave_out_empty(dataset: pydicom.Dataset) -> None:
    """Take empty elements for absent ones, as anonymisers write them, and say what the absent ones mean."""
    for name in _OPTIONAL:
        if name in dataset and (dataset[name].is_empty or str(dataset[name].value).strip() == ""):
            del dataset[name]
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        if name in dataset:
            usable = [
                item for item in dataset[name].value if item.get("LUTDescriptor") and item.get("LUTData")
            ]
            if usable:
                dataset[name].value = usable
            else:
                del dataset[name]
    allocated = int(dataset.BitsAllocated)
    dataset.setdefault("BitsStored", allocated)
    dataset.setdefault("HighBit", int(dataset.BitsStored) - 1)
    for name, value in _DEFAULTS.items():
        dataset.setdefault(name, value)


def _stored(dataset: pydicom.Dataset) -> np.ndarray:
    """The pixels as numbers: pydicom's, but for bits that the header says are not used."""
    syntax = pydicom.uid.UID(dataset.file_meta.TransferSyntaxUID)
    bits, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    plain = not syntax.is_encapsulated or syntax == RLELossless
    if bits >= allocated or allocated not in (8, 16, 32) or not plain:
        return pixel_array(dataset)
    dataset.BitsStored, dataset.HighBit, high = allocated, allocated - 1, int(dataset.HighBit)
    raw = pixel_array(dataset)
    dataset.BitsStored, dataset.HighBit = bits, high
    unsigned, spare = raw.view(f"u{allocated // 8}"), allocated - bits
    shift = high + 1 - bits
    if 0 < shift <= spare and not (unsigned & (2**shift - 1)).any():
        unsigned = unsigned >> shift
    cut = (unsigned << spare).view(raw.dtype) >> spare  # with the sign carried up
    return cut if np.array_equal(cut, raw) or _roughness(cut) <= _roughness(raw) else raw


def _roughness(values: np.ndarray) -> float:
    """How much neighbours differ: what is read wrongly jumps."""
    return float(np.abs(np.diff(values.astype(np.float64), axis=-2 if values.ndim == 3 else -1)).sum())


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
    syntax = pydicom.uid.UID(dataset.file_meta.TransferSyntaxUID)
    try:
        readable = get_decoder(syntax).is_available
    except NotImplementedError:
        readable = False
    if not readable:
        raise unsupported(path, f"has pixels of the transfer syntax {syntax.name}", _CONVERT)
    if not syntax.is_encapsulated:
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
    ids = [ids for *_, ids in jpeg_frames(frame)]
    if syntax == JPEGBaseline8Bit and ids == [b"\1\2\3"] and b"Adobe" not in frame[:4096]:
        dataset.PhotometricInterpretation = "YBR_FULL_422"


def _claimed(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """(height, width, components) that JPEG, JPEG-LS and JPEG 2000 streams say of themselves."""
    position = frame.find(_SIZ)
    while position >= 0:
        facts = frame[position + 8 : position + 42]
        if len(facts) == 34:
            right, bottom, left, top = struct.unpack(">4I", facts[:16])
            yield bottom - top, right - left, struct.unpack(">H", facts[32:])[0]
        position = frame.find(_SIZ, position + 1)
    for _, _, height, width, ids in jpeg_frames(frame):
        yield height, width, len(ids)


def _windowed(
    path: Path, dataset: pydicom.Dataset, stored: np.ndarray, padding: np.ndarray | None
) -> np.ndarray:
    """Stored values -> uint8 through the modality LUT and the first VOI LUT or window."""
    slope, intercept = (
        float(dataset.get(f"Rescale{name}", n)) for name, n in (("Slope", 1), ("Intercept", 0))
    )
    untouched = "ModalityLUTSequence" not in dataset and slope == 1 and intercept == 0
    if "ModalityLUTSequence" in dataset:
        table, first, _ = _table(path, dataset, dataset.ModalityLUTSequence[0], stored)
        values = table[np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)]
    else:
        values = stored if untouched else stored * slope + intercept
    if "VOILUTSequence" in dataset:
        table, first, bits = _table(path, dataset, dataset.VOILUTSequence[0], values)
        index = np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)
        return np.rint(table * (255.0 / (2**bits - 1))).astype(np.uint8)[index]
    window = _window(dataset)
    if window is not None:
        return np.rint(255 * apply_window(values, *window)).astype(np.uint8)
    if int(dataset.BitsStored) <= 8 and not dataset.PixelRepresentation and untouched:
        top = 2 ** int(dataset.BitsStored) - 1
        return np.rint(np.minimum(stored, top) * (255.0 / top)).astype(np.uint8)
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


def _table(
    path: Path, dataset: pydicom.Dataset, lut: pydicom.Dataset, values: np.ndarray
) -> tuple[np.ndarray, int, int]:
    """A lookup table's entries (float), the value that the first is for, and the bits that they use."""
    count, first, bits = (int(value) for value in lut.LUTDescriptor)
    count, raw, low, high = count % 2**16 or 2**16, lut.LUTData, float(values.min()), float(values.max())
    order = "<" if dataset.original_encoding[1] else ">"
    if not isinstance(raw, bytes):
        table = np.atleast_1d(np.asarray(raw, np.int64)).astype(np.uint16)
    elif len(raw) < 2 * count and (bits <= 8 or len(raw) in (count, count + 1)):
        # 8-bit entries may be packed two to a word, PS3.3 C.11.1.1.1; the length tells.
        table = np.frombuffer(raw, np.uint8)
        if order == ">" and lut["LUTData"].VR == "OW" and len(raw) % 2 == 0:
            table = table.reshape(-1, 2)[:, ::-1].ravel()
    else:
        table = np.frombuffer(raw[: len(raw) // 2 * 2], f"{order}u2")
        if 4 * _roughness(table.byteswap()) < _roughness(table):
            table = table.byteswap()
    # A sign was lost on the way to a header whose VR is of the other kind.
    shares = {f: min(high, f + count - 1) - max(low, f) for f in (first, first - 2**16, first + 2**16)}
    first = max(shares, key=lambda one: shares[one])
    if len(table) < count and high > first + len(table) - 1:
        raise DecodeError(
            f"{path} has a lookup table of {len(table)} entries where its descriptor says {count}.",
            remedy=_REMEDY,
        )
    if high <= first + count - 1:  # else it has as many as there are
        table = table[:count]
    return table.astype(np.float64), first, depth(float(table.max()), min(max(bits, 2), 16))


def _padding(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray | None:
    """bool, True where the pixel is padding outside the exposed field; None where the file has none."""
    low, high = stored.min(), stored.max()

    def meant(name: str) -> int | None:
        value = dataset.get(name)
        if isinstance(value, bytes) and value:
            value = int.from_bytes(value, "little" if dataset.original_encoding[1] else "big")
        if not isinstance(value, int):
            return None
        around = 2 ** int(dataset.BitsAllocated)
        return next((v for v in (value, value - around, value + around) if low <= v <= high), value)

    value, limit = meant("PixelPaddingValue"), meant("PixelPaddingRangeLimit")
    if value is None:
        return None
    first, last = sorted((value, value if limit is None else limit))
    padding = (stored >= first) & (stored <= last)
    share = padding.mean()
    amid = low < first and last < high  # a value that the picture has too
    return padding if 0 < share < 1 and (share >= 0.01 or not amid) else None


def _guessed_syntax(dataset: pydicom.Dataset) -> pydicom.uid.UID:
    implicit, little = dataset.original_encoding
    if implicit:
        return pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
