"""Images cut by their lung masks: cropped to the lungs, lungs alone, lungs taken out, the frame alone.

Each takes a Cohort and returns one with the same rows. What a network still reaches on such images says where
its accuracy comes from; :data:`VIEWS` names the ways of looking that studies compare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import ndimage

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError, DataError
from cxrlib.images.geometry import GEOMETRY_COLUMNS
from cxrlib.io.decode import resize


def crop_to_lungs(
    cohort: Cohort, margin: float = 0.05, *, size: int | None = None, missing: str = "typical"
) -> Cohort:
    """Cut every image, and its masks, to a square around its lungs, and bring it to ``size``.

    - ``cohort``: with ``lung_masks``, of :func:`segment` or its own.
    - ``margin``: left around the lungs' box on every side, as a share of its longer side.
    - ``size``: pixels a side; None for the images' own. Load at a larger size than you crop to.
    - ``missing``: where a mask is empty: ``typical`` uses the others' mean lung field, ``drop`` leaves the
      image out.
    - Returns: Cohort with the columns ``window_top``, ``window_left`` and ``window_side`` (pixels before).
    """
    if not -0.4 < margin <= 2:
        raise ConfigError(f"The margin is {margin}.", remedy="Give a share from 0 to 2, such as 0.05.")
    side = min(cohort.images.shape[1:]) if size is None else int(size)
    if side < 8:
        raise ConfigError(
            f"The size is {size!r}.", remedy="Give at least 8 pixels, or None for the images' own."
        )
    cohort, masks, typical = _with_masks(cohort, missing)
    windows = np.array([lung_window(_filled(mask, typical), margin) for mask in masks])
    windows = windows.reshape(-1, 3)
    lesions = cohort.lesion_masks
    columns = dict(zip(("window_top", "window_left", "window_side"), windows.T, strict=True))
    # Where a pixel lies in its file is another question now than before the cut.
    table = cohort.table.drop(columns=list(GEOMETRY_COLUMNS), errors="ignore").assign(**columns)
    return replace(
        cohort,
        images=_cut(cohort.images, windows, side, mask=False),
        lung_masks=_cut(masks, windows, side, mask=True),
        lesion_masks=None if lesions is None else _cut(lesions, windows, side, mask=True),
        table=table,
        info=_noted(cohort, f"crop {margin:g}"),
    )


def keep_lungs(cohort: Cohort, margin: float = 0.0, *, box: bool = False, missing: str = "typical") -> Cohort:
    """Set everything but the lungs to black.

    - ``margin``: pixels this close to a lung are kept too; a share of the image's side.
    - ``box``: keep the lungs' box instead of their outline, so that their shape is not what remains.
    - ``missing``: as in :func:`crop_to_lungs`.
    """
    return _painted(cohort, margin, box, missing, inside=False)


def remove_lungs(
    cohort: Cohort, margin: float = 0.02, *, box: bool = False, missing: str = "typical"
) -> Cohort:
    """Set the lungs, and what is as close as ``margin``, to black; see :func:`keep_lungs`."""
    return _painted(cohort, margin, box, missing, inside=True)


def keep_frame(cohort: Cohort, share: float = 0.1) -> Cohort:
    """Keep the outer ``share`` of the image on each side; set the rest to black. Needs no masks."""
    images, rows, columns = _edges(cohort, share, "frame")
    images[:, rows, columns] = 0
    return cohort.with_images(images, info=_noted(cohort, f"frame {share:g}"))


def keep_corners(cohort: Cohort, share: float = 0.15) -> Cohort:
    """Keep four squares of ``share`` of the side in the corners; set the rest to black. Needs no masks."""
    images, rows, columns = _edges(cohort, share, "corners")
    images[:, rows] = 0
    images[:, :, columns] = 0
    return cohort.with_images(images, info=_noted(cohort, f"corners {share:g}"))


def _edges(cohort: Cohort, share: float, what: str) -> tuple[np.ndarray, slice, slice]:
    """A copy of the images, and the rows and columns that are further than ``share`` from the edges."""
    if not 0 < share < 0.5:
        raise ConfigError(f"The share of the {what} is {share}.", remedy="Give a share between 0 and 0.5.")
    rows, columns = (max(1, round(share * side)) for side in cohort.images.shape[1:])
    height, width = cohort.images.shape[1:]
    return np.array(cohort.images), slice(rows, height - rows), slice(columns, width - columns)


def blur(cohort: Cohort, cells: int = 16) -> Cohort:
    """Each image as ``cells`` × ``cells`` mean greys, enlarged again: no detail is left. Needs no masks."""
    size = cohort.images.shape[1:]
    if not 1 < cells <= min(size):
        raise ConfigError(f"{cells} cells a side.", remedy=f"Give 2 to {min(size)}.")
    rows, columns = (np.linspace(0, side, cells + 1).astype(int) for side in size)
    images = np.array(cohort.images)
    sums = np.add.reduceat(np.add.reduceat(images.astype(np.float32), rows[:-1], 1), columns[:-1], 2)
    means = sums / (np.diff(rows)[:, None] * np.diff(columns))
    grown = means.round().astype(np.uint8).repeat(np.diff(rows), axis=1).repeat(np.diff(columns), axis=2)
    return cohort.with_images(grown, info=_noted(cohort, f"blur {cells}"))


def histogram(cohort: Cohort) -> Cohort:
    """Each image's greys in ascending order, row by row: what they are, and not where. Needs no masks."""
    flat = np.sort(np.array(cohort.images).reshape(len(cohort), -1), axis=1)
    return cohort.with_images(flat.reshape(cohort.images.shape), info=_noted(cohort, "histogram"))


