"""The rows of ``make bench``: what is measured, beside what.

Ours and a peer are measured by turns, after a turn of each that is not counted, and the ratio of every pair
is kept: its median, smallest and largest. Both sides do the same work on the same files; the tests hold their
results against each other. Without the radiographs that ``CXRLIB_DATA`` names, phantoms are written to files
and used instead, and the row's ``data`` says so.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.speed.files import nih_files, training_files
from cxrlib.cohort import Cohort

if TYPE_CHECKING:
    import torch
    from torch.utils.data import Dataset

    from cxrlib.training.config import TrainConfig
    from cxrlib.training.trainer import Trainer

BATCH = 64
SECONDS_ALLOWED = 1.0
GOAL = 0.82


@dataclass(frozen=True)
class Setting:
    """How much is measured; the defaults are what is recorded.

    Parameters
    ----------
    work
        A folder for files that are written to be read.
    data
        Real radiographs: ``kermany224/chest_xray`` and ``nih-subset``; None for phantoms.
    repeats
        Pairs of turns.
    images, pixels
        Of the training rows.
    predictions, replicates
        Of the row on evaluation; ``peer_replicates`` of them are timed with scikit-learn.
    threads
        Of torch, and processes that decode.
    epochs
        At most, on the way to 82% accuracy.
    width
        Of the original network.
    models
        The networks that are profiled and trained.
    films
        Files that are audited.
    """

    work: Path
    data: Path | None = None
    repeats: int = 5
    images: int = 512
    pixels: int = 128
    predictions: int = 25_000
    replicates: int = 2_000
    peer_replicates: int = 20
    threads: int = 2
    epochs: int = 16
    width: int = 64
    models: tuple[str, ...] = ("residual", "lenet")
    films: int = 120


def compared(
    name: str,
    what: str,
    ours: Callable[[], float],
    peer: Callable[[], float],
    *,
    target: float,
    unit: str,
    data: str,
    repeats: int,
    **more: Any,
) -> dict:
    """A row: two rates (more is better) measured by turns, and the ratios of the pairs."""
    ours(), peer()
    pairs = []
    for turn in range(repeats):
        first = ours() if turn % 2 == 0 else None  # who begins may find warmer caches, so they take turns
        other = peer()
        pairs.append((ours() if first is None else first, other))
    return row_of(name, what, np.array(pairs), target=target, unit=unit, data=data, **more)


def row_of(
    name: str, what: str, pairs: np.ndarray, *, target: float, unit: str, data: str, **more: Any
) -> dict:
    ratios = pairs[:, 0] / pairs[:, 1]
    mine, theirs = (float(f"{value:.4g}") for value in np.median(pairs, axis=0))
    ratio, low, high = (float(f"{value:.4g}") for value in (np.median(ratios), ratios.min(), ratios.max()))
    facts = {"name": name, "what": what, "ours": mine, "peer": theirs, "ratio": ratio, "low": low}
    facts |= {"high": high, "target": target, "unit": unit, "data": data, "repeats": len(pairs)}
    return facts | more


def _start(setting: Setting) -> Iterator[dict]:
    for name, command in (("import", ["-c", "import cxrlib"]), ("help", ["-m", "cxrlib.cli", "--help"])):
        seconds = []
        for _ in range(setting.repeats + 1):
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
        pairs = np.array([(1 / one, 1 / SECONDS_ALLOWED) for one in seconds[1:]])
        what = "import cxrlib" if name == "import" else "cxr --help"
        yield row_of(
            f"start.{name}", f"{what}, against one second", pairs, target=1.0, unit="starts/s", data="none"
        )


def _evaluation(setting: Setting) -> Iterator[dict]:
    from benchmarks.speed.peers import auc_of_replicates
    from cxrlib.evaluation.metrics import bootstrap
    from cxrlib.evaluation.resampling import draw_patients

    rng = np.random.default_rng(0)
    count = setting.predictions
    labels = (rng.random(count) < 0.1).astype(int)
    scores = 1 / (1 + np.exp(-rng.normal(1.2 * labels - 2, 1)))
    codes = np.unique(rng.integers(0, max(2, count // 4), count), return_inverse=True)[1]

    def ours() -> float:
        started = time.perf_counter()
        bootstrap(labels, scores, codes, ("auc",), replicates=setting.replicates)
        return setting.replicates / (time.perf_counter() - started)

    def peer() -> float:
        n = setting.peer_replicates
        counts = np.concatenate(list(draw_patients(codes.max() + 1, count, n, seed=0)))
        started = time.perf_counter()
        auc_of_replicates(labels, scores, codes, counts)
        return n / (time.perf_counter() - started)

    yield compared(
        "evaluation",
        f"AUC with its interval by patient, {setting.replicates:,} replicates of {count:,} predictions, "
        f"against scikit-learn's roc_auc_score in a loop ({setting.peer_replicates} replicates timed, "
        "rate compared)",
        ours, peer, target=20.0, unit="replicates/s", data="simulated predictions", repeats=setting.repeats,
    )  # fmt: skip


def _arrays(setting: Setting) -> Iterator[dict]:
    from benchmarks.speed.peers import loader, nih_dataset, rate
    from benchmarks.speed.profile import best_workers
    from cxrlib.io.cache import decode_files

    size = 224 if setting.pixels >= 128 else setting.pixels
    for suffix, (paths, data) in nih_files(setting.work, setting.data, setting.images).items():

        def ours(paths: list[Path] = paths) -> float:
            with tempfile.TemporaryDirectory(dir=setting.work) as folder:
                started = time.perf_counter()
                decoded = decode_files(paths, size, cache_dir=folder, workers=setting.threads, progress=False)
                model_ready(decoded.images)
                return len(paths) / (time.perf_counter() - started)

        few = paths[: min(len(paths), 96)]
        dataset = nih_dataset(few[0].parent, [path.name for path in few], size)

        def passes(workers: int, dataset: Dataset = dataset) -> Callable[[], float]:
            batches = loader(dataset, workers, shuffle=False)
            return lambda: rate(batches)

        peer, workers = best_workers(passes)
        yield compared(
            f"arrays{suffix}",
            f"files to float arrays of {size} pixels, against TorchXRayVision's NIH_Dataset with "
            f"XRayCenterCrop and XRayResizer in a DataLoader of {workers} workers, the best of 0, 1 and 2",
            ours, peer, target=3.0, unit="images/s", data=data, repeats=setting.repeats,
            images=len(paths), peer_images=len(few), workers=workers,
        )  # fmt: skip


def model_ready(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W) to what TorchXRayVision's networks take: float32 (N, 1, H, W), −1024 to 1024."""
    return (images[:, None] * np.float32(2048 / 255)) - np.float32(1024)


