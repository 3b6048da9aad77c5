"""Writing to disk so that a file or folder is there whole or not at all, whatever stops the writer."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import DTypeLike

from cxrlib.errors import CacheError
from cxrlib.parallel import locked_at_once

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile

log = logging.getLogger(__name__)

_WRITING = ".cxr-writing-"
"""How the names of files begin that :func:`atomic_path` has not put in place yet."""

_CHECKSUMS = "checksums.json"
_swept: set[Path] = set()  # folders in which this process has removed what killed ones left
_checked: dict[Path, list[tuple]] = {}  # entries that this process has read whole, and their files' times
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def cache_root() -> Path:
    """The folder for everything that can be made again: ``CXRLIB_CACHE``, else the user's cache folder."""
    configured = os.environ.get("CXRLIB_CACHE")
    if configured:
        return Path(configured).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("cxrlib")


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends without an error, it becomes ``target`` in one step.

    The file lies beside the target until then, and is removed if the block raises; what a killed process
    left in the folder goes when the next one first writes there. A full disk becomes a CacheError.
    """
    target = Path(target)
    make_folder(target.parent)
    _sweep(target.parent)
    with _disk_errors(target.parent):
        held, work = _fresh_file(target)
    try:
        with _disk_errors(target.parent):
            yield work
            sync(work)
            work.chmod(0o666 & ~_umask())
            if os.name == "nt":  # where an open file cannot be renamed
                held.close()
            os.replace(work, target)
            sync(target.parent)
    finally:
        held.close()
        work.unlink(missing_ok=True)


def _fresh_file(target: Path) -> tuple[IO[bytes], Path]:
    """An empty file beside the target, open and locked: unlocked ones are those of dead processes."""
    while True:
        handle, name = tempfile.mkstemp(prefix=_WRITING, suffix=target.suffix, dir=target.parent)
        held = os.fdopen(handle, "r+b")
        # Between its making and its locking another process may have taken it for a dead one's.
        if locked_at_once(held) is not False and os.fstat(handle).st_nlink:
            return held, Path(name)
        held.close()


def _sweep(folder: Path) -> None:
    """Remove what killed processes were writing in a folder, once a process and folder."""
    if folder in _swept:
        return
    _swept.add(folder)
    with os.scandir(folder) as found:
        left = [Path(file.path) for file in found if file.name.startswith(_WRITING) and not file.is_symlink()]
    for path in left:
        with suppress(OSError), open(path, "r+b") as file:
            if locked_at_once(file):
                path.unlink()


def stored(
    entry: Path, build: Callable[[Path], None], needed: int = 0, *, usable: Callable[[], bool] = lambda: True
) -> None:
    """See that ``entry`` is there, whole and ``usable``; otherwise have it built, by one process at a time.

    ``build`` fills the folder that it is given, in which it may find what a killed build left. ``needed``:
    bytes, for the message on a full disk.
    """
    if intact(entry) and usable():
        return
    with locked(entry):
        if entry.exists():
            whole = intact(entry)
            if whole and usable():  # another process built it meanwhile
                return
            if not whole:
                log.warning("The cache in %s is not as it was written (checksums); it is built again.", entry)
            shutil.rmtree(entry)
        with published(entry, needed) as partial:
            build(partial)


def intact(entry: Path) -> bool:
    """Whether the files of a published folder are those that were published, by size and CRC-32.

    A process reads them for this once (some 2 GB a second), and again when their times have changed.
    """
    try:
        expected = json.loads((entry / _CHECKSUMS).read_text(encoding="utf-8"))
        files = [entry / name for name in expected]
        times = [(s.st_size, s.st_mtime_ns, s.st_ino) for s in (file.stat() for file in files)]
        if _checked.get(entry) != times:
            if expected != {file.name: _checksum(file) for file in files}:
                return False
            _checked[entry] = times
        return True
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _checksum(path: Path) -> list[int]:
    size = crc = 0
    with open(path, "rb") as file:
        while block := file.read(2**20):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return [size, crc]


@contextmanager
def locked(entry: Path) -> Iterator[None]:
    """Hold the lock of a cache entry; wait while another process holds it."""
    from filelock import FileLock, Timeout

    path = entry.with_name(entry.name + ".lock")
    make_folder(path.parent)
    lock = FileLock(path)
    with _disk_errors(path.parent):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("Another process is building %s; waiting for it.", entry)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def published(entry: Path, needed: int = 0) -> Iterator[Path]:
    """Yield ``<entry>.partial``, which becomes ``entry`` in one step when the block ends without an error.

    Call it with the entry's lock held. On a full disk (``needed``: bytes, for the message) the folder is
    removed and a CacheError raised; after any other interruption it stays, for the next build to take up.
    """
    partial = entry.with_name(entry.name + ".partial")
    try:
        with _disk_errors(entry.parent, needed):
            partial.mkdir(parents=True, exist_ok=True)
            yield partial
            (partial / _CHECKSUMS).unlink(missing_ok=True)
            for left in partial.glob(f"{_WRITING}*"):
                left.unlink()
            sums = {file.name: _checksum(file) for file in sorted(partial.iterdir())}
            (partial / _CHECKSUMS).write_text(json.dumps(sums) + "\n", encoding="utf-8")
            for file in partial.iterdir():
                sync(file)
            os.replace(partial, entry)
            sync(entry.parent)
    except CacheError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def allocate(path: Path, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> int:
    """Make a ``.npy`` file of zeros whose disk space is really reserved; return the offset of its data.

    A sparse file on a disk that fills up would kill the process that writes to its memory map (SIGBUS).
    """
    header = np.lib.format.header_data_from_array_1_0(np.empty((0,) * len(shape), dtype)) | {"shape": shape}
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        file.flush()
        if not _reserve(file.fileno(), offset, size):
            zeros = bytes(2**20)
            for start in range(0, size, len(zeros)):
                file.write(zeros[: min(len(zeros), size - start)])
        file.flush()
        os.fsync(file.fileno())
    return offset


def data_offset(path: Path) -> int:
    """Where the values of a ``.npy`` file begin, in bytes; a ValueError where it is damaged."""
    array = read_array(path, mmap_mode="r")
    if not isinstance(array, np.memmap):
        raise ValueError(f"{path} is no array.")
    return int(array.offset)


def write_rows(path: Path, offset: int, rows: np.ndarray, values: np.ndarray) -> None:
    """Put ``values`` (K, …) into these rows, rising, of the ``.npy`` file whose values begin at ``offset``.

    Not through a memory map: a full disk is then an OSError, and no signal.
    """
    edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    with open(path, "r+b") as file:
        for start, stop in pairwise(edges):
            if stop > start:
                file.seek(offset + int(rows[start]) * values[:1].nbytes)
                file.write(values[start:stop].view(np.uint8).data)


def copy_rows(source: Path, target: Path, kept: np.ndarray) -> None:
    """Copy the rows that are kept, bool (N,), of one ``.npy`` file into a new one."""
    rows = read_array(source, mmap_mode="r")
    offset = allocate(target, (int(kept.sum()), *rows.shape[1:]), rows.dtype)
    with open(target, "r+b") as file:
        file.seek(offset)
        for start in range(0, len(kept), 1024):
            file.write(rows[start : start + 1024][kept[start : start + 1024]].tobytes())


def read_array(path: str | Path, mmap_mode: Literal["r", "r+", "w+", "c"] | None = None) -> np.ndarray:
    """A ``.npy`` file; a ValueError where it is damaged, whatever numpy raises then."""
    array = _loaded(path, mmap_mode)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{Path(path).name} is no array")
    return array


def read_arrays(path: str | Path, only: str | None = None) -> dict[str, np.ndarray] | None:
    """The arrays of an ``.npz`` file, or one; None where it is not there, or damaged (each has a CRC-32)."""
    try:
        archive = _loaded(path)
        if isinstance(archive, np.ndarray):
            return None
        with archive, _as_value_error(path):
            return {name: archive[name] for name in archive.files if only in (None, name)}
    except (OSError, ValueError):
        return None


def _loaded(path: str | Path, mmap_mode: Literal["r", "r+", "w+", "c"] | None = None) -> np.ndarray | NpzFile:
    with _as_value_error(path):
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)


@contextmanager
def _as_value_error(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:  # BadZipFile, TokenError, EOFError, MemoryError, zlib.error, KeyError, …
        raise ValueError(f"{Path(path).name} is damaged: {error}") from error


def _reserve(descriptor: int, offset: int, size: int) -> bool:
    """Ask the file system for the space at once; False where it cannot do that."""
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(descriptor, offset, max(size, 1))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return False
        raise
    return True


@contextmanager
def _disk_errors(folder: Path, needed: int = 0) -> Iterator[None]:
    """Turn a full disk into a CacheError that says where, how much, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        free = shutil.disk_usage(next(part for part in (folder, *folder.parents) if part.exists())).free
        amount = f" {needed / 1e6:,.1f} MB are needed and" if needed else ""
        raise CacheError(
            f"The disk that holds {folder} is full:{amount} {free / 1e6:,.1f} MB are free.",
            remedy="Free some space, or write to another disk: CXRLIB_CACHE=/its/folder moves the cache.",
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder that can be written to, or raise a CacheError that names it."""
    try:
        with _disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise CacheError(
            f"Nothing can be written to {folder}: {error.strerror}.",
            remedy="Name another folder; CXRLIB_CACHE=/its/folder moves the cache.",
        ) from error


def sync(path: Path) -> None:
    """Force a file, or a folder's entries where the system can, onto the disk."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
