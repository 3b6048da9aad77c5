"""The files that ``make bench`` reads: real radiographs where they are at hand, else phantoms."""

from __future__ import annotations

import shutil
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cxrlib.cohort import Cohort
from cxrlib.errors import DataError

CLASSES = ("NORMAL", "PNEUMONIA")


def training_files(
    work: Path, data: Path | None, images: int, pixels: int, side: int | None = None
) -> tuple[Cohort, list[Path], str]:
    """A cohort, its files in the layout of ImageFolder (``NORMAL/``, ``PNEUMONIA/``), and what they are.

    Parameters
    ----------
    work
        Where the files go.
    data
        Holds Kermany's radiographs; None for phantoms.
    images, pixels
        How many train, and the cohort's pixels a side.
    side
        Phantoms as JPEG of so many pixels a side, whatever ``data`` is.
    """
    from cxrlib.io.cache import decode_files

    drawn = side or 224  # pixels of a phantom
    count, folder = images + held_out(images), work / f"training-{images}-{side or 'own'}"
    if side is None and data is not None:
        from cxrlib.datasets import kermany

        table = kermany.files(data / "kermany224")
        table = table[table["published_part"] == "train"].sample(count, random_state=0)
        sources, labels = table["path"].tolist(), table["label"].to_numpy()
        what = "Kermany, JPEG of 224 pixels"
    else:
        sources, labels = phantoms(count)
        what = f"phantoms, JPEG of {drawn} pixels"
    files = []
    for row, (source, label) in enumerate(zip(sources, labels, strict=True)):
        part = "train" if row < images else "val"
        target = folder / part / CLASSES[int(label)] / f"{row:06d}.jpeg"
        files.append(target)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, np.ndarray):
                _written(source, target, drawn, quality=95)
            else:
                shutil.copyfile(source, target)
    decoded = decode_files(files, pixels, cache_dir=work / "cache", progress=False)
    names = [path.stem for path in files]
    split = np.where(np.arange(count) < images, "train", "val")
    table = pd.DataFrame({"image_id": names, "patient_id": names, "label": labels, "split": split})
    return Cohort(decoded.images, table, name="bench"), files[:images], what


def nih_files(work: Path, data: Path | None, images: int) -> dict[str, tuple[list[Path], str]]:
    """PNG files under NIH's names: as they are at hand (384 pixels), and as published (``_1024``)."""
    if data is not None:
        own = sorted((data / "nih-subset" / "images").glob("*.png"))
        published = sorted((data / "nih-subset" / "original-1024").glob("*.png"))
        if not own or not published:
            raise DataError(
                f"{data / 'nih-subset'} lacks images/*.png or original-1024/*.png.",
                remedy="Add them, or unset CXRLIB_DATA to measure on phantoms.",
            )
        # 256 at least, so that both processes decode; the same file again costs as much as another.
        many = list(islice(cycle(published), max(256, len(published))))
        return {
            "": (own, f"NIH, {len(own)} PNG of 384 pixels"),
            "_1024": (many, f"NIH, {len(published)} PNG of 1024 pixels, in turn"),
        }
    from cxrlib.datasets import nih_tables

    names, found = nih_tables.metadata()["image_id"].iloc[:images], {}
    rendered = phantoms(images + held_out(images))[0][:images]
    for suffix, side in (("", 384), ("_1024", 1024)):
        paths = [work / f"nih-{side}" / name for name in names]
        for path, image in zip(paths, cycle(rendered), strict=False):
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                _written(image, path, side)
        found[suffix] = (paths, f"{len(rendered)} phantoms, PNG of {side} pixels under NIH's names")
    return found


def held_out(images: int) -> int:
    """How many are validated on beside so many that train."""
    return max(16, images // 8)


def phantoms(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Phantoms of 256 pixels and their labels."""
    from cxrlib.datasets import load

    cohort = load("phantom", n=count, image_size=256, seed=7)
    return list(cohort.images), cohort.labels


def _written(image: np.ndarray, target: Path, side: int, **options: Any) -> None:
    resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    resized.save(target, **options)
