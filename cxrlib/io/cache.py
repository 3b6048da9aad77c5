"""Decoded cohorts on disk, as arrays that are mapped into memory and never read whole.

``cache_root()/decoded/<key>/`` holds ``images.npy`` (uint8, (N, size, size)), ``shapes.npy`` (the files' own
heights and widths), ``kept.npy`` and ``manifest.json``, ``skipped.csv`` where files were left out, and
``checksums.json``: a process that finds others than these builds the cache again. The key is a hash of what
the arrays were made from: each file's path, size and modification time, in order, the image size, the fit,
and the decoder's version. A file changed without a change of size and time is not noticed.

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
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cxrlib.errors import CacheError, ConfigError, DataError, DecodeError
from cxrlib.io.decode import DECODER_VERSION, FITS, decode_with_shape, resize
from cxrlib.io.storage import (
    allocate,
    atomic_path,
    cache_root,
    copy_rows,
    data_offset,
    read_array,
    read_arrays,
    stored,
    sync,
    write_rows,
)
from cxrlib.parallel import progress_bar, run_jobs

__all__ = ["Decoded", "atomic_path", "cache_root", "decode_files", "progress_bar"]

log = logging.getLogger(__name__)

CHUNK = 64
"""Images that a worker decodes and writes at a time."""

FLUSH_SECONDS = 5.0
"""At most this much work is lost when a build is killed."""

_LAYOUT = 1
_TODO, _DONE, _BAD = 0, 1, 2


@dataclass(frozen=True)
class Decoded:
    """What a build gives.

    - ``images``: read-only memory map, uint8, shape (K, size, size): the files that could be decoded, in
      their order.
    - ``kept``: bool, shape (N,), over the files asked for; K of them are True.
    - ``skipped``: (path, reason) of the others.
    - ``shapes``: int32, shape (K, 2): height and width of the files themselves.
    - ``folder``: where it lies on disk.
    - ``beside``: what a :class:`Process` made beside the images: name -> read-only memory map, (K, …).
    """

    images: np.ndarray
    kept: np.ndarray
    skipped: list[tuple[str, str]]
    shapes: np.ndarray
    folder: Path
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)


class Process(Protocol):
    """What to do with a decoded image instead of resizing it. Must be picklable, and deterministic.

    ``key`` goes into the cache's key: everything that the result depends on. ``beside``: what is made beside
    each image, by name, as the type of one: ``np.dtype((float, 9))``.
    """

    @property
    def key(self) -> str: ...

    @property
    def beside(self) -> Mapping[str, np.dtype]: ...

    def __call__(
        self, image: np.ndarray, row: int, shape: tuple[int, int], size: int, path: str
    ) -> tuple[Any, ...]:
        """Give the uint8 (size, size) image, and what is beside it in the order of ``beside``.

        ``image`` may be a reduced decode; ``row`` is its place among the files asked for, ``path`` its file,
        and ``shape`` the file's own height and width.
        """
        ...


def decode_files(
    paths: Sequence[str | Path],
    size: int,
    *,
    fit: str = "letterbox",
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
    cache_dir: str | Path | None = None,
    process: Process | None = None,
) -> Decoded:
    """Decode files to ``size`` × ``size``, or take them from the cache if that has been done.

    - ``paths``: N files.
    - ``size``: pixels a side.
    - ``fit``: ``letterbox`` or ``stretch``, see :func:`cxrlib.io.decode.resize`.
    - ``skip_bad``: go on without files that cannot be decoded, and list them in ``skipped.csv``.
    - ``workers``: processes, each with one thread. None: as many as there are processors to use.
    - ``progress``: show a progress bar. None: on a terminal or in a notebook.
    - ``cache_dir``: instead of :func:`cache_root`.
    - ``process``: makes the image of each file, and more, where a plain resize (``fit``) will not do.
    - Raises DataError: files cannot be decoded and ``skip_bad`` is False, or none can. What was decoded is
      kept, so that calling again with ``skip_bad=True`` is quick.
    - Raises CacheError: the cache cannot be written. Nothing half-written is left.
    """
    if fit not in FITS:
        raise ConfigError(f"There is no fit called {fit!r}.", remedy=f"Use one of {', '.join(FITS)}.")
    files = [os.path.abspath(path) for path in paths]
    root = Path(cache_dir) if cache_dir is not None else cache_root()
    key = _key(files, size, fit, process)
    entry = root / "decoded" / key
    stored(
        entry,
        lambda partial: _build(partial, files, size, fit, workers, progress, process),
        needed=len(files) * size**2,
        usable=lambda: not _mended(entry),
    )
    return _served(entry, files, skip_bad, process)


def _build(
    partial: Path,
    paths: list[str],
    size: int,
    fit: str,
    workers: int | None,
    progress: bool | None,
    process: Process | None,
) -> None:
    started = time.perf_counter()
    count = len(paths)
    kinds = {"images": np.dtype((np.uint8, (size, size))), **(process.beside if process else {})}
    works = [_work_file(partial, name, row, count) for name, row in kinds.items()]
    state, reasons, shapes = _resumed(partial, count)
    before = int((state != _TODO).sum())
    if before:
        log.info("Going on with %s: %d of %d images are done.", partial, before, count)
    todo = np.flatnonzero(state == _TODO)
    chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
    jobs = [([paths[row] for row in rows], rows, size, fit, works, process) for rows in chunks]
    flushed = time.monotonic()
    label = getattr(process, "label", "Preprocessing") if process else "Decoding"
    with progress_bar(count, label, progress, initial=before) as bar:
        for rows, bad, found in run_jobs(_decode_chunk, jobs, workers, small=len(todo) < 4 * CHUNK):
            state[rows] = _DONE
            shapes[rows] = found
            for row, reason in bad:
                state[row] = _BAD
                reasons[row] = reason
            bar.update(len(rows))
            if time.monotonic() - flushed > FLUSH_SECONDS:
                _checkpoint(partial, works, state, reasons, shapes)
                flushed = time.monotonic()
    _checkpoint(partial, works, state, reasons, shapes)
    facts = {"image_size": size, "fit": fit, "seconds": round(time.perf_counter() - started, 3)}
    _finish(partial, works, paths, state, reasons, shapes, facts)


_Work = tuple[Path, int, np.dtype]  # a file, where its rows begin, and what one is


def _work_file(partial: Path, name: str, row: np.dtype, count: int) -> _Work:
    """An array that workers write into, made in one step so that it is whole or not there."""
    work = partial / f"work_{name}.npy"
    if not work.is_file():
        fresh = partial / f"allocating_{name}.npy"
        allocate(fresh, (count, *row.shape), row.base)
        (partial / "state.npz").unlink(missing_ok=True)
        os.replace(fresh, work)
    return work, data_offset(work), row


def _resumed(partial: Path, count: int) -> tuple[np.ndarray, dict[int, str], np.ndarray]:
    saved = read_arrays(partial / "state.npz") or {}
    try:
        reasons = dict(zip(saved["rows"].tolist(), saved["reasons"].tolist(), strict=True))
        return saved["state"], reasons, saved["shapes"]
    except (ValueError, KeyError, TypeError):  # not there, or damaged: begin at the start
        return np.zeros(count, np.uint8), {}, np.zeros((count, 2), np.int32)


def _checkpoint(
    partial: Path, works: list[_Work], state: np.ndarray, reasons: dict[int, str], shapes: np.ndarray
) -> None:
    # The pixels first: what the state calls done must be on the disk, even if the power fails.
    for work, _, _ in works:
        sync(work)
    with atomic_path(partial / "state.npz") as file, open(file, "wb") as handle:
        rows, texts = np.array(list(reasons), np.int64), np.array(list(reasons.values()), str)
        np.savez(handle, state=state, shapes=shapes, rows=rows, reasons=texts)


def _decode_chunk(
    paths: list[str],
    rows: np.ndarray,
    size: int,
    fit: str,
    works: list[_Work],
    process: Process | None,
) -> tuple[np.ndarray, list[tuple[int, str]], np.ndarray]:
    """Decode files into their rows of the work files; returns (rows, [(row, reason)], heights and widths)."""
    blocks = [np.zeros(len(paths), row) for *_, row in works]
    shapes = np.zeros((len(paths), 2), np.int32)
    bad = []
    read = getattr(process, "read", decode_with_shape)  # masks are read in their own way
    for position, path in enumerate(paths):
        try:
            # Four times the size: a reduced JPEG decode is then within one grey level of a full one.
            image, shapes[position] = read(path, minimum=4 * size)
            made: tuple[Any, ...]
            if process is None:
                made = (resize(image, size, fit),)
            else:
                shape = tuple(shapes[position].tolist())
                made = process(image, int(rows[position]), shape, size, path)
            for block, one in zip(blocks, made, strict=True):
                block[position] = one
        except DecodeError as error:
            bad.append((int(rows[position]), _reason(error, path)))
    for (work, offset, _), block in zip(works, blocks, strict=True):
        write_rows(work, offset, rows, block)
    return rows, bad, shapes


def _finish(
    partial: Path,
    works: list[_Work],
    paths: list[str],
    state: np.ndarray,
    reasons: dict[int, str],
    shapes: np.ndarray,
    facts: dict[str, object],
) -> None:
    kept = state == _DONE
    for work, _, _ in works:
        target = partial / work.name.removeprefix("work_")
        if kept.all():
            os.replace(work, target)
        else:
            copy_rows(work, target, kept)
            work.unlink()
    if not kept.all():
        with open(
            partial / "skipped.csv", "w", newline="", encoding="utf-8", errors="surrogateescape"
        ) as file:
            writer = csv.writer(file)
            writer.writerow(("path", "reason"))
            writer.writerows((paths[row], reasons[row]) for row in sorted(reasons))
    np.save(partial / "kept.npy", kept)
    np.save(partial / "shapes.npy", shapes[kept])
    (partial / "state.npz").unlink()
    manifest = {
        "schema": 1,
        "made_from": os.path.commonpath(paths) if paths else "",
        "files": len(paths),
        "kept": int(kept.sum()),
        "decoder_version": DECODER_VERSION,
        **facts,
    }
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _served(entry: Path, paths: list[str], skip_bad: bool, process: Process | None) -> Decoded:
    try:
        kept = read_array(entry / "kept.npy")
        skipped = _read_skipped(entry)
        images = (
            read_array(entry / "images.npy", mmap_mode="r") if kept.any() else np.zeros((0, 1, 1), np.uint8)
        )
        shapes = read_array(entry / "shapes.npy")
        names = process.beside if process and kept.any() else ()
        beside = {name: read_array(entry / f"{name}.npy", mmap_mode="r") for name in names}
        counts = {len(one) for one in (images, shapes, *beside.values())}
        fit = kept.shape == (len(paths),) and counts == {kept.sum()}
        if not fit or images.ndim != 3 or images.dtype != np.uint8:
            raise ValueError("its arrays do not fit together")
    except (OSError, ValueError, TypeError) as error:
        raise CacheError(f"The cache in {entry} is damaged: {error}", remedy=f"Delete {entry}.") from error
    if skipped and (not skip_bad or not kept.any()):
        raise DataError(
            f"{len(skipped)} of {len(paths)} image files cannot be used.",
            offenders=[f"{path}: {reason}" for path, reason in skipped],
            remedy="Mend or remove them, or go on without them: skip_bad=True, --skip-bad."
            if kept.any()
            else "Mend or replace them, or check that these are radiographs: none of them could be read.",
        )
    return Decoded(images, kept, skipped, shapes, entry, beside)


def _read_skipped(entry: Path) -> list[tuple[str, str]]:
    path = entry / "skipped.csv"
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [(name, reason) for name, reason in csv.reader(file)][1:]


def _mended(entry: Path) -> bool:
    """Whether a file that was bad can now be read: its permissions, say, do not change its time."""
    for path, _ in _read_skipped(entry):
        try:
            decode_with_shape(path)
            return True
        except DecodeError:
            continue
    return False


def _key(paths: list[str], size: int, fit: str, process: Process | None) -> str:
    # In the order given, because the rows of the array are: other orders are other caches.
    digest = hashlib.sha256(f"{_LAYOUT}\0{DECODER_VERSION}\0{size}\0{fit}".encode())
    if process is not None:
        digest.update(f"\0{process.key}".encode())
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
