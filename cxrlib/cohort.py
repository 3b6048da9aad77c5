"""The Cohort: images, their table, and their masks. The one thing that flows between modules."""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, DTypeLike

from cxrlib.errors import DataError

SPLITS = ("train", "val", "test")
REQUIRED_COLUMNS = ("image_id", "patient_id", "label", "split")


#: Bytes that are read from a memory map before its pages are given back.
MAPPED = 2**24


class Rows:
    """Some rows of an array, read when they are asked for, so that a memory map is never in memory whole.

    Stands for ``array[rows]`` wherever that is only measured or indexed along its first axis; ``array`` has
    shape (N, …) or is other Rows. Pages of the map that were read are given back after every ``MAPPED``
    bytes: they stay in the system's file cache, and out of this process's resident set.
    """

    def __init__(self, array: np.ndarray | Rows, rows: np.ndarray) -> None:
        rows = np.asarray(rows, dtype=np.int64)
        self._array: np.ndarray = array._array if isinstance(array, Rows) else array
        self._rows: np.ndarray = array._rows[rows] if isinstance(array, Rows) else rows
        self.shape: tuple[int, ...] = (len(rows), *array.shape[1:])
        self.dtype: np.dtype = array.dtype
        self.ndim: int = array.ndim
        self.size: int = math.prod(self.shape)
        self._read = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        found = np.asarray(self._array[self._rows[key]])
        self._read += found.nbytes
        if self._read > MAPPED:
            _give_back(self._array)
            self._read = 0
        return found

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


