"""Execute one notebook in this process, for :mod:`.batch`: ``python -m cxrlib.report.notebook_worker JOB``.

``JOB`` is JSON: ``input``, ``output``, ``parameters``, ``cwd``. Standard output carries JSON, a line each:
``{"cell": 3, "of": 20}`` after each cell, and ``{"status": …, "error": …}`` at the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

PAPERMILL_ERROR = "papermill-error-cell-tag"
"""Tag of the cells that papermill adds to a notebook that failed; positions are counted without them."""


def execute(job: Mapping[str, object]) -> dict[str, object]:
    """Run papermill on a job. Returns ``status`` (done, failed, died) and, unless done, ``error``."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError

    class TellingEngine(NBClientEngine):  # type: ignore[misc]  # papermill has no types
        """Papermill's own engine, which also says how far it is."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> Any:
            complete = nb_man.cell_complete

            def complete_and_tell(cell: Any, cell_index: int | None = None, **more: Any) -> None:
                complete(cell, cell_index=cell_index, **more)
                _tell({"cell": (cell_index or 0) + 1, "of": len(nb_man.nb.cells)})

            nb_man.cell_complete = complete_and_tell
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


def _tell(fact: Mapping[str, object]) -> None:
    print(json.dumps(fact), flush=True)  # the parent process reads it; nobody else does


def _follow_parent() -> None:
    """End with the process that started this one, however it ended; a cell may have hours to go."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwind, so that the kernel is shut down too
    threading.Thread(target=_follow_parent, daemon=True).start()
    _tell(execute(json.loads(sys.argv[1])))
