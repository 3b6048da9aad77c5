"""Decoded cohorts on disk, as arrays that are mapped into memory and never read whole.

``cache_root()/decoded/<key>/`` holds ``images.npy`` (uint8, (N, size, size)), ``shapes.npy`` (the files' own
heights and widths), ``kept.npy`` and ``manifest.json``, and ``skipped.csv`` where files were left out. The
key is a hash of what the arrays were made from: each file's path, size and modification time, in order, the
image size, the fit, and the decoder's version.

A build works in ``<key>.partial`` and is renamed when it is complete, so a folder without ``.partial`` is a
whole cache. Killed at any moment, the next build takes up what was done. A lock, which the system lets go of
when its process dies, makes a second build of the same key wait for the first.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from cxrlib.decode import DECODER_VERSION, FITS, decode_with_shape, resize
from cxrlib.errors import CacheError, ConfigError, DataError, DecodeError
from cxrlib.storage import allocate, atomic_path, cache_root, locked, published, sync

__all__ = ["Decoded", "atomic_path", "build_images", "cache_root", "decode_files", "progress_bar"]

log = logging.getLogger(__name__)

CHUNK = 64
"""Images that a worker decodes and writes at a time."""

FLUSH_SECONDS = 5.0
"""At most this much work is lost when a build is killed."""

_LAYOUT = 1
_TODO, _DONE, _BAD = 0, 1, 2
_watching: list[int] = []  # in a worker: the process that it ends with


@dataclass(frozen=True)
class Decoded:
    """What a build gives.

    Parameters
    ----------
    images
        Read-only memory map, uint8, shape (K, size, size): the files that could be decoded, in their order.
    kept
        bool, shape (N,), over the files asked for; K of them are True.
    skipped
        (path, reason) of the others.
    shapes
        int32, shape (K, 2): height and width of the files themselves.
    folder
        Where it lies on disk.
    """

    images: np.ndarray
    kept: np.ndarray
    skipped: list[tuple[str, str]]
    shapes: np.ndarray
    folder: Path


def build_images(
    paths: Sequence[str | Path],
    size: int,
    *,
    fit: str = "letterbox",
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
    cache_dir: str | Path | None = None,
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """:func:`decode_files`, as (images, kept, skipped)."""
    decoded = decode_files(
        paths,
        size,
        fit=fit,
        skip_bad=skip_bad,
        workers=workers,
        progress=progress,
        cache_dir=cache_dir,
    )
    return decoded.images, decoded.kept, decoded.skipped


def decode_files(
    paths: Sequence[str | Path],
    size: int,
    *,
    fit: str = "letterbox",
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
    cache_dir: str | Path | None = None,
) -> Decoded:
    """Decode files to ``size`` × ``size``, or take them from the cache if that has been done.

    Parameters
    ----------
    paths
        N files.
    size
        Pixels a side.
    fit
        ``letterbox`` or ``stretch``, see :func:`cxrlib.decode.resize`.
    skip_bad
        Go on without files that cannot be decoded, and list them in ``skipped.csv``.
    workers
        Processes, each with one thread. None: as many as there are processors to use.
    progress
        Show a progress bar. None: on a terminal or in a notebook.
    cache_dir
        Instead of :func:`cache_root`.

    Raises
    ------
    DataError
        Files cannot be decoded and ``skip_bad`` is False, or none can. What was decoded is kept, so that
        calling again with ``skip_bad=True`` is quick.
    CacheError
        The cache cannot be written. Nothing half-written is left.
    """
    if fit not in FITS:
        raise ConfigError(f"There is no fit called {fit!r}.", remedy=f"Use one of {', '.join(FITS)}.")
    paths = [os.path.abspath(path) for path in paths]
    root = Path(cache_dir) if cache_dir is not None else cache_root()
    key = _key(paths, size, fit)
    entry = root / "decoded" / key
    if not (entry / "manifest.json").is_file() or _mended(entry):
        with locked(entry):
            whole = (entry / "manifest.json").is_file()
            if entry.exists() and (not whole or _mended(entry)):
                shutil.rmtree(entry)
            if not entry.exists():
                _build(entry, paths, size, fit, workers, progress)
    return _served(entry, paths, skip_bad)


def progress_bar(total: int, description: str, progress: bool | None, unit: str = "image", **options):
    """A tqdm bar; ``progress`` None shows it on a terminal or in a notebook only."""
    from tqdm.auto import tqdm

    shown = _interactive() if progress is None else progress
    return tqdm(total=total, desc=description, unit=unit, disable=not shown, **options)


def _build(
    entry: Path, paths: list[str], size: int, fit: str, workers: int | None, progress: bool | None
) -> None:
    started = time.perf_counter()
    count = len(paths)
    with published(entry, needed=count * size * size) as partial:
        work, offset = _work_file(partial, count, size)
        state, reasons, shapes = _resumed(partial, count)
        before = int((state != _TODO).sum())
        if before:
            log.info("Going on with %s: %d of %d images are done.", partial, before, count)
        todo = np.flatnonzero(state == _TODO)
        chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
        jobs = [([paths[row] for row in rows], rows, size, fit, str(work), offset) for rows in chunks]
        flushed = time.monotonic()
        with progress_bar(count, "Decoding", progress, initial=before) as bar:
            for rows, bad, found in _run(jobs, workers, len(todo)):
                state[rows] = _DONE
                shapes[rows] = found
                for row, reason in bad:
                    state[row] = _BAD
                    reasons[row] = reason
                bar.update(len(rows))
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    _checkpoint(partial, work, state, reasons, shapes)
                    flushed = time.monotonic()
        _checkpoint(partial, work, state, reasons, shapes)
        _finish(partial, work, paths, state, reasons, shapes, size, fit, time.perf_counter() - started)


def _work_file(partial: Path, count: int, size: int) -> tuple[Path, int]:
    """The array that workers write into, made in one step so that it is whole or not there."""
    work = partial / "work.npy"
    if not work.is_file():
        fresh = partial / "allocating.npy"
        allocate(fresh, (count, size, size))
        (partial / "state.npz").unlink(missing_ok=True)
        os.replace(fresh, work)
    return work, int(np.load(work, mmap_mode="r").offset)


def _resumed(partial: Path, count: int) -> tuple[np.ndarray, dict[int, str], np.ndarray]:
    try:
        with np.load(partial / "state.npz") as saved:
            reasons = dict(zip(saved["rows"].tolist(), saved["reasons"].tolist(), strict=True))
            return saved["state"], reasons, saved["shapes"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # not there, or damaged: begin at the start
        return np.zeros(count, np.uint8), {}, np.zeros((count, 2), np.int32)


def _checkpoint(
    partial: Path, work: Path, state: np.ndarray, reasons: dict[int, str], shapes: np.ndarray
) -> None:
    # The pixels first: what the state calls done must be on the disk, even if the power fails.
    sync(work)
    with atomic_path(partial / "state.npz") as file, open(file, "wb") as handle:
        rows = np.array(list(reasons), np.int64)
        np.savez(handle, state=state, shapes=shapes, rows=rows, reasons=np.array(list(reasons.values()), str))


def _run(jobs: list[tuple], workers: int | None, images: int) -> Iterator[tuple]:
    """Decode the jobs, in processes where it pays to start any."""
    from joblib import Parallel, cpu_count, delayed, parallel_config

    workers = min(workers or cpu_count(), len(jobs))
    if workers <= 1 or images < 4 * CHUNK:
        yield from (_decode_chunk(*job) for job in jobs)
        return
    # loky starts fresh interpreters (no fork, so threads and CUDA are safe) and does not run the caller's
    # script again, so that it works without an `if __name__ == "__main__"`.
    with parallel_config(backend="loky", inner_max_num_threads=1):
        yield from Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)(
            delayed(_in_worker)(os.getpid(), *job) for job in jobs
        )


def _in_worker(parent: int, *job) -> tuple:
    if not _watching and os.name != "nt":
        _watching.append(parent)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    return _decode_chunk(*job)


def _end_with(parent: int) -> None:
    """End this worker when the process that started it is gone; loky's would wait minutes for more work."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _decode_chunk(paths: list[str], rows: np.ndarray, size: int, fit: str, work: str, offset: int) -> tuple:
    """Decode files into their rows of the work file; return (rows, [(row, reason)], heights and widths)."""
    block = np.zeros((len(paths), size, size), np.uint8)
    shapes = np.zeros((len(paths), 2), np.int32)
    bad = []
    for position, path in enumerate(paths):
        try:
            # Four times the size: a reduced JPEG decode is then within one grey level of a full one.
            image, shapes[position] = decode_with_shape(path, minimum=4 * size)
            block[position] = resize(image, size, fit)
        except DecodeError as error:
            bad.append((int(rows[position]), _reason(error, path)))
    with open(work, "r+b") as file:  # not through a memory map: a full disk is then an OSError, not a signal
        for start, stop in _runs(rows):
            file.seek(offset + int(rows[start]) * size * size)
            file.write(block[start:stop].data)
    return rows, bad, shapes


