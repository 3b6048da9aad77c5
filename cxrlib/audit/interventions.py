"""What becomes of a classifier's answers when something in the picture is changed that is no disease.

Each intervention has a control: a change of the same size elsewhere, or of the same kind that brings nothing
new. A network that answers to any change of this size is not caught by one; so an intervention is believed
where it turns more calls than its control, by an interval over patients that leaves zero out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cxrlib.audit.classifiers import Scorer
from cxrlib.audit.stats import aucs
from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.images.markers import find_markers, inpaint
from cxrlib.parallel import progress_bar

REPLICATES = 1000
SHARE, CORNER = 0.1, 0.15  # of the side: the frame, a corner
MOST_CHANGED = 8


@dataclass(frozen=True, eq=False)
class Scene:
    """What interventions are given: uint8 images and 0/1 lung masks (N, S, S), labels and patients (N,)."""

    images: np.ndarray
    lung_masks: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    seed: int = 0


@dataclass(frozen=True)
class Intervention:
    """A change of the picture.

    ``changed`` and ``control`` take a Scene and give images, uint8 (N, S, S); ``expected`` says what a sound
    network does: "stays" as it is, or "falls" towards chance.
    """

    name: str
    title: str
    changed: Callable[[Scene], np.ndarray]
    control: Callable[[Scene], np.ndarray] | None
    expected: str = "stays"


@dataclass(frozen=True)
class Effect:
    """What an intervention did; intervals resample patients.

    - ``touched``: images that it changes at all; shares below are of these.
    - ``flips``, ``control_flips``, ``excess``: share of calls that turn at the threshold; the same under the
      control; their difference.
    - ``auc``, ``auc_change``: after it, of all images, and less what it was before.
    - ``most_changed``: rows (in an audit: ids) of the images whose score moved most, the largest first.
    """

    name: str
    title: str
    touched: int
    flips: Estimate | None
    control_flips: Estimate | None
    excess: Estimate | None
    auc: Estimate
    auc_change: Estimate
    expected: str
    most_changed: tuple[int | str, ...]

    @property
    def believed(self) -> bool:
        """Whether more calls turn than by the control; without one, whether any do."""
        shown = self.excess or self.flips
        return shown is not None and shown.low is not None and shown.low > 0


def intervene(
    scene: Scene, scorer: Scorer, threshold: float, *, progress: bool | None = None
) -> tuple[np.ndarray, list[Effect]]:
    """The classifier's scores (N,) as things are, and the effect of each of :data:`INTERVENTIONS`."""
    if len(scene.images) != len(scene.labels):
        raise DataError("Images and labels differ in number.", remedy="Give one label an image.")
    before = scorer(scene.images)
    effects = []
    with progress_bar(len(INTERVENTIONS), "Changing images", progress, unit="change") as bar:
        for one in INTERVENTIONS:
            effects.append(_effect(one, scene, scorer, before, threshold))
            bar.update(1)
    return before, effects


def _effect(one: Intervention, scene: Scene, scorer: Scorer, before: np.ndarray, threshold: float) -> Effect:
    images = one.changed(scene)
    touched = (images != scene.images).reshape(len(images), -1).any(1)
    after = before.copy()
    if touched.any():
        after[touched] = scorer(images[touched])
    turned = ((after >= threshold) != (before >= threshold)).astype(float)
    other = None
    if one.control is not None and touched.any():
        scores = before.copy()
        scores[touched] = scorer(one.control(scene)[touched])
        other = ((scores >= threshold) != (before >= threshold)).astype(float)
    weights = _patients_drawn(scene.patients, scene.seed)
    flips, control_flips, excess = (
        _share(values, touched, weights)
        for values in (turned, other, None if other is None else turned - other)
    )
    (was, draws_before), (now, draws_now) = (
        _auc(scene.labels, scores, weights) for scores in (before, after)
    )
    order = np.argsort(-np.abs(after - before), kind="stable")
    return Effect(
        one.name,
        one.title,
        int(touched.sum()),
        flips,
        control_flips,
        excess,
        _estimate(now, draws_now, len(before)),
        _estimate(now - was, draws_now - draws_before, len(before)),
        one.expected,
        tuple(int(row) for row in order[:MOST_CHANGED] if after[row] != before[row]),
    )


