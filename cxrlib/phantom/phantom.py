"""Synthetic chest radiographs from a causal generative model, with known lungs, lesions and confounders.

A patient (habitus, lungs, heart, skeleton, vessels) is imaged (projection, breath, position, exposure), ill
or not, with or without each confounder. Attenuation is summed along the ray and put through a film's curve.
``load`` makes a Cohort; ``twin`` renders the same patients again with one thing changed and the rest
identical to the bit. Everything follows from the seed.

It teaches and it tests. It is no model of disease to draw clinical conclusions from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.errors import ConfigError
from cxrlib.phantom import bones, lung, overlays
from cxrlib.phantom.anatomy import geometry, pose, soft_tissue
from cxrlib.phantom.canvas import Grid, coarse_blur, index, smooth_noise, step
from cxrlib.phantom.latents import (
    CONFOUNDERS,
    FILM,
    NOISE,
    OVERLAY,
    SKELETON,
    Confounder,
    Latents,
    Streams,
    draw,
    site_of,
)
from cxrlib.phantom.latents import PhantomConfig as PhantomConfig

#: What the other hospital's exposure adds to where dark and bright tissue fall on the film's curve.
EXPOSURE = (0.55, 0.25)

_CURVE_SCALE = 256.0
_Z = np.arange(-8, 8, 1 / _CURVE_SCALE)
_CURVE = 255 / (1 + np.exp(-1.15 * _Z))


@dataclass(frozen=True, eq=False)
class Rendered:
    """Images (uint8), lung and lesion masks (uint8 0/1), all (N, S, S), and the latents they come from."""

    images: np.ndarray
    lung_masks: np.ndarray
    lesion_masks: np.ndarray
    latents: list[Latents]


def render(
    n: int, *, image_size: int = 128, seed: int = 0, config: PhantomConfig | None = None, start: int = 0
) -> Rendered:
    """Draw and render images ``start`` to ``start + n`` of the endless cohort of a seed and a config.

    - ``image_size``: side of the square images, 32–1024 pixels. The same patients appear at every size.
    - ``seed``: from 0 to 2**63 - 1. Image i does not depend on how many are made.
    - Raises ConfigError: a number or knob that is out of range.
    """
    return render_latents(draw_latents(n, seed, config, start), image_size=image_size, seed=seed)


def draw_latents(n: int, seed: int = 0, config: PhantomConfig | None = None, start: int = 0) -> list[Latents]:
    """Draw what :func:`render` renders, without rendering it."""
    _check_integer("n", n, 1, 10_000_000)
    _check_integer("start", start, 0, 2**40)
    return draw(Streams(seed), config or PhantomConfig(), start, start + n)


def render_latents(latents: Iterable[Latents], *, image_size: int = 128, seed: int = 0) -> Rendered:
    """Render given latents, for instance changed with ``dataclasses.replace``; see :func:`render`."""
    _check_integer("image_size", image_size, 32, 1024)
    latents = list(latents)
    streams = Streams(seed)
    images, lungs, lesions = (np.empty((len(latents), image_size, image_size), np.uint8) for _ in range(3))
    for row, one in enumerate(latents):
        images[row], lungs[row], lesions[row] = _render_one(one, image_size, streams)
    return Rendered(images, lungs, lesions, latents)


def _render_one(latents: Latents, size: int, streams: Streams) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, lungs, lesion = _exposed(latents, size, streams)
    black, white = curve_ends(latents)
    curve = np.clip((_CURVE - black) * white / (246 - black), 0, 255).astype(np.float32)
    image = curve.take(index(values, -8, _CURVE_SCALE, len(_Z)))
    if latents.collimation:
        overlays.collimation(image, streams(OVERLAY, 8 * latents.index + 1))
    if latents.portable:
        overlays.portable(image, streams(OVERLAY, 8 * latents.index + 2))
    if latents.marker:
        overlays.marker(image, streams(OVERLAY, 8 * latents.index + 3))
    return (np.clip(image, 0, 255) + np.float32(0.5)).astype(np.uint8), lungs, lesion


def exposed(latents: Latents, size: int, streams: Streams) -> np.ndarray:
    """What the film's curve turns into greys, before anything is laid over it; float32, (S, S)."""
    return _exposed(latents, size, streams)[0]


