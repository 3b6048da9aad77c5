"""A file's bytes -> an 8-bit grayscale array, or an error that names the file.

How each kind of file becomes 0–255
-----------------------------------
8-bit grey
    As stored. Colour becomes luma (ITU-R BT.601); where the three channels are equal, as in the RGBA files of
    NIH, that is the channel itself. Colour JPEG gives its own luma channel, without the way through RGB.
Palette, alpha
    Looked up, then laid over black.
16-bit PNG and TIFF
    ``value × 255 / (2**bits − 1)``, rounded, where bits is the smallest of 8, 10, 12, 14 and 16 that holds
    the file's brightest pixel: detectors write 10 to 16 bits into 16-bit files, and a fixed ``/ 257`` would
    turn the narrower ones black. A file that holds ``257 × v`` comes out as ``v``.
32-bit and floating-point TIFF
    0–1 is multiplied by 255; whole 16-bit values go as above; anything else is stretched from its 0.1st to
    its 99.9th percentile. NaN and infinity are errors.
DICOM
    Modality LUT or rescale, then the file's first VOI LUT or window, whose ends become 0 and 255. Without
    one, unsigned 8-bit pixels without rescale stay as stored and all else is stretched from its 0.1st to its
    99.9th percentile, padding pixels left out. MONOCHROME1 is inverted; padding becomes black.
    See PS3.3 C.11.1–C.11.2.

In all of them bone is bright, and a JPEG's or TIFF's EXIF orientation is applied.
"""

from __future__ import annotations

import io
import logging
import stat
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cxrlib.errors import ConfigError, DecodeError
from cxrlib.io.pixels import (
    BAD_FILE,
    MAX_BYTES,
    check_pixels,
    check_scans,
    in_strips,
    stretched,
    strips,
    too_large,
)

DECODER_VERSION = 1
"""Raised by one whenever an image may come out with other pixels: caches are keyed by it."""

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")

FITS = ("letterbox", "stretch")

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
logging.getLogger("PIL").setLevel(logging.INFO)  # below, it quotes descriptions and names from EXIF


def decode(path: str | Path, *, minimum: int | None = None) -> np.ndarray:
    """Read one radiograph.

    Parameters
    ----------
    path
        A PNG, JPEG, TIFF, BMP or DICOM file; what it is is read off its content, not its name.
    minimum
        The pixels a side that the caller needs. A JPEG may then be halved (again) while it is decoded, never
        below this in either direction. At four times the size that it is resized to afterwards, the result
        differs from a full decode by at most one grey level.

    Returns
    -------
    uint8, shape (H, W), 0–255; bone is bright.

    Raises
    ------
    DecodeError
        The file is missing, empty, truncated, damaged, no image, of an unsupported kind, has more than
        :data:`MAX_PIXELS` pixels or several pages or frames, or holds NaN or infinity.
    """
    return decode_with_shape(path, minimum=minimum)[0]


