"""Our decoder beside independent readings: every file of pydicom's own test set, and grids of kinds of files.

    python benchmarks/differential.py          # writes benchmarks/reliability.json
    python benchmarks/differential.py --dry

A file agrees if it is within two grey levels of the other reading, or ends in a DecodeError that names it.
For pydicom's files the other reading is pydicom's pixels through its own tables and windows; for grids it is
what was written (lossless kinds) or Pillow's reading (JPEG). ``tests/io/test_differential.py`` runs it all.
"""

from __future__ import annotations

import argparse
import io
import itertools
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import reliability
import tifffile
from PIL import Image, ImageOps
from pydicom.data import get_testdata_files
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

from cxrlib.errors import DecodeError
from cxrlib.io.decode import decode

LEVELS = 2
AGREES, TOLD, FAILS = "agrees", "named error", "fails"
LOSSLESS = ("none", "lzw", "zlib", "packbits", "zstd")


def judged(path: Path, expected: np.ndarray | None) -> tuple[str, str]:
    """What came of a file, and a word on it. ``expected``: 0–255, or None where no other reader has one."""
    try:
        got = decode(path)
    except DecodeError as error:
        return (TOLD if path.name in str(error) else FAILS), error.message
    except Exception as error:  # a crash is what is looked for
        return FAILS, repr(error)
    if expected is None:
        return FAILS, "read, where no other reading is to be had"
    if got.shape != expected.shape:
        return FAILS, f"{got.shape} for {expected.shape}"
    off = float(np.abs(got - expected).max())
    return (AGREES if off <= LEVELS else FAILS), f"off by {off:.0f}"


def pydicoms() -> Iterator[tuple[str, str, str]]:
    """(name, what came of it, a word) of each DICOM file that ships with pydicom."""
    # Only those inside the package: the others would be downloaded.
    root = Path(pydicom.__file__).parent / "data" / "test_files"
    inside = {Path(name) for name in get_testdata_files() if Path(name).is_relative_to(root)}
    for path in sorted(p for p in inside if p.suffix == ".dcm" or not p.suffix):
        if path.is_file():
            yield (path.name, *judged(path, by_pydicom(path)))


def by_pydicom(path: Path) -> np.ndarray | None:
    """A file's one frame by pydicom's own functions: float (H, W), 0–255."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, force=True)
            if int(header.get("NumberOfFrames", 1) or 1) > 1:
                return None
            if "TransferSyntaxUID" not in header.file_meta:
                implicit, little = header.original_encoding
                names = {(True, True): "ImplicitVRLittleEndian", (False, True): "ExplicitVRLittleEndian"}
                name = names.get((implicit, little), "ExplicitVRBigEndian")
                header.file_meta.TransferSyntaxUID = getattr(pydicom.uid, name)
            stored = pixel_array(header)
            kind = header.PhotometricInterpretation
            if kind == "PALETTE COLOR":
                stored = apply_color_lut(stored, header)
            if stored.ndim == 3:
                top = {1: 255.0, 2: 65_535.0, 4: 2.0**32 - 1}[stored.dtype.itemsize]
                return stored.astype(float) @ (0.299, 0.587, 0.114) * (255.0 / top)
            values = apply_modality_lut(stored, header)
            gray = np.asarray(values, float)
            if "WindowCenter" in header and header.WindowCenter not in (None, ""):
                shown = apply_voi_lut(values, header)
                low, high = ends(header)
                gray = np.clip((shown - low) / (high - low), 0, 1) * 255.0
            elif not (header.BitsStored == 8 and not header.PixelRepresentation and values is stored):
                valid = gray
                if "PixelPaddingValue" in header:
                    valid = gray[stored != header.PixelPaddingValue]
                low, high = np.percentile(valid, (0.1, 99.9))
                if high <= low:
                    low, high = valid.min(), valid.max()
                gray = np.clip((gray - low) / max(high - low, 1e-9), 0, 1) * 255.0
            gray = 255.0 - gray if kind == "MONOCHROME1" else gray
            if "PixelPaddingValue" in header:
                gray = np.where(stored == header.PixelPaddingValue, 0.0, gray)
            return gray
    except Exception:  # no reading is a reading too: ours must then be an error
        return None


def ends(header: pydicom.Dataset) -> tuple[float, float]:
    """What pydicom's window maps to black and to white."""
    bits, signed = int(header.BitsStored), int(header.PixelRepresentation)
    slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return low * slope + intercept, high * slope + intercept


