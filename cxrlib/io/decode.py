"""A file's bytes -> an 8-bit grayscale array, or an error that names the file.

How each kind of file becomes 0–255
-----------------------------------
8-bit grey
    As stored. Colour becomes luma (ITU-R BT.601); where the three channels are equal, as in the RGBA files of
    NIH, that is the channel itself. Colour JPEG gives its own luma channel, without the way through RGB.
Palette, alpha
    Looked up, then laid over black.
More than 8 bits, grey or colour
    ``value × 255 / (2**bits − 1)``, rounded, where bits is the smallest of 8, 10, 12, 14 and 16 that holds
    the file's brightest value: detectors write 10 to 16 bits into 16-bit files, and a fixed ``/ 257`` would
    turn the narrower ones black. A file that holds ``257 × v`` comes out as ``v``.
32-bit, 64-bit and floating-point TIFF
    0–1 is multiplied by 255; whole 16-bit values go as above; anything else is stretched from its 0.1st to
    its 99.9th percentile. NaN and infinity are errors.
DICOM
    Modality LUT or rescale, then the file's first VOI LUT or window, whose ends become 0 and 255. Without
    one, unsigned 8-bit pixels without rescale stay as stored and all else is stretched from its 0.1st to its
    99.9th percentile, padding pixels left out. MONOCHROME1 is inverted; padding becomes black.
    See PS3.3 C.11.1–C.11.2. What a header says of depth, signs and lookup tables is believed unless the
    data contradict it, see :mod:`cxrlib.io.dicom`.

A picture of fewer than some twenty grey levels, made from a file that holds more, is an error.
PNG and BMP are read by Pillow; plain grey PNG, for speed, and colour PNG of 16 bits, of which Pillow keeps
the upper bytes, by imagecodecs, as is JPEG of 12 bits or without loss; TIFF by tifffile and imagecodecs;
DICOM by pydicom.
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
    check_plausible,
    check_scans,
    jpeg_frames,
    luma,
    oriented,
    over_black,
    to_8_bit,
    too_large,
    unsupported,
)

DECODER_VERSION = 2
"""Raised by one whenever an image may come out with other pixels: caches are keyed by it."""

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")

FITS = ("letterbox", "stretch")

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_KINDS = ((b"\x89PNG", "PNG"), (b"\xff\xd8", "JPEG"), (b"BM", "BMP"), *((magic, "TIFF") for magic in _TIFF))
_RASTER = tuple(magic for magic, _ in _KINDS)
_OTHERS = (
    (b"GIF8", "GIF"), (b"\0\0\0\x0cjP  ", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"%PDF", "PDF"), (b"\x1f\x8b", "gzip (NIfTI?)"), (b"PK\3\4", "ZIP"),
    (b"\x93NUMPY", "NumPy array"), (b"NRRD", "NRRD"), (b"8BPS", "Photoshop"), (b"\x89HDF", "HDF5"),
    (b"P5", "PGM"), (b"P2", "PGM"), (b"P6", "PPM"),
)  # fmt: skip
_PIXELS_ALONE = (b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tIME", b"bKGD", b"gAMA", b"cHRM", b"sRGB")
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF, 0xF7)  # JPEG's markers of frames without loss, and of JPEG-LS
_CONVERT = "Convert it to PNG, TIFF or DICOM, 8 or 16 bits, grey or RGB (magick IN -colorspace Gray OUT.png)."
logging.getLogger("PIL").setLevel(logging.INFO)  # below, it quotes descriptions and names from EXIF


def decode(path: str | Path, *, minimum: int | None = None) -> np.ndarray:
    """Read one radiograph.

    - ``path``: a PNG, JPEG, TIFF, BMP or DICOM file; what it is is read off its content, not its name.
    - ``minimum``: the pixels a side that the caller needs. A JPEG may then be halved (again) while it is
      decoded, never below this in either direction. At four times the size that it is resized to afterwards,
      the result differs from a full decode by at most one grey level.
    - Returns: uint8, shape (H, W), 0–255; bone is bright.
    - Raises DecodeError: the file is missing, empty, truncated, damaged, no image, of an unsupported kind,
      has more than :data:`MAX_PIXELS` pixels or several pages or frames, holds NaN or infinity, or would lose
      nearly all of its grey levels.
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
    except (DecodeError, MemoryError, ImportError):  # a broken installation is no damaged file
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
    except NotImplementedError as error:
        raise unsupported(path, f"is of a kind of image ({_first_line(error)})", _CONVERT) from error
    except Exception as error:  # decoders raise nearly anything on damaged input: KeyError, struct.error, …
        raise DecodeError(f"{path} is damaged or truncated: {_first_line(error)}", remedy=BAD_FILE) from error


def resize(image: np.ndarray, size: int, fit: str = "letterbox") -> np.ndarray:
    """Bring an image to ``size`` × ``size``, antialiased.

    The filter is Pillow's bilinear one, whose support widens with the reduction (a triangle filter, the same
    as torchvision's ``antialias=True``): it does not ring beside edges as Lanczos does.

    - ``image``: uint8, shape (H, W).
    - ``size``: pixels a side.
    - ``fit``: ``letterbox`` keeps the aspect ratio, centres the image and pads with black; ``stretch`` does
      not.
    - Returns: uint8, shape (size, size).
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
    # Old files begin without the preamble, at an element of group 2 or 8, in either byte order.
    little = data[:2] in (b"\2\0", b"\10\0") and data[3:4] == b"\0"
    if little or (data[:2] in (b"\0\2", b"\0\10") and data[2:3] == b"\0"):
        return data[4:6].isalpha() or data[6:8] == b"\0\0"
    return path.suffix.lower() in (".dcm", ".dicom") and not data.startswith(_RASTER)


def kind_of(path: Path, data: bytes) -> str:
    """What a file is by its first bytes: an entry of :data:`FORMATS`, DICOM, another kind's name, or ""."""
    if is_dicom(path, data):
        return "DICOM"
    for magic, name in (*_KINDS, *_OTHERS):
        if data.startswith(magic):
            return name
    if data[4:8] == b"ftyp":
        return "HEIF or AVIF"
    return "WebP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else ""


