"""Work in several processes, with a progress bar."""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

from cxrlib.errors import ConfigError, CxrError

if TYPE_CHECKING:
    from distributed import Client
    from tqdm import tqdm

_PATIENCE = "20s"  # with a Dask scheduler
_SHARED = Path("/dev/shm")
_marks: list = []  # this process's own, open and locked; see _mark_and_sweep
P = ParamSpec("P")
T = TypeVar("T")


def progress_bar(
    total: int, description: str, progress: bool | None, unit: str = "image", **options: Any
) -> tqdm[Any]:
    """A tqdm bar that goes when it is done; ``progress`` None shows it on a terminal or in a notebook only.

    Of several processes of one training only the first shows it.
    """
    from tqdm.auto import tqdm

    shown = _interactive() and is_main_process() if progress is None else progress
    return tqdm(total=total, desc=description, unit=unit, disable=not shown, leave=False, **options)


def one_thread(function: Callable[P, T]) -> Callable[P, T]:
    """A decorator: let the linear algebra in a function use one thread, whatever it uses elsewhere."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits.wrap(limits=1)(function)


def keep_freed_memory(most: int = 2**26, largest: int = 2**25) -> None:
    """Have glibc keep up to ``most`` bytes of what is freed, for arrays of up to ``largest``.

    Work that makes and frees the same arrays again and again has their pages made anew each time if they are
    given back to the system: 6 to 15% of a training step, a third of looking at how a picture was made.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-1, most)  # M_TRIM_THRESHOLD
        mallopt(-3, largest)  # M_MMAP_THRESHOLD


def is_main_process() -> bool:
    """Whether this process speaks and writes for all: by the environment, so that it is known at once."""
    environment = os.environ
    if "RANK" in environment:  # torchrun
        return environment["RANK"] == "0"
    if "SLURM_STEP_ID" in environment and environment.get("SLURM_PROCID", "0") != "0":
        return False
    return environment.get("LOCAL_RANK", "0") == "0" and environment.get("NODE_RANK", "0") == "0"


def run_jobs(
    function: Callable[..., T], jobs: Sequence[tuple], workers: int | None, *, small: bool = False
) -> Iterator[T]:
    """Yield ``function(*job)`` for each job as they end, from processes with one thread each where it pays.

    ``workers`` None: as many as there are processors to use. ``small``: start no process. A process that is
    killed, or cannot have the memory it asks for, becomes a CxrError.
    """
    from joblib import Parallel, cpu_count, delayed, parallel_config

    workers = min(workers or cpu_count(), len(jobs))
    if workers <= 1 or small:
        yield from (function(*job) for job in jobs)
        return
    with suppress(OSError, CxrError):  # a cache that cannot be written hinders no work
        _mark_and_sweep()
    # loky starts fresh interpreters (no fork, so threads and CUDA are safe) and does not run the caller's
    # script again, so that it works without an `if __name__ == "__main__"`.
    watch: dict[str, Any] = {"initializer": _watch, "initargs": (os.getpid(),)}
    # A worker that has grown ends between jobs, and loky starts another: nothing that a user need know.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
    with worker_deaths(workers), parallel_config(backend="loky", inner_max_num_threads=1, **watch):
        yield from Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)(
            delayed(function)(*job) for job in jobs
        )


def fan_out(function: Callable, jobs: Sequence[tuple]) -> None:
    """Do ``function(*job)`` for each job ahead of need, several at a time, where the environment asks for it.

    ``CXRLIB_JOBS`` says how many at a time on this machine (joblib; one thread each), ``CXRLIB_SCHEDULER``
    the address of a Dask scheduler, as ``tcp://host:8786``, whose workers see this machine's files under the
    same paths. With neither, or one job, nothing is done. What a job makes must be in a store where whoever
    needs it finds it; what it returns is dropped.

    - Raises ConfigError: ``CXRLIB_JOBS`` is no number, the scheduler does not answer, or ``distributed`` is
      not installed.
    """
    address, wanted = os.environ.get("CXRLIB_SCHEDULER"), os.environ.get("CXRLIB_JOBS") or "1"
    if not (wanted.isascii() and wanted.isdigit() and int(wanted)):
        raise ConfigError(
            f"CXRLIB_JOBS is {wanted!r}.", remedy="Set it to how many trainings run at a time, such as 4."
        )
    if len(jobs) < 2:
        return
    if address:
        with _scheduler(address) as client:
            futures = [client.submit(_without_result, function, job, pure=False) for job in jobs]
            client.gather(futures)
    elif int(wanted) > 1:
        for _ in run_jobs(_without_result, [(function, job) for job in jobs], int(wanted)):
            pass


def _without_result(function: Callable, job: tuple) -> None:
    function(*job)


def _scheduler(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            "CXRLIB_SCHEDULER needs Dask's distributed.", remedy='Run: pip install "cxrlib[dask]".'
        ) from error
    try:
        return Client(address, timeout=_PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"No Dask scheduler answers at {address}, which CXRLIB_SCHEDULER names.",
            remedy="Start one with dask scheduler, or unset CXRLIB_SCHEDULER.",
        ) from error


def locked_at_once(file: IO[bytes]) -> bool | None:
    """Lock a file unless somebody else has; None where the system cannot say."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _mark_and_sweep() -> None:
    """Remove the semaphores and folders in shared memory of processes that were killed with their workers.

    loky clears up after a process that dies, but not where the one that clears up is killed as well. A mark
    that nobody holds a lock on is of a dead process: other containers' process numbers say nothing here.
    """
    if _marks or not _SHARED.is_dir():
        return
    folder = _SHARED / f"cxrlib-workers-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for mark in folder.iterdir():
        with suppress(OSError), open(mark, "r+b") as file:
            if locked_at_once(file):
                theirs = re.compile(rf"(sem\.loky|joblib_memmapping_folder)[-_]{int(mark.name)}[-_]")
                for left in filter(lambda path: theirs.match(path.name), _SHARED.iterdir()):
                    shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
                mark.unlink()
    own = folder / str(os.getpid())
    _marks.append(open(own, "wb"))  # noqa: SIM115 — open as long as this process lives
    locked_at_once(_marks[0])
    atexit.register(own.unlink, missing_ok=True)


@contextmanager
def worker_deaths(workers: int) -> Iterator[None]:
    """Turn the death of a worker process, or its want of memory, into a CxrError that says what to do."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    try:
        yield
    except (BrokenProcessPool, MemoryError) as error:
        what = "asked for memory that it cannot have" if isinstance(error, MemoryError) else "was killed"
        raise CxrError(
            f"One of {workers} worker processes {what}, as happens when the memory is full.",
            remedy="Use fewer processes (--workers 1, workers=1) or free some memory. What was finished of a "
            "cache or an audit is kept.",
        ) from error


def _watch(parent: int) -> None:
    """Have a worker end with its parent from the start: one that waits for a first job would stay."""
    keep_freed_memory()
    if os.name != "nt":
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this worker when the process that started it is gone; loky's would wait minutes for more work."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _interactive() -> bool:
    if "ipykernel" in sys.modules:
        return True
    return sys.stderr is not None and sys.stderr.isatty()
