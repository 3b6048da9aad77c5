"""How long ``make report`` takes with nothing stored, and how long until its first page can be opened."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxrlib.evaluation.results import project_root

if TYPE_CHECKING:
    from benchmarks.speed.rows import Setting

SECONDS, FIRST_PAGE = 180.0, 60.0  # wanted


def rows(setting: Setting) -> Iterator[dict]:
    """``report.seconds`` and ``report.first_page``: one run, a chapter at a time for each thread."""
    from benchmarks.speed.rows import row_of

    out, jobs = setting.work / "report", str(setting.threads)
    command = [sys.executable, "-m", "cxrlib.cli", "report", "--jobs", jobs, "--out", str(out)]
    load = round(os.getloadavg()[0], 2)
    took, first = timed(command, out, setting.work / "cache")
    for name, what, seconds, wanted in (
        ("seconds", "all chapters with nothing stored, and their site", took, SECONDS),
        ("first_page", "until the report's first page is there", first, FIRST_PAGE),
    ):
        pair = np.array([(1 / seconds, 1 / wanted)])
        yield row_of(
            f"report.{name}", f"{what}, against {wanted:.0f} seconds", pair, target=1.0, unit="reports/s",
            data="phantoms", seconds=round(seconds, 1), jobs=setting.threads, load_before=load,
        )  # fmt: skip


def timed(command: Sequence[str], out: Path, cache: Path) -> tuple[float, float]:
    """Seconds until the command ended, and until ``out/index.html`` was there."""
    first = None
    started = time.monotonic()
    environment = os.environ | {"CXRLIB_CACHE": str(cache)}
    with subprocess.Popen(command, cwd=project_root(), env=environment) as process:
        while process.poll() is None:
            if first is None and (out / "index.html").is_file():
                first = time.monotonic() - started
            time.sleep(0.1)
    took = time.monotonic() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return took, took if first is None else first
