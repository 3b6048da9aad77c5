"""Execute one notebook in this process, for :mod:`.batch`, which starts it and reads what it tells.

Told are ``{"cell": 3, "of": 20}`` after each cell, and ``{"status": …, "error": …}`` at the end. On Linux
this process and its kernel are forked from one that has imported what chapters need (:data:`WARM`), which
would take each of them a dozen seconds; elsewhere they start from nothing.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

PAPERMILL_ERROR = "papermill-error-cell-tag"
"""Tag of the cells that papermill adds to a notebook that failed; positions are counted without them."""

_STARTING = threading.Lock()
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
FORKS = sys.platform == "linux"
_BEFORE_IMPORTS = ("PYTHONPATH", "MPLBACKEND", "PYDEVD_DISABLE_FILE_VALIDATION", *THREADS)
WARM = (
    "cxrlib.report.light", "papermill", "papermill.clientwrap", "nbclient", "jupyter_client.manager",
    "jupyter_client.provisioning", "ipykernel.ipkernel", "ipykernel.kernelapp", "IPython.core.completer",
    "matplotlib.pyplot", "pandas", "scipy.stats", "sklearn.linear_model", "sklearn.model_selection",
    "sklearn.pipeline", "torch._dynamo", "lightning_fabric", "cxrlib.training.recipes",
)  # fmt: skip
"""Modules that a notebook's process finds imported."""


def start(
    target: Callable[..., None], arguments: tuple[object, ...], environment: Mapping[str, str]
) -> BaseProcess:
    """Start a process for the target; the first call also starts the one that the others are forked from."""
    context: Any = multiprocessing.get_context("forkserver" if FORKS else "spawn")
    process: BaseProcess = context.Process(target=target, args=arguments)
    early = {name: environment[name] for name in _BEFORE_IMPORTS if name in environment}
    # What a killed kernel leaves is cleared up at the end, which nobody need be told.
    quiet = (os.environ.get("PYTHONWARNINGS"), "ignore::UserWarning:multiprocessing.resource_tracker")
    early["PYTHONWARNINGS"] = ",".join(filter(None, quiet))
    with _STARTING:
        main, before = sys.modules["__main__"], {name: os.environ.get(name) for name in early}
        try:
            sys.modules["__main__"] = ModuleType("__main__")  # else the caller's script would be run again
            os.environ.update(early)
            if FORKS:
                context.set_forkserver_preload([*WARM])
            process.start()
        finally:
            sys.modules["__main__"] = main
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
    return process


def work(job: Mapping[str, object], environment: Mapping[str, str], log: str, tell: Connection) -> None:
    """Be the process of one notebook: its environment, folder and log are its own.

    ``job``: ``input``, ``output``, ``parameters``, ``cwd``.
    """
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C reaches only the process that ends the others
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(job["cwd"]))
    for number, (file, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), (log, os.O_WRONLY | os.O_APPEND), (log, os.O_WRONLY | os.O_APPEND))
    ):
        os.dup2(os.open(file, flags), number)
    if FORKS:
        _fork_kernel(tell)  # before there are threads
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwind, so that the kernel is shut down too
    threading.Thread(target=_follow_parent, daemon=True).start()
    tell.send(execute(job, tell))


def _fork_kernel(tell: Connection) -> None:
    """Fork what becomes the kernel once papermill's client, in this process, starts one."""
    from jupyter_client.provisioning import local_provisioner

    wanted, given = multiprocessing.Pipe(duplex=False)
    number = os.fork()
    if number == 0:
        for end in (given, tell):
            end.close()
        try:
            _be_kernel(wanted)
        finally:
            os._exit(1)
    wanted.close()

    def launch(command: list[str], env: Mapping[str, str], **_: object) -> _Kernel:
        given.send((command[command.index("ipykernel_launcher") + 1 :], dict(env)))
        return _Kernel(number)

    setattr(local_provisioner, "launch_kernel", launch)  # noqa: B010  # it is no public name


