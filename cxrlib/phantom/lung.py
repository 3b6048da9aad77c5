"""What is inside the phantom's lungs: vessels, disease, and findings that do not depend on the label."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace

import numpy as np

from cxrlib.phantom.anatomy import LENGTH
from cxrlib.phantom.canvas import Grid, clip, smooth_noise, smoothstep, splat, step
from cxrlib.phantom.latents import FINDING, LOBES, NUISANCE, TEXTURE, TREE, Latents, Streams

_LEVELS = 6


@lru_cache(maxsize=2)
def vessel_tree(seed: int, patient: int, spacing: float) -> tuple[np.ndarray, ...]:
    """Grow the vessels of both lungs from their hila and walk along them.

    Returns x, y (cm), radius (cm) and length (cm) of every step of about ``spacing`` cm, in a chest of
    average length. The images of a patient come one after another, so that the last trees are worth keeping.
    """
    rng = Streams(seed)(TREE, patient)
    # Angles from straight down, outwards: lower lobe vessels are the larger, as in someone upright.
    sign = np.repeat([-1.0, 1.0], 8)
    angle = np.tile(np.deg2rad([4, 22, 42, 66, 92, 120, 150, 176]), 2) + rng.normal(0, 0.09, 16)
    radius = np.tile([0.40, 0.34, 0.29, 0.25, 0.24, 0.24, 0.26, 0.23], 2)
    radius *= 1 + 0.12 * rng.standard_normal(16)
    x = np.repeat([2.7, 3.1], 8) + rng.normal(0, 0.4, 16) + 0.5 * np.sin(angle)
    y = np.repeat([10.2, 9.4], 8) + rng.normal(0, 0.7, 16) + 0.6 * np.cos(angle)
    length = np.tile([4.4, 4.2, 4.0, 3.8, 3.6, 3.6, 3.6, 3.4], 2) * (1 + 0.15 * rng.standard_normal(16))
    levels = []
    for _ in range(_LEVELS):
        z = rng.standard_normal((7, len(x)))
        bend = 0.24 * z[0]
        levels.append((sign, x, y, angle, bend, length, radius))
        sin, cos = length * np.sin(angle), length * np.cos(angle)
        x, y = x + sin + 0.5 * bend * cos, y + cos - 0.5 * bend * sin
        turned = angle + bend
        angle = np.concatenate([turned + 0.36 + 0.1 * z[1], turned - 0.36 + 0.1 * z[2]])
        radius = np.concatenate([radius, radius]) * clip(0.78 + 0.07 * z[3:5].ravel(), 0.55, 0.93)
        length = np.concatenate([length, length]) * clip(0.76 + 0.14 * z[5:].ravel(), 0.4, 1.1)
        sign, x, y = np.concatenate([sign, sign]), np.concatenate([x, x]), np.concatenate([y, y])
    # Long branches and short ones are walked with their like, each kind with as many points a branch.
    walks = [
        _walk([np.concatenate(column) for column in zip(*part, strict=True)], spacing)
        for part in (levels[:2], levels[2:])
    ]
    return tuple(np.concatenate(column) for column in zip(*walks, strict=True))


def _walk(branches: list[np.ndarray], spacing: float) -> tuple[np.ndarray, ...]:
    """Points along gently bent branches, of which each has sign, x, y, angle, bend, length and radius."""
    sign, x, y, angle, bend, length, radius = branches
    count = max(int(length.mean() * 1.3 / spacing), 2)
    s = ((np.arange(count) + 0.5) / count)[None, :]
    sin, cos = length * np.sin(angle), length * np.cos(angle)
    turn = (0.5 * bend)[:, None] * s * s
    xs = (x[:, None] + sin[:, None] * s + cos[:, None] * turn) * sign[:, None]
    ys = y[:, None] + cos[:, None] * s - sin[:, None] * turn
    thin = radius[:, None] * (1 - 0.18 * s)
    return xs.ravel(), ys.ravel(), thin.ravel(), np.repeat(length / count, count)


def vessels(grid: Grid, g: SimpleNamespace, streams: Streams, latents: Latents) -> np.ndarray:
    """cm of blood along the ray, before it is cut to the lungs; float32, (S, S)."""
    x, y, radius, length = vessel_tree(streams.seed, latents.patient, 36.0 / grid.size)
    column, row = grid.pixels(x, y * (g.length / LENGTH), g.midline)
    mass = (np.pi * g.body.vessels) * radius**2 * length / grid.cm**2
    big = radius > 0.2
    fine = ~big
    total = splat(grid.size, column[big], row[big], mass[big], 0.16 / grid.cm)
    total += splat(grid.size, column[fine], row[fine], mass[fine], 0.06 / grid.cm)
    total += _hila(grid, g)
    return total


def _hila(grid: Grid, g: SimpleNamespace) -> np.ndarray:
    """The pulmonary arteries, bronchi and nodes at the root of each lung, too close to tell apart."""
    total = np.zeros_like(grid.y)
    scale = g.length / LENGTH
    for x, y, wide, high, depth in (
        (-3.9, 9.6, 1.5, 2.2, 0.9),
        (-4.4, 11.4, 1.1, 2.4, 0.8),
        (4.2, 8.9, 1.6, 1.8, 0.9),
        (4.6, 10.6, 1.0, 2.0, 0.6),
    ):
        x, y = x * (0.55 + 0.45 * g.wide / 2.0), y * scale
        box = grid.box(x - 2 * wide, x + 2 * wide, y - 2 * high, y + 2 * high)
        if grid.x[box].size:
            dx = (grid.x[box] - np.float32(x)) * np.float32(1 / wide)
            dy = (grid.y[box] - np.float32(y)) * np.float32(1 / high)
            r = clip(1 - np.float32(0.25) * (dx * dx + dy * dy), 0, 1)
            total[box] += r * r * np.float32(depth * g.body.vessels)
    return total


def disease(
    grid: Grid, tissue: SimpleNamespace, vessel: np.ndarray, latents: Latents, streams: Streams
) -> tuple[np.ndarray, np.ndarray]:
    """The disease this image has: cm of water it adds (float32), and where it is (uint8); both (S, S)."""
    rng = streams(TEXTURE, latents.index)
    if latents.subtype == "lobar":
        share, where = _consolidation(grid, tissue, vessel, latents, rng)
    else:
        share, where = _interstitial(grid, tissue, latents, rng)
    share *= tissue.lung
    return share * tissue.air, (where & (tissue.lung > 0.5)).astype(np.uint8)


def _consolidation(
    grid: Grid, tissue: SimpleNamespace, vessel: np.ndarray, latents: Latents, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Share of air gone, and where, in one lobe: a fluffy blob that stops at the fissure."""
    lesion, severity = latents.lesion, max(latents.severity, 0.01)
    side, _, (across, down), (wide, high) = LOBES[lesion.lobe]
    extent = lesion.extent * severity**0.3
    opacity = min(lesion.opacity * severity, 0.92)
    dx = (tissue.q - np.float32(across + lesion.across)) * np.float32(1 / (wide * extent))
    dy = (tissue.t - np.float32(down + lesion.down)) * np.float32(1 / (high * extent))
    radius = np.sqrt(dx * dx + dy * dy + np.float32(lesion.lean) * dx * dy)
    rough = smooth_noise(rng, grid.size, {6: 0.17, 14: 0.13, 30: 0.13, 64: 0.10})
    blob = smoothstep(np.float32(1.45) - radius + rough)
    if lesion.lobe in ("right upper", "right middle"):
        above = np.float32(lesion.fissure) - tissue.t
        above -= np.float32(lesion.fissure_tilt) * (tissue.q - np.float32(0.6))
        blob *= step(above if lesion.lobe == "right upper" else -above, lesion.fissure_blur)
    blob *= grid.left == bool(side)
    patch = smooth_noise(rng, grid.size, {20: 0.10, 44: 0.10, 90: 0.08})
    share = blob * np.float32(opacity) * clip(1 + patch, 0.4, 1.6)
    # Air bronchograms: where vessels and bronchi run together, the solid lung is crossed by dark branches.
    share -= np.float32(0.30 * opacity) * blob * clip(vessel, 0, 0.8)
    return clip(share, 0, 0.95), blob > 0.4


