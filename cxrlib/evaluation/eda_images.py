"""What the images of a cohort's two classes have in common: their means and their grey levels."""

from __future__ import annotations

import numpy as np

from cxrlib.cohort import Cohort
from cxrlib.errors import DataError


def class_means(cohort: Cohort, per_class: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean images without and with the label, and how far apart they are.

    float64 (H, W), 0–255; their difference is in units of the pooled standard deviation of each pixel. At
    most ``per_class`` images of a class, evenly spaced, are read.
    """
    means, variances = [], []
    for value in (0, 1):
        stack = cohort.images[_evenly(np.flatnonzero(cohort.labels == value), per_class)].astype(np.float32)
        if not len(stack):
            raise DataError(
                f"The cohort {cohort.name!r} has no image with label {value}.",
                remedy="Take more images, or another cohort: two classes are needed to compare them.",
            )
        means.append(stack.mean(axis=0, dtype=np.float64))
        variances.append(stack.var(axis=0, dtype=np.float64))
    spread = np.sqrt((variances[0] + variances[1]) / 2)
    return means[0], means[1], (means[1] - means[0]) / np.maximum(spread, 1.0)


def border(shape: tuple[int, int], width: float = 0.1) -> np.ndarray:
    """bool (H, W): True on the outer frame, ``width`` of the image wide on each side (at least a pixel)."""
    frame = np.ones(shape, dtype=bool)
    rows, columns = (max(1, round(width * side)) for side in shape)
    frame[rows:-rows, columns:-columns] = False
    return frame


def _evenly(rows: np.ndarray, most: int) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)] if len(rows) else rows
