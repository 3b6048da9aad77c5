"""The drawing tools of the phantom: pixel grids in centimetres, lookup tables, smooth noise, line splats.

Everything that touches a pixel here is an addition, a multiplication, a comparison, a square root or a table
lookup, which IEEE 754 fixes to the last bit. Exponentials and the like are only taken in double precision on
small tables. That is what lets one seed give the same 8-bit image on different machines.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

#: Vertical and horizontal reach of the tables, in cm from the lung apex and from the midline.
Y_RANGE = (-16.0, 44.0)
X_REACH = 28.0
TABLE = 1024
Y_TABLE = np.linspace(*Y_RANGE, TABLE)
X_TABLE = np.linspace(-X_REACH, X_REACH, TABLE)
#: Entries of the tables of a value between 0 and 1, and of a signed distance of at most DISTANCE cm.
UNIT = 1024
UNIT_TABLE = np.linspace(0.0, 1.0, UNIT)
DISTANCE = 12.0
DISTANCE_TABLE = np.linspace(-DISTANCE, DISTANCE, TABLE)


class Grid:
    """Where each pixel of one image lies in the patient, in cm.

    ``x`` runs to the patient's left (the right of the image) from the midline, ``y`` down from the apices of
    the lungs; both float32, (S, S). ``cm`` is the side of a pixel. ``left`` is 1 on the patient's left, and
    ``ax`` is abs(x).
    """

    def __init__(self, size: int, pose: Pose, midline: np.ndarray) -> None:
        self.size = size
        self.pose = pose
        self.cm = float(0.5 * (pose.width + pose.height) / size)
        u = (np.arange(size, dtype=np.float64) + 0.5) / size - 0.5
        x_u, x_v, y_u, y_v = pose.matrix()
        det = x_u * y_v - x_v * y_u
        self._inverse = (y_v / det, -x_v / det, -y_u / det, x_u / det)
        x = ((pose.x + x_u * u)[None, :] + (x_v * u)[:, None]).astype(np.float32)
        self.y = ((pose.y + y_u * u)[None, :] + (y_v * u)[:, None]).astype(np.float32)
        self.iy = index(self.y, Y_RANGE[0], TABLE / (Y_RANGE[1] - Y_RANGE[0]), TABLE)
        self.x = x - midline.take(self.iy)
        self.ax = np.abs(self.x)
        self.left = self.x > 0
        self.iys = self.iy + TABLE * self.left
        self.ix = index(self.x, -X_REACH, TABLE / (2 * X_REACH), TABLE)

    def box(self, x0: float, x1: float, y0: float, y1: float) -> tuple[slice, slice]:
        """Row and column slices that cover a rectangle in the patient, in cm."""
        x_u, x_v, y_u, y_v = self._inverse
        x, wide = 0.5 * (x0 + x1) - self.pose.x, 0.5 * (x1 - x0) + 1.1  # the midline curves by at most 1 cm
        y, high = 0.5 * (y0 + y1) - self.pose.y, 0.5 * (y1 - y0) + 0.1
        rows = _span(y_u * x + y_v * y, abs(y_u) * wide + abs(y_v) * high, self.size)
        return rows, _span(x_u * x + x_v * y, abs(x_u) * wide + abs(x_v) * high, self.size)

    def rows(self, top: float, bottom: float) -> slice:
        """The image rows that can hold something between these two heights, in cm."""
        return self.box(-X_REACH, X_REACH, top, bottom)[0]

    def pixels(self, x: np.ndarray, y: np.ndarray, midline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Column and row (in pixels, fractional) of points in the patient; float64, any shape."""
        x = x + midline[index(y, Y_RANGE[0], TABLE / (Y_RANGE[1] - Y_RANGE[0]), TABLE)]
        x_u, x_v, y_u, y_v = self._inverse
        dx, dy = x - self.pose.x, y - self.pose.y
        u, v = x_u * dx + x_v * dy, y_u * dx + y_v * dy
        return (u + 0.5) * self.size - 0.5, (v + 0.5) * self.size - 0.5


def _span(middle: float, reach: float, size: int) -> slice:
    """The pixels of a side within ``reach`` of ``middle``, both as shares of the side from its centre."""
    start = min(max(int((middle - reach + 0.5) * size), 0), size)
    return slice(start, min(max(int((middle + reach + 0.5) * size) + 1, start), size))


class Pose:
    """The affine map from image to patient: centre (x, y), width and height in cm, rotation in radians."""

    def __init__(self, x: float, y: float, width: float, height: float, angle: float) -> None:
        self.x, self.y, self.width, self.height, self.angle = x, y, width, height, angle

    def matrix(self) -> tuple[float, float, float, float]:
        """d(x, y)/d(u, v), where u and v run over the image from -0.5 to 0.5."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return (
            float(self.width * cos),
            float(-self.height * sin),
            float(self.width * sin),
            float(self.height * cos),
        )


def index(values: np.ndarray, start: float, scale: float, length: int) -> np.ndarray:
    """Positions in a table of ``length`` entries that begins at ``start``, ``scale`` entries a unit."""
    positions = values - np.float32(start)
    positions *= np.float32(scale)
    np.maximum(positions, np.float32(0), out=positions)
    np.minimum(positions, np.float32(length - 1), out=positions)
    return positions.astype(np.intp)


def unit_index(values: np.ndarray) -> np.ndarray:
    """Positions in a table over UNIT_TABLE."""
    return index(values, 0.0, UNIT - 1, UNIT)


def distance_index(values: np.ndarray) -> np.ndarray:
    """Positions in a table over DISTANCE_TABLE."""
    return index(values, -DISTANCE, TABLE / (2 * DISTANCE), TABLE)


def slope_of(table: np.ndarray, spacing: float) -> np.ndarray:
    """The derivative of an evenly spaced table, by central differences; its shape."""
    out = np.empty_like(table)
    out[..., 1:-1] = (table[..., 2:] - table[..., :-2]) * (0.5 / spacing)
    out[..., 0], out[..., -1] = out[..., 1], out[..., -2]
    return out


def step(distance: np.ndarray, width: float) -> np.ndarray:
    """0 to 1 as a signed distance passes zero over ``width``: a linear edge, float32."""
    out = distance * np.float32(1.0 / width)
    out += np.float32(0.5)
    np.maximum(out, np.float32(0), out=out)
    return np.minimum(out, np.float32(1), out=out)


def smoothstep(t: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, and a cubic between with no slope at either end."""
    t = np.minimum(np.maximum(t, 0), 1)
    return t * t * (3 - 2 * t)