def picture(top: int, channels: int, alpha: bool) -> tuple[np.ndarray, np.ndarray]:
    """A picture without symmetry of values up to ``top``, and the grey 0–255 that it is."""
    y, x = np.mgrid[0:37, 0:53]
    unit = (x / 52 * 0.6 + y / 36 * 0.4) * 0.9 + 0.05
    values = [np.rint(unit * top * share) for share in ((1, 1, 1) if channels == 1 else (1, 0.8, 0.6))]
    gray = values[0] if channels == 1 else values[0] * 0.299 + values[1] * 0.587 + values[2] * 0.114
    gray = gray * (255.0 / top)
    planes = values[:channels]
    if alpha:
        full = 255 if top == 255 else 65_535
        veil = np.where(x < 10, full // 5, full)
        planes, gray = [*planes, veil], gray * (veil / full)
    dtype = np.uint8 if top == 255 else np.uint16
    pixels = np.stack(planes, axis=-1).astype(dtype)
    return (pixels[..., 0] if pixels.shape[2] == 1 else pixels), gray


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """By Pillow: what is seen of pixels stored in an EXIF orientation."""
    image = Image.fromarray(pixels.astype(np.float32))
    way = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    return np.asarray(image if way is None else image.transpose(Image.Transpose(way)))


def grids(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(name, what came of it, a word) of each file of the grids, made in ``folder``."""
    for name, data, expected in files():
        path = folder / name
        path.write_bytes(data)
        yield (name, *judged(path, expected))


def files() -> Iterator[tuple[str, bytes, np.ndarray]]:
    """(name, bytes, the grey 0–255 that it is) of PNG, TIFF, JPEG and BMP of many kinds."""
    for bits, channels, alpha in itertools.product((8, 10, 12, 14, 16), (1, 3), (False, True)):
        pixels, gray = picture(2**bits - 1, channels, alpha)
        kind = f"{bits}bit-{'grey' if channels == 1 else 'rgb'}{'-alpha' * alpha}"
        yield f"{kind}.png", imagecodecs.png_encode(pixels), gray
        if bits == 8 and not (alpha and channels == 1):
            yield f"{kind}-pillow.png", saved(Image.fromarray(pixels), "PNG"), gray
        for compression, orientation in itertools.product(LOSSLESS, (1, 2, 3, 4, 5, 6, 7, 8)):
            if orientation > 1 and compression not in ("none", "lzw"):
                continue
            for planar in ("contig", "separate") if channels == 3 and orientation == 1 else ("contig",):
                data = tiff(pixels, compression, orientation, planar, channels, alpha)
                yield f"{kind}-{compression}-{orientation}-{planar}.tif", data, turned(gray, orientation)
    unit = picture(65_535, 1, False)[0] / 65_535
    for dtype in (np.float32, np.float64):
        yield f"{np.dtype(dtype)}.tif", tiff(unit.astype(dtype), "none", 1, "contig", 1, False), unit * 255
    for dtype in (np.uint32, np.int32, np.uint64, np.int16):
        deep = np.rint(unit * (32_767 if dtype == np.int16 else 65_535)).astype(dtype)
        deep = deep // 2 * 2 if dtype == np.int16 else deep
        top = 32_767 if dtype == np.int16 else 65_535
        expected = deep * (255.0 / (65_535 if dtype == np.int16 and deep.max() > 16_383 else top))
        yield f"{np.dtype(dtype)}.tif", tiff(deep, "zlib", 1, "contig", 1, False), expected
    for colour, orientation, quality in itertools.product(("L", "RGB"), range(1, 9), (70, 95)):
        pixels, _ = picture(255, 1 if colour == "L" else 3, False)
        exif = Image.Exif()
        exif[0x0112] = orientation
        for progressive in (False, True):
            data = saved(Image.fromarray(pixels), "JPEG", exif=exif, quality=quality, progressive=progressive)
            image = Image.open(io.BytesIO(data))
            image.draft("L", None)
            name = f"jpeg-{colour}-{orientation}-{quality}-{progressive}.jpg"
            yield name, data, np.asarray(ImageOps.exif_transpose(image).convert("L"), float)
    deep, gray = picture(4095, 1, False)
    yield "jpeg-12bit.jpg", imagecodecs.jpeg_encode(deep, level=100, bitspersample=12), gray
    yield "jpeg-lossless.jpg", imagecodecs.jpeg_encode(deep, lossless=True, bitspersample=12), gray
    for kind, mode in itertools.product(("PNG", "TIFF", "BMP"), ("1", "P")):
        pixels, _ = picture(255, 1, False)
        image = Image.fromarray(pixels).convert(mode) if mode == "1" else palette(pixels)
        yield f"pillow-{mode}.{kind.lower()}", saved(image, kind), np.asarray(image.convert("L"), float)


def palette(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels, mode="P")
    image.putpalette([c for value in range(256) for c in (255 - value, value, (value * 3) % 256)])
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(
    pixels: np.ndarray, compression: str, orientation: int, planar: str, channels: int, alpha: bool
) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(
        stream, np.moveaxis(pixels, -1, 0) if planar == "separate" else pixels, metadata=None,
        compression=compression, planarconfig=planar if pixels.ndim == 3 else None,
        photometric="rgb" if channels == 3 else "minisblack", rowsperstrip=11,
        extrasamples=["unassalpha"] if alpha else None,
        extratags=[(274, 3, 1, orientation, True)],
    )  # fmt: skip
    return stream.getvalue()


def rows() -> list[dict]:
    """The two rows of the record."""
    with tempfile.TemporaryDirectory() as folder:
        campaigns = {"pydicom": list(pydicoms()), "grid": list(grids(Path(folder)))}
    what = {
        "pydicom": "DICOM files that ship with pydicom, read as pydicom reads them or refused by name",
        "grid": "PNG, TIFF, JPEG and BMP of many modes, depths, compressions, orientations and colours, "
        "read as they were written or refused by name",
    }
    made = []
    for name, results in campaigns.items():
        count = {state: sum(one[1] == state for one in results) for state in (AGREES, TOLD, FAILS)}
        for file, state, word in results:
            if state == FAILS:
                print("FAILS", file, word)
        made.append(
            {"name": f"differential.{name}", "what": what[name], "tried": len(results),
             "failed": count[FAILS], "seed": 0,
             "note": f"{count[AGREES]} agree within {LEVELS} grey levels, {count[TOLD]} are refused by name"}
        )  # fmt: skip
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--dry", action="store_true", help="record nothing")
    dry, started = parser.parse_args().dry, time.perf_counter()
    for row in (made := rows()):
        print(row["name"], row["tried"], row["failed"], row["note"])
    if not dry:
        command = "python benchmarks/differential.py"
        reliability.record("differential", made, command, time.perf_counter() - started)