def _give_back(array: np.ndarray) -> None:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True, eq=False)
class Cohort:
    """Radiographs with what is known of them.

    - ``images``: uint8, shape (N, H, W), 0–255; bone is bright. Often a read-only memory map.
    - ``table``: N rows. Needs ``image_id`` (unique), ``patient_id``, ``label`` (0 or 1, 1 = pneumonia) and
      ``split`` (train, val or test); may hold ``view``, ``age`` (years), ``sex``, ``site``, ``subtype``,
      ``path``, ….
    - ``lung_masks``, ``lesion_masks``: uint8 0/1 of the images' shape, or None.
    - ``name``: where the images come from, as in ``load(name)``.
    - ``info``: how the cohort was made: plain values, carried along into checkpoints and results.
    - ``allow_shared_patients``: let a patient be in two splits. Only the leakage study wants this.
    - Raises DataError: lengths differ, ids repeat, a label is neither 0 nor 1, or a patient is in two splits.
    """

    images: np.ndarray
    table: pd.DataFrame
    lung_masks: np.ndarray | None = None
    lesion_masks: np.ndarray | None = None
    name: str = "cohort"
    info: Mapping[str, Any] = field(default_factory=dict)
    allow_shared_patients: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", _normalised(self.table))
        _check_images(self.images, len(self.table))
        for role in ("lung_masks", "lesion_masks"):
            _check_masks(role, getattr(self, role), self.images.shape)
        check_table(self.table, allow_shared_patients=self.allow_shared_patients)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        counts = self.table["split"].value_counts()
        parts = ", ".join(f"{split} {counts.get(split, 0)}" for split in SPLITS)
        return (
            f"Cohort({self.name!r}: {len(self)} images of {self.images.shape[1]}×{self.images.shape[2]}, "
            f"{self.table['patient_id'].nunique()} patients, {self.labels.mean():.1%} pneumonia; {parts})"
        )

    @property
    def labels(self) -> np.ndarray:
        """int64, shape (N,): 1 where the label is pneumonia."""
        return self.table["label"].to_numpy(dtype=np.int64)

    @property
    def patients(self) -> np.ndarray:
        """str, shape (N,): the patient of each image; intervals and splits go by these."""
        return self.table["patient_id"].to_numpy(dtype=str)

    def take(self, rows: np.ndarray, *, lazy: bool = False) -> Cohort:
        """The cohort of these rows, in this order: integer positions, or a boolean mask of shape (N,).

        ``lazy``: do not copy images and masks; they are :class:`Rows` of this cohort's.
        """
        rows = np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)

        def some(array: np.ndarray) -> np.ndarray:
            return cast(np.ndarray, Rows(array, rows)) if lazy else array[rows]  # stands for one

        return replace(
            self,
            images=some(self.images),
            table=self.table.iloc[rows],
            lung_masks=None if self.lung_masks is None else some(self.lung_masks),
            lesion_masks=None if self.lesion_masks is None else some(self.lesion_masks),
        )

    def split(self, name: str, *, lazy: bool = False) -> Cohort:
        """The images of one split: ``train``, ``val`` or ``test``.

        ``lazy``: do not copy them; ``images`` are :class:`Rows` of this cohort's, and there are no masks.
        """
        if name not in SPLITS:
            raise DataError(f"There is no split called {name!r}.", remedy=f"Use one of {', '.join(SPLITS)}.")
        there = np.flatnonzero(self.table["split"] == name)
        if not lazy:
            return self.take(there)
        images = cast(np.ndarray, Rows(self.images, there))  # stands for one
        return replace(self, images=images, table=self.table.iloc[there], lung_masks=None, lesion_masks=None)

    def with_images(self, images: np.ndarray, **changes: Any) -> Cohort:
        """The same table with other images (and, through ``changes``, other masks or info)."""
        return replace(self, images=images, **changes)

    def with_columns(self, **columns: Any) -> Cohort:
        """The same images with these columns of the table added or replaced."""
        return replace(self, table=self.table.assign(**columns))

    def content_hash(self) -> str:
        """16 hexadecimal digits that change when an image, id, label or split does.

        Hashes every 1 + N // 4096-th image's pixels, so that a memory-mapped cohort is not read whole.
        """
        digest = hashlib.sha256(repr((self.images.shape, str(self.images.dtype))).encode())
        for column in REQUIRED_COLUMNS:
            digest.update("\x1f".join(self.table[column].astype(str)).encode("utf-8", "surrogateescape"))
        for row in range(0, len(self), 1 + len(self) // 4096):
            digest.update(np.ascontiguousarray(self.images[row]).tobytes())
        return digest.hexdigest()[:16]


def concatenate(cohorts: Sequence[Cohort], name: str = "joined") -> Cohort:
    """Several cohorts of one image size as one; masks and columns that only some have are left out.

    Raises a DataError without a cohort, for images of different sizes, or an image id in two of them.
    """
    cohorts = list(cohorts)
    sizes = {cohort.images.shape[1:] for cohort in cohorts}
    if len(sizes) != 1:
        raise DataError(
            f"{len(cohorts)} cohorts of sizes {sorted(sizes)} cannot be joined.",
            remedy="Load all of them with the same image_size.",
        )

    def joined(masks: list[np.ndarray | None]) -> np.ndarray | None:
        there = [one for one in masks if one is not None]
        return np.concatenate(there) if len(there) == len(masks) else None

    return Cohort(
        np.concatenate([cohort.images for cohort in cohorts]),
        pd.concat([cohort.table for cohort in cohorts], join="inner", ignore_index=True),
        joined([cohort.lung_masks for cohort in cohorts]),
        joined([cohort.lesion_masks for cohort in cohorts]),
        name=name,
        info={"joined": [cohort.name for cohort in cohorts]},
    )


def split_by_patient(
    patient_ids: ArrayLike, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2), *, seed: int = 0
) -> np.ndarray:
    """The split of each row, str (N,), from a hash of its patient and the seed, so that row order cannot
    matter.

    ``fractions``: expected shares of patients in train, val and test; they sum to one.
    """
    if len(fractions) != 3 or min(fractions) < 0 or not np.isclose(sum(fractions), 1.0):
        raise DataError(
            f"The fractions {fractions} do not divide a whole into train, val and test.",
            remedy="Give three shares, none negative, that sum to 1.",
        )
    codes, unique = pd.factorize(np.asarray(patient_ids).astype(str))
    draws = np.array([_unit_interval(f"{seed}:{patient}") for patient in unique])
    edges = np.cumsum(fractions)[:2]
    return np.array(SPLITS, dtype=object)[np.searchsorted(edges, draws, side="right")][codes]


