"""The phantom's confounders that are things in the image: devices, lead letters, text, collimation."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from cxrlib.phantom.canvas import Grid, splat, step
from cxrlib.phantom.latents import Latents

#: A five by seven font for what is written on radiographs.
_FONT = {
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "B": "11110 10001 10001 11110 10001 10001 11110",
    "C": "01111 10000 10000 10000 10000 10000 01111",
    "D": "11110 10001 10001 10001 10001 10001 11110",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "M": "10001 11011 10101 10101 10001 10001 10001",
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "P": "11110 10001 10001 11110 10000 10000 10000",
    "R": "11110 10001 10001 11110 10100 10010 10001",
    "T": "11111 00100 00100 00100 00100 00100 00100",
}


def _glyphs(text: str) -> np.ndarray:
    """The text as a bitmap with a blank row and column around it; float32."""
    columns = [np.zeros((7, 1))]
    for letter in text:
        rows = [[float(bit) for bit in row] for row in _FONT[letter].split()]
        columns += [np.array(rows), np.zeros((7, 1))]
    return np.pad(np.concatenate(columns, axis=1), ((1, 1), (0, 0))).astype(np.float32)


_PORTABLE = _glyphs("PORTABLE")
_LETTERS = {letter: _glyphs(letter) for letter in "LR"}


def _stamp(
    size: int, bitmap: np.ndarray, centre: tuple[float, float], height: float, angle: float = 0.0
) -> tuple[slice, slice, np.ndarray, np.ndarray]:
    """Where a bitmap of this height (share of the image) falls: row slice, column slice, coverage 0 to 1."""
    rows, columns = bitmap.shape
    cell = height / rows
    reach = 0.5 * cell * float(np.sqrt(rows**2 + columns**2)) if angle else 0.5 * cell * max(rows, columns)
    down = reach if angle else 0.5 * height
    box = []
    for middle, half in ((centre[1], down), (centre[0], reach)):
        low = min(max(int((middle - half) * size), 0), size)
        box.append(slice(low, min(max(int((middle + half) * size) + 2, low), size)))
    fine = 4  # sub-samples a pixel each way: letters are smaller than the pixels of a 64-pixel image
    offset = (np.arange(fine) + 0.5) / fine
    v = ((np.arange(box[0].start, box[0].stop)[:, None] + offset).ravel() / size - centre[1]) / cell
    u = ((np.arange(box[1].start, box[1].stop)[:, None] + offset).ravel() / size - centre[0]) / cell
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    i = np.floor(v[:, None] * cos - u[None, :] * sin + rows / 2).astype(int)
    j = np.floor(u[None, :] * cos + v[:, None] * sin + columns / 2).astype(int)
    inside = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
    ink = np.where(inside, bitmap[np.clip(i, 0, rows - 1), np.clip(j, 0, columns - 1)], 0)
    shape = (box[0].stop - box[0].start, fine, box[1].stop - box[1].start, fine)
    ink, plate = (part.astype(np.float32).reshape(shape).mean(axis=(1, 3)) for part in (ink, inside))
    return box[0], box[1], ink, plate


@dataclass(frozen=True)
class Letter:
    """A lead L or R: its bitmap, where its centre lies (across, down) and how high it is, in shares of the
    film; its angle; the greys of its plate (None: without one) and of its ink.
    """

    name: str
    bitmap: np.ndarray
    centre: tuple[float, float]
    height: float
    angle: float
    plate: float | None
    ink: float


def letter(rng: np.random.Generator) -> Letter:
    """Draw the letter of an image, near an upper corner."""
    u, z = rng.random(8), np.clip(rng.standard_normal(4), -2, 2)
    left = bool(u[0] < 0.6)
    across, name = 0.07 + 0.06 * u[1], "L" if left else "R"
    return Letter(
        name,
        _LETTERS[name][:, :: -1 if u[4] < 0.05 else 1],
        (1 - across if left else across, 0.06 + 0.10 * u[2]),
        0.045 + 0.025 * u[3],
        0.12 * z[0],
        40 + 60 * u[6] if u[5] < 0.35 else None,
        225 + 25 * u[7],
    )


def marker(image: np.ndarray, rng: np.random.Generator) -> None:
    """Lay a lead letter, sometimes on its plate, on the film."""
    one = letter(rng)
    rows, columns, ink, plate = _stamp(len(image), one.bitmap, one.centre, one.height, one.angle)
    patch = image[rows, columns]
    if one.plate is not None:
        patch += plate * (np.float32(one.plate) - 0.35 * patch) * np.float32(0.8)
    patch += ink * (np.float32(one.ink) - patch)


def portable(image: np.ndarray, rng: np.random.Generator) -> None:
    """Burn PORTABLE into an upper corner."""
    u = rng.random(4)
    centre = (0.13 + 0.05 * u[0] if u[1] < 0.5 else 0.87 - 0.05 * u[0], 0.03 + 0.10 * u[2])
    rows, columns, ink, _ = _stamp(len(image), _PORTABLE, centre, 0.032 + 0.006 * u[3])
    patch = image[rows, columns]
    patch += ink * (np.float32(245) - patch)


@dataclass(frozen=True)
class Border:
    """A closed collimator: how far it is askew, its margins (left, right, top, bottom) and how soft its edge
    is, in shares of the film; its grey.
    """

    tilt: float
    margins: np.ndarray
    edge: float
    level: float


def border(rng: np.random.Generator) -> Border:
    """Draw the border of an image."""
    u, z = rng.random(6), np.clip(rng.standard_normal(3), -2, 2)
    margins = [0.01 + 0.05 * u[0], 0.01 + 0.05 * u[1], 0.008 + 0.045 * u[2], 0.008 + 0.05 * u[3]]
    return Border(0.012 * z[0], np.array(margins), 0.008 + 0.012 * u[4], 4 + 10 * u[5])


def collimation(image: np.ndarray, rng: np.random.Generator) -> None:
    """Close the collimator: a border without exposure, a little askew, black or (uncropped film) white."""
    one, size = border(rng), len(image)
    t = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    tilt = np.float32(one.tilt)
    across, down = t[None, :] + tilt * t[:, None], t[:, None] - tilt * t[None, :]
    left, right, top, bottom = (0.5 - one.margins).astype(np.float32)
    inside = np.minimum(np.minimum(across + left, right - across), np.minimum(down + top, bottom - down))
    open_ = step(inside, one.edge)
    level = np.float32(one.level)
    image -= level
    image *= open_
    image += level


def devices(grid: Grid, g: SimpleNamespace, latents: Latents, rng: np.random.Generator) -> np.ndarray:
    """cm of water that electrodes, leads, tubes and lines add; float32, (S, S)."""
    u, z = rng.random(12), np.clip(rng.standard_normal((12, 4)), -2, 2)
    curves: list[tuple[list[tuple[float, float]], float]] = []  # knots, and cm² of water
    total = np.zeros_like(grid.y)
    if u[0] < 0.8:  # electrodes and their leads
        for k in range(2 + int(2.5 * u[1])):
            x = (-9.5, 9.5, 10.5, -8.5)[k] + 1.6 * z[k, 0]
            y = (3.5, 3.0, 17.0, 18.5)[k] + 1.8 * z[k, 1]
            _electrode(grid, total, x, y)
            out = 17.0 if x > 0 else -17.0
            bend, edge = (x + 0.3 * (out - x), y + 4 + z[k, 2]), (out, y + 3 + 3 * z[k, 3])
            curves.append(([(x, y), bend, edge, (out * 1.4, y + 9)], 0.11))
    if u[2] < 0.35:  # tracheal tube
        x = 0.35 * z[4, 0]
        curves.append(([(x + 0.6, -14), (x, -6), (x - 0.2, 1), (x - 0.3, 4.6 + 0.8 * z[4, 1])], 0.30))
    if u[3] < 0.35:  # gastric tube
        stomach = [(2.0, g.dome[1] - 1), (6.5, g.dome[1] + 3.5)]
        curves.append(([(0.8, -14), (-0.3, 2), (0.9, 12), *stomach], 0.26))
    if u[4] < 0.6 or not curves:  # central line: jugular or subclavian, to the superior vena cava
        side = -1.0 if u[5] < 0.7 else 1.0
        if u[6] < 0.55:
            entry = [(side * 4.4, -9), (side * 3.8, -2), (side * 3.0, 2.5)]
        else:
            entry = [(side * 13.5, 4.5), (side * 9.5, 2.6), (side * 5.0, 2.4)]
        curves.append(([*entry, (-1.9 + 0.3 * z[5, 0], 6.0), (-2.3, 11.0 + 1.5 * z[5, 1])], 0.20))
    walked = [_curve(np.array(knots), mass, 0.5 * grid.cm) for knots, mass in curves]
    x, y, masses = (np.concatenate(column) for column in zip(*walked, strict=True))
    return total + splat(grid.size, *grid.pixels(x, y, g.midline), masses / grid.cm**2, 0.05 / grid.cm)


def _electrode(grid: Grid, total: np.ndarray, x: float, y: float) -> None:
    box = grid.box(x - 1.5, x + 1.5, y - 1.5, y + 1.5)
    if grid.x[box].size:
        dx, dy = grid.x[box] - np.float32(x), grid.y[box] - np.float32(y)
        r = np.sqrt(dx * dx + dy * dy)
        total[box] += step(np.float32(0.5) - r, max(0.1, grid.cm)) * np.float32(4.0)
        total[box] += step(np.float32(1.3) - r, max(0.1, grid.cm)) * np.float32(0.7)


def _curve(knots: np.ndarray, mass: float, spacing: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Walk a Catmull–Rom spline of ``mass`` cm² through the knots: x, y and cm³ of each step."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    longest = np.sqrt((np.diff(knots, axis=0) ** 2).sum(axis=1)).max()
    t = np.linspace(0, 1, max(int(longest / spacing), 4), endpoint=False)[None, :, None]
    a, b, c, d = (padded[k : len(padded) - 3 + k, None, :] for k in range(4))
    path = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    path = path.reshape(-1, 2)
    steps = np.sqrt((np.diff(path, axis=0, append=knots[-1:]) ** 2).sum(axis=1))
    return path[:, 0], path[:, 1], mass * steps