def _runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """Positions [start, stop) of the stretches of consecutive rows."""
    edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    return [(start, stop) for start, stop in pairwise(edges) if stop > start]


def _finish(partial, work, paths, state, reasons, shapes, size, fit, seconds) -> None:
    kept = state == _DONE
    if kept.all():
        os.replace(work, partial / "images.npy")
    else:
        source = np.load(work, mmap_mode="r")
        offset = allocate(partial / "images.npy", (int(kept.sum()), size, size))
        with open(partial / "images.npy", "r+b") as file:
            file.seek(offset)
            for start in range(0, len(kept), 1024):
                file.write(source[start : start + 1024][kept[start : start + 1024]].tobytes())
        del source
        work.unlink()
        with open(partial / "skipped.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "reason"))
            writer.writerows((paths[row], reasons[row]) for row in sorted(reasons))
    np.save(partial / "kept.npy", kept)
    np.save(partial / "shapes.npy", shapes[kept])
    for leftover in partial.glob("*state.npz*"):  # and what a killed build was just writing
        leftover.unlink()
    manifest = {
        "schema": 1,
        "made_from": os.path.commonpath(paths) if paths else "",
        "files": len(paths),
        "kept": int(kept.sum()),
        "image_size": size,
        "fit": fit,
        "decoder_version": DECODER_VERSION,
        "seconds": round(seconds, 3),
    }
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _served(entry: Path, paths: list[str], skip_bad: bool) -> Decoded:
    try:
        kept = np.load(entry / "kept.npy")
        skipped = _read_skipped(entry)
        images = np.load(entry / "images.npy", mmap_mode="r") if kept.any() else np.zeros((0, 1, 1), np.uint8)
        shapes = np.load(entry / "shapes.npy")
        if len(kept) != len(paths) or len(images) != kept.sum():
            raise ValueError("its arrays do not fit together")
    except (OSError, ValueError, EOFError) as error:
        raise CacheError(f"The cache in {entry} is damaged: {error}", remedy=f"Delete {entry}.") from error
    if skipped and (not skip_bad or not kept.any()):
        raise DataError(
            f"{len(skipped)} of {len(paths)} image files cannot be used.",
            offenders=[f"{path}: {reason}" for path, reason in skipped],
            remedy="Mend or remove them, or go on without them: skip_bad=True, --skip-bad."
            if kept.any()
            else "Check that these are radiographs: none of them could be read.",
        )
    return Decoded(images, kept, skipped, shapes, entry)


def _read_skipped(entry: Path) -> list[tuple[str, str]]:
    path = entry / "skipped.csv"
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def _mended(entry: Path) -> bool:
    """Whether a file that was bad can now be read: its permissions, say, do not change its time."""
    for path, _ in _read_skipped(entry):
        try:
            decode_with_shape(path)
            return True
        except DecodeError:
            continue
    return False


def _key(paths: list[str], size: int, fit: str) -> str:
    # In the order given, because the rows of the array are: other orders are other caches.
    digest = hashlib.sha256(f"{_LAYOUT}\0{DECODER_VERSION}\0{size}\0{fit}".encode())
    for path in paths:
        try:
            stat = os.stat(path)
            made_from = f"{stat.st_size}\0{stat.st_mtime_ns}"
        except OSError:
            made_from = "missing"
        digest.update(f"\0{path}\0{made_from}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:24]


def _reason(error: DecodeError, path: str) -> str:
    message = error.message.removeprefix(path).strip(" :")
    return message or "cannot be decoded"


def _interactive() -> bool:
    if "ipykernel" in sys.modules:
        return True
    return sys.stderr is not None and sys.stderr.isatty()
