"""Work in several processes, with a progress bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")
_watching: list[int] = []  # in a worker: the process that it ends with


def progress_bar(
    total: int, description: str, progress: bool | None, unit: str = "image", **options: Any
) -> tqdm[Any]:
    """A tqdm bar that goes when it is done; ``progress`` None shows it on a terminal or in a notebook only.

    Of several processes of one training only the first shows it.
    """
    from tqdm.auto import tqdm

    shown = _interactive() and is_main_process() if progress is None else progress
    return tqdm(total=total, desc=description, unit=unit, disable=not shown, leave=False, **options)


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

    ``workers`` None: as many as there are processors to use. ``small``: start no process.
    """
    from joblib import Parallel, cpu_count, delayed, parallel_config

    workers = min(workers or cpu_count(), len(jobs))
    if workers <= 1 or small:
        yield from (function(*job) for job in jobs)
        return
    # loky starts fresh interpreters (no fork, so threads and CUDA are safe) and does not run the caller's
    # script again, so that it works without an `if __name__ == "__main__"`.
    with parallel_config(backend="loky", inner_max_num_threads=1):
        yield from Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)(
            delayed(_in_worker)(os.getpid(), function, *job) for job in jobs
        )


def _in_worker(parent: int, function: Callable[..., T], *job: object) -> T:
    if not _watching and os.name != "nt":
        _watching.append(parent)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    return function(*job)


def _end_with(parent: int) -> None:
    """End this worker when the process that started it is gone; loky's would wait minutes for more work."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _interactive() -> bool:
    if "ipykernel" in sys.modules:
        return True
    return sys.stderr is not None and sys.stderr.isatty()
