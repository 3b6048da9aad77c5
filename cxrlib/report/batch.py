"""Papermill over a folder of notebooks: in order of dependency, side by side, and surviving what goes wrong.

Each notebook runs in a process of its own (:mod:`.notebook_worker`) with a kernel of its own, so that a
notebook that raises, exhausts the memory or is killed takes nothing with it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from graphlib import CycleError, TopologicalSorter
from importlib import metadata
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cxrlib.errors import ConfigError, CxrError
from cxrlib.io.storage import atomic_path
from cxrlib.report.notebook_worker import THREADS, start, violent_end, work

# What draws the report has no say in a notebook's numbers; all else in the package may have.
_NO_INFLUENCE = ("report/", "cli/")
_INFLUENCE = ("report/site/scoreboard", "report/course.py", "report/evidence/show", "report/quiz/")  # shown
_KEYED_PACKAGES = ("numpy", "pandas", "matplotlib", "scikit-learn", "scikit-image", "torch", "torchvision")
_SCRATCH = "scratch"  # where notebooks run, in a folder each
_STATE = 1  # raised when the stored states below change their meaning


@dataclass(frozen=True)
class Notebook:
    """One notebook: its file, and the names of those it wants to run after (metadata ``cxr.needs``).

    - ``parameters``: the names that its cell tagged ``parameters`` assigns.
    - ``seconds``: about how long it takes (metadata ``cxr.seconds``), by which the order is chosen.
    """

    path: Path
    needs: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    seconds: float = 1.0

    @property
    def name(self) -> str:
        """The file's stem, such as ``03_training``."""
        return self.path.stem


@dataclass(frozen=True)
class Outcome:
    """How a notebook's run ended.

    - ``name``: the notebook's.
    - ``status``: ``done``; ``failed``: a cell raised; ``died``: the kernel or the whole process was killed;
      ``waiting``: it has not ended.
    - ``seconds``: wall-clock time of the run.
    - ``key``: hash of all that the outcome follows from.
    - ``error``: for ``failed`` and ``died``: ``name``, ``message`` and ``cell`` (position among all cells, or
      None).
    - ``reused``: True where the run is one of an earlier report.
    - ``files``: what the run recorded, relative to ``out_dir``.
    """

    name: str
    status: str
    seconds: float
    key: str = ""
    error: Mapping[str, object] | None = None
    reused: bool = False
    files: tuple[str, ...] = ()


def find_notebooks(folder: str | Path, only: Iterable[str] | None = None) -> tuple[list[Notebook], set[str]]:
    """The notebooks ``NN_….ipynb`` in a folder, by number, and the names of those that ``only`` selects.

    ``only`` holds names or their beginnings, such as ``03``; None selects all.

    - Raises ConfigError: no notebooks, an ``only`` that matches none, or needs that are unknown or go round
      in a circle.
    """
    folder = Path(folder)
    notebooks = [_read(path) for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))]
    names = [notebook.name for notebook in notebooks]
    if not notebooks:
        raise ConfigError(
            f"{folder} holds no notebooks named like 03_training.ipynb.",
            remedy="Run from a checkout of the project, or name the folder of the notebooks.",
        )
    unknown = [need for notebook in notebooks for need in notebook.needs if need not in names]
    if unknown:
        raise ConfigError(
            "Notebooks need others that are not there (metadata cxr.needs).",
            offenders=unknown,
            remedy=f"Name some of {', '.join(names)}.",
        )
    try:
        TopologicalSorter({notebook.name: notebook.needs for notebook in notebooks}).prepare()
    except CycleError as error:
        raise ConfigError(
            f"Notebooks need each other in a circle: {' → '.join(error.args[1])}.",
            remedy="Take one of them out of the other's metadata cxr.needs.",
        ) from error
    selected = set(names)
    if only:
        wanted = {want: [name for name in names if name.startswith(Path(want).stem)] for want in only}
        missing = [want for want, found in wanted.items() if not found]
        if missing:
            raise ConfigError(
                "No notebook is called so.", offenders=missing, remedy=f"Use {', '.join(names)}."
            )
        selected = {name for found in wanted.values() for name in found}
    return notebooks, selected


def run_key(notebook: Notebook, parameters: Mapping[str, object], keys_of_needed: Iterable[str] = ()) -> str:
    """Hash of all that a run's outcome follows from: its source, parameters, the package, the data's files.

    Files under ``data_dir`` count by name, size and time of change, so that nothing has to be read.
    """
    content = json.loads(notebook.path.read_text(encoding="utf-8"))
    cells = [[cell["cell_type"], cell["source"], cell["metadata"]] for cell in content["cells"]]
    facts = {
        "state": _STATE,
        "cells": cells,
        "parameters": {name: value for name, value in parameters.items() if name != "out_dir"},
        "needed": sorted(keys_of_needed),
        "environment": _environment_key(notebook.path.parent),
        "data": _files_key(Path(str(parameters["data_dir"]))) if parameters.get("data_dir") else None,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:20]


