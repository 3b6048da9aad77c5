"""DICOM pixels -> 8-bit grayscale, with rescale, window and photometric interpretation applied.

References: DICOM PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT and windows), C.7.6.3.1.2 (MONOCHROME1 and 2).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from cxrlib.decode import check_pixels, luma, stretched
from cxrlib.errors import DecodeError

_REMEDY = (
    "Export the radiograph again as a single-frame DICOM image, or leave it out (skip_bad=True, --skip-bad)."
)


def read_dicom(path: Path, data: bytes) -> np.ndarray:
    """The one frame of a DICOM file, as :mod:`cxrlib.decode` says.

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
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    if "Rows" not in dataset or "Columns" not in dataset:
        kind = dataset.get("Modality", "")
        what = f"a DICOM file of modality {kind} without an image" if kind else "no DICOM image"
        raise DecodeError(f"{path} is {what}.", remedy=_REMEDY)
    check_pixels(path, int(dataset.Rows), int(dataset.Columns))
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise DecodeError(f"{path} holds {frames} frames.", remedy=_REMEDY)
    if "PixelData" not in dataset:
        raise DecodeError(f"{path} is a DICOM file without pixel data, or truncated.", remedy=_REMEDY)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset)
    stored = pixel_array(dataset)
    interpretation = str(dataset.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    if interpretation in ("MONOCHROME1", "MONOCHROME2"):
        gray = _windowed(dataset, stored)
        gray = 255 - gray if interpretation == "MONOCHROME1" else gray
        padding = _padding(dataset, stored)
        return gray if padding is None else np.where(padding, np.uint8(0), gray)
    if interpretation == "PALETTE COLOR":
        return luma(_to_bytes(apply_color_lut(stored, dataset)))
    if stored.ndim == 3 and stored.shape[2] == 3:  # pixel_array has turned YBR into RGB
        return luma(_to_bytes(stored))
    raise DecodeError(
        f"{path} has the photometric interpretation {interpretation}, which is not supported.", remedy=_REMEDY
    )


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
    def first(value) -> float | None:
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


def _guessed_syntax(dataset: pydicom.Dataset) -> str:
    implicit, little = dataset.original_encoding
    if implicit:
        return pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