def _interstitial(
    grid: Grid, tissue: SimpleNamespace, latents: Latents, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Share of air gone, and where, on both sides: ground glass, a fine net of lines, and dots."""
    lesion = latents.lesion
    zone = step(tissue.t - np.float32(lesion.top), 0.5) * np.float32(0.8) + np.float32(0.2)
    if lesion.perihilar:
        zone *= np.float32(1.0) - np.float32(0.6) * step(tissue.q - np.float32(0.62), 0.4)
    zone *= np.float32(1.0) - np.float32(lesion.spared) * (grid.left == bool(lesion.spared_side))
    zone *= clip(0.75 + smooth_noise(rng, grid.size, {5: 0.30, 11: 0.28, 24: 0.16}), 0, 1.5)
    strength = lesion.strength * latents.severity
    # The ridges of fine noise, where it passes through zero, are a net of thin lines.
    net = smooth_noise(rng, grid.size, {30: 0.35, 44: 0.5, 60: 0.65})
    lines = clip(1 - np.abs(net) * np.float32(1.9), 0, 1)
    dots = clip(smooth_noise(rng, grid.size, {48: 0.9, 62: 0.7}) - np.float32(0.6), 0, 1.2)
    share = np.float32(1.0) + np.float32(lesion.reticular) * (lines + dots - np.float32(0.3))
    share *= zone * np.float32(strength)
    return clip(share, 0, 0.9), zone > 0.42


def nuisances(
    grid: Grid, g: SimpleNamespace, tissue: SimpleNamespace, latents: Latents, streams: Streams
) -> np.ndarray:
    """Findings that do not depend on the label: nodules, apical scars, bands, blunted angles; cm of water."""
    rate = latents.nuisance
    total, strands = np.zeros_like(grid.y), []
    old = streams(FINDING, latents.patient)  # what stays with a patient
    here, z = old.random(6), clip(old.standard_normal((6, 6)), -2, 2)
    sides = np.where(old.random(6) < 0.5, -1.0, 1.0)
    for k in range(2):
        if here[k] < 0.13 * rate:  # nodule or calcified granuloma
            x, y = sides[k] * (7.5 + 2.2 * z[k, 0]), 12 + 4.5 * z[k, 1]
            r = 0.35 + 0.28 * abs(z[k, 2])
            _disc(grid, total, x, y, r, r * (1 + 0.15 * z[k, 3]), 1.5 * r * (1 + 0.8 * (z[k, 4] > 0.8)))
    if here[2] < 0.18 * rate:  # apical cap and scar
        x, y = sides[2] * (5.5 + z[2, 0]), 2.6 + 0.8 * z[2, 1]
        _disc(grid, total, x, y, 2.4, 1.1, 0.9 + 0.35 * z[2, 2])
        strands.append((x, y, np.pi * (0.3 + 0.1 * z[2, 3]) * sides[2], 3.0, 0.10))
    new = streams(NUISANCE, latents.index)  # what belongs to this image
    here, z = new.random(8), clip(new.standard_normal((8, 6)), -2, 2)
    sides = np.where(new.random(8) < 0.5, -1.0, 1.0)
    for k in range(3):
        if here[k] < 0.16 * rate:  # plate-like atelectasis
            left = int(sides[k] > 0)
            x, y = sides[k] * (8 + 1.5 * z[k, 0]), g.dome[left] - 2.2 - 1.1 * abs(z[k, 1])
            strands.append((x, y, 0.22 * z[k, 2], 3.4 + 0.9 * z[k, 3], 0.14 + 0.05 * abs(z[k, 4])))
    if here[3] < 0.14 * rate:  # blunted costophrenic angle
        left = int(sides[3] > 0)
        level = np.float32(g.length - 1.8 - 0.8 * abs(z[3, 0]))
        slope = grid.y - level + np.float32(0.5) * (np.float32(g.chest) - grid.ax)
        slope -= np.float32(1.0) * clip(np.float32(g.chest) - grid.ax, 0, 9)
        total += step(slope, 1.2) * (grid.left == bool(left)) * np.float32(4.5)
    if here[4] < 0.25 * rate:  # crowding of the bases in a shallow breath
        patch = np.float32(1) + smooth_noise(new, grid.size, {8: 0.3, 24: 0.2})
        total += step(tissue.t - np.float32(0.72), 0.3) * np.float32(0.5 + 0.5 * here[5]) * patch
    if here[6] < 0.3 * rate:  # the minor fissure, seen end on
        y = 11.2 * g.length / LENGTH + 0.4 * z[6, 0]
        strands.append((-8.6, y, 0.06 * z[6, 1], 7.0, 0.045))
    if strands:
        walked = [_strand(*strand, 0.5 * grid.cm) for strand in strands]
        x, y, mass = (np.concatenate(column) for column in zip(*walked, strict=True))
        total += splat(grid.size, *grid.pixels(x, y, g.midline), mass / grid.cm**2, 0.13 / grid.cm)
    return np.minimum(total * tissue.lung, tissue.air * np.float32(0.85))


def _disc(grid: Grid, total: np.ndarray, x: float, y: float, wide: float, high: float, depth: float) -> None:
    box = grid.box(x - wide - 0.5, x + wide + 0.5, y - high - 0.5, y + high + 0.5)
    if grid.x[box].size:
        dx = (grid.x[box] - np.float32(x)) * np.float32(1 / wide)
        dy = (grid.y[box] - np.float32(y)) * np.float32(1 / high)
        total[box] += np.sqrt(clip(1 - dx * dx - dy * dy, 0, 1)) * np.float32(max(depth, 0.1))


def _strand(
    x: float, y: float, angle: float, length: float, mass: float, spacing: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points and masses along a strand of tissue of ``mass`` cm² in cross-section."""
    count = max(int(length / spacing), 4)
    s = (np.arange(count) + 0.5) / count - 0.5
    sag = 0.06 * length * (1 - 4 * s * s)
    fade = smoothstep((0.5 - np.abs(s)) / 0.2) * (mass * length / count)
    return x + length * s * np.cos(angle), y + length * s * np.sin(angle) - sag, fade
