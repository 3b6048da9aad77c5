"""What each probe of an audit looks at, as numbers: ways of looking at an image, and the signs it may carry.

All probes' features come from one pass over the images, in chunks that are kept on disk, so that an audit
that was cut off goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxrlib.audit import signs
from cxrlib.audit.files import existing_paths
from cxrlib.audit.looking import VERSION as VERSION
from cxrlib.audit.looking import found_before, look_at
from cxrlib.audit.made import MADE
from cxrlib.cohort import Cohort
from cxrlib.errors import CacheError, DataError
from cxrlib.images.regions import VIEWS, shown
from cxrlib.io.decode import placed
from cxrlib.io.pixels import quantiles
from cxrlib.io.storage import atomic_path, read_arrays
from cxrlib.parallel import progress_bar, run_jobs

CHUNK = 200
CELLS = 24

#: Probes that look at the image through a part of it (:data:`cxrlib.images.regions.VIEWS`), and for a sign.
LOOKS = tuple(VIEWS)
SIGNS = ("marker", "text", "border", "exposure", "devices", "projection", "polarity", "mirrored")


def describe(
    cohort: Cohort, folder: Path, *, workers: int | None = None, progress: bool | None = None
) -> Mapping[str, np.ndarray]:
    """Features of every image for every probe of :data:`LOOKS` and :data:`SIGNS`.

    - ``cohort``: with ``lung_masks``; empty ones are replaced by the others' mean for the views, and known to
      be empty to the signs that need lungs.
    - ``folder``: chunks are kept here; those that are there are reused.
    - Returns: probe -> float32, (N, D), also for :data:`cxrlib.audit.made.MADE`, measured on the files in the
      column ``path`` where all are there, else on the cohort's images, and NaN where these are smaller than
      :data:`cxrlib.images.burned_in.SMALLEST`; ``strokes``, of
      :func:`cxrlib.audit.signs.writing`; ``thumbnail``, uint8 (N, 64, 64), by which copies are recognised;
      ``printed``, int8 (N,), as :func:`cxrlib.images.burned_in.printed` has it of the files, -2 without
      files, -1 for one that cannot be read.
    - Raises DataError, CacheError: there are no lung masks; chunks went from the folder meanwhile.
    """
    masks = cohort.lung_masks
    if masks is None:
        raise DataError(
            f"The cohort {cohort.name!r} has no lung masks.",
            remedy="Make them: cxrlib.lungs.masks.segment(cohort).",
        )
    folder.mkdir(parents=True, exist_ok=True)
    fields, paths = _fields(cohort), existing_paths(cohort.table)
    before = None if paths is None or _moved(cohort) else found_before(cohort)
    typical = _typical(masks)
    starts = range(0, len(cohort), CHUNK)
    missing = [start for start in starts if read_arrays(_file(folder, start)) is None]
    with progress_bar(len(cohort), "Looking at images", progress) as bar:
        bar.update(len(cohort) - sum(min(CHUNK, len(cohort) - start) for start in missing))
        batch = 16  # chunks handed out at a time, so that a memory-mapped cohort is never held whole
        for first in range(0, len(missing), batch):
            jobs = [
                (np.array(cohort.images[s : s + CHUNK]), np.array(masks[s : s + CHUNK]), typical,
                 fields[s : s + CHUNK], paths and paths[s : s + CHUNK], not _moved(cohort),
                 before and before.of(range(s, min(s + CHUNK, len(cohort)))), str(_file(folder, s)))
                for s in missing[first : first + batch]
            ]  # fmt: skip
            for done in run_jobs(_describe_chunk, jobs, workers, small=len(cohort) < 2 * CHUNK):
                bar.update(done)
    kept = Kept([_file(folder, start) for start in starts], len(cohort))
    _ = kept["lungs_found"]  # an error now and not later where a chunk is gone
    return kept


class Kept(Mapping[str, np.ndarray]):
    """Features in chunks on disk, each read when it is asked for: all those of NIH take two gigabytes."""

    def __init__(self, files: Sequence[Path], count: int):
        self.files, self.count = files, count

    def parts(self, name: str) -> Iterator[np.ndarray]:
        """One probe's features, chunk by chunk."""
        return (self._read(file, name)[name] for file in self.files)

    def __getitem__(self, name: str) -> np.ndarray:
        made, start = np.zeros(0), 0
        for part in self.parts(name):
            if not start:
                made = np.empty((self.count, *part.shape[1:]), part.dtype)
            made[start : start + len(part)] = part
            start += len(part)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._read(self.files[0]))

    def __len__(self) -> int:
        return len(self._read(self.files[0]))

    def _read(self, file: Path, name: str | None = None) -> dict[str, np.ndarray]:
        if (part := read_arrays(file, name)) is None:
            raise CacheError(
                f"{file} is gone or damaged.",
                remedy="Give the audit a folder that nothing else changes, and start it again.",
            )
        return part