def bell(t: np.ndarray) -> np.ndarray:
    """A bump of height 1 at 0 that is gone beyond ±2; close to exp(-t²)."""
    s = np.maximum(1 - t * t * 0.25, 0)
    s = s * s
    return s * s


@lru_cache(maxsize=64)
def _spline_matrix(size: int, cells: int, phase: float) -> np.ndarray:
    """Rows of uniform cubic B-spline weights: (size, cells + 4)."""
    t = (np.arange(size) + 0.5) / size * cells + phase
    base = np.floor(t).astype(int)
    f = t - base
    weights = np.zeros((size, cells + 4))
    parts = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
    for k, part in enumerate(parts):
        np.add.at(weights, (np.arange(size), base + k), part / 6)
    return weights


def smooth_noise(rng: np.random.Generator, size: int, octaves: dict[int, float]) -> np.ndarray:
    """Correlated noise of the same shape at every image size, float32, (size, size).

    ``octaves`` maps cells across the image to the standard deviation of that octave's grid of random numbers.
    """
    total = np.zeros((size, size))
    for cells, deviation in octaves.items():
        grid = rng.standard_normal((cells + 4, cells + 4))
        if cells <= size:  # finer than a pixel averages out; the draw is made for the generator's sake
            matrix = _spline_matrix(size, cells, 0.5)
            total += matrix @ (grid * deviation) @ matrix.T
    return total.astype(np.float32)


@lru_cache(maxsize=16)
def _upsample_matrix(size: int, coarse: int) -> np.ndarray:
    position = np.clip((np.arange(size) + 0.5) / size * coarse - 0.5, 0, coarse - 1)
    base = np.minimum(np.floor(position).astype(int), coarse - 2)
    f = position - base
    matrix = np.zeros((size, coarse))
    matrix[np.arange(size), base] = 1 - f
    matrix[np.arange(size), base + 1] = f
    return matrix


@lru_cache(maxsize=16)
def _average_matrix(size: int, coarse: int) -> np.ndarray:
    edges = np.linspace(0, size, coarse + 1)
    low = np.maximum(edges[:-1, None], np.arange(size)[None])
    high = np.minimum(edges[1:, None], np.arange(1, size + 1)[None])
    return np.clip(high - low, 0, None) * (coarse / size)


@lru_cache(maxsize=16)
def _blur_matrix(size: int, coarse: int, sigma: float) -> np.ndarray:
    distance = np.arange(coarse)[:, None] - np.arange(coarse)[None]
    kernel = np.exp(-0.5 * (distance / sigma) ** 2)
    return _upsample_matrix(size, coarse) @ (kernel / kernel.sum(axis=1, keepdims=True))


def coarse_blur(image: np.ndarray, coarse: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """The image averaged to ``coarse`` cells a side; and that, blurred by ``sigma`` cells, at full size."""
    average, blur = _average_matrix(len(image), coarse), _blur_matrix(len(image), coarse, sigma)
    small = average @ image.astype(np.float64) @ average.T
    return small, (blur @ small @ blur.T).astype(np.float32)


def clip(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """np.clip with a fraction of its overhead; float32 stays float32."""
    return np.minimum(np.maximum(values, low), high)


@lru_cache(maxsize=256)
def _kernel(sigma: float) -> np.ndarray:
    reach = int(2.5 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return weights / weights.sum()


def splat(size: int, column: np.ndarray, row: np.ndarray, mass: np.ndarray, blur: float = 0.0) -> np.ndarray:
    """Spread point masses over the four pixels around each; float32, (size, size).

    ``blur`` is the standard deviation, in pixels, of a Gaussian applied afterwards.
    """
    inside = (column > -1) & (column < size) & (row > -1) & (row < size)
    column, row, mass = column[inside] + 1, row[inside] + 1, mass[inside]
    c, r = column.astype(np.intp), row.astype(np.intp)
    fc, fr = column - c, row - r
    stride = size + 2
    flat = r * stride + c
    cells = np.concatenate([flat, flat + 1, flat + stride, flat + stride + 1])
    right, lower = mass * fc, mass - mass * fc
    weights = np.concatenate([lower * (1 - fr), right * (1 - fr), lower * fr, right * fr])
    total = np.bincount(cells, weights, minlength=stride * stride).reshape(stride, stride)
    image = total[1:-1, 1:-1].astype(np.float32)
    if blur > 0.25:
        kernel = _kernel(round(blur, 2))
        for axis in (0, 1):
            image = ndimage.correlate1d(image, kernel, axis, mode="constant")
    return image
