"""The phantom's skeleton, airways, breasts, arms and abdominal gas: cm of water added along the ray."""

from __future__ import annotations

from functools import reduce
from types import SimpleNamespace

import numpy as np

from cxrlib.phantom.canvas import (
    UNIT_TABLE,
    Y_TABLE,
    Grid,
    bell,
    clip,
    slope_of,
    smoothstep,
    splat,
    step,
    unit_index,
)
from cxrlib.phantom.latents import Latents

#: A hollow tube seen from the side, by distance from its axis as a share of its radius: cortex and marrow.
_OUTER = np.sqrt(1 - UNIT_TABLE**2)
_INNER = np.sqrt(np.maximum(1 - (UNIT_TABLE / 0.8) ** 2, 0))
_TUBE = (_OUTER - 0.5 * _INNER).astype(np.float32)
_CHORD = _OUTER.astype(np.float32)
_LIMB = ((1 - UNIT_TABLE**3.5) ** 0.5).astype(np.float32)

#: The rib cage, by share q of the way from the midline to its side. A rib is a tilted ellipse: seen from the
#: front its back half lies at 1 - sqrt(1 - q²) of half its drop, and its front half at 1 + sqrt(1 - q²).
_ROOT = np.sqrt(1 - UNIT_TABLE**2)
_BACK = (1 - _ROOT - 0.05 * np.sin(np.pi * clip(UNIT_TABLE / 0.75, 0, 1)) ** 2).astype(np.float32)
_FRONT = (1 + _ROOT).astype(np.float32)
_SLOPE = UNIT_TABLE / np.maximum(_ROOT, 0.08) * 0.36
_UPRIGHT = (1 / np.sqrt(1 + _SLOPE**2)).astype(np.float32)
#: Path through the rib grows where it turns forward; front ends fade into cartilage.
_BACK_PATH = (smoothstep((UNIT_TABLE - 0.12) / 0.12) * (1.9 + 0.9 * UNIT_TABLE**5)).astype(np.float32)
_FRONT_PATH = (smoothstep((UNIT_TABLE - 0.36) / 0.2) * (0.9 + 0.9 * UNIT_TABLE**4)).astype(np.float32)
_RIBS = 16

#: The spine by height: the size of a vertebra, its end plates and disc, pedicles and spinous process.
_PITCH = 1.75 + 0.75 * smoothstep((Y_TABLE + 8) / 24)
_TURN = np.cumsum(1 / _PITCH) * (Y_TABLE[1] - Y_TABLE[0])
_TURN -= np.floor(_TURN)
_PLATE = (
    1 - 0.27 * bell((_TURN - 0.5) / 0.12) + 0.16 * (bell((_TURN - 0.3) / 0.07) + bell((_TURN - 0.7) / 0.07))
)
_BODY = (_PLATE * (2.9 - 0.5 * smoothstep((Y_TABLE - 2) / 14))).astype(np.float32)
_PEDICLE = (0.9 * (bell((_TURN - 0.05) / 0.13) + bell((_TURN - 1.05) / 0.13))).astype(np.float32)
_SPINOUS = (0.8 * bell((_TURN - 0.42) / 0.16)).astype(np.float32)
_PER_HALF = (1 / (1.25 + 0.75 * smoothstep((Y_TABLE + 8) / 26))).astype(np.float32)


def ribs(grid: Grid, g: SimpleNamespace, rng: np.random.Generator) -> np.ndarray:
    """Back and front arcs of the ribs of both sides; float32, (S, S)."""
    body = g.body
    jitter = rng.standard_normal((4, 2 * _RIBS))
    number = np.arange(_RIBS)
    cage = g.lateral.reshape(2, -1).copy()
    for side in (0, 1):  # below the lungs the cage goes on as wide as it was
        peak = int(cage[side].argmax())
        cage[side, peak:] = np.maximum(
            cage[side, peak:], cage[side, peak] - 0.05 * (Y_TABLE[peak:] - Y_TABLE[peak])
        )
    cage = (cage.ravel() + 0.75).astype(np.float32)
    q = unit_index(grid.ax / cage.take(grid.iys))
    half_drop = (0.5 * body.rib_drop * (0.55 + 0.45 * smoothstep((Y_TABLE + 1) / 9))).astype(np.float32)[
        grid.iy
    ]
    upright = _UPRIGHT.take(q)
    inside = q < len(UNIT_TABLE) - 1
    total = np.zeros_like(grid.y)
    arcs = (
        (_BACK, _BACK_PATH, (number >= 1) * np.where(number > 10, 0.6, 1.0) * (number < 13), 1.0, 0.0),
        (_FRONT, _FRONT_PATH, (number >= 1) * (number < 9) * 1.0, 1.18, 0.35),
    )
    for row, (shape, path, there, broad, later) in enumerate(arcs):
        u = grid.y - half_drop * shape.take(q)
        u *= np.float32(1 / body.rib_spacing)
        u += np.float32(body.rib_phase + 1.2 - later)
        k = np.floor(u)
        f = np.abs(u - k - np.float32(0.5))
        f *= upright
        k = clip(k, 0, _RIBS - 1).astype(np.intp)
        k += _RIBS * grid.left
        width = body.rib_width * broad * (1 + 0.08 * jitter[row]) / body.rib_spacing
        f *= (1 / width).astype(np.float32).take(k)
        strength = np.tile(there, 2) * (1 + 0.1 * jitter[2 + row]) * body.bone
        tube = _TUBE.take(unit_index(f))
        tube *= strength.astype(np.float32).take(k)
        tube *= path.take(q)
        total += tube
    total *= inside
    return total