def check_table(table: pd.DataFrame, *, allow_shared_patients: bool = False) -> None:
    """Raise a DataError where a cohort's table breaks the contract; see :class:`Cohort`."""
    missing = [column for column in REQUIRED_COLUMNS if column not in table]
    if missing:
        raise DataError(
            f"The table has no column {', '.join(map(repr, missing))}.",
            remedy=f"Name its columns so that they include {', '.join(REQUIRED_COLUMNS)}; "
            f"it has {', '.join(map(repr, table.columns[:12]))}.",
        )
    check_labels(table["label"], table["image_id"])
    repeated = table.loc[table["image_id"].duplicated(), "image_id"].unique()
    if len(repeated):
        raise DataError(
            f"{len(repeated)} image ids occur more than once in column 'image_id'.",
            offenders=repeated,
            remedy="Give every image one row and an id of its own.",
        )
    unknown = table.loc[~table["split"].isin(SPLITS), "split"].unique()
    if len(unknown):
        raise DataError(
            "Column 'split' holds values that are no split.",
            offenders=[repr(value) for value in unknown],
            remedy=f"Use {', '.join(SPLITS)}.",
        )
    if not allow_shared_patients:
        splits_per_patient = table.groupby("patient_id", sort=False)["split"].nunique()
        shared = splits_per_patient.index[splits_per_patient > 1]
        if len(shared):
            raise DataError(
                f"{len(shared)} patients have images in more than one split.",
                offenders=shared,
                remedy="Split by patient (cxrlib.cohort.split_by_patient), "
                "or pass allow_shared_patients=True if leakage is what you study.",
            )


def check_labels(labels: pd.Series, ids: pd.Series, column: str = "label") -> None:
    """Raise a DataError that lists the ids whose label is neither 0 nor 1."""
    numeric = pd.to_numeric(labels, errors="coerce")
    wrong = ~numeric.isin([0, 1]).to_numpy()
    if wrong.any():
        found = [f"{i}: {value!r}" for i, value in zip(ids[wrong], labels[wrong], strict=True)]
        raise DataError(
            f"Column {column!r} holds {int(wrong.sum())} values that are neither 0 nor 1.",
            offenders=found,
            remedy="Write 1 for pneumonia and 0 for its absence, or drop those rows.",
        )


def _normalised(table: pd.DataFrame) -> pd.DataFrame:
    table = table.reset_index(drop=True)
    for column in ("image_id", "patient_id"):
        if column in table:
            table[column] = table[column].astype(str)
    if "label" in table and pd.to_numeric(table["label"], errors="coerce").isin([0, 1]).all():
        table["label"] = pd.to_numeric(table["label"]).astype(np.int64)
    return table


def _check_images(images: np.ndarray, rows: int) -> None:
    if getattr(images, "ndim", 0) != 3 or images.dtype != np.uint8:
        found = f"{getattr(images, 'dtype', type(images).__name__)} of shape {getattr(images, 'shape', '?')}"
        raise DataError(f"Images are {found}.", remedy="Give a uint8 array of shape (N, H, W).")
    if len(images) != rows:
        raise DataError(
            f"There are {len(images)} images and {rows} rows in the table.",
            remedy="Give one row for each image, in the same order.",
        )


def _check_masks(role: str, masks: np.ndarray | None, shape: tuple[int, ...]) -> None:
    if masks is not None and (masks.shape != shape or masks.dtype != np.uint8):
        raise DataError(
            f"{role} are {masks.dtype} of shape {masks.shape}.",
            remedy=f"Give uint8 masks of 0 and 1 in the images' shape {shape}.",
        )


def _unit_interval(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