def _cache(setting: Setting) -> Iterator[dict]:
    import torch

    from cxrlib.parallel import run_jobs

    cohort, files, data = _cohort(setting)
    paths = [str(path) for path in files]
    chunks = [(paths[start : start + BATCH], setting.pixels) for start in range(0, len(paths), BATCH)]

    def ours() -> float:
        epochs, started = 10, time.perf_counter()
        for epoch in range(epochs):
            order = np.random.default_rng(epoch).permutation(len(paths))
            for start in range(0, len(order), BATCH):
                rows = np.sort(order[start : start + BATCH])
                torch.from_numpy(np.ascontiguousarray(cohort.images[rows])).unsqueeze(1).float()
        return epochs * len(paths) / (time.perf_counter() - started)

    def peer() -> float:
        started = time.perf_counter()
        for images in run_jobs(decode_batch, chunks, setting.threads):
            torch.from_numpy(images).unsqueeze(1).float()
        return len(paths) / (time.perf_counter() - started)

    yield compared(
        "cache",
        f"an epoch's float batches of {setting.pixels} pixels from the cache, against decoding the files",
        ours, peer, target=50.0, unit="images/s", data=data, repeats=setting.repeats, images=len(paths),
    )  # fmt: skip


def decode_batch(paths: list[str], pixels: int) -> np.ndarray:
    """The files as the cache would hold them: uint8, (B, pixels, pixels)."""
    from cxrlib.io.decode import decode, resize

    return np.stack([resize(decode(path, minimum=4 * pixels), pixels) for path in paths])


