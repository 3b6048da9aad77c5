"""PneumoniaMNIST and ChestMNIST: Kermany's and NIH's radiographs, reduced to 28, 64, 128 or 224 pixels.

Names, addresses, checksums, sizes and label names are those of the installed ``medmnist`` package. A file is
looked for in ``data_dir``, else in the package's own folder ``~/.medmnist`` and in ``cache_root()/medmnist``;
it is downloaded to the last where none has it. Its checksum is verified before anything is read from it, and
its images are unpacked once into the cache, because a compressed file cannot be mapped into memory.

The files hold no patient ids. Every image counts as a patient of its own, the split is the published one, and
intervals come out a little too narrow wherever a patient has several images. ChestMNIST's published split is
by patient; PneumoniaMNIST's train and val are not known to be.

Source: Yang et al., Scientific Data 2023, doi:10.1038/s41597-022-01721-8.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import urllib.error
import urllib.request
import zipfile
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxrlib.cohort import SPLITS, Cohort
from cxrlib.datasets._files import limited
from cxrlib.errors import CacheError, ConfigError, DataError, course_packages
from cxrlib.io.cache import atomic_path, cache_root, progress_bar
from cxrlib.io.storage import allocate, read_array, stored

if TYPE_CHECKING:
    from tqdm import tqdm

NAMES = ("pneumoniamnist", "chestmnist")
_LAYOUT = 1
_BLOCK = 2**20


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    image_size: int = 28,
    seed: int = 0,
    limit: int | None = None,
    cache_dir: str | Path | None = None,
    progress: bool | None = None,
) -> Cohort:
    """One of the two, in its published split.

    - ``name``: ``pneumoniamnist`` or ``chestmnist``.
    - ``data_dir``: a folder with the package's ``.npz`` file, or to download it to.
    - ``image_size``: one of the sizes that the package offers.
    - ``seed``, ``limit``: load only ``limit`` images, drawn by a hash of the id and the seed.
    - ``cache_dir``: instead of :func:`cxrlib.io.cache.cache_root`.
    - ``progress``: show progress bars. None: on a terminal or in a notebook.
    - Returns: Cohort. ``label`` is 1 for pneumonia; ChestMNIST has a bool column for each of its 14 findings.
    - Raises ConfigError: the size is not offered.
    - Raises DataError: the file is not there and cannot be downloaded, or its checksum is wrong.
    """
    about = package_info(name)
    suffix = _suffix(name, image_size)
    root = Path(cache_dir) if cache_dir is not None else cache_root()
    key = hashlib.sha256(f"{_LAYOUT}\0{name}\0{about['MD5' + suffix]}".encode()).hexdigest()[:24]
    entry = root / "decoded" / key
    shape = (sum(about["n_samples"].values()), image_size, image_size)

    def build(partial: Path) -> None:
        archive = fetch(name, data_dir, image_size=image_size, cache_dir=cache_dir, progress=progress)
        _unpack(archive, partial, about["n_samples"], shape, progress)

    stored(entry, build, needed=int(np.prod(shape, dtype=np.int64)))
    return _cohort(name, entry, about, image_size, limit, seed)


def fetch(
    name: str,
    data_dir: str | Path | None = None,
    *,
    image_size: int = 28,
    cache_dir: str | Path | None = None,
    progress: bool | None = None,
) -> Path:
    """The verified ``.npz`` file; it is downloaded where it is in none of the folders."""
    about = package_info(name)
    suffix = _suffix(name, image_size)
    file_name, url, expected = f"{name}{suffix}.npz", about["url" + suffix], about["MD5" + suffix]
    there = find(name, data_dir, image_size=image_size, cache_dir=cache_dir)
    if there is not None:
        found = md5(there, progress)
        if found == expected:
            return there
        raise DataError(
            f"{there} has the MD5 checksum {found}; published is {expected}.",
            remedy=f"Delete it, and let it be downloaded again or fetch it from {url}",
        )
    target = _folders(data_dir, cache_dir)[-1] / file_name
    try:
        with atomic_path(target) as work:
            _download(url, work, progress)
            found = md5(work, progress)
            if found != expected:
                raise DataError(
                    f"What {url} gave has the MD5 checksum {found}; published is {expected}.",
                    remedy=f"Try again, or fetch it by other means and put it at {target}",
                )
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(
            f"{file_name} is not on this machine, and cannot be downloaded: {reason}.",
            remedy=f"Where there is a network, download {url} (MD5 {expected}); put it, named {file_name}, "
            f"into the folder {target.parent}.",
        ) from error
    return target


def find(
    name: str,
    data_dir: str | Path | None = None,
    *,
    image_size: int = 28,
    cache_dir: str | Path | None = None,
) -> Path | None:
    """Where the ``.npz`` file lies, unverified; None where it is in none of the folders."""
    file_name = f"{name}{_suffix(name, image_size)}.npz"
    candidates = (folder / file_name for folder in _folders(data_dir, cache_dir))
    return next((path for path in candidates if path.is_file()), None)


def sizes(name: str) -> tuple[int, ...]:
    """The image sizes (pixels a side) that the installed package offers."""
    return (
        28,
        *sorted(int(key.removeprefix("MD5_")) for key in package_info(name) if key.startswith("MD5_")),
    )


def package_info(name: str) -> dict[str, Any]:
    """What the ``medmnist`` package says of a dataset: addresses, checksums, counts, label names."""
    if name not in NAMES:
        raise ConfigError(f"There is no dataset {name!r} here.", remedy=f"Use one of {', '.join(NAMES)}.")
    return _info()[name]


@cache
def _info() -> dict[str, dict[str, Any]]:
    # The package's own import takes torch with it, which is seconds; its table of contents need not.
    package = importlib.util.find_spec("medmnist")
    if package is None or not package.submodule_search_locations:
        with course_packages("MedMNIST's list of files"):
            raise ModuleNotFoundError("not installed", name="medmnist")
    path = Path(package.submodule_search_locations[0]) / "info.py"
    spec = importlib.util.spec_from_file_location("_medmnist_info", path)
    assert spec is not None and spec.loader is not None  # as of any .py file
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.INFO


def _suffix(name: str, image_size: int) -> str:
    offered = sizes(name)
    if image_size not in offered:
        raise ConfigError(
            f"{name} is not published at {image_size} pixels.",
            remedy=f"Choose an image_size (--image-size) of {', '.join(map(str, offered))}.",
        )
    return "" if image_size == 28 else f"_{image_size}"


def _folders(data_dir: str | Path | None, cache_dir: str | Path | None) -> list[Path]:
    """Where the file may be; it is downloaded to the last."""
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    root = Path(cache_dir) if cache_dir is not None else cache_root()
    return [Path.home() / ".medmnist", root / "medmnist"]


def md5(path: Path, progress: bool | None = False) -> str:
    """The MD5 checksum of a file, 32 hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    size = path.stat().st_size
    with open(path, "rb") as file, _bytes_bar(size, f"Checking {path.name}", progress) as bar:
        while block := file.read(_BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _download(url: str, target: Path, progress: bool | None) -> None:
    with urllib.request.urlopen(url, timeout=60) as response, open(target, "wb") as file:
        size = int(response.headers.get("Content-Length") or 0)
        with _bytes_bar(size, "Downloading", progress) as bar:
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
    if size and target.stat().st_size != size:
        raise ConnectionError(f"the connection broke off after {target.stat().st_size:,} of {size:,} bytes")


def _bytes_bar(size: int, description: str, progress: bool | None) -> tqdm[Any]:
    return progress_bar(size, description, progress, unit="B", unit_scale=True)


def _unpack(
    archive: Path, partial: Path, counts: dict[str, int], shape: tuple[int, ...], progress: bool | None
) -> None:
    """Copy the images into one array in the cache, a block at a time, and the labels beside it."""
    labels = []
    offset = allocate(partial / "images.npy", shape)
    bar = progress_bar(shape[0], "Unpacking", progress)
    images = partial / "images.npy"
    try:
        with zipfile.ZipFile(archive) as members, open(images, "r+b") as target, bar:
            target.seek(offset)
            for split in SPLITS:
                _copy_images(members, split, (counts[split], *shape[1:]), target, bar)
                with members.open(f"{split}_labels.npy") as member:
                    labels.append(np.lib.format.read_array(member, allow_pickle=False))
                if len(labels[-1]) != counts[split]:
                    raise ValueError(f"it has {len(labels[-1])} {split} labels, not {counts[split]}")
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{archive} is not the file that it should be: {error}",
            remedy="Delete it and fetch it again.",
        ) from error
    np.save(partial / "labels.npy", np.concatenate(labels).astype(np.uint8))
    manifest = {"schema": 1, "made_from": str(archive), "image_size": shape[1], "counts": counts}
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _copy_images(
    members: zipfile.ZipFile, split: str, shape: tuple[int, ...], target: IO[bytes], bar: tqdm[Any]
) -> None:
    with members.open(f"{split}_images.npy") as member:
        version = np.lib.format.read_magic(member)
        formats = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        found, fortran, dtype = formats[version](member)
        if found != shape or fortran or dtype != np.uint8:
            raise ValueError(f"its {split} images are {dtype} of shape {found}, not uint8 of {shape}")
        pixels = shape[1] * shape[2]
        images_a_block = max(1, _BLOCK // pixels)
        for start in range(0, shape[0], images_a_block):
            images = min(images_a_block, shape[0] - start)
            block = member.read(images * pixels)
            if len(block) < images * pixels:
                raise EOFError(f"its {split} images end early")
            target.write(block)
            bar.update(images)


def _cohort(
    name: str, entry: Path, about: dict[str, Any], image_size: int, limit: int | None, seed: int
) -> Cohort:
    try:
        images = read_array(entry / "images.npy", mmap_mode="r")
        labels = read_array(entry / "labels.npy")
    except (OSError, ValueError) as error:
        raise CacheError(f"The cache in {entry} is damaged: {error}", remedy=f"Delete {entry}.") from error
    counts = about["n_samples"]
    split = np.repeat(SPLITS, [counts[part] for part in SPLITS])
    number = np.concatenate([np.arange(counts[part]) for part in SPLITS])
    ids = [f"{part}-{i:06d}" for part, i in zip(split, number, strict=True)]
    table = pd.DataFrame({"image_id": ids, "patient_id": ids, "split": split})
    if about["task"].startswith("multi-label"):
        for column, finding in about["label"].items():
            table[finding] = labels[:, int(column)].astype(bool)
        table["label"] = table["pneumonia"].astype(np.int64)
    else:
        table["label"] = labels[:, 0].astype(np.int64)
    info = {"image_size": image_size, "limit": limit, "seed": seed, "patients": "unknown: one an image"}
    cohort = Cohort(images, table, name=name, info=info)
    if limit is None or limit >= len(cohort):
        return cohort
    return cohort.take(limited(table, limit, seed).index.to_numpy())