def _raster(path: Path, data: bytes, minimum: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    kind = kind_of(path, data)
    if kind == "TIFF":
        from cxrlib.io.tiff import read_tiff  # tifffile takes a while to import

        gray = read_tiff(path, data)
        return gray, gray.shape
    if kind == "JPEG" and any(bits != 8 or sof in _LOSSLESS for sof, bits, *_ in jpeg_frames(data)):
        return _deep_jpeg(path, data)
    if kind and kind not in FORMATS:
        raise unsupported(path, f"is a file of the kind {kind}", _CONVERT)
    image: Image.Image = Image.open(stream := io.BytesIO(data), formats=FORMATS)
    check_pixels(path, image.height, image.width)
    # A phone's JPEG carries previews behind the picture (MPO); viewers show the first.
    jpeg = image.format in ("JPEG", "MPO")
    if image.format == "PNG":
        plain = _check_png(path, data) and data[24:26] == b"\x08\x00"
        if plain and (quick := _plain_png(data, image.size)) is not None:
            return quick, quick.shape
    elif jpeg:
        check_scans(path, data, image.height * image.width)
        if data.find(b"\xff\xd9", stream.tell()) < 0:
            # libjpeg paints what is missing grey; Pillow notices only some of that.
            raise DecodeError(f"{path} is truncated: the JPEG has no end marker.", remedy=BAD_FILE)
    if not jpeg and getattr(image, "is_animated", False):
        raise unsupported(path, "holds several pages or frames", "Save the one that counts as a file.")
    shape = (image.height, image.width)
    if jpeg and image.mode in ("L", "RGB"):
        image.draft("L", None if minimum is None else (minimum, minimum))
    elif jpeg and minimum is not None:
        image.draft(image.mode, (minimum, minimum))
    image.load()
    orientation = image.getexif().get(0x0112, 1)
    if image.format == "PNG" and data[24:26] in (b"\x10\2", b"\x10\4", b"\x10\6"):  # 16 bits, not just grey
        gray = oriented(_deep_png(path, data), orientation)
        return gray, gray.shape
    if orientation != 1:
        rotated = ImageOps.exif_transpose(image)
        if rotated.size != image.size:
            shape = shape[::-1]
        image = rotated
    return _gray(path, image), shape


def _deep_png(path: Path, data: bytes) -> np.ndarray:
    import imagecodecs

    values = imagecodecs.png_decode(data)
    channels = values.shape[2]
    gray = to_8_bit(values[..., 0] if channels == 2 else values[..., :3], path)
    gray = luma(gray) if gray.ndim == 3 else gray
    check_plausible(path, values[..., 0], gray, "how it was exported")
    return gray if channels == 3 else over_black(path, gray, values[..., -1])


def _deep_jpeg(path: Path, data: bytes) -> tuple[np.ndarray, tuple[int, int]]:
    """JPEG of 12 bits or lossless JPEG, which Pillow's libjpeg does not decode."""
    import imagecodecs

    sof, bits, height, width, ids = next(jpeg_frames(data))
    check_pixels(path, height, width)
    check_scans(path, data, height * width)
    if data.find(b"\xff\xd9") < 0:
        raise DecodeError(f"{path} is truncated: the JPEG has no end marker.", remedy=BAD_FILE)
    if len(ids) != 1 or sof not in (0xC1, 0xC2, *_LOSSLESS[:1]):
        what = "JPEG-LS" if sof == 0xF7 else f"JPEG of {bits} bits and {len(ids)} channels"
        raise unsupported(path, f"is a {what} (marker {sof:X})", _CONVERT)
    values = imagecodecs.jpeg_decode(data)
    if values.shape != (height, width):
        raise DecodeError(f"{path} is damaged: its JPEG is of the shape {values.shape}.", remedy=BAD_FILE)
    gray = values if values.dtype == np.uint8 else to_8_bit(values, path, bits)
    check_plausible(path, values, gray, "how it was exported")
    return gray, gray.shape


def _gray(path: Path, image: Image.Image) -> np.ndarray:
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
        return over_black(path, np.array(image.convert("L")), np.asarray(image.getchannel("A")))
    if mode.startswith("I"):
        values = np.asarray(image)
        gray = to_8_bit(values, path)
        check_plausible(path, values, gray, "how it was exported")
        return gray
    raise unsupported(path, f"has the colour mode {mode}", _CONVERT)


def _plain_png(data: bytes, size: tuple[int, int]) -> np.ndarray | None:
    """Grey PNG of 8 bits by libpng, quicker than Pillow; None where that is to say what is wrong."""
    import imagecodecs

    try:
        values = imagecodecs.png_decode(data)
    except Exception as error:
        if "Not enough image data" in str(error):  # Pillow would make the rest black
            raise
        return None
    return values if values.shape == size[::-1] and values.dtype == np.uint8 else None


def _check_png(path: Path, data: bytes) -> bool:
    """Walk the chunks: lengths, checksums and the end. Pillow checks none of these for pixel data.

    Returns whether there is nothing but pixels, that is, no chunk that may change what they mean.
    """
    plain = True
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
        plain &= kind in _PIXELS_ALONE
        if kind == b"IEND":
            return plain
        position = end


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
