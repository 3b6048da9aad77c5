"""What an audit reads off files rather than pixels: shape, encoding, size; and pictures that occur twice."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn

from cxrlib.io.decode import FORMATS, file_bytes, is_dicom
from cxrlib.parallel import progress_bar, run_jobs

#: What :func:`file_facts` gives, by the probe that looks at it.
DIMENSIONS = ("height", "width", "aspect")
ENCODING = ("format", "mode", "bits", "tables", "written_by")
SIZE = ("bytes", "bytes_per_pixel")

_TEXTS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # PNG's chunks
_CHUNK = 250
_BITS = 256  # of a perceptual hash
_NEAR = 16  # bits by which hashes of one picture may differ
_ALIKE = 0.98  # correlation of two thumbnails' detail, for one picture
_ROWS = 2048
_TILE = 64, 4096  # of comparisons, which the processor's cache holds


def file_facts(
    paths: Sequence[str], *, workers: int | None = None, progress: bool | None = None
) -> pd.DataFrame:
    """Facts of each file from its header, and a hash of its bytes; nothing is decoded.

    Returns a DataFrame in the order of ``paths``: ``height``, ``width``, ``aspect``, ``format``, ``mode``
    (colour mode, or DICOM's photometric interpretation), ``bits``, ``tables`` (a hash of JPEG's quantisation
    tables, PNG's or TIFF's compression, DICOM's transfer syntax), ``written_by`` (software or maker),
    ``bytes``, ``bytes_per_pixel``, ``sha256``, ``burned_in`` (DICOM's BurnedInAnnotation: YES, NO or
    "unsaid"; missing for other formats). Of a DICOM header nothing else is kept: no name, no date, no id; of
    the station's name a hash. A file that cannot be read has missing values.
    """
    jobs = [(list(paths[start : start + _CHUNK]),) for start in range(0, len(paths), _CHUNK)]
    made: dict[str, dict[str, Any]] = {}
    with progress_bar(len(paths), "Reading headers", progress, unit="file") as bar:
        for rows in run_jobs(_facts_of, jobs, workers, small=len(jobs) < 4):
            made |= rows
            bar.update(len(rows))
    return pd.DataFrame([made[path] for path in paths])


def _facts_of(paths: list[str]) -> dict[str, dict[str, Any]]:
    return {path: _facts(path) for path in paths}


def _facts(path: str) -> dict[str, Any]:
    try:
        data = file_bytes(Path(path))
        facts: dict[str, Any] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            facts |= _dicom(path, data) if is_dicom(Path(path), data) else _raster(data)
        facts["aspect"] = facts["width"] / facts["height"]
        facts["bytes_per_pixel"] = facts["bytes"] / (facts["width"] * facts["height"])
    except Exception:  # what a broken header raises is any of a dozen kinds; decoding has named the file
        return {}
    return facts


def _raster(data: bytes) -> dict[str, object]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        # Of a PNG Pillow decodes all pixels first, since tags and texts may stand behind them.
        written = image.format != "PNG" or not _chunks(data).isdisjoint(_TEXTS)
        info, tags = image.info, image.getexif() if written else {}
        tables = getattr(image, "quantization", None)
        if tables:
            layout = (sorted(tables.items()), getattr(image, "layer", None), "progressive" in info)
            compression = hashlib.sha256(repr(layout).encode()).hexdigest()[:8]
        else:
            compression = str(info.get("compression", "")) + ("interlaced" if info.get("interlace") else "")
        software = info.get("Software") or info.get("software") or tags.get(305) or tags.get(271) or ""
        bits = {"1": 1, "I;16": 16, "I;16B": 16, "I": 32, "F": 32}.get(image.mode, 8)
        return {
            "height": image.height, "width": image.width, "format": image.format, "mode": image.mode,
            "bits": bits, "tables": compression, "written_by": str(software)[:60],
        }  # fmt: skip


def _chunks(data: bytes) -> set[bytes]:
    """The kinds of a PNG's chunks."""
    kinds, at = set(), 8
    while at < len(data):
        kinds.add(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4])
    return kinds


