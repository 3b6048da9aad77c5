"""Kinds of image: groups alike in how they were made, lettered, bordered and exposed, and how many are ill.

A second machine or another hospital's archive need not have a column. Its images are alike, and a probe that
is asked about all images together misses them where they are few. So all images are put into groups by what
is no disease; the label has no part in that. Then each group is asked whether its share of the ill is what
chance gives, by permutation of patients and for all groups at once (the largest deviation of each
permutation; Westfall and Young 1993).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2

from cxrlib.audit.asked import blocks, each
from cxrlib.audit.made import MADE
from cxrlib.audit.ridge import reduced
from cxrlib.audit.rules import SIGNIFICANCE
from cxrlib.audit.stats import normal_scores, permuted

SHOWN = 8  # examples
FEWEST = 20  # images in a group, else it is not asked
_EACH = 60  # images a group, about
_MOST = 48  # groups
_BLOCKS = {"made": MADE, "border": ("border",), "exposure": ("exposure",), "strokes": ("strokes",)}
_WIDTH = {"made": 12, "border": 5, "exposure": 4, "strokes": 20}
_WEIGHT = {"made": 1.0, "border": 0.5, "exposure": 0.5, "strokes": 1.5}


@dataclass(frozen=True)
class Kind:
    """A group: its rows (the most typical first), how many are ill, and its corrected p."""

    rows: np.ndarray
    ill: int
    p: float


def grouped(
    features: Mapping[str, np.ndarray], seed: int = 0, workers: int | None = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The group of each image and how far it is from the group's centre: int (N,), float (N,).

    ``features``: of :func:`cxrlib.audit.features.describe`.
    """
    parts = []
    for name, members in _BLOCKS.items():
        if name == "strokes":
            part = reduced(blocks(features, name), _WIDTH[name])
        else:
            values = np.concatenate([features[one] for one in members], axis=1)
            part = reduced(normal_scores(values), _WIDTH[name])
        size = np.sqrt((part**2).sum(axis=1).mean())
        if size > 0:  # else all images are alike in this, and it tells no group
            parts.append(part * (_WEIGHT[name] / size))
    if not parts:
        return np.zeros(len(part), int), np.zeros(len(part))
    known = np.concatenate(parts, axis=1)
    count = int(np.clip(len(known) // _EACH, 2, _MOST))
    jobs = [(_clustered, known, count, seed, start) for start in range(4)]
    best = min(each(jobs, workers, len(known)), key=lambda found: found[:2])
    return best[2], best[3]


def _clustered(
    known: np.ndarray, count: int, seed: int, start: int
) -> tuple[float, int, np.ndarray, np.ndarray]:
    """How far all are from their groups' centres, the start, and of each its group and how far it is."""
    centres, codes = kmeans2(known, count, minit="++", seed=np.random.default_rng([seed, start]))
    away = np.linalg.norm(known - centres[codes], axis=1)
    return float((away**2).sum()), start, codes, away


def uneven(
    codes: np.ndarray,
    away: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    permutations: int,
    seed: int,
) -> list[Kind]:
    """The groups of at least :data:`FEWEST` images, most uneven first, each with its corrected p."""
    sizes = np.bincount(codes)
    asked = np.flatnonzero(sizes >= FEWEST)
    member = (codes[:, None] == asked[None, :]).astype(np.float32)
    size, share = sizes[asked], labels.mean()
    spread = np.sqrt(size * share * (1 - share) * (1 - size / len(codes)).clip(1e-9))[:, None]

    def off(many: np.ndarray) -> np.ndarray:
        return np.abs(member.T @ many.astype(np.float32) - size[:, None] * share) / spread

    found = off(labels[:, None])[:, 0]
    better, tried = np.ones(len(asked)), 1
    for block in permuted(labels.astype(np.int8), patients, permutations, [seed, 80]):
        worst = off(block).max(axis=0)
        better += (worst[None, :] >= found[:, None] - 1e-6).sum(axis=1)
        tried += block.shape[1]
    kinds = []
    for place in np.argsort(-found, kind="stable"):
        rows = np.flatnonzero(codes == asked[place])
        rows = rows[np.argsort(away[rows], kind="stable")]
        kinds.append(Kind(rows, int(labels[rows].sum()), float(better[place] / tried)))
    return kinds


def told(kinds: list[Kind], ids: np.ndarray, share: float) -> tuple[dict, tuple[str, ...]]:
    """A finding's detail, and pictures typical of the most uneven groups with more and with fewer ill."""
    rows = [
        {"level": str(number), "images": len(one.rows), "share_ill": round(one.ill / len(one.rows), 4),
         "p": one.p, "examples": ids[one.rows[:SHOWN]].tolist()}
        for number, one in enumerate(kinds, 1) if one.p < SIGNIFICANCE
    ]  # fmt: skip
    shown: list[str] = []
    for sign in (1, -1):
        mine = [one for one in kinds if sign * (one.ill / len(one.rows) - share) > 0]
        shown += ids[mine[0].rows[: SHOWN // 2]].tolist() if mine else []
    return {"levels": {"kind of image": rows}, "share_ill": float(share)}, tuple(shown)