def _exposed(latents: Latents, size: int, streams: Streams) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exposed film (:func:`exposed`), and masks of lungs and lesion."""
    g = geometry(latents)
    grid = Grid(size, pose(latents), g.midline)
    tissue = soft_tissue(grid, g)
    water, air = tissue.water, tissue.air
    vessel = lung.vessels(grid, g, streams, latents)
    extra = lung.nuisances(grid, g, tissue, latents, streams)

    rng = streams(SKELETON, latents.patient)
    bone = bones.ribs(grid, g, rng)
    bones.spine(grid, g, bone)
    bones.clavicles(grid, g, latents, bone)
    bones.breasts(grid, g, latents, tissue.d_dome, water)
    bones.shoulders(grid, g, latents, water, bone)
    bones.airways(grid, g, latents, water)
    bones.bowel_gas(grid, g, latents, rng, water)
    # Scatter from what is thick hides bone: most below the diaphragm, least in the lungs.
    bone *= np.float32(0.45) + np.float32(0.55) * step(tissue.d_dome + np.float32(1.5), 4.0)
    bone *= np.minimum(
        water * np.float32(0.25), np.clip(np.float32(1.7) - np.float32(0.06) * (water - air), 0.2, 1)
    )

    rng = streams(NOISE, latents.index)
    texture = smooth_noise(rng, size, {4: 0.5, 9: 0.35, 20: 0.22, 44: 0.17})
    seen = np.float32(0.3) + np.float32(0.7) * (air > 1)
    seen *= np.float32(0.4) + np.float32(0.6) * tissue.lung
    vessel = np.minimum(np.float32(1.5) * vessel, air * np.float32(0.6)) * seen
    base = water - air + bone + vessel + texture * np.float32(0.8 * latents.body.texture)
    base += extra
    small, low = coarse_blur(base, 32, 2.2)
    image, lesion = base, np.zeros((size, size), np.uint8)
    if latents.label:
        added, lesion = lung.disease(grid, tissue, vessel, latents, streams)
        image = image + added
    if latents.devices:
        image = image + overlays.devices(grid, g, latents, streams(OVERLAY, 8 * latents.index))
    values = _processed(image, small, low, latents, grid, streams)
    return values, (tissue.lung > 0.5).astype(np.uint8), lesion


def _processed(
    image: np.ndarray, small: np.ndarray, low: np.ndarray, latents: Latents, grid: Grid, streams: Streams
) -> np.ndarray:
    """Attenuation (cm of water) to what the film's curve takes, float32: noise and processing.

    What the processing adapts to (``small``, ``low``) is the patient without disease and devices, so that a
    counterfactual changes only where the disease or device is.
    """
    exam = latents.exam
    rng = streams(FILM, latents.index)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise[:, 1:] += np.float32(0.5) * noise[:, :-1]
    amount = (0.045 + 0.016 * exam.noise) * min(0.28 / grid.cm, 1.6)
    noise *= np.float32(amount * 0.45) * (np.float32(1) + np.float32(0.05) * np.clip(image, 0, 30))
    image = image + noise
    detail = 0.42 + 0.18 * exam.detail
    image = image + (image - low) * np.float32(detail)
    cells = np.sort(small[6:26, 4:28].ravel())
    dark, bright = cells[int(0.18 * len(cells))], cells[int(0.80 * len(cells))]
    grey_dark, grey_bright = greys(latents)
    gain = (grey_bright - grey_dark) / max(bright - dark, 3.0)
    return (image - np.float32(dark)) * np.float32(gain) + np.float32(grey_dark)


def greys(latents: Latents) -> tuple[float, float]:
    """Where dark and bright tissue fall on the film's curve."""
    exam = latents.exam
    dark, bright = -0.68 + 0.34 * exam.grey, 0.98 + 0.25 * exam.contrast + 0.28 * exam.grey
    return (dark + EXPOSURE[0], bright + EXPOSURE[1]) if latents.exposure else (dark, bright)


def curve_ends(latents: Latents) -> tuple[float, float]:
    """The greys at which the film's curve begins and ends."""
    return 7 + 6 * latents.exam.toe, 246 - 14 * abs(latents.exam.balance)


def table(latents: list[Latents], seed: int) -> pd.DataFrame:
    """The cohort's table without its splits: one row a :class:`Latents`."""
    rows = {
        "image_id": [f"phantom-{seed}-{one.index:07d}" for one in latents],
        "patient_id": [f"phantom-{seed}-p{one.patient:07d}" for one in latents],
        "label": [one.label for one in latents],
        "view": [one.view for one in latents],
        "age": [one.body.age for one in latents],
        "sex": ["F" if one.body.female else "M" for one in latents],
        "site": [one.site for one in latents],
        "subtype": [one.subtype if one.label else "" for one in latents],
        "follow_up": [one.follow_up for one in latents],
    }
    return pd.DataFrame(rows | {name: [getattr(one, name) for one in latents] for name in CONFOUNDERS})