def _estimate(value: float, draws: np.ndarray, n: int) -> Estimate:
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(value, float(low), float(high), n=n)


def _patients_drawn(patients: np.ndarray, seed: int) -> np.ndarray:
    """How often each row is drawn in each replicate: int16, (REPLICATES, N)."""
    codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)[1]
    rng = np.random.default_rng([seed, 80])
    counts = rng.multinomial(codes.max() + 1, np.full(codes.max() + 1, 1 / (codes.max() + 1)), REPLICATES)
    return counts.astype(np.int16)[:, codes]


def _share(values: np.ndarray | None, touched: np.ndarray, weights: np.ndarray) -> Estimate | None:
    if values is None or not touched.any():
        return None
    mine = weights[:, touched].astype(float)
    draws = (mine @ values[touched]) / np.maximum(mine.sum(1), 1)
    return _estimate(float(values[touched].mean()), draws, int(touched.sum()))


def _auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The AUC, and in each replicate; rows sorted once, ties by half."""
    order = np.argsort(scores, kind="stable")
    value, group = np.unique(scores[order], return_inverse=True)
    ill = labels[order] == 1
    draws = np.empty(len(weights))
    for number, drawn in enumerate(weights):
        mine = drawn[order].astype(float)
        positive = np.bincount(group, mine * ill, len(value))
        negative = np.bincount(group, mine * ~ill, len(value))
        below = np.cumsum(negative) - negative
        pairs = positive.sum() * negative.sum()
        draws[number] = (positive * (below + negative / 2)).sum() / pairs if pairs else 0.5
    return float(aucs(labels[:, None], scores[:, None])[0]), draws


# --- the changes ---


def _frame(side: int) -> np.ndarray:
    inside = np.ones((side, side), bool)
    edge = max(1, round(SHARE * side))
    inside[edge:-edge, edge:-edge] = False
    return inside


def _corners(side: int) -> np.ndarray:
    edge, found = max(1, round(CORNER * side)), np.zeros((side, side), bool)
    for rows in (slice(edge), slice(-edge, None)):
        for columns in (slice(edge), slice(-edge, None)):
            found[rows, columns] = True
    return found


def _middles(side: int) -> np.ndarray:
    """A square as large as the four corners together, in the upper left quarter."""
    return np.roll(_corners(side), (round(side / 4), round(side / 4)), (0, 1))


def _elsewhere(scene: Scene, masks: np.ndarray) -> np.ndarray:
    """Blocks of a sixteenth of the side that cover as much as ``masks`` (N, S, S), drawn outside them."""
    rng, side = np.random.default_rng([scene.seed, 81]), scene.images.shape[1]
    cells = np.arange(side) * 16 // side
    found = np.zeros_like(masks)
    for number, mask in enumerate(masks):
        free = np.zeros(256)
        np.add.at(free, (cells[:, None] * 16 + cells[None, :]).ravel(), (~mask).ravel().astype(float))
        order = rng.permutation(256)
        chosen = order[np.cumsum(free[order]) <= mask.sum()]
        found[number] = np.isin(cells[:, None] * 16 + cells[None, :], chosen) & ~mask
    return found


def _black(scene: Scene, mask: np.ndarray) -> np.ndarray:
    return np.where(mask, np.uint8(0), scene.images)


def _letters_of(scene: Scene) -> np.ndarray:
    return np.stack([find_markers(image) for image in scene.images])


def _painted_out(scene: Scene, masks: np.ndarray) -> np.ndarray:
    return np.stack([inpaint(image, mask) for image, mask in zip(scene.images, masks, strict=True)])


def _other_place(scene: Scene) -> np.ndarray:
    """The letters' own shapes, moved to the other side of the image and painted out there."""
    masks = _letters_of(scene)
    return _painted_out(scene, masks[:, :, ::-1] & ~masks)


