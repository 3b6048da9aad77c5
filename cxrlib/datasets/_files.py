"""What the sources that read folders of images share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.errors import ConfigError, DataError
from cxrlib.io.cache import decode_files
from cxrlib.io.decode import EXTENSIONS

VALIDATION_SHARE = 0.1


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
    """The image files directly in a folder, by name; hidden ones (``.DS_Store``, ``._x.png``) left out."""
    endings = tuple(extensions)
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.name.lower().endswith(endings) and not _is_dir(entry)
        ]
    return [folder / name for name in sorted(names)]


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and all folders below, linked ones too, each of which is read once."""
    here = os.stat(folder)
    seen, found = {(here.st_dev, here.st_ino)}, []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in sorted(folders) if _is_new(os.path.join(root, name), seen)]
        if any(name.lower().endswith(EXTENSIONS) for name in files):
            found += images_in(Path(root))
    return found


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
    image_size: int,
    info: dict[str, object],
    seed: int = 0,
    limit: int | None = None,
    fit: str = "letterbox",
    allow_shared_patients: bool = False,
    **decoding: Any,
) -> Cohort:
    """Decode the files in column ``path`` and make the cohort of those that could be read.

    Adds ``original_height`` and ``original_width`` (pixels, of the file) where the table has none, and to the
    info what was skipped. ``decoding``: skip_bad, workers, progress, cache_dir.
    """
    table = limited(table, limit, seed)
    decoded = decode_files(table["path"].tolist(), image_size, fit=fit, **decoding)
    table = table[decoded.kept]
    if "original_height" not in table:
        table = table.assign(original_height=decoded.shapes[:, 0], original_width=decoded.shapes[:, 1])
    skipped = [f"{path}: {reason}" for path, reason in decoded.skipped]
    info = {**info, "image_size": image_size, "fit": fit, "seed": seed, "limit": limit, "skipped": skipped}
    if skipped:
        info["skipped_csv"] = str(decoded.folder / "skipped.csv")
    return Cohort(decoded.images, table, name=name, info=info, allow_shared_patients=allow_shared_patients)


def masks_from_files(
    paths: Sequence[str | Path], *, image_size: int, fit: str = "letterbox", **decoding: Any
) -> np.ndarray:
    """Decode mask files into uint8 0/1, shape (N, image_size, image_size); every one must be readable."""
    masks = decode_files(paths, image_size, fit=fit, **decoding).images
    # Half of the pixel's area: the resize is antialiased, so 128 is where the outline runs.
    return (masks >= 128).astype(np.uint8)


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
