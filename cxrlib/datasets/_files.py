"""What the sources that read folders of images share."""

from __future__ import annotations

import hashlib
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.errors import ConfigError, CxrWarning, DataError
from cxrlib.io.cache import Process, decode_files
from cxrlib.io.decode import EXTENSIONS, FORMATS, kind_of
from cxrlib.io.masks import MaskReader

VALIDATION_SHARE = 0.1

_BESIDE: ContextVar[Callable[[int, str], Process] | None] = ContextVar("beside", default=None)


def existing_folder(data_dir: str | Path | None, source: str, wanted: str) -> Path:
    """``data_dir`` as a path; an error that says what should be in it where it is not given or not there."""
    if data_dir is None:
        raise ConfigError(
            f"The dataset {source!r} is read from a folder, and none is given.",
            remedy=f"Pass data_dir (--data-dir), a folder with {wanted}.",
        )
    folder = Path(data_dir).expanduser().absolute()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"The folder {folder} {what}.", remedy=f"Name a folder with {wanted}.")
    return folder


def official_splits(table: pd.DataFrame, in_test: pd.Series, seed: int) -> np.ndarray:
    """The published test part; of the others one patient in ten, by a hash of the id, for ``val``."""
    by_hash = split_by_patient(table["patient_id"], (1 - VALIDATION_SHARE, VALIDATION_SHARE, 0.0), seed=seed)
    return np.where(in_test, "test", by_hash)


def images_in(folder: Path, extensions: Iterable[str] = EXTENSIONS) -> list[Path]:
    """The files of these endings directly in a folder, by name; hidden ones (``._x.png``) left out."""
    endings = tuple(extensions)
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.name.lower().endswith(endings) and not _is_dir(entry)
        ]
    return [folder / name for name in sorted(names)]


