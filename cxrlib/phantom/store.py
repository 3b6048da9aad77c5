"""Phantom cohorts on disk: rendered once, in parallel, and served as memory maps from then on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cxrlib.cohort import Cohort
from cxrlib.io.cache import progress_bar
from cxrlib.io.storage import cache_root, read_array, stored
from cxrlib.parallel import worker_deaths
from cxrlib.phantom import phantom
from cxrlib.phantom.latents import PhantomConfig

CHUNK = 100  # images a job
_ARRAYS = ("images", "lung_masks", "lesion_masks")


def load(
    n: int = 2000,
    image_size: int = 128,
    seed: int = 0,
    *,
    cache_dir: str | Path | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    config: PhantomConfig | None = None,
    **knobs: Any,
) -> Cohort:
    """What :func:`cxrlib.phantom.phantom.load` gives, from the cache where it was rendered before.

    ``cache_dir``, ``workers`` and ``progress`` are as for :func:`cxrlib.datasets.load`.
    """
    config = phantom.config_from(config, knobs)
    facts = {"n": n, "image_size": image_size, "seed": seed, "config": asdict(config), "code": _code()}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
    root = cache_root() if cache_dir is None else Path(cache_dir)
    entry = root / "phantom" / key

    def build(partial: Path) -> None:
        made = _render(n, image_size, seed, config, workers, progress)
        for name, array in zip(_ARRAYS, made, strict=True):
            np.save(partial / f"{name}.npy", array)

    stored(entry, build, needed=3 * n * image_size**2)
    images, lungs, lesions = (read_array(entry / f"{name}.npy", mmap_mode="r") for name in _ARRAYS)
    made = phantom.Rendered(images, lungs, lesions, phantom.draw_latents(n, seed, config))
    return phantom.cohort_of(made, seed, config)


def _render(
    n: int, image_size: int, seed: int, config: PhantomConfig, workers: int | None, progress: bool | None
) -> list[np.ndarray]:
    from joblib import Parallel, cpu_count, delayed

    jobs = min(workers or cpu_count(), -(-n // CHUNK))
    chunks = (
        delayed(_chunk)(min(CHUNK, n - start), image_size, seed, config, start)
        for start in range(0, n, CHUNK)
    )
    made: list[list[np.ndarray]] = [[] for _ in _ARRAYS]
    with progress_bar(n, "rendering phantoms", progress) as bar, worker_deaths(jobs):
        for chunk in Parallel(n_jobs=jobs, return_as="generator")(chunks):
            for arrays, array in zip(made, chunk, strict=True):
                arrays.append(array)
            bar.update(len(chunk[0]))
    return [np.concatenate(arrays) for arrays in made]


def _chunk(n: int, image_size: int, seed: int, config: PhantomConfig, start: int) -> tuple[np.ndarray, ...]:
    made = phantom.render(n, image_size=image_size, seed=seed, config=config, start=start)
    return made.images, made.lung_masks, made.lesion_masks


@lru_cache
def _code() -> str:
    """Hash of the generator's source: phantoms of another version are other phantoms."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