class Rows(Mapping[str, np.ndarray]):
    """Some rows of features, each taken when it is asked for."""

    def __init__(self, features: Mapping[str, np.ndarray], rows: np.ndarray):
        self.features, self.rows = features, rows

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self.features[name][self.rows])

    def __iter__(self) -> Iterator[str]:
        return iter(self.features)

    def __len__(self) -> int:
        return len(self.features)


def _signs(
    image: np.ndarray, mask: np.ndarray, own: bool, field: tuple[int, int, int, int]
) -> dict[str, np.ndarray]:
    top, left, height, width = field
    image = image[top : top + height, left : left + width]
    mask = mask[top : top + height, left : left + width]
    letter, text, found, strokes = signs.writing(image)
    around = signs.around_lungs(image, mask) if own else None
    return {
        "marker": letter,
        "text": text,
        "border": signs.borders(image),
        "exposure": signs.exposure(image, mask),
        "devices": signs.electrodes(image, found),
        "projection": signs.projection(around),
        "polarity": signs.polarity(image),
        "mirrored": signs.sides(around),
        "strokes": strokes,
    }


def _looked(images: np.ndarray, view: str, masks: np.ndarray) -> np.ndarray:
    """A view's images as numbers: block means and spreads; for the histogram, greys alone. float32."""
    if view == "histogram":
        return np.stack([_greys(image) for image in images])
    if view == "blur":
        return _blocks(images, 16).reshape(len(images), -1)
    means = _blocks(images, CELLS).reshape(len(images), -1)
    if view == "lung_shape":
        return means
    squares = _blocks(images.astype(np.float32) ** 2, CELLS // 2).reshape(len(images), -1)
    spreads = np.sqrt(np.maximum(squares - _blocks(images, CELLS // 2).reshape(len(images), -1) ** 2, 0))
    features = [means, spreads]
    if view in ("whole", "lungs_only"):
        kept = [
            image[mask > 0] if view == "lungs_only" else image
            for image, mask in zip(images, masks, strict=True)
        ]
        features += [np.stack([_greys(part) for part in kept])]
    return np.concatenate(features, axis=1).astype(np.float32)


def _greys(values: np.ndarray) -> np.ndarray:
    """Shares of 32 grey levels (square roots, so that rare ones count) and 15 quantiles; float32, (47,)."""
    counts = np.bincount(values.ravel(), minlength=256)
    levels = counts.reshape(32, 8).sum(axis=1) / max(values.size, 1)
    places = quantiles(counts[None], np.linspace(0.01, 0.99, 15))[:, 0] if values.size else np.zeros(15)
    return np.concatenate([np.sqrt(levels), places / 255]).astype(np.float32)


def _blocks(images: np.ndarray, cells: int) -> np.ndarray:
    """Mean greys of ``cells`` × ``cells`` blocks, pixels repeated where there are fewer; float32."""
    height, width = images.shape[1:]
    if min(height, width) < cells:
        rows, columns = (np.arange(cells) * side // cells for side in (height, width))
        return images[:, rows[:, None], columns].astype(np.float32)
    rows, columns = (np.linspace(0, side, cells + 1).astype(int) for side in (height, width))
    sums = np.add.reduceat(np.add.reduceat(images.astype(np.float32), rows[:-1], 1), columns[:-1], 2)
    return sums / (np.diff(rows)[:, None] * np.diff(columns)).astype(np.float32)


def _fields(cohort: Cohort) -> list[tuple[int, int, int, int]]:
    """Where each image lies within its letterbox: padding is this project's doing, not the data's."""
    size, width = cohort.images.shape[1:]
    whole = (0, 0, size, width)
    columns = ("original_height", "original_width")
    if _moved(cohort) or cohort.info.get("fit") != "letterbox" or not set(columns) <= set(cohort.table):
        return [whole] * len(cohort)
    shapes = cohort.table[list(columns)].to_numpy(dtype=float)
    return [placed(int(h), int(w), size) if h > 0 and w > 0 else whole for h, w in shapes]


def _moved(cohort: Cohort) -> bool:
    """Whether the images are no longer their files' whole fields."""
    return "preprocess" in cohort.info or "window_top" in cohort.table


def _typical(masks: np.ndarray) -> np.ndarray:
    """The mean lung field, uint8 (H, W); an ellipse in the middle where no image has a mask."""
    rows = np.linspace(0, len(masks) - 1, min(2000, len(masks))).astype(int)
    there = [mask for mask in masks[np.unique(rows)] if mask.any()]
    if there:
        return (np.mean(there, axis=0) >= 0.5).astype(np.uint8)
    y, x = (np.linspace(-1, 1, side) for side in masks.shape[1:])
    return ((y[:, None] / 0.6) ** 2 + (x[None, :] / 0.7) ** 2 < 1).astype(np.uint8)


def _describe_chunk(
    images: np.ndarray,
    masks: np.ndarray,
    typical: np.ndarray,
    fields: Sequence[tuple[int, int, int, int]],
    paths: Sequence[str] | None,
    whole: bool,
    before: Sequence[np.void | None] | None,
    target: str,
) -> int:
    """Write the features of uint8 images and 0/1 masks (N, S, S) to a file; how many images they are.

    ``typical``: the mask for images without one. ``fields``: top, left, height and width of what is image and
    not padding, one a row. ``paths``, ``whole``: the files, and whether the fields are theirs. ``before``:
    what was found in the files when they were decoded, where it was.
    """
    import pandas as pd

    there = np.asarray(masks.reshape(len(masks), -1).any(1))
    filled = np.where(there[:, None, None], masks, typical)
    names = [str(row) for row in range(len(images))]
    table = pd.DataFrame({"image_id": names, "patient_id": names, "label": 0, "split": "test"})
    cohort = Cohort(images, table, filled)
    found: dict[str, Any] = {
        # Greys are the same in any order: they need not be sorted first.
        view: _looked(images if view == "histogram" else shown(cohort, view).images, view, filled)
        for view in LOOKS
    }
    rows = [_signs(*one) for one in zip(images, filled, there, fields, strict=True)]
    found |= {name: np.stack([row[name] for row in rows]) for name in (*SIGNS, "strokes")}
    files: Sequence[str | None] = paths or [None] * len(images)
    seen = [
        look_at(image, mask, field, path, whole) if known is None else known
        for image, mask, field, path, known in zip(
            images, filled, fields, files, before or [None] * len(images), strict=True
        )
    ]
    found |= {name: np.stack([one[name] for one in seen]) for name in (*MADE, "printed")}
    found["lungs_found"] = there
    found["thumbnail"] = _blocks(images, 64).round().astype(np.uint8)
    with atomic_path(target) as temporary, open(temporary, "wb") as file:
        np.savez(file, **found)
    return len(images)


def _file(folder: Path, start: int) -> Path:
    return folder / f"images-{start:07d}.npz"
