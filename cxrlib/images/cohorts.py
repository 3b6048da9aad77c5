"""Cohorts through the consistent pipeline, in parallel and from the cache; one image: :mod:`.pipeline`.

``preprocess(cohort)`` gives a cohort back; ``geometry_of`` gives what was found on the way.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cxrlib.cohort import Cohort
from cxrlib.errors import DataError
from cxrlib.images.geometry import GEOMETRY_COLUMNS, Geometry
from cxrlib.images.pipeline import PREPROCESS_VERSION, PreprocessConfig, Processed, preprocess_image, steps
from cxrlib.io.cache import decode_files
from cxrlib.io.storage import cache_root, read_array, stored
from cxrlib.parallel import progress_bar, run_jobs

__all__ = [
    "PREPROCESS_VERSION", "Geometry", "PreprocessConfig", "Processed", "geometry_of",
    "preprocess", "preprocess_image", "steps",
]  # fmt: skip

_CHUNK = 100  # images a job


@dataclass(frozen=True)
class _Pipeline:
    """The hook for :func:`cxrlib.io.cache.decode_files`."""

    config: PreprocessConfig
    size: int
    beside: ClassVar[dict[str, np.dtype]] = {"values": np.dtype((np.float64, 9))}

    @property
    def key(self) -> str:
        facts = {"version": PREPROCESS_VERSION, "config": asdict(self.config), "size": self.size}
        return "preprocess:" + json.dumps(facts, sort_keys=True)

    def __call__(
        self, image: np.ndarray, row: int, shape: tuple[int, int], size: int, path: str = ""
    ) -> tuple[np.ndarray, Sequence[float]]:
        made = preprocess_image(image, size, self.config)
        down, across = shape[0] / image.shape[0], shape[1] / image.shape[1]
        g = made.geometry
        crop = (g.top * down, g.left * across, g.crop_height * down, g.crop_width * across)
        numbers = (made.inverted, made.border_cropped, made.marker_area, *shape, *crop)
        return made.image, numbers


@dataclass(frozen=True, eq=False)
class _Masks:
    """The hook that takes mask files through the geometries of their images."""

    geometries: list[Geometry]
    beside: ClassVar[dict[str, np.dtype]] = {}

    @property
    def key(self) -> str:
        return "masks:" + hashlib.sha256(repr(self.geometries).encode()).hexdigest()

    def __call__(
        self, image: np.ndarray, row: int, shape: tuple[int, int], size: int, path: str = ""
    ) -> tuple[np.ndarray]:
        g = self.geometries[row]
        down, across = image.shape[0] / g.height, image.shape[1] / g.width
        crop = (g.top * down, g.left * across, g.crop_height * down, g.crop_width * across)
        own = Geometry(image.shape[0], image.shape[1], *crop, size, g.fit)
        return (own.to_processed_mask((image >= 128).astype(np.uint8)),)


def preprocess(
    cohort: Cohort,
    config: PreprocessConfig | None = None,
    *,
    image_size: int | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    cache_dir: str | Path | None = None,
) -> Cohort:
    """Take a whole cohort through the pipeline, or take the result from the cache.

    Where the table has ``path``, the files are decoded again at their own resolution; otherwise the cohort's
    images are what there is. Masks go the same way (from ``mask_path`` where the table has it).

    - ``image_size``: pixels a side; None: as the cohort's images.
    - ``workers``, ``progress``, ``cache_dir``: as for :func:`cxrlib.io.cache.decode_files`.
    - Returns: Cohort with ``inverted`` (bool), ``border_cropped`` and ``marker_area`` (shares of the area)
      and the columns of :data:`.GEOMETRY_COLUMNS`; the settings are in ``info["preprocess"]``.
    - Raises DataError: a file cannot be decoded any more, or there are no images.
    """
    config = config or PreprocessConfig()
    if not len(cohort):
        raise DataError(f"The cohort {cohort.name!r} is empty.", remedy="Give at least one image.")
    size = int(image_size or cohort.images.shape[1])
    pipeline = _Pipeline(config, size)
    options: dict[str, Any] = {"workers": workers, "progress": progress, "cache_dir": cache_dir}
    from_files = "path" in cohort.table and cohort.table["path"].map(lambda p: os.path.isfile(str(p))).all()
    if from_files:
        made = decode_files(cohort.table["path"].tolist(), size, fit=config.fit, process=pipeline, **options)
        images, values = made.images, made.beside["values"]
    else:
        root = cache_root() if cache_dir is None else Path(cache_dir)
        images, values = _from_images(cohort.images, pipeline, root, workers, progress)
    geometries = [_geometry(numbers, size, config.fit) for numbers in values[:, 3:].tolist()]
    columns = {"inverted": values[:, 0] > 0, "border_cropped": values[:, 1], "marker_area": values[:, 2]}
    columns |= {name: values[:, 3 + k] for k, name in enumerate(GEOMETRY_COLUMNS)}
    info = {**cohort.info, "image_size": size, "preprocess": asdict(config)}
    masks: dict[str, np.ndarray | None] = {}
    for role in ("lung_masks", "lesion_masks"):
        given = getattr(cohort, role)
        if given is None:
            masks[role] = None
        elif from_files and role == "lung_masks" and "mask_path" in cohort.table:
            paths = cohort.table["mask_path"].tolist()
            masks[role] = decode_files(paths, size, process=_Masks(geometries), **options).images
        elif from_files:
            frame = {"size": given.shape[1], "fit": str(cohort.info.get("fit", "letterbox"))}
            masks[role] = np.stack([_reframed(m, g, frame) for m, g in zip(given, geometries, strict=True)])
        else:
            masks[role] = np.stack([g.to_processed_mask(m) for m, g in zip(given, geometries, strict=True)])
    return cohort.with_images(images, info=info, **masks).with_columns(**columns)


def geometry_of(cohort: Cohort, row: int) -> Geometry:
    """The geometry of one row (by position) of a cohort that :func:`preprocess` gave; else a DataError."""
    if "window_top" in cohort.table:
        raise DataError(
            f"The cohort {cohort.name!r} has been cropped to the lungs.",
            remedy="Ask the cohort before the crop; window_top, window_left and window_side lead back to it.",
        )
    missing = [column for column in GEOMETRY_COLUMNS if column not in cohort.table]
    if missing or "preprocess" not in cohort.info:
        raise DataError(
            f"The cohort {cohort.name!r} has no geometry (no column {', '.join(map(repr, missing))}).",
            remedy="Take it through cxrlib.images.cohorts.preprocess first.",
        )
    numbers = cohort.table.iloc[row][list(GEOMETRY_COLUMNS)].astype(float).tolist()
    return _geometry(numbers, int(cohort.info["image_size"]), cohort.info["preprocess"]["fit"])


def _geometry(numbers: Sequence[float], size: int, fit: str) -> Geometry:
    """From the values of :data:`cxrlib.images.geometry.GEOMETRY_COLUMNS`."""
    height, width, top, left, crop_height, crop_width = numbers
    return Geometry(int(height), int(width), top, left, crop_height, crop_width, size, fit)


def _from_images(
    images: np.ndarray, pipeline: _Pipeline, root: Path, workers: int | None, progress: bool | None
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`cxrlib.io.cache.decode_files` for arrays: images and values."""
    digest = hashlib.sha256(f"{pipeline.key}\0{images.shape}".encode())
    starts = range(0, len(images), _CHUNK)
    for start in starts:
        digest.update(np.ascontiguousarray(images[start : start + _CHUNK]).data)
    entry = root / "preprocessed" / digest.hexdigest()[:24]

    def build(partial: Path) -> None:
        made: dict[int, list[np.ndarray]] = {}
        jobs = [(np.ascontiguousarray(images[start : start + _CHUNK]), start, pipeline) for start in starts]
        with progress_bar(len(images), "Preprocessing", progress) as bar:
            for start, arrays in run_jobs(_chunk, jobs, workers, small=len(images) < 3 * _CHUNK):
                made[start] = arrays
                bar.update(len(arrays[0]))
        for k, name in enumerate(("images", "values")):
            np.save(partial / f"{name}.npy", np.concatenate([made[start][k] for start in starts]))

    stored(entry, build, needed=len(images) * pipeline.size**2)
    return read_array(entry / "images.npy", mmap_mode="r"), read_array(entry / "values.npy")