def _dicom(path: str, data: bytes) -> dict[str, object]:
    from cxrlib.io.dicom import read_header, silent

    with silent():  # values are read when they are asked for
        header = read_header(Path(path), data)
        maker, station = str(header.get("Manufacturer", "")).strip(), str(header.get("StationName", ""))
        if station:  # tells machines apart, and names a room or a hospital: a few digits do as well
            maker += f" station {hashlib.sha256(station.encode()).hexdigest()[:6]}"
        said = str(header.get("BurnedInAnnotation", "")).strip().upper()
        return {
            "height": int(header.Rows), "width": int(header.Columns), "format": "DICOM",
            "mode": str(header.get("PhotometricInterpretation", "")),
            "bits": int(header.get("BitsStored", 0)),
            "tables": str(getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", "")),
            "written_by": maker[-60:].strip(), "burned_in": said if said in ("YES", "NO") else "unsaid",
        }  # fmt: skip


def duplicates(
    thumbnails: np.ndarray | Iterable[np.ndarray], digests: Sequence[str] | pd.Series | None = None
) -> pd.DataFrame:
    """Pairs of images that are one picture: resized, re-encoded or brightened; not mirrored, turned or
    cropped.

    Pictures are compared by a hash of 256 signs of their cosine transform, and pairs whose hashes differ in
    at most 16 by the correlation of their detail. ``thumbnails``: uint8, (N, 64, 64), or blocks of them that
    can be gone through twice. ``digests``: hashes of the files' bytes; None or missing: only pictures are
    compared. Returns a DataFrame: ``a`` < ``b`` (rows), ``exact`` (equal bytes or equal thumbnails),
    ``likeness`` (correlation).
    """
    blocks: Iterable[np.ndarray] = thumbnails
    if isinstance(thumbnails, np.ndarray):
        blocks = [thumbnails[start : start + _ROWS] for start in range(0, len(thumbnails), _ROWS)]
    hashes, numbers = [np.zeros((0, _BITS // 64), np.uint64)], dict[bytes, int]()
    alike, first = list[int](), list[int]()  # the number of each thumbnail, and where each number begins
    for block in blocks:
        hashes.append(np.packbits(perceptual_hashes(block), axis=1).view(np.uint64))
        for one in block:
            number = numbers.setdefault(hashlib.blake2b(one.tobytes(), digest_size=16).digest(), len(numbers))
            first += [len(alike)] if number == len(first) else []
            alike.append(number)
    a, b = _near(np.concatenate(hashes))
    which, starts = np.array(alike, int), np.array(first, int)
    concerned, places = np.unique(which[np.stack([a, b])], return_inverse=True)
    needed, detail, row = starts[concerned], np.empty((len(concerned), 1024), np.float32), 0
    for block in blocks:
        some = slice(*np.searchsorted(needed, (row, row + len(block))))
        detail[some] = _detail(block[needed[some] - row])
        row += len(block)
    likeness = np.zeros(len(a))
    for start in range(0, len(a), _ROWS):
        one, other = places.reshape(2, -1)[:, start : start + _ROWS]
        likeness[start : start + _ROWS] = np.einsum("ij,ij->i", detail[one], detail[other])
    table = pd.DataFrame({"a": a, "b": b, "likeness": likeness})[likeness >= _ALIKE].reset_index(drop=True)
    a, b = table["a"].to_numpy(int), table["b"].to_numpy(int)
    exact = which[a] == which[b]
    if digests is not None:
        named = pd.Series(digests, dtype=object).fillna("").to_numpy()
        exact |= (named[a] == named[b]) & (named[a] != "")
    return table.assign(exact=exact)


def _near(hashes: np.ndarray) -> np.ndarray:
    """Pairs of rows whose hashes, uint64 (N, 4), differ in at most 16 bits: int, (2, pairs), in order."""
    last, pairs = np.ascontiguousarray(hashes[:, -1]), [np.zeros((2, 0), int)]  # the finest, least alike
    for top in range(0, len(hashes), _TILE[0]):
        for left in range(top, len(hashes), _TILE[1]):
            differ = last[top : top + _TILE[0], None] ^ last[None, left : left + _TILE[1]]
            found = np.flatnonzero(np.bitwise_count(differ) <= _NEAR)
            a, b = np.divmod(found, differ.shape[1]) + np.array([[top], [left]])
            a, b = a[a < b], b[a < b]
            near = np.bitwise_count(hashes[a] ^ hashes[b]).sum(axis=1) <= _NEAR
            pairs.append(np.stack([a[near], b[near]]))
    a, b = np.concatenate(pairs, axis=1)
    order = np.lexsort((b, a))
    return np.stack([a[order], b[order]])


def perceptual_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Signs of 16 × 16 low frequencies against their median: bool, (N, 256). ``thumbnails``: uint8 (N, 64,
    64).
    """
    low = dctn(_halved(thumbnails), axes=(1, 2))[:, :16, :16].reshape(len(thumbnails), -1)
    low[:, 0] = 0  # the mean grey
    return low > np.median(low, axis=1, keepdims=True)


def _detail(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails at 32 pixels less their neighbourhood's mean, of unit length: float32, (N, 1024)."""
    from scipy import ndimage

    values = _halved(thumbnails).astype(np.float32)
    values = (values - ndimage.uniform_filter(values, size=(1, 7, 7))).reshape(len(values), 1024)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)


def _halved(thumbnails: np.ndarray) -> np.ndarray:
    return thumbnails.reshape(len(thumbnails), 32, 2, 32, 2).mean(axis=(2, 4))


def existing_paths(table: pd.DataFrame) -> list[str] | None:
    """The table's ``path`` column where every file is there, else None."""
    if "path" not in table:
        return None
    paths = table["path"].astype(str).tolist()
    return paths if all(map(os.path.isfile, paths)) else None
