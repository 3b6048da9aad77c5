"""The phantom's body: outlines in cm, and the water-equivalent thickness of soft tissue along each ray.

Thicknesses are in cm of water at diagnostic energies. Air is what the lungs take away from them, so disease
is air that is not there.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace

import numpy as np

from cxrlib.phantom.canvas import (
    DISTANCE_TABLE,
    UNIT_TABLE,
    X_TABLE,
    Y_TABLE,
    Grid,
    Pose,
    bell,
    clip,
    distance_index,
    slope_of,
    smoothstep,
    step,
    unit_index,
)
from cxrlib.phantom.latents import BODY, Latents

_DY, _DX = Y_TABLE[1] - Y_TABLE[0], X_TABLE[1] - X_TABLE[0]
_SMOOTH = np.hanning(35) / np.hanning(35).sum()
#: Across the chest, as a share of its half width: the thickness of the torso and of the lung.
_TORSO_PROFILE = ((1 - UNIT_TABLE**3.4) ** 0.5).astype(np.float32)
_LUNG_PROFILE = ((1 - UNIT_TABLE**2.4) ** 0.55).astype(np.float32)
_CHORD = np.sqrt(1 - UNIT_TABLE**2).astype(np.float32)
#: Share of the lung's depth above (positive distance) and below the dome of the diaphragm.
_DOME = (1 - 0.42 * np.exp(-np.abs(DISTANCE_TABLE) / 1.6), 0.30 * np.exp(-np.abs(DISTANCE_TABLE) / 1.7))


#: The same from the edge of the heart (negative: inside), on top of what is air everywhere.
_HEART = (1 - 0.30 * np.exp(-np.abs(DISTANCE_TABLE)), 0.36 * np.exp(-np.abs(DISTANCE_TABLE) / 1.3))


#: Apex to costophrenic angle of the average body, cm.
LENGTH = BODY["length"][0]


def geometry(latents: Latents) -> SimpleNamespace:
    """The outlines of one image: what the body is, and what projection, breath and position make of it.

    Tables over Y_TABLE or X_TABLE, float32; those of both lungs are right (patient's right) then left.
    """
    body, exam, ap = latents.body, latents.exam, latents.projection
    g = SimpleNamespace(body=body)
    breath = exam.inspiration * (1.0 if ap else 0.8) - (1.1 if ap else 0.0)
    g.turn = exam.turn * (0.9 if ap else 0.45)  # cm that front structures move against back ones
    g.length = body.length * (1 + 0.035 * breath)
    g.chest = body.chest * (1 + 0.008 * breath)
    g.heart = (1.12 if ap else 1.0) * (1 - 0.015 * breath)
    g.dome = (g.length - body.dome * (1 - 0.05 * breath), g.length - body.dome + body.dome_lower)
    g.wide = body.mediastinum * (1.28 if ap else 1.0)
    g.scale = g.length / LENGTH
    g.midline = (body.curve * np.sin((Y_TABLE - 2) / 9.0) * smoothstep((Y_TABLE + 8) / 10)).astype(np.float32)

    tops = (0.0, body.apex_lower)
    lateral = [_lateral(g, top, left) for left, top in enumerate(tops)]
    medial = [_medial(g, top, left) for left, top in enumerate(tops)]
    g.lateral = np.concatenate(lateral).astype(np.float32)
    g.medial = np.concatenate(medial).astype(np.float32)
    # Share of the lung's depth that is still air behind (and in front of) the mediastinum, by height.
    g.residual = np.tile(0.08 + 0.17 * smoothstep((Y_TABLE - 8) / 8), 2).astype(np.float32)
    g.lateral_cos = _cosine(np.array(lateral), _DY).ravel()
    g.medial_cos = _cosine(np.array(medial), _DY).ravel()
    diaphragm = _diaphragm(g)
    g.diaphragm = diaphragm.astype(np.float32)
    g.diaphragm_cos = _cosine(diaphragm, _DX)
    t = clip(Y_TABLE / g.length, 0, 1)
    g.lung_depth = (0.80 * body.depth * (1 - (1 - t) ** 2.3) ** 0.62).astype(np.float32)
    g.torso = _torso(g).astype(np.float32)
    g.thickness = _thickness(g).astype(np.float32)
    return g


def pose(latents: Latents) -> Pose:
    """Which part of the patient the image shows."""
    body, exam, ap = latents.body, latents.exam, latents.projection
    zoom = 1.0 + (0.07 if ap else 0.065) * exam.zoom
    height = (35.0 if ap else 34.5) * zoom * (0.35 + 0.65 * body.length / LENGTH)
    width = (34.2 if ap else 33.4) * zoom * (0.35 + 0.65 * body.chest / 13.4) * (1 + 0.05 * exam.aspect)
    angle = np.deg2rad((2.6 if ap else 1.2) * exam.angle)
    centre = 13.6 + (1.4 if ap else 1.1) * exam.y - (0.8 if ap else 0.0)
    return Pose((1.0 if ap else 0.6) * exam.x, centre, width, height, angle)


@lru_cache(maxsize=16)
def _edges(size: int) -> tuple[np.ndarray, np.ndarray]:
    """_HEART and _DOME by signed distance, the jump between their sides as wide as a pixel."""
    outside = clip(0.5 + DISTANCE_TABLE / max(0.22, 32.0 / size), 0, 1)
    return tuple((far * outside + near * (1 - outside)).astype(np.float32) for far, near in (_HEART, _DOME))


def _lateral(g: SimpleNamespace, top: float, left: int) -> np.ndarray:
    body = g.body
    t = clip((Y_TABLE - top) / (g.length - top), 0, 1)
    half = g.chest * (1 + (0.012 if left else -0.012) * g.turn)
    rise = (1 - (1 - t) ** body.shoulder) ** (1 / body.roundness)
    return body.apex + (half - body.apex) * rise - 0.5 * smoothstep((t - 0.8) / 0.4)


def _medial(g: SimpleNamespace, top: float, left: int) -> np.ndarray:
    body, y = g.body, Y_TABLE
    shift = 0.55 * g.turn * (1 if left else -1)
    if left:
        heart_y = g.dome[1] - 3.4
        reach = body.heart_left * g.heart - g.wide
        t = (y - 0.36 * heart_y) / (0.66 * heart_y)
        rise = 0.65 * smoothstep(t) + 0.35 * clip(t, 0, 1)
        fall = np.sqrt(clip(1 - clip((y - heart_y) / 7.5, 0, 1) ** 2, 0, 1))
        edge = g.wide + reach * rise * fall
        edge += body.knob * bell((y / g.scale - body.knob_y) / 1.35)
        edge += body.trunk * bell((y / g.scale - 9.4) / 1.5)
    else:
        heart_y = g.dome[0] - 4.4
        reach = body.heart_right * g.heart - g.wide
        rise = smoothstep((y - 0.5 * heart_y) / (0.5 * heart_y))
        fall = 1 - 0.5 * clip((y - heart_y) / 6.0, 0, 1) ** 2
        edge = g.wide * 0.97 + reach * rise * fall + 0.35 * bell((y / g.scale - 8.0) / 3.0)
    closing = clip(1 - (y - top) / 2.4, 0, 1)
    closing *= closing * np.sqrt(closing)
    return (edge + shift) * (1 - closing) + body.apex * closing


def _diaphragm(g: SimpleNamespace) -> np.ndarray:
    ax = np.abs(X_TABLE)
    peak = np.where(X_TABLE > 0, 7.0, 6.6)
    dome = np.where(X_TABLE > 0, g.dome[1], g.dome[0])
    outer = clip((ax - peak) / (g.chest - 0.5 - peak), 0, 1.2)
    drop = np.where(X_TABLE > 0, g.length + 0.2 - g.dome[1], g.length - g.dome[0])
    inner = clip((peak - ax) / peak, 0, 1)
    table = dome + drop * outer**2.3 + 1.6 * inner**2
    return np.convolve(np.pad(table, _SMOOTH.size // 2, mode="edge"), _SMOOTH, mode="valid")


def _torso(g: SimpleNamespace) -> np.ndarray:
    """Half width of neck, shoulders and trunk by height."""
    body, y = g.body, Y_TABLE
    trunk = g.chest * (0.92 + 0.09 * smoothstep((y - 3) / 12)) + 1.0 + body.fat
    trunk += (0.25 * body.fat) * smoothstep((y - 20) / 10) - 0.6 * smoothstep((y - 22) / 8)
    neck = 5.1 + 0.45 * body.fat - 0.25 * bell((y + 7) / 3)
    slope = clip((y + 4.6) / 5.2, 0, 1)
    shoulders = neck + (trunk + 3.0 - neck) * slope**1.7
    return shoulders + (trunk - shoulders) * smoothstep((y - 3.5) / 10)


def _thickness(g: SimpleNamespace) -> np.ndarray:
    """Front-to-back thickness on the midline by height."""
    body, y = g.body, Y_TABLE
    chest = body.depth * (0.84 + 0.18 * smoothstep((y + 1) / 11))
    chest += 2.6 * smoothstep((y - 0.75 * g.length) / 6)
    neck = 12.5 + 0.6 * body.fat
    return neck + (chest - neck) * smoothstep((y + 5) / 7)


def _cosine(table: np.ndarray, spacing: float) -> np.ndarray:
    """What turns a distance along the table's axis into one across its curve; float32."""
    slope = slope_of(table, spacing)
    return (1 / np.sqrt(1 + slope * slope)).astype(np.float32)


def soft_tissue(grid: Grid, g: SimpleNamespace) -> SimpleNamespace:
    """Torso, lungs and mediastinum.

    - Returns: ``water`` (cm of tissue along the ray, lungs not taken off), ``air`` (cm that the lungs take
      off), ``lung`` (0 to 1: the lung field as readers outline it, without heart and what lies below the
      dome), ``q`` (share of the way from midline to chest wall), ``t`` (share of the way from apex to
      costophrenic angle), ``d_dome`` (cm above the diaphragm): all float32, (S, S).
    """
    edge = max(0.16, 0.9 * grid.cm)
    width = g.torso.take(grid.iy)
    across = np.abs(grid.x)
    across /= width
    torso = _TORSO_PROFILE.take(unit_index(across))
    water = g.thickness.take(grid.iy) * torso

    lateral = g.lateral.take(grid.iys)
    d_lateral = (lateral - grid.ax) * g.lateral_cos.take(grid.iys)
    d_medial = (grid.ax - g.medial.take(grid.iys)) * g.medial_cos.take(grid.iys)
    d_dome = (g.diaphragm.take(grid.ix) - grid.y) * g.diaphragm_cos.take(grid.ix)
    distance = np.minimum(np.minimum(d_lateral, d_medial), d_dome)
    lung = step(distance, edge)
    q = grid.ax / lateral
    share = g.residual.take(grid.iys)
    # The heart is round: thin near its edge, where much lung lies before and behind it.
    heart, dome = _edges(grid.size)
    share += (1 - share) * heart.take(distance_index(d_medial))
    share *= step(grid.ax - np.float32(1.0), 2.5) * np.float32(0.6) + np.float32(0.4)
    air = g.lung_depth.take(grid.iy) * _LUNG_PROFILE.take(unit_index(q))
    air *= share
    air *= dome.take(distance_index(d_dome))
    air *= step(d_lateral, max(0.3, edge))
    air *= step(grid.y - np.float32(0.2), 0.6)
    air *= np.float32(g.body.air)
    t = grid.y * np.float32(1 / g.length)
    return SimpleNamespace(water=water, air=air, lung=lung, q=q, t=t, d_dome=d_dome)