def _letter(side: int) -> np.ndarray:
    """An R of a twelfth of the side, float 0–1, (h, w)."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("L", (96, 96))
    ImageDraw.Draw(page).text((16, 16), "R", fill=255, font=ImageFont.load_default(48), stroke_width=2)
    inked = page.crop(page.getbbox())
    tall = max(3, round(side / 12))
    size = (max(2, round(tall * inked.width / inked.height)), tall)
    return np.asarray(inked.resize(size), np.float32) / 255


def _painted_in(scene: Scene, *, shuffled: bool) -> np.ndarray:
    """A bright R at the upper left; ``shuffled``: its pixels in disorder."""
    side = scene.images.shape[1]
    ink = _letter(side)
    if shuffled:
        ink = np.random.default_rng([scene.seed, 82]).permutation(ink.ravel()).reshape(ink.shape)
    top = left = round(0.06 * side)
    images = np.array(scene.images)
    patch = images[:, top : top + ink.shape[0], left : left + ink.shape[1]]
    patch[:] = np.rint(patch + ink * (235 - patch.astype(np.float32))).clip(0, 255)
    return images


def _exposed(scene: Scene) -> np.ndarray:
    """Gamma 0.75: the greys of a stronger exposure of the same chest."""
    curve = np.rint(255 * (np.arange(256) / 255) ** 0.75).astype(np.uint8)
    return curve[scene.images]


def _noisy(scene: Scene) -> np.ndarray:
    """Noise whose spread in each image is that of the change of exposure."""
    rng = np.random.default_rng([scene.seed, 83])
    images = np.empty_like(scene.images)
    for number, (image, other) in enumerate(zip(scene.images, _exposed(scene), strict=True)):
        size = float(np.sqrt(np.mean((other.astype(float) - image) ** 2)))
        images[number] = np.rint(image + rng.normal(0, size, image.shape)).clip(0, 255)
    return images


def _exchanged(scene: Scene, *, across: bool) -> np.ndarray:
    """Each image in the frame of another patient's, of the other class or of its own."""
    rng, frame = np.random.default_rng([scene.seed, 84]), _frame(scene.images.shape[1])
    images = np.array(scene.images)
    for row, label in enumerate(scene.labels):
        wanted = (scene.labels != label) if across else (scene.labels == label)
        others = np.flatnonzero(wanted & (scene.patients != scene.patients[row]))
        if len(others):
            images[row][frame] = scene.images[rng.choice(others)][frame]
    return images


def _lungs(scene: Scene) -> np.ndarray:
    return scene.lung_masks.astype(bool)


INTERVENTIONS = (
    Intervention(
        "letters_out", "Letters and print painted out", lambda s: _painted_out(s, _letters_of(s)),
        _other_place,
    ),
    Intervention(
        "letter_in", "A letter painted in", lambda s: _painted_in(s, shuffled=False),
        lambda s: _painted_in(s, shuffled=True),
    ),
    Intervention(
        "frame_black", "The outer tenth blackened", lambda s: _black(s, _frame(s.images.shape[1])),
        lambda s: _black(s, _elsewhere(s, np.repeat(_frame(s.images.shape[1])[None], len(s.images), 0))),
    ),
    Intervention(
        "corners_black", "The corners blackened", lambda s: _black(s, _corners(s.images.shape[1])),
        lambda s: _black(s, _middles(s.images.shape[1])),
    ),
    Intervention(
        "frame_only", "Only the outer tenth kept", lambda s: _black(s, ~_frame(s.images.shape[1])), None,
        "falls",
    ),
    Intervention(
        "lungs_out", "The lungs painted over", lambda s: _black(s, _lungs(s)),
        lambda s: _black(s, _elsewhere(s, _lungs(s))), "falls",
    ),
    Intervention("exposure", "A stronger exposure", _exposed, _noisy),
    Intervention(
        "frames_exchanged", "The frame of a patient of the other class", lambda s: _exchanged(s, across=True),
        lambda s: _exchanged(s, across=False),
    ),
)  # fmt: skip