def load(
    n: int = 2000, image_size: int = 128, seed: int = 0, *, config: PhantomConfig | None = None, **knobs: Any
) -> Cohort:
    """The phantom cohort: ``n`` images, split 70/10/20 by patient; numbers as in :func:`render`.

    ``config``, ``knobs``: a :class:`PhantomConfig`, or its fields as keywords: ``load(marker=0.95)`` puts the
    lead letter in 95% of diseased and 5% of healthy images. Raises a ConfigError for a knob that is unknown
    or out of range, or a config and knobs together.
    """
    config = config_from(config, knobs)
    return cohort_of(render(n, image_size=image_size, seed=seed, config=config), seed, config)


def config_from(config: PhantomConfig | None, knobs: dict[str, Any]) -> PhantomConfig:
    """The config given, or the one that the knobs describe; both together are a ConfigError."""
    if config is not None and knobs:
        raise ConfigError("The phantom got both a config and knobs.", remedy="Give one or the other.")
    return config or PhantomConfig.from_knobs(**knobs)


def cohort_of(made: Rendered, seed: int, config: PhantomConfig) -> Cohort:
    """What was rendered as a Cohort, split by patient."""
    frame = table(made.latents, seed)
    frame.insert(3, "split", split_by_patient(frame["patient_id"], seed=seed))
    info = {"source": "phantom", "seed": seed, "image_size": made.images.shape[1], "config": asdict(config)}
    return Cohort(made.images, frame, made.lung_masks, made.lesion_masks, "phantom", info)


def latents_of(cohort: Cohort) -> list[Latents]:
    """The latents of every row of a phantom cohort, in its order, as its table says; a ConfigError for
    others.
    """
    if "config" not in cohort.info or cohort.name != "phantom":
        raise ConfigError(
            f"The cohort {cohort.name!r} is no phantom.", remedy="Use one made with load('phantom')."
        )
    stored = dict(cohort.info["config"])
    stored |= {name: Confounder(**stored[name]) for name in CONFOUNDERS}
    config, streams = PhantomConfig(**stored), Streams(int(cohort.info["seed"]))
    numbers = cohort.table["image_id"].str.rsplit("-", n=1).str[1].astype(int).to_numpy()
    # Images are drawn in runs: a patient's follow-up images come one after another.
    drawn = {one.index: one for one in draw(streams, config, int(numbers.min()), int(numbers.max()) + 1)}
    columns = cohort.table[["label", "site", *CONFOUNDERS]].to_dict("records")
    latents = []
    for number, row in zip(numbers.tolist(), columns, strict=True):
        said: dict[str, Any] = {"label": int(row["label"]), "site": str(row["site"])}
        said |= {name: bool(row[name]) for name in CONFOUNDERS}
        latents.append(replace(drawn[number], **said))
    return latents


def twin(cohort: Cohort, **changes: Any) -> Cohort:
    """The same patients with something set for all of them, and everything else identical to the bit.

    - ``cohort``: made by :func:`load` (or a part or twin of such a cohort).
    - ``changes``: ``label`` (0 or 1), ``subtype`` ("lobar" or "diffuse"), ``severity``, or any confounder
      (bool): one value for all rows or one a row. ``twin(cohort, marker=False)`` takes every lead letter
      away.
    - Raises ConfigError: the cohort is no phantom, or what is to change does not exist.
    """
    allowed = {"label", "subtype", "severity", *CONFOUNDERS}
    unknown = sorted(set(changes) - allowed)
    if unknown:
        raise ConfigError(
            f"A twin cannot change {', '.join(map(repr, unknown))}.",
            remedy=f"It can change {', '.join(sorted(allowed))}.",
        )
    latents = latents_of(cohort)
    values = {
        name: np.broadcast_to(np.asarray(value), (len(latents),)).tolist() for name, value in changes.items()
    }
    kinds = {"label": int, "subtype": str, "severity": float}
    sites = tuple(cohort.info["config"]["sites"])
    changed = []
    for row, one in enumerate(latents):
        new = {name: kinds.get(name, bool)(value[row]) for name, value in values.items()}
        if new.get("exposure", one.exposure) != one.exposure:
            new["site"] = site_of(sites, new["exposure"], 0.0)
        changed.append(replace(one, **new))
    seed = int(cohort.info["seed"])
    made = render_latents(changed, image_size=int(cohort.images.shape[1]), seed=seed)
    frame = table(changed, seed)
    columns = {name: frame[name] for name in ("label", "view", "site", "subtype", *CONFOUNDERS)}
    return replace(
        cohort,
        images=made.images,
        lung_masks=made.lung_masks,
        lesion_masks=made.lesion_masks,
        table=cohort.table.assign(**columns),
    )


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise ConfigError(
            f"The phantom's {name} is {value!r}.", remedy=f"Give an integer from {low} to {high}."
        )