def lung_shape(cohort: Cohort, missing: str = "typical") -> Cohort:
    """The lung masks as images, 0 and 255: what cutting along the masks tells by itself."""
    cohort, masks, typical = _with_masks(cohort, missing)
    images = np.stack([255 * _filled(mask, typical) for mask in masks])
    return cohort.with_images(images.astype(np.uint8), info=_noted(cohort, "lung shape"))


#: What a network may be shown: name -> function of a Cohort. The lungs' box is removed, not their outline,
#: which would stay behind as a silhouette; ``lung_shape`` says what the outline of ``lungs_only`` gives away.
VIEWS: dict[str, Callable[[Cohort], Cohort]] = {
    "whole": lambda cohort: cohort,
    "lungs_only": keep_lungs,
    "lung_shape": lung_shape,
    "lungs_removed": lambda cohort: remove_lungs(cohort, box=True),
    "frame": keep_frame,
    "corners": keep_corners,
    "blur": blur,
    "histogram": histogram,
}


def shown(cohort: Cohort, view: str) -> Cohort:
    """The cohort in one of :data:`VIEWS`; ``lungs_…`` and ``lung_shape`` need lung masks."""
    if view not in VIEWS:
        raise ConfigError(f"There is no view {view!r}.", remedy=f"Use one of {', '.join(VIEWS)}.")
    return VIEWS[view](cohort)


def _painted(cohort: Cohort, margin: float, box: bool, missing: str, *, inside: bool) -> Cohort:
    if not 0 <= margin < 0.5:
        raise ConfigError(f"The margin is {margin}.", remedy="Give a share from 0 to 0.5, such as 0.02.")
    cohort, masks, typical = _with_masks(cohort, missing)
    images = np.array(cohort.images)
    reach = margin * max(images.shape[1:])
    for image, mask in zip(images, masks, strict=True):
        region = _filled(mask, typical).astype(bool)
        if box and region.any():
            top, left, bottom, right = _box(region)
            region[top:bottom, left:right] = True
            if reach >= 1:
                y, x = (np.arange(side) for side in region.shape)
                away = [
                    np.maximum(np.maximum(a - k, k - b + 1), 0) ** 2
                    for k, a, b in ((y, top, bottom), (x, left, right))
                ]
                region = away[0][:, None] + away[1] <= reach**2
        elif reach >= 1:
            region = ndimage.distance_transform_edt(~region) <= reach
        image[region if inside else ~region] = 0
    note = f"{'remove' if inside else 'keep'} lungs{' box' if box else ''} {margin:g}"
    return cohort.with_images(images, info=_noted(cohort, note))


def _with_masks(cohort: Cohort, missing: str) -> tuple[Cohort, np.ndarray, np.ndarray]:
    """The cohort, without empty masks if they are to be dropped, its lung masks, and the mean lung field.

    Masks are uint8 (N, H, W), the mean field uint8 (H, W).
    """
    if missing not in ("typical", "drop"):
        raise ConfigError(f"There is no way {missing!r} with missing masks.", remedy="Use typical or drop.")
    if cohort.lung_masks is None:
        raise DataError(
            f"The cohort {cohort.name!r} has no lung masks.",
            remedy="Make them: cxrlib.lungs.masks.segment(cohort).",
        )
    there = np.asarray(cohort.lung_masks.reshape(len(cohort), -1).any(1))
    if not there.any():
        raise DataError(
            f"None of the {len(cohort)} images of {cohort.name!r} has a lung mask that is not empty.",
            remedy="Check that these are frontal chest radiographs, upright and with bright bones.",
        )
    if missing == "drop" and not there.all():
        cohort, there = cohort.take(there), there[there]
    masks = cohort.lung_masks
    assert masks is not None
    typical = np.mean(masks[there][:2000], axis=0) >= 0.5
    return cohort, masks, typical.astype(np.uint8)


def _filled(mask: np.ndarray, typical: np.ndarray) -> np.ndarray:
    return np.asarray(mask) if mask.any() else typical


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, bottom, right (exclusive) of what is not zero."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def lung_window(mask: np.ndarray, margin: float) -> tuple[int, int, int]:
    """Top, left and side, in pixels, of the square around a mask's lungs, moved or shrunk into the image."""
    top, left, bottom, right = _box(mask)
    side = round(max(bottom - top, right - left) * (1 + 2 * margin))
    side = max(8, min(side, *mask.shape))
    y = min(max(0, round((top + bottom - side) / 2)), mask.shape[0] - side)
    x = min(max(0, round((left + right - side) / 2)), mask.shape[1] - side)
    return y, x, side


def _cut(arrays: np.ndarray, windows: np.ndarray, size: int, *, mask: bool) -> np.ndarray:
    out = np.empty((len(arrays), size, size), np.uint8)
    for row, (y, x, side) in enumerate(windows):
        part = np.ascontiguousarray(arrays[row, y : y + side, x : x + side])
        out[row] = resize(255 * part, size) >= 128 if mask else resize(part, size)
    return out


def _noted(cohort: Cohort, what: str) -> dict[str, Any]:
    return {**cohort.info, "regions": [*cohort.info.get("regions", []), what]}
