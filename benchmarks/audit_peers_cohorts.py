"""The pictures and cohorts of ``audit_peers.py``: phantoms and radiographs, plain and treated."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from cxrlib.io.storage import atomic_path
from cxrlib.parallel import progress_bar

CONFOUNDERS = ("marker", "portable", "collimation", "exposure", "devices", "projection")
PHANTOMS, IMAGES, PIXELS, SEED, AGREEMENT = 400, 400, 256, 91_000, 0.9
CLEAN_COHORTS, COHORTS, REAL_IMAGES, REAL_COHORTS = 60, 10, 1000, 1
RARE_KINDS = ("marker", "jpeg", "resampled")  # tried with one ill in ten, too
REAL_KINDS = ("jpeg", "resampled", "mirrored", "noise", "gamma", "comb", "grid")


def _jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Written once as a JPEG of quality 60."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=60)
    return np.array(Image.open(stream))


def _resampled(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Made smaller by a quarter and enlarged again."""
    whole = Image.fromarray(image)
    small = whole.resize((3 * whole.width // 4, 3 * whole.height // 4), Image.Resampling.BICUBIC)
    return np.array(small.resize(whole.size, Image.Resampling.BICUBIC))


def _mirrored(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image[:, ::-1]


def _grid(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The faint lines of an anti-scatter grid: 2 grey levels, every 4.3 rows."""
    lines = 2 * np.sin(2 * np.pi * (np.arange(len(image)) / 4.3 + rng.random()))
    return _grey(image + lines[:, None])


def _comb(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Three quarters of the contrast and back, in whole grey levels: every fourth is empty."""
    return _grey(np.rint(image * 0.75) / 0.75)


def _heel(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The anode's heel: 6% brighter on one side, 6% darker on the other."""
    return _grey(image * np.linspace(0.94, 1.06, image.shape[1]))


def _noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A noisier detector: a standard deviation of 3 grey levels."""
    return _grey(image + rng.normal(0, 3, image.shape))


def _gamma(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another display curve."""
    return _grey(255 * (image / 255) ** 0.9)


def _grey(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 255) + 0.5).astype(np.uint8)


TREATMENTS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "jpeg": _jpeg, "resampled": _resampled, "mirrored": _mirrored, "grid": _grid, "comb": _comb,
    "heel": _heel, "noise": _noise, "gamma": _gamma,
}  # fmt: skip
UNSEEN = ("jpeg", "resampled", "mirrored", "grid", "comb", "heel")


def phantom_pool(folder: Path, count: int = PHANTOMS, pixels: int = PIXELS) -> dict[str, dict]:
    """Write every version of every phantom, or find them written: stem -> whether it has each confounder."""
    from cxrlib.phantom.latents import PhantomConfig
    from cxrlib.phantom.phantom import draw_latents, render_latents

    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw_latents(count, SEED, PhantomConfig(images_per_patient=1).unconfounded())
    has = {}
    with progress_bar(2 * count, "Rendering", True, unit="phantom") as bar:
        for one in drawn:
            for label in (0, 1):
                stem = f"{one.index:04d}-{label}"
                has[stem] = {name: getattr(one, name) for name in CONFOUNDERS}
                kinds = [f"{stem}-{kind}" for kind in ("plain", *CONFOUNDERS, *UNSEEN)]
                if not all((folder / f"{kind}.png").is_file() for kind in kinds):
                    ill = replace(one, label=label)
                    turned = [replace(ill, **{name: not getattr(ill, name)}) for name in CONFOUNDERS]
                    images = list(render_latents([ill, *turned], image_size=pixels, seed=SEED).images)
                    images += [_treated(kind, images[0], one.index, label) for kind in UNSEEN]
                    for kind, image in zip(kinds, images, strict=True):
                        _save(image, folder / f"{kind}.png")
                bar.update(1)
    return has


def real_pool(folder: Path, data: Path, count: int = REAL_IMAGES) -> dict[str, dict]:
    """Write Kermany's radiographs plain and treated; what :func:`phantom_pool` returns."""
    from cxrlib.datasets import load

    stems = [f"{number:04d}" for number in range(count)]
    if not all((folder / f"{stem}-{REAL_KINDS[-1]}.png").is_file() for stem in stems):
        folder.mkdir(parents=True, exist_ok=True)
        table = load("kermany", data_dir=data, image_size=64).table.drop_duplicates("patient_id")
        chosen = np.random.default_rng(SEED).choice(np.sort(table["path"].to_numpy(str)), count, False)
        for number, (stem, path) in enumerate(zip(stems, chosen, strict=True)):
            plain = np.array(Image.open(path).convert("L"))
            _save(plain, folder / f"{stem}-plain.png")
            for kind in REAL_KINDS:
                _save(_treated(kind, plain, number, 2), folder / f"{stem}-{kind}.png")
    return {stem: {} for stem in stems}


def _treated(kind: str, image: np.ndarray, number: int, label: int) -> np.ndarray:
    return TREATMENTS[kind](image, np.random.default_rng([SEED, number, label, list(TREATMENTS).index(kind)]))


def _save(image: np.ndarray, path: Path) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, "PNG")


def plan(clean: int = CLEAN_COHORTS, planted: int = COHORTS, real: int = REAL_COHORTS) -> list[dict]:
    """Every cohort: its pool, per cent ill, kind (or clean) and number; whole rounds first."""
    jobs = [("phantom", 50, "clean", clean), ("phantom", 10, "clean", clean)]
    jobs += [("phantom", 50, kind, planted) for kind in (*CONFOUNDERS, *UNSEEN)]
    jobs += [("phantom", 10, kind, planted) for kind in RARE_KINDS]
    jobs += [("real", 50, kind, real) for kind in ("clean", *REAL_KINDS)]
    cohorts = [
        {"pool": pool, "ill": ill, "kind": kind, "number": number, "name": f"{pool}-{ill}-{kind}-{number}"}
        for pool, ill, kind, count in jobs
        for number in range(count)
    ]
    return sorted(cohorts, key=lambda cohort: cohort["number"])


def drawn(cohort: Mapping, has: Mapping[str, dict], images: int) -> tuple[list[str], np.ndarray]:
    """The stems of a cohort's files and their labels; both follow from its name."""
    rng = np.random.default_rng([SEED, *cohort["name"].encode()])
    kind = cohort["kind"]
    patients = sorted({stem[:4] for stem in has})
    patients = rng.choice(patients, min(images, len(patients)), replace=False).tolist()
    labels = rng.permutation(np.arange(len(patients)) < len(patients) * cohort["ill"] / 100).astype(int)
    wanted = rng.random(len(patients)) < np.where(labels, AGREEMENT, 1 - AGREEMENT)
    stems = []
    for patient, label, present in zip(patients, labels, wanted, strict=True):
        stem = f"{patient}-{label}" if cohort["pool"] == "phantom" else patient
        changed = kind != "clean" and bool(present) != has[stem].get(kind, False)
        stems.append(f"{stem}-{kind if changed else 'plain'}")
    return stems, labels