def _be_kernel(wanted: Connection) -> None:
    """Wait for the kernel's arguments and environment, run it, and end this process."""
    os.setsid()
    with suppress(EOFError):
        arguments, environment = wanted.recv()
        os.environ.clear()
        os.environ.update(environment)
        multiprocessing.current_process().name = "MainProcess"
        from ipykernel.kernelapp import IPKernelApp

        IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])
    atexit._run_exitfuncs()
    os._exit(0)


class _Kernel:
    """A forked kernel, with what jupyter_client asks of a Popen."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int):
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self) -> int | None:
        while self.poll() is None:
            time.sleep(0.05)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def execute(job: Mapping[str, object], tell: Connection) -> dict[str, object]:
    """Run papermill on a job. Returns ``status`` (done, failed, died) and, unless done, ``error``."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError

    class TellingEngine(NBClientEngine):  # type: ignore[misc]  # papermill has no types
        """Papermill's own engine, which also says how far it is."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> Any:
            start, complete = nb_man.cell_start, nb_man.cell_complete

            def unsaved(step: Callable[..., None], *args: Any, **more: Any) -> None:
                nb_man.save = lambda **_: None  # before the class's own
                try:
                    step(*args, **more)
                finally:
                    del nb_man.save

            # Written as a code cell begins, with all before it; twice every cell would be a second a chapter.
            def start_cell(cell: Any, cell_index: int | None = None, **more: Any) -> None:
                code = cell.cell_type == "code"
                (start if code else partial(unsaved, start))(cell, cell_index=cell_index, **more)

            def complete_and_tell(cell: Any, cell_index: int | None = None, **more: Any) -> None:
                unsaved(complete, cell, cell_index=cell_index, **more)
                tell.send({"cell": (cell_index or 0) + 1, "of": len(nb_man.nb.cells)})

            nb_man.cell_start, nb_man.cell_complete = start_cell, complete_and_tell
            return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)

    papermill_engines.register("cxrlib", TellingEngine)
    try:
        papermill.execute_notebook(
            job["input"],
            job["output"],
            parameters=job["parameters"],
            engine_name="cxrlib",
            kernel_name="python3",
            progress_bar=False,
            cwd=job["cwd"],
            start_timeout=180,  # a busy machine takes its time to import torch in several kernels
        )
    except PapermillExecutionError as error:
        return _failure("failed", error.ename, error.evalue, job)
    except DeadKernelError:
        return _failure("died", "DeadKernelError", "The kernel died, often because the memory was full.", job)
    return {"status": "done"}


def last_started(cells: list[dict]) -> int | None:
    """Position of the last code cell that papermill began to run."""
    started = [
        i
        for i, cell in enumerate(cells)
        if cell["cell_type"] == "code" and cell["metadata"].get("papermill", {}).get("start_time")
    ]
    return started[-1] if started else None


def violent_end(code: int, log: Path, executed: Path) -> dict[str, object]:
    """What can be said of a worker that ended without a word."""
    cause = f"signal {-code}" if code < 0 else f"exit status {code}"
    if code == -9:
        cause += ": killed, often because the memory was full"
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    message = f"The notebook's process ended with {cause}." + ("\n" + "\n".join(tail) if tail else "")
    cell = None
    with suppress(OSError, ValueError):
        cell = last_started(json.loads(executed.read_text(encoding="utf-8"))["cells"])
    return {"name": "ProcessDied", "message": message, "cell": cell}


def _failure(status: str, name: str, message: str, job: Mapping[str, object]) -> dict[str, object]:
    cells = json.loads(Path(str(job["output"])).read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if PAPERMILL_ERROR not in cell["metadata"].get("tags", ())]
    return {"status": status, "error": {"name": name, "message": message, "cell": last_started(cells)}}


def _follow_parent() -> None:
    """End with the process that asked for this one, however it ended; a cell may have hours to go."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