def spine(grid: Grid, g: SimpleNamespace, total: np.ndarray) -> None:
    """Add vertebral bodies with their discs, pedicles and spinous processes to ``total``."""
    body = g.body
    box = grid.box(-4.0, 4.0, -16.0, 44.0)
    x, iy = grid.ax[box], grid.iy[box]
    if not x.size:
        return
    signed = grid.x[box]
    t = x * _PER_HALF.take(iy)
    column = _BODY.take(iy) * np.sqrt(step(np.float32(1.05) - t, 0.8))
    column += _PEDICLE.take(iy) * step(np.float32(0.2) - np.abs(t - np.float32(0.62)), 0.25)
    column += _SPINOUS.take(iy) * step(np.float32(0.35) - np.abs(signed), 0.35)
    total[box] += column * np.float32(body.bone)


def clavicles(grid: Grid, g: SimpleNamespace, latents: Latents, total: np.ndarray) -> None:
    """Add the S-shaped clavicles; in AP they lie higher and more level."""
    body, ap = g.body, latents.projection
    rows = grid.rows(-6.0, 8.0)
    ax, y, left = grid.ax[rows], grid.y[rows], grid.left[rows]
    if not ax.size:
        return
    start = 1.6 + 0.35 * g.turn * np.where(left, 1, -1).astype(np.float32)
    t = (ax - start.astype(np.float32)) * np.float32(1 / 14.0)
    k = unit_index(t)
    s = UNIT_TABLE
    inner = body.clavicle_y + (0.2 if ap else 1.0)
    rise = body.clavicle_rise * (0.7 if ap else 1.0) + 0.5 * latents.exam.shoulder
    wave = 0.55 * np.sin(2.2 * np.pi * clip(s, 0, 0.95))
    centre = inner - rise * s**0.9 - wave
    radius = 0.56 + 0.5 * (1 - smoothstep(s / 0.16)) - 0.12 * bell((s - 0.45) / 0.2) + 0.1 * s
    slope = slope_of(centre, 14.0 / (len(s) - 1))
    centre, inverse = centre.astype(np.float32), (1 / np.sqrt(1 + slope**2) / radius).astype(np.float32)
    d = np.abs(y - centre.take(k))
    d *= inverse.take(k)
    bone = _TUBE.take(unit_index(d))
    bone *= step(t, 0.03) * step(np.float32(1.0) - t, 0.06)
    total[rows] += bone * np.float32(2.9 * body.bone)


def shoulders(grid: Grid, g: SimpleNamespace, latents: Latents, water: np.ndarray, total: np.ndarray) -> None:
    """Arms (soft tissue joins ``water``), humeri and scapulae (``total``)."""
    body, exam, ap = g.body, latents.exam, latents.projection
    points: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for sign in (-1.0, 1.0):
        joint = (g.chest + 2.5 + 0.2 * body.fat, 3.0 - 0.7 * exam.shoulder)
        spread = (3.6 if ap else 8.0) + 2.0 * exam.arms
        elbow = (joint[0] + max(spread, 0.5), joint[1] + 21.0)
        radius = 4.0 + 0.4 * body.fat
        x0, x1 = sorted((sign * (joint[0] - radius), sign * 40.0))
        box = grid.box(x0, x1, joint[1] - radius - 1, 46.0)
        x, y = grid.x[box] * np.float32(sign), grid.y[box]
        if not x.size:
            continue
        axis = np.array([elbow[0] - joint[0], elbow[1] - joint[1]])
        length = float(np.sqrt((axis**2).sum()))
        axis /= length
        dx, dy = x - np.float32(joint[0]), y - np.float32(joint[1])
        along = clip(dx * np.float32(axis[0]) + dy * np.float32(axis[1]), 0, 40)
        ex, ey = dx - along * np.float32(axis[0]), dy - along * np.float32(axis[1])
        d = np.sqrt(ex * ex + ey * ey)
        flesh = _LIMB.take(unit_index(d * np.float32(1 / radius))) * np.float32(9.5 + 1.1 * body.fat)
        water[box] = np.maximum(water[box], flesh)
        shaft = _TUBE.take(unit_index(d * np.float32(1 / 1.25))) * np.float32(3.2 * body.bone)
        head = _CHORD.take(unit_index(np.sqrt(dx * dx + dy * dy) * np.float32(1 / 2.5))) * np.float32(
            2.3 * body.bone
        )
        total[box] += np.maximum(shaft * (along > 0), head)
        points.append(_scapula(grid, g, latents, sign, total))
    xs, ys, mass = (
        (np.concatenate(parts) for parts in zip(*points, strict=True)) if points else (np.zeros(0),) * 3
    )
    column, row = grid.pixels(xs, ys, g.midline)
    total += splat(grid.size, column, row, mass * (1.5 * body.bone / grid.cm**2), 0.28 / grid.cm)


