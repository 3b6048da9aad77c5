"""Whether a radiograph is a negative of the usual picture: bone dark, air bright.

A linear template of 16 × 16 cells, fitted by logistic regression to phantoms (rendered, so that there is no
doubt of their polarity) cropped, mirrored and framed at random, and made symmetrical. It has no intercept:
the negative of an image has minus its score, so that no image can be "both". Lungs and the corners beside the
neck count as dark, the mediastinum and the abdomen as bright.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_CELLS = 16
_LEFT_HALF = [
    [-32, -40, -35, -28, -22, -10, 3, 13],
    [-19, -26, -25, -26, -28, -19, -4, 9],
    [4, 2, -4, -17, -29, -21, -3, 13],
    [14, 12, -2, -25, -41, -30, -5, 17],
    [10, 4, -13, -38, -51, -34, -2, 22],
    [0, -8, -26, -48, -53, -30, 6, 31],
    [-12, -22, -37, -51, -49, -23, 13, 39],
    [-22, -35, -45, -52, -45, -20, 16, 43],
    [-30, -42, -48, -50, -41, -17, 17, 43],
    [-31, -40, -41, -40, -30, -9, 21, 45],
    [-28, -31, -27, -21, -11, 5, 32, 52],
    [-22, -17, -7, 2, 12, 27, 49, 66],
    [-14, 0, 15, 28, 39, 53, 70, 82],
    [-5, 18, 40, 55, 68, 81, 92, 99],
    [-10, 14, 40, 58, 69, 78, 86, 88],
    [-27, -13, 7, 21, 29, 34, 38, 39],
]
_TEMPLATE = np.concatenate([_LEFT_HALF, np.fliplr(_LEFT_HALF)], axis=1).astype(np.float64)
_TEMPLATE /= np.abs(_TEMPLATE).sum()


def bone_is_bright(image: np.ndarray) -> float:
    """How clearly bone is brighter than air: above 0 it is, below 0 the image is a negative.

    ``image``: uint8 (H, W), padding taken off. From −2 to 2, most often beyond ±0.3; 0 without contrast.
    """
    cells = Image.fromarray(image).resize((_CELLS, _CELLS), Image.Resampling.BOX)
    values = np.asarray(cells, np.float64)
    spread = values.std()
    if spread < 1e-6:
        return 0.0
    return float((np.clip((values - values.mean()) / spread, -2, 2) * _TEMPLATE).sum())
