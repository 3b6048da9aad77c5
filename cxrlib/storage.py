"""Writing to disk so that a file or folder is there whole or not at all, whatever stops the writer."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import DTypeLike

from cxrlib.errors import CacheError

log = logging.getLogger(__name__)

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

    The file lies beside the target until then, and is removed if the block raises. A full disk becomes a
    CacheError.
    """
    target = Path(target)
    _make_folder(target.parent)
    with _disk_errors(target.parent):
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
        os.close(handle)
    work = Path(name)
    try:
        with _disk_errors(target.parent):
            yield work
            sync(work)
            work.chmod(0o666 & ~_umask())
            os.replace(work, target)
            sync(target.parent)
    finally:
        work.unlink(missing_ok=True)


@contextmanager
def locked(entry: Path) -> Iterator[None]:
    """Hold the lock of a cache entry; wait while another process holds it."""
    path = entry.with_name(entry.name + ".lock")
    _make_folder(path.parent)
    with _disk_errors(path.parent):
        handle = open(path, "a+b")  # noqa: SIM115 — closed below; it stays behind, as removing it would race
    try:
        _lock(handle, entry)
        yield
    finally:
        handle.close()


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


def _lock(handle: IO[bytes], entry: Path) -> None:
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                handle.seek(0)
                msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError:
                time.sleep(0.2)
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("Another process is building %s; waiting for it.", entry)
        fcntl.flock(handle, fcntl.LOCK_EX)


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


def _make_folder(folder: Path) -> None:
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