def _scapula(
    grid: Grid, g: SimpleNamespace, latents: Latents, sign: float, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add a scapula's blade; return its borders, spine and coracoid as point masses (x, y, cm³)."""
    body, exam, ap = g.body, latents.exam, latents.projection
    over = (2.1 if ap else 0.1) + 0.8 * body.scapula + 0.4 * sign * exam.turn
    out = g.chest - 13.4
    tilt = 0.9 * body.scapula - 0.6 * exam.arms
    superior = np.array([10.0 - 0.8 * over + out - 0.4 * tilt, 1.6 + 0.5 * body.clavicle_rise - 0.9])
    inferior = np.array([13.2 - 1.1 * over + out + 0.8 * tilt, 14.0 + 0.4 * body.scapula])
    glenoid = np.array([13.9 + out, 4.2 - 0.5 * exam.shoulder])
    acromion = np.array([16.2 + out, 0.4 - 0.7 * exam.shoulder])
    coracoid = np.array([12.6 + out, 2.4])
    x0, x1 = sorted((sign * 6.0, sign * 20.0))
    box = grid.box(x0, x1, 0.0, 16.0)
    x, y = grid.x[box] * np.float32(sign), grid.y[box]
    if x.size:
        sides = []
        corners = (superior, glenoid, inferior)
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            normal = np.array([a[1] - b[1], b[0] - a[0]])
            normal /= np.sqrt((normal**2).sum())
            d = (x - np.float32(a[0])) * np.float32(normal[0]) + (y - np.float32(a[1])) * np.float32(
                normal[1]
            )
            sides.append(d)
        total[box] += step(reduce(np.minimum, sides), 0.6) * np.float32(0.6 * body.bone)
    # Medial, lateral and upper border, spine, acromion, coracoid: from, to, cross-section (cm²), bow (cm).
    root = superior * [1, 0.2] + [0.3, 3.2]
    start = np.array([superior, glenoid, superior, root, acromion, coracoid])
    reach = np.array([inferior, inferior, glenoid, acromion, glenoid, glenoid]) - start
    mass, bow = np.array([[0.16, 0.55, 0.12, 0.75, 0.5, 1.1], [0.25, -0.35, 0.5, 0.4, -0.4, 0.2]])
    length = np.sqrt((reach**2).sum(axis=1))
    count = max(int(10.0 / grid.cm), 16)
    s = (np.arange(count) + 0.5) / count
    bend = (bow / length)[:, None] * (4 * s * (1 - s))
    x = start[:, :1] + reach[:, :1] * s + reach[:, 1:] * bend
    y = start[:, 1:] + reach[:, 1:] * s - reach[:, :1] * bend
    return sign * x.ravel(), y.ravel(), np.repeat(mass * length / count, count)


def breasts(grid: Grid, g: SimpleNamespace, latents: Latents, d_dome: np.ndarray, water: np.ndarray) -> None:
    """Add breasts (women) and the chest wall's muscle to ``water``."""
    body = g.body
    muscle = np.float32(1.3 if not body.female else 0.7)
    fold = step(grid.ax - np.float32(7.5) - np.float32(0.62) * (grid.y - np.float32(5.5)), 3.5)
    fold *= step(np.float32(12.5) - grid.y - np.float32(0.25) * grid.ax, 4.0)
    fold *= step(np.float32(1.0) - grid.ax / g.torso.take(grid.iy), 0.2)
    water += muscle * fold
    if not body.female:
        return
    size = min(1.0 + 0.28 * body.breast + 0.08 * (body.fat - 2.5), 1.5)
    thick, radius = 3.0 * size**1.2, 6.2 * (0.6 + 0.4 * size)
    centre_x, centre_y = 9.2 + 0.6 * size, body.breast_y + 0.6 * size + (0.0 if latents.projection else 0.5)
    dx = (grid.ax - np.float32(centre_x)) * np.float32(1 / (radius * 1.06))
    dy = (grid.y - np.float32(centre_y)) * np.float32(1 / radius)
    dy *= np.where(dy < 0, np.float32(0.55), np.float32(1.0))
    d2 = dx * dx + dy * dy
    dome = np.sqrt(clip(1 - d2, 0, 1)) * step(grid.ax - np.float32(4.5), 6.0)
    # Over the abdomen scatter hides most of them.
    dome *= np.float32(0.4) + np.float32(0.6) * step(d_dome + np.float32(1.0), 5.0)
    water += np.float32(max(thick, 0.6)) * dome


def airways(grid: Grid, g: SimpleNamespace, latents: Latents, water: np.ndarray) -> None:
    """Take the trachea and main bronchi out of ``water``."""
    body = g.body
    box = grid.box(-7.0, 7.0, -14.0, 13.0)
    x, y = grid.x[box], grid.y[box]
    if not x.size:
        return
    carina = 8.6
    centre = np.float32(-body.trachea + 0.25 * g.turn) * step(y - np.float32(3.0), 8.0)
    chord = _CHORD.take(unit_index(np.abs(x - centre) * np.float32(1 / 0.95)))
    chord *= step(np.float32(carina) - y, 1.6) * step(y + np.float32(11.0), 1.5)
    depth = chord * np.float32(1.8)
    for slope, sign, radius in ((1.25, -1.0, 0.72), (0.85, 1.0, 0.6)):
        along = x * np.float32(sign) + np.float32(body.trachea * sign * 0.7)
        d = (y - np.float32(carina - 0.6) - along * np.float32(slope)) * np.float32(1 / np.sqrt(1 + slope**2))
        branch = _CHORD.take(unit_index(np.abs(d) * np.float32(1 / radius)))
        branch *= step(along + np.float32(0.1), 0.5)
        branch *= step(np.float32(2.6) - along, 3.0)
        depth = np.maximum(depth, branch * np.float32(0.9 * radius / 0.7))
    water[box] -= depth


def bowel_gas(
    grid: Grid, g: SimpleNamespace, latents: Latents, rng: np.random.Generator, water: np.ndarray
) -> None:
    """Take the gastric bubble and colonic gas out of ``water``; upright (PA) the bubble has a fluid level."""
    body, ap = g.body, latents.projection
    z = rng.standard_normal((6, 4))
    here = rng.random(6)
    blobs = []
    if here[0] < 0.65:
        wide = 2.7 + 0.6 * body.gas
        high = (1.5 if ap else 1.7) + 0.35 * z[0, 1]
        top = g.dome[1] + 0.7 + 0.25 * abs(z[0, 3])
        level = None if ap else top + high * 1.15
        blobs.append(
            (6.2 + 0.7 * z[0, 0], top + high, max(wide, 1.2), max(high, 0.7), 2.4 + 0.9 * z[0, 2], level)
        )
    for k in range(1, 6):
        if here[k] < 0.16 + 0.08 * body.gas:
            x = (9.5, 4.0, -6.0, 10.5, 1.0)[k - 1] + 1.5 * z[k, 0]
            y = g.dome[1] + (3.5, 6.5, 9.0, 6.0, 9.5)[k - 1] + 1.2 * z[k, 1]
            blobs.append((x, y, 1.6 + 0.5 * abs(z[k, 2]), 1.0 + 0.3 * abs(z[k, 3]), 1.1, None))
            blobs.append((x + 1.5 * z[k, 3], y + 0.8 * z[k, 2], 1.2 + 0.4 * abs(z[k, 0]), 0.9, 0.9, None))
    for x, y, wide, high, depth, level in blobs:
        box = grid.box(x - wide - 0.5, x + wide + 0.5, y - high - 0.5, y + high + 0.5)
        if not grid.x[box].size:
            continue
        dx = (grid.x[box] - np.float32(x)) * np.float32(1 / wide)
        dy = (grid.y[box] - np.float32(y)) * np.float32(1 / high)
        bubble = np.sqrt(clip(1 - dx * dx - dy * dy, 0, 1)) * np.float32(depth)
        if level is not None:
            bubble *= step(np.float32(level) - grid.y[box], max(0.2, grid.cm))
        water[box] -= bubble