def images_below(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The image files in a folder and all folders below, linked ones too, each of which is read once.

    A file with an image's ending is taken for one; what any other is, its content tells. Also: of those left
    out, how many for which reason. Hidden files and folders are passed over.
    """
    here = os.stat(folder)
    seen, found, left_out = {(here.st_dev, here.st_ino)}, [], Counter[str]()
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and _is_new(os.path.join(root, name), seen)
        ]
        for name in sorted(files):
            if name.startswith("."):
                continue
            path = Path(root, name)
            reason = "" if name.lower().endswith(EXTENSIONS) else _no_image(path)
            if reason:
                left_out[reason] += 1
            else:
                found.append(path)
    return found, left_out


def _no_image(path: Path) -> str:
    """Why a file without an image's ending is none, "" if it is one by its first bytes."""
    ending = f"*{path.suffix}" if path.suffix else "no ending"
    try:
        if not path.is_file():
            return "pipe, device or broken link"
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError:
        return f"cannot be read, {ending}"
    kind = kind_of(path, head)
    if kind == "DICOM" and path.name.upper() == "DICOMDIR":
        return "DICOMDIR, an index"
    if kind == "DICOM" or kind in FORMATS:
        return ""
    return f"{kind or 'no image'}, {ending}"


def on_disk(path: str) -> str:
    """The path, or, where only that is there, its other Unicode form (é as one character or two)."""
    if os.path.exists(path):
        return path
    others = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return next((other for other in others if os.path.exists(other)), path)


def _is_new(folder: str, seen: set[tuple[int, int]]) -> bool:
    facts = os.stat(folder)
    size = len(seen)
    seen.add((facts.st_dev, facts.st_ino))
    return len(seen) > size


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: decoding will say so
        return False


def limited(table: pd.DataFrame, limit: int | None, seed: int = 0) -> pd.DataFrame:
    """At most ``limit`` rows, drawn by a hash of the image id and the seed, in the table's order."""
    if limit is None or limit >= len(table):
        return table
    if limit < 1:
        raise ConfigError(f"The limit is {limit}.", remedy="Give the number of images wanted, 1 or more.")
    draws = [
        hashlib.sha256(f"{seed}:{image}".encode("utf-8", "surrogateescape")).digest()
        for image in table["image_id"]
    ]
    chosen = sorted(range(len(draws)), key=draws.__getitem__)[:limit]
    return table.iloc[sorted(chosen)]


def cohort_from_files(
    name: str,
    table: pd.DataFrame,
    *,
    info: dict[str, Any],
    image_size: int = 128,
    seed: int = 0,
    limit: int | None = None,
    fit: str = "letterbox",
    allow_shared_patients: bool = False,
    **decoding: Any,
) -> Cohort:
    """Decode the files in column ``path`` and make the cohort of those that could be read.

    Adds ``original_height`` and ``original_width`` (pixels, of the file) where the table has none, and to the
    info what was skipped.

    - ``image_size``, ``fit``: pixels a side, and ``letterbox`` or ``stretch``; see :func:`.resize`.
    - ``limit``: load only this many images, drawn by a hash of their ids and ``seed``.
    - ``decoding``: skip_bad, workers, progress, cache_dir: see :func:`cxrlib.io.cache.decode_files`.
    """
    table = limited(table, limit, seed)
    process, masks = (made := _BESIDE.get()) and made(image_size, fit), None
    decoded = decode_files(table["path"].tolist(), image_size, fit=fit, process=process, **decoding)
    table = table[decoded.kept]
    if process:
        masks, info = decoded.beside["lungs"], {**info, "looked": str(decoded.folder)}
        problems = decoded.beside["looked"]["problem"].astype(str)
        table = table.assign(lungs_plausible=problems == "", lungs_problem=problems)
    if "original_height" not in table:
        table = table.assign(original_height=decoded.shapes[:, 0], original_width=decoded.shapes[:, 1])
    skipped = [f"{path}: {reason}" for path, reason in decoded.skipped]
    info = {**info, "image_size": image_size, "fit": fit, "seed": seed, "limit": limit, "skipped": skipped}
    if skipped:
        info["skipped_csv"] = str(decoded.folder / "skipped.csv")
    shared = allow_shared_patients
    return Cohort(decoded.images, table, masks, name=name, info=info, allow_shared_patients=shared)


@contextmanager
def beside(made: Callable[[int, str], Process]) -> Iterator[None]:
    """Within it, cohorts that are loaded from files are made by ``made(image_size, fit)``, which finds their
    lungs while it is at it (``lungs``) and notes what else it finds: :class:`cxrlib.audit.looking.Look`.
    """
    token = _BESIDE.set(made)
    try:
        yield
    finally:
        _BESIDE.reset(token)


def masks_from_files(
    paths: Sequence[str | Path], *, image_size: int, fit: str = "letterbox", **decoding: Any
) -> np.ndarray:
    """Read mask files into uint8 0/1, shape (N, image_size, image_size); every one must be readable.

    See :func:`cxrlib.io.masks.read_mask`. Raises a DataError where all are empty, and warns where some are.
    """
    decoded = decode_files(paths, image_size, fit=fit, process=MaskReader(fit), **decoding)
    # Half of the pixel's area: the resize is antialiased, so 128 is where the outline runs.
    masks = (decoded.images >= 128).astype(np.uint8)
    empty = [str(path) for path, mask in zip(paths, masks, strict=True) if not mask.any()]
    if empty and len(empty) == len(masks):
        raise DataError(
            f"All {len(empty)} masks are empty.",
            offenders=empty,
            remedy="Check that these are the masks, not black pictures: what is not black is marked.",
        )
    if empty:
        message = f"{len(empty)} of {len(masks)} masks are empty: {', '.join(empty[:5])}."
        warnings.warn(message, CxrWarning, stacklevel=3)
    return masks


def from_kaggle(handle: str, data_dir: str | Path | None) -> Path:
    """Download a Kaggle dataset with kagglehub, into ``data_dir`` if given; return its folder."""
    try:
        import kagglehub
    except ImportError:
        raise ConfigError(
            f"Fetching {handle} from Kaggle needs the package kagglehub, which is not installed.",
            remedy="Install it: pip install 'cxrlib[kaggle]'; or download "
            f"https://www.kaggle.com/datasets/{handle} by hand and pass its folder as data_dir.",
        ) from None
    before = os.environ.get("KAGGLEHUB_CACHE")
    if data_dir is not None:
        os.environ["KAGGLEHUB_CACHE"] = str(Path(data_dir).expanduser().absolute())
    try:
        return Path(kagglehub.dataset_download(handle))
    except Exception as error:  # kagglehub lets through whatever its HTTP layer raises
        raise DataError(
            f"{handle} could not be downloaded from Kaggle: {type(error).__name__}: {error}",
            remedy=f"Check the network, or download https://www.kaggle.com/datasets/{handle} by hand and "
            "pass its folder as data_dir.",
        ) from error
    finally:
        if data_dir is not None:
            if before is None:
                del os.environ["KAGGLEHUB_CACHE"]
            else:
                os.environ["KAGGLEHUB_CACHE"] = before