def _chunk(images: np.ndarray, start: int, pipeline: _Pipeline) -> tuple[int, list[np.ndarray]]:
    made = [pipeline(image, start + row, image.shape, pipeline.size) for row, image in enumerate(images)]
    return start, [np.stack([image for image, _ in made]), np.array([numbers for _, numbers in made])]


def _reframed(mask: np.ndarray, geometry: Geometry, frame: dict[str, Any]) -> np.ndarray:
    """A mask in the frame of a plain resize of the file -> in that of the geometry; nearest pixel."""
    plain = Geometry.whole(geometry.height, geometry.width, **frame)
    middle = np.arange(geometry.size) + 0.5
    points = plain.to_processed_points(geometry.to_original_points(np.stack([middle, middle], axis=1)))
    index = np.floor(points).astype(int)
    columns, rows = index.T
    size = len(mask)
    inside = ((rows >= 0) & (rows < size))[:, None] & ((columns >= 0) & (columns < size))[None, :]
    picked = mask[np.ix_(np.clip(rows, 0, size - 1), np.clip(columns, 0, size - 1))]
    top, left, height, width = geometry.placed
    framed = np.zeros_like(picked)
    region = (slice(top, top + height), slice(left, left + width))
    framed[region] = (picked * inside)[region]
    return framed