def decode_with_shape(path: str | Path, *, minimum: int | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """As :func:`decode`, and the file's own (height, width), whatever ``minimum`` made of it."""
    path = Path(path)
    data = file_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # what Pillow and pydicom merely mention is an error below, or harmless
            if is_dicom(path, data):
                from cxrlib.io.dicom import (
                    read_dicom,  # pydicom takes a while to import and few cohorts need it
                )

                image = read_dicom(path, data)
                return image, image.shape
            return _raster(path, data, minimum)
    except (DecodeError, MemoryError):
        raise
    except RecursionError:
        raise DecodeError(f"{path} is nested too deeply.", remedy=BAD_FILE) from None
    except UnidentifiedImageError:
        raise DecodeError(
            f"{path} is no PNG, JPEG, TIFF, BMP or DICOM image (it begins with {data[:8]!r}).",
            remedy="Convert it to one of these, or leave it out (skip_bad=True, --skip-bad).",
        ) from None
    except Image.DecompressionBombError:
        assert Image.MAX_IMAGE_PIXELS is not None  # or there were no such error
        raise too_large(path, f"more than {2 * Image.MAX_IMAGE_PIXELS:,}") from None
    except Exception as error:  # decoders raise nearly anything on damaged input: KeyError, struct.error, …
        raise DecodeError(f"{path} is damaged or truncated: {_first_line(error)}", remedy=BAD_FILE) from error


def resize(image: np.ndarray, size: int, fit: str = "letterbox") -> np.ndarray:
    """Bring an image to ``size`` × ``size``, antialiased.

    The filter is Pillow's bilinear one, whose support widens with the reduction (a triangle filter, the same
    as torchvision's ``antialias=True``): it does not ring beside edges as Lanczos does.

    Parameters
    ----------
    image
        uint8, shape (H, W).
    size
        Pixels a side.
    fit
        ``letterbox`` keeps the aspect ratio, centres the image and pads with black; ``stretch`` does not.

    Returns
    -------
    uint8, shape (size, size).
    """
    rows, columns = image.shape
    top, left, height, width = placed(rows, columns, size, fit)
    if image.shape == (height, width):
        resized = image
    else:
        resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    if (height, width) == (size, size):
        return resized
    canvas = np.zeros((size, size), np.uint8)
    canvas[top : top + height, left : left + width] = resized
    return canvas


def placed(height: int, width: int, size: int, fit: str = "letterbox") -> tuple[int, int, int, int]:
    """Where :func:`resize` puts an image of this height and width: (top, left, height, width) in pixels."""
    if fit not in FITS:
        raise ConfigError(f"There is no fit called {fit!r}.", remedy=f"Use one of {', '.join(FITS)}.")
    if not isinstance(size, (int, np.integer)) or size < 1:
        raise ConfigError(f"The image size is {size!r}.", remedy="Give whole pixels, 1 or more.")
    if fit == "stretch":
        return 0, 0, size, size
    scale = size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    return (size - new_height) // 2, (size - new_width) // 2, new_height, new_width


def to_8_bit(values: np.ndarray, path: Path) -> np.ndarray:
    """Map 16-bit, 32-bit or floating-point pixels to 0–255 as the module's docstring says."""
    low, high = values.min(), values.max()
    if np.issubdtype(values.dtype, np.floating):
        if not np.isfinite([low, high]).all():
            raise DecodeError(
                f"{path} holds {int((~np.isfinite(values)).sum())} pixels that are NaN or infinite.",
                remedy=BAD_FILE,
            )
        if low >= 0 and high <= 1:
            return in_strips(values, lambda part: part * 255.0)
        if any((part != np.rint(part)).any() for part in strips(values)):
            return stretched(values)
    if low < 0 or high > 65_535:
        return stretched(values)
    bits = next(bits for bits in (8, 10, 12, 14, 16) if high < 2**bits)
    return in_strips(values, lambda part: part * (255.0 / (2**bits - 1)))


def file_bytes(path: Path) -> bytes:
    """The bytes of a regular file that is neither empty nor larger than :data:`MAX_BYTES`."""
    try:
        facts = path.stat()
        if stat.S_ISDIR(facts.st_mode):
            raise DecodeError(f"{path} is a folder, not an image.", remedy="Name a file.")
        if not stat.S_ISREG(facts.st_mode):  # a pipe would be waited for, a device has no end
            raise DecodeError(f"{path} is a pipe or a device, not a file.", remedy="Name a file.")
        if facts.st_size > MAX_BYTES:
            raise DecodeError(
                f"{path} has {facts.st_size:,} bytes, more than any radiograph.",
                remedy="Check that it is one image.",
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise DecodeError(f"{path} does not exist.", remedy="Check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DecodeError(
            f"{path} cannot be read: {reason}.", remedy="Check its name, its permissions and the disk."
        ) from error
    if not data:
        raise DecodeError(f"{path} is empty (0 bytes).", remedy=BAD_FILE)
    return data


def is_dicom(path: Path, data: bytes) -> bool:
    """Whether a file is to be read as DICOM."""
    if data[128:132] == b"DICM":
        return True
    # Old files begin without the preamble; then the name decides, unless the content is plainly another kind.
    raster = (b"\x89PNG", b"\xff\xd8", b"BM", b"II*\0", b"MM\0*")
    return path.suffix.lower() in (".dcm", ".dicom") and not data.startswith(raster)


def _raster(path: Path, data: bytes, minimum: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    stream = io.BytesIO(data)
    image: Image.Image = Image.open(stream, formats=FORMATS)
    check_pixels(path, image.height, image.width)
    if image.format == "PNG":
        _check_png(path, data)
    elif image.format == "JPEG":
        check_scans(path, data, image.height * image.width)
        if data.find(b"\xff\xd9", stream.tell()) < 0:
            # libjpeg paints what is missing grey; Pillow notices only some of that.
            raise DecodeError(f"{path} is truncated: the JPEG has no end marker.", remedy=BAD_FILE)
    if _has_second(image):
        raise DecodeError(
            f"{path} holds several pages or frames.", remedy="Save the one that counts as a file."
        )
    shape = (image.height, image.width)
    if image.format == "JPEG" and image.mode == "RGB":
        image.draft("L", None if minimum is None else (minimum, minimum))
    elif image.format == "JPEG" and minimum is not None:
        image.draft(image.mode, (minimum, minimum))
    # Pillow inverts 8-bit TIFFs whose photometric interpretation is "white is zero", and no deeper ones.
    white_is_zero = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0
    image.load()
    if image.getexif().get(0x0112, 1) != 1:
        rotated = ImageOps.exif_transpose(image)
        if rotated.size != image.size:
            shape = shape[::-1]
        image = rotated
    return _gray(path, image, white_is_zero), shape


def _has_second(image: Image.Image) -> bool:
    """Whether there is another page. Counting them all would take a chain of a million empty ones hours."""
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _gray(path: Path, image: Image.Image, white_is_zero: bool) -> np.ndarray:
    mode = image.mode
    if mode == "P":
        mode = "RGBA" if "transparency" in image.info else "RGB"
        image = image.convert(mode)
    if mode == "L":
        return np.array(image)
    if mode in ("1", "RGB"):
        return np.array(image.convert("L"))
    if mode in ("LA", "PA", "RGBA"):
        image = image if mode == "RGBA" else image.convert("RGBA")
        gray, alpha = np.array(image.convert("L")), image.getchannel("A")
        if alpha.getextrema()[0] == 255:
            return gray
        pairs = zip(strips(gray), strips(np.asarray(alpha)), strict=True)
        return np.concatenate([np.rint(g * (a / 255.0)).astype(np.uint8) for g, a in pairs])
    if mode.startswith("I;16") or mode in ("I", "F"):
        values = np.asarray(image)
        gray = to_8_bit(values, path)
        return 255 - gray if white_is_zero else gray
    raise DecodeError(
        f"{path} has the colour mode {mode}, which is not supported.",
        remedy="Save it as 8- or 16-bit greyscale, RGB or RGBA.",
    )


def _check_png(path: Path, data: bytes) -> None:
    """Walk the chunks: lengths, checksums and the end. Pillow checks none of these for pixel data."""
    position = 8
    while True:
        header = data[position : position + 8]
        if len(header) < 8:
            raise DecodeError(f"{path} is truncated: the PNG has no end chunk.", remedy=BAD_FILE)
        length, kind = struct.unpack(">I4s", header)
        end = position + 12 + length
        if end > len(data):
            missing = end - len(data)
            raise DecodeError(
                f"{path} is truncated: at least {missing:,} bytes are missing.", remedy=BAD_FILE
            )
        checksum = zlib.crc32(memoryview(data)[position + 4 : end - 4])
        if kind[0:1].isupper() and checksum != struct.unpack(">I", data[end - 4 : end])[0]:
            raise DecodeError(
                f"{path} is damaged: a checksum fails {position:,} bytes into the PNG.", remedy=BAD_FILE
            )
        if kind == b"IEND":
            return
        position = end


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