@dataclass
class Batch:
    """Run notebooks and keep what they left.

    - ``parameters``: for every notebook: dataset, data_dir, image_size, preset, seed, out_dir.
    - ``extra``: for those notebooks only that have such a parameter.
    - ``state_dir``: where executed notebooks, their states and their logs stay between calls.
    - ``jobs``: notebooks at a time.
    - ``fresh``: run again what has not changed.
    - ``on_start``, ``on_cell``, ``on_end``: called, from several threads, with (name), (name, cells done,
      cells), (outcome).
    - ``on_news``: called with the outcomes so far, those to come as ``waiting``, before the first run and
      after each.
    """

    parameters: Mapping[str, object]
    state_dir: Path
    jobs: int = 1
    fresh: bool = False
    extra: Mapping[str, object] = field(default_factory=dict)
    on_start: Callable[[str], None] = lambda name: None
    on_cell: Callable[[str, int, int], None] = lambda name, done, of: None
    on_end: Callable[[Outcome], None] = lambda outcome: None
    on_news: Callable[[dict[str, Outcome]], None] = lambda outcomes: None
    _running: dict[str, BaseProcess] = field(default_factory=dict, init=False)
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)

    def executed(self, name: str) -> Path:
        """The executed notebook of this name, as papermill left it."""
        return self.state_dir / f"{name}.ipynb"

    def run(self, notebooks: list[Notebook], selected: set[str]) -> dict[str, Outcome]:
        """Run the selected notebooks, each after those it needs; a failure stops no other.

        Notebooks that were not selected count where an earlier run of theirs is still valid.

        - Returns: ``dict``: name to outcome, in the notebooks' order.
        """
        self.state_dir.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.state_dir / _SCRATCH, ignore_errors=True)  # of a batch that was killed
        keys = self._keys(notebooks)
        outcomes = {}
        for notebook in notebooks:
            earlier = self._earlier(notebook.name, keys[notebook.name])
            if earlier and not (self.fresh and notebook.name in selected):
                outcomes[notebook.name] = earlier
                self.on_end(earlier)
        todo = {n.name: n for n in notebooks if n.name in selected and n.name not in outcomes}
        order = TopologicalSorter({name: set(n.needs) & set(todo) for name, n in todo.items()})
        order.prepare()
        ready: list[str] = []
        urgent = _weights(todo.values())

        def known() -> dict[str, Outcome]:
            names = [n.name for n in notebooks if n.name in outcomes or n.name in todo]
            return {name: outcomes.get(name) or Outcome(name, "waiting", 0.0) for name in names}

        with ThreadPoolExecutor(max_workers=max(1, self.jobs)) as pool:
            waiting: dict[Future[Outcome], str] = {}
            try:
                while order.is_active():
                    ready = sorted([*ready, *order.get_ready()], key=lambda name: (-urgent[name], name))
                    while ready and len(waiting) < max(1, self.jobs):
                        name = ready.pop(0)
                        waiting[pool.submit(self._run_one, todo[name], keys[name])] = name
                    self.on_news(known())
                    finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in finished:
                        name = waiting.pop(future)
                        outcomes[name] = future.result()
                        order.done(name)
            except BaseException:  # Ctrl-C above all: end what runs, keep what is finished
                self._stop()
                for future in waiting:
                    future.cancel()
                raise
        return known()

    def _keys(self, notebooks: list[Notebook]) -> dict[str, str]:
        keys: dict[str, str] = {}
        by_name = {notebook.name: notebook for notebook in notebooks}
        for name in TopologicalSorter({n.name: n.needs for n in notebooks}).static_order():
            notebook = by_name[name]
            keys[name] = run_key(notebook, self._given_to(notebook), [keys[need] for need in notebook.needs])
        return keys

    def _given_to(self, notebook: Notebook) -> dict[str, object]:
        own = {name: value for name, value in self.extra.items() if name in notebook.parameters}
        return dict(self.parameters) | own

    def _earlier(self, name: str, key: str) -> Outcome | None:
        """An earlier run with this key that went well and whose files are all still there."""
        try:
            stored = json.loads((self.state_dir / f"{name}.json").read_text(encoding="utf-8"))
            outcome = Outcome(**stored | {"reused": True, "files": tuple(stored["files"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        there = (
            all((self._out_dir / file).is_file() for file in outcome.files) and self.executed(name).is_file()
        )
        return outcome if outcome.key == key and outcome.status == "done" and there else None

    def _run_one(self, notebook: Notebook, key: str) -> Outcome:
        name, started = notebook.name, time.monotonic()
        last: dict[str, Any] = {}  # the worker's last word
        if self._stopped.is_set():
            raise CxrError(f"{name} was not started.", remedy="Run the report again: it goes on from here.")
        self.on_start(name)
        self._forget(name)
        job: dict[str, object] = {"input": str(notebook.path), "output": str(self.executed(name))}
        job["parameters"] = self._given_to(notebook)
        log = self.state_dir / f"{name}.log"
        (self.state_dir / _SCRATCH).mkdir(exist_ok=True)
        log.write_text("", encoding="utf-8")
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self.state_dir / _SCRATCH) as scratch:
            reader, tell = multiprocessing.Pipe(duplex=False)
            environment = self._environment(scratch)
            process = start(work, (job | {"cwd": scratch}, environment, str(log), tell), environment)
            tell.close()
            self._running[name] = process
            if self._stopped.is_set():
                process.terminate()
            with suppress(EOFError, OSError):  # the end of the process
                while "status" not in last:
                    last = reader.recv()
                    if "cell" in last:
                        self.on_cell(name, last["cell"], last["of"])
            process.join()
            self._running.pop(name, None)
        if self._stopped.is_set():
            raise CxrError(f"{name} was interrupted.", remedy="Run the report again: it goes on from here.")
        if "status" not in last:
            last = {"status": "died", "error": violent_end(process.exitcode or 0, log, self.executed(name))}
        seconds = round(time.monotonic() - started, 1)
        outcome = Outcome(name, last["status"], seconds, key, last.get("error"), files=self._files(name))
        with atomic_path(self.state_dir / f"{name}.json") as path:
            Path(path).write_text(json.dumps(asdict(outcome), indent=1), encoding="utf-8")
        self.on_end(outcome)
        return outcome

    def _forget(self, name: str) -> None:
        """Remove what an earlier run of this notebook left, so that nothing old passes for new."""
        for file in self._files(name):  # what is there, and not what an earlier report says
            for path in (self._out_dir / file, (self._out_dir / file).with_suffix(".png")):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        for suffix in (".ipynb", ".json"):
            (self.state_dir / f"{name}{suffix}").unlink(missing_ok=True)

    @property
    def _out_dir(self) -> Path:
        return Path(str(self.parameters["out_dir"]))

    def _files(self, name: str) -> tuple[str, ...]:
        found = self._out_dir.glob(f"figures/*/{name}/*.json")
        return tuple(sorted(path.relative_to(self._out_dir).as_posix() for path in found))

    def _environment(self, scratch: str) -> dict[str, str]:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        share = str(max(1, cores // max(1, self.jobs)))
        package_parent = str(Path(__file__).resolve().parents[2])
        environment = {name: share for name in (*THREADS, "LOKY_MAX_CPU_COUNT")} | dict(os.environ)
        environment |= {
            "PYTHONPATH": os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")])),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # what inherits Agg shows no figures
            "PYTHONUNBUFFERED": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else debugpy greets every kernel with a warning
            "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not a namesake
            "IPYTHONDIR": str(Path(scratch) / "ipython"),  # nor the user's start-up files and history
            "TMPDIR": scratch,  # Jupyter's connection files, too, go with it
        }
        return environment

    def _stop(self) -> None:
        self._stopped.set()
        processes = list(self._running.values())
        for end in ("terminate", "kill"):
            for process in processes:
                with suppress(OSError):
                    getattr(process, end)()
            for process in processes:
                process.join(timeout=5)


def _read(path: Path) -> Notebook:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        about = content["metadata"].get("cxr", {})
        needs = tuple(str(need) for need in about.get("needs", []))
        seconds = float(about.get("seconds", 1))
        parameters = _assigned(content["cells"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is no notebook: {error!r}.", remedy="Restore or remove it.") from error
    return Notebook(path.resolve(), needs, parameters, seconds)


def _weights(notebooks: Collection[Notebook]) -> dict[str, float]:
    """How long each notebook and the longest chain of those that need it take: who begins first."""
    weights: dict[str, float] = {}
    order = TopologicalSorter({n.name: n.needs for n in notebooks}).static_order()
    by_name = {n.name: n for n in notebooks}
    for name in reversed([name for name in order if name in by_name]):
        after = [weights[n.name] for n in notebooks if name in n.needs]
        weights[name] = by_name[name].seconds + max(after, default=0.0)
    return weights


def _assigned(cells: list[dict]) -> tuple[str, ...]:
    """The names that the cell tagged ``parameters`` assigns; none where it is not plain Python."""
    source = next((c["source"] for c in cells if "parameters" in c["metadata"].get("tags", ())), "")
    with suppress(SyntaxError):
        targets = [
            target
            for line in ast.parse("".join(source)).body
            for target in getattr(line, "targets", [getattr(line, "target", None)])
        ]
        return tuple(target.id for target in targets if isinstance(target, ast.Name))
    return ()


def _environment_key(notebooks_dir: Path) -> str:
    """Hash of the package's source, the committed numbers that notebooks quote, and the main versions."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256(sys.version.encode())
    for name in _KEYED_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            digest.update(f"{name}={metadata.version(name)}".encode())
    evidence = notebooks_dir.parent / "figures"
    files = [p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    inside = {path: path.relative_to(package).as_posix() for path in files}
    files = [p for p in files if not inside[p].startswith(_NO_INFLUENCE) or inside[p].startswith(_INFLUENCE)]
    for path in sorted(files) + sorted(evidence.rglob("*.json")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _files_key(folder: Path) -> str:
    digest = hashlib.sha256()
    for root, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            path = Path(root) / file
            with suppress(OSError):
                facts = path.stat()
                name = f"{path.relative_to(folder)}:{facts.st_size}:{facts.st_mtime_ns}"
                digest.update(name.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