def _training(setting: Setting) -> Iterator[dict]:
    import torch

    from benchmarks.speed.peers import image_folder, loader, network, train_on
    from benchmarks.speed.profile import best_workers
    from cxrlib.training.recipes import recipe
    from cxrlib.training.trainer import Trainer

    sources = {"": _cohort(setting), "_1024": _cohort(setting, 1024)}
    for model in setting.models:
        config = recipe(model, "full", epochs=1, train_sample=64, batch_size=BATCH)

        def ours(config: TrainConfig = config, cohort: Cohort | None = None) -> float:
            cohort = sources[""][0] if cohort is None else cohort
            return float(Trainer(config, callbacks=[]).fit(cohort)["images_per_second"].iloc[-1])

        made, optimizer = network(model, setting.pixels)
        x = torch.randn(BATCH, 1, setting.pixels, setting.pixels)
        batches = [(x, torch.arange(BATCH) % 2)] * max(1, setting.images // BATCH)
        alone = partial(train_on, batches, made, optimizer)
        yield compared(
            f"training.{model}.alone",
            f"training {model} at {setting.pixels} pixels from the cache with augmentation, against the "
            "network alone on one batch already in memory",
            ours, alone, target=0.85, unit="images/s", data=sources[""][2], repeats=setting.repeats,
        )  # fmt: skip
        for suffix, (cohort, files, data) in sources.items():
            if suffix and model != setting.models[0]:
                continue
            folder = image_folder(files[0].parents[1], setting.pixels)

            def passes(
                workers: int,
                folder: Dataset = folder,
                made: torch.nn.Module = made,
                optimizer: torch.optim.Optimizer = optimizer,
            ) -> Callable[[], float]:
                batches = loader(folder, workers)
                return lambda: train_on(iter(batches), made, optimizer)

            peer, workers = best_workers(passes)
            yield compared(
                f"training.{model}.imagefolder{suffix}",
                f"training {model} at {setting.pixels} pixels from the cache, against torchvision's "
                f"ImageFolder, DataLoader ({workers} workers, the best of 0, 1 and 2) and transforms v2: "
                "same network, same augmentation",
                partial(ours, cohort=cohort), peer,
                target=2.0, unit="images/s", data=data, repeats=setting.repeats, workers=workers,
            )  # fmt: skip


def _time_to_goal(setting: Setting) -> Iterator[dict]:
    from benchmarks.speed.peers import Original
    from cxrlib.datasets import load
    from cxrlib.training.callbacks import Callback
    from cxrlib.training.inference import predict
    from cxrlib.training.recipes import recipe
    from cxrlib.training.trainer import Trainer

    class Reached(Callback):
        """Stops at 82% accuracy on the test images. What is measured is a time; no network is chosen."""

        def on_check_in(self, trainer: Trainer) -> None:
            right = (predict(trainer.model, test.images) >= 0.5) == test.labels
            trainer.should_stop = bool(right.mean() >= GOAL)

    if setting.data is None:
        cohort = load("phantom", n=4 * setting.images, image_size=setting.pixels)
        data = f"{len(cohort)} phantoms"
    else:
        cohort = load("kermany", data_dir=setting.data / "kermany224", image_size=setting.pixels)
        data = "Kermany, official test of 624, at 224 pixels"
    test = cohort.split("test")
    _, files, _ = _cohort(setting)
    original = Original([str(path) for path in files], np.arange(len(files)) % 2, width=setting.width)
    original.rate()
    pairs, needed, rates, reached = [], [], [], True
    for seed in range(setting.repeats):
        config = recipe(setting.models[0], "full", seed=seed, check_ins=4, epochs=setting.epochs)
        trainer = Trainer(config, callbacks=[Reached()])
        last = trainer.fit(cohort).iloc[-1]
        reached &= trainer.should_stop
        needed.append(int(last["step"]) * config.batch_size)
        rates.append(original.rate())
        pairs.append((1 / last["seconds"], rates[-1] / needed[-1]))
    images = int(np.median(needed))
    what = "time to 82% test accuracy" if reached else "time for the same training (82% was not reached)"
    yield row_of(
        "time_to_82",
        f"{what} of {setting.models[0]}, {len(needed)} seeds, validation included, against the time in which "
        "the original network and its file-by-file reading at 256 pixels see as many images, from their "
        "measured rate; how many images the original needs is not known",
        np.array(pairs), target=100.0, unit="trainings/s", data=data,
        images=images, seconds=round(float(np.median([1 / a for a, _ in pairs])), 2),
        peer_images_per_second=round(float(np.median(rates)), 3),
        reached=reached,
    )  # fmt: skip


def _profile(setting: Setting) -> Iterator[dict]:
    """Where a step's time goes, in ms a batch of 64; medians."""
    from benchmarks.speed.profile import parts_of_a_step

    cohort, files, data = _cohort(setting)
    started = time.perf_counter()
    decode_batch([str(path) for path in files[:BATCH]], setting.pixels)
    decode = 1e3 * (time.perf_counter() - started)
    for model in ("lenet", "double_conv", "residual") if len(setting.models) > 1 else setting.models:
        for threads in sorted({1, setting.threads}):
            parts = parts_of_a_step(model, cohort.images, threads, setting.repeats)
            yield {
                "name": f"profile.{model}.{threads}",
                "what": f"parts of a step of {model}, {threads} threads",
                "unit": "ms a batch of 64",
                "data": data,
                "parts": {"decode": round(decode, 2), **parts},
            }


def _audit(setting: Setting) -> Iterator[dict]:
    from benchmarks.speed import audits

    yield from audits.rows(setting, setting.films)


def _report(setting: Setting) -> Iterator[dict]:
    from benchmarks.speed import report

    yield from report.rows(setting)


def _cohort(setting: Setting, side: int | None = None) -> tuple[Cohort, list[Path], str]:
    return training_files(setting.work, setting.data, setting.images, setting.pixels, side)


#: What ``--only`` takes, in the order in which it is measured.
ROWS: dict[str, Callable[[Setting], Iterator[dict]]] = {
    "start": _start, "evaluation": _evaluation, "cache": _cache, "arrays": _arrays,
    "training": _training, "time_to_82": _time_to_goal, "profile": _profile, "audit": _audit,
    "report": _report,
}  # fmt: skip
