"""Recorded evidence: a figure and the numbers in it, with what is needed to make them again.

``record`` writes ``figures/<dataset>/<study>.png`` and ``.json``, ``recorded`` reads what is committed.
What a notebook measures goes to ``figures/<dataset>/<notebook>/<study>.json`` of its run's own folder.
"""

from __future__ import annotations

import json
import math
import numbers as number_types
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cxrlib
from cxrlib.errors import ConfigError, CxrError, DataError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.io.storage import atomic_path, cache_root

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA = 1
_MAX_BYTES = 2**26  # of a record that is read
_PACKAGES = ("numpy", "torch", "torchvision", "scikit-learn", "cxrlib")
_PATH_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_NUMBER_NAME = re.compile(r"[\w+-]+(\.[\w+-]+)*")
_ABSOLUTE_PATH = re.compile(r"(?<![\w.…/])(?:[A-Za-z]:\\|~?/(?!/))(?:[^\s'\"]*[\\/])?([^\s'\"\\/]+)[\\/]?")


@dataclass(frozen=True)
class Record:
    """A recorded figure's numbers and where they come from.

    - ``name``: the figure's name, such as ``official_test``.
    - ``numbers``: dotted name to Estimate, such as ``residual.test_auc``.
    - ``provenance``: dataset, content_hash, preset, seed, command, git_commit, versions, hardware, seconds.
    - ``path``: the JSON file.
    """

    name: str
    numbers: Mapping[str, Estimate]
    provenance: Mapping[str, Any]
    path: Path

    def estimate(self, key: str) -> Estimate:
        """One number, as in ``estimate("residual.test_auc")``; a DataError lists the names there are."""
        if key not in self.numbers:
            raise DataError(
                f"{self.path.name} records no number {key!r}.",
                offenders=self.numbers,
                remedy="Ask for one of those, or record the figure again.",
            )
        return self.numbers[key]

    @property
    def command(self) -> str | None:
        """What makes the figure and its numbers again."""
        return self.provenance.get("command")

    @property
    def image_path(self) -> Path | None:
        """The PNG beside the JSON, or None where there is none."""
        image = self.path.with_suffix(".png")
        return image if image.is_file() else None


def record(
    figure: Figure | Axes | None,
    name: str,
    numbers: Mapping[str, Estimate | float],
    *,
    dataset: str,
    notebook: str | None = None,
    out_dir: str | Path | None = None,
    figures: str | Path | None = None,
    preset: str | None = None,
    seed: int | Sequence[int] = 0,
    content_hash: str | None = None,
    command: str | None = None,
    recipe: str | None = None,
    seconds: float | None = None,
    dpi: int = 150,
) -> Path:
    """Write a figure and its numbers to ``figures/<dataset>/<name>.png`` and ``.json``.

    Each file appears whole or not at all, the JSON last. The figure is closed afterwards.

    - ``figure``: a matplotlib figure or axis, or None for numbers alone.
    - ``numbers``: dotted name, such as ``residual.test_auc``, to an Estimate or a plain finite number.
    - ``notebook``: of the numbers of a notebook's run: they go to ``figures/<dataset>/<notebook>``.
    - ``figures``, ``out_dir``: the folder ``figures`` itself, or the one it is in; by default
      :func:`default_out_dir`.
    - ``seed``: the seed, or one for each training run.
    - ``command``: what makes this again; None for the notebook's papermill call. Absolute paths are
      shortened.
    - ``recipe``: how networks were trained, in words.
    - ``seconds``: how long it took.
    - Returns: ``Path``: the JSON file.
    - Raises ConfigError: a name that cannot be part of a path, or a number's name with spaces.
    - Raises DataError: a number that is not finite or not a number, by name.
    """
    for role, part in (("dataset", dataset), ("notebook", notebook), ("name", name)):
        if part is not None and not _PATH_PART.fullmatch(str(part)):
            raise ConfigError(
                f"The {role} {part!r} cannot name a file.", remedy="Use letters, digits, '-', '_' and '.'."
            )
    fields = {key: _as_fields(key, number) for key, number in numbers.items()}
    made_from = provenance(
        dataset=dataset,
        content_hash=content_hash,
        preset=preset,
        seed=seed,
        command=command or (_papermill_command(dataset, notebook, preset, seed) if notebook else None),
        seconds=seconds,
    )
    if recipe:
        made_from["recipe"] = recipe
    text = json.dumps(
        {"schema": SCHEMA, "name": name, "numbers": fields, "provenance": made_from},
        ensure_ascii=False,
        allow_nan=False,
        indent=1,
    )
    folder = Path(figures or Path(out_dir or default_out_dir()) / "figures") / dataset / (notebook or "")
    target = folder / f"{name}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if figure is not None:
            _save_png(figure, folder / f"{name}.png", dpi)
        with atomic_path(target) as path:
            Path(path).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise CxrError(
            f"{target} could not be written: {error.strerror or error}.",
            remedy="Free some space, or choose another out_dir.",
        ) from error
    return target


def recorded(place: str, *, root: str | Path | None = None) -> Record | None:
    """The committed evidence ``<dataset>/<study>``, or None where it is not there (in an installed package).

    ``root`` is the folder that holds ``figures/``; None for :func:`project_root`.
    """
    root = project_root() if root is None else Path(root)
    if root is None:
        return None
    path = root / "figures" / f"{place}.json"
    return read_record(path) if path.is_file() else None


def read_record(path: str | Path) -> Record:
    """Read one recorded JSON; a DataError names the file that is missing, not JSON or of another schema."""
    path = Path(path)
    remedy = "Record it again, or restore the committed file."
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}.", remedy=remedy) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise DataError(f"{path} is not evidence of schema {SCHEMA}.", remedy=remedy)
    try:
        estimates = {key: _as_estimate(key, fields) for key, fields in content["numbers"].items()}
        made_from = dict(content.get("provenance", {}))
        if not isinstance(made_from.get("command"), str | None):
            raise TypeError("the command is no text")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, CxrError) as error:
        raise DataError(f"{path} has numbers that cannot be read: {error!r}.", remedy=remedy) from error
    return Record(str(content.get("name", path.stem)), estimates, made_from, path)


def provenance(
    *,
    dataset: str | None = None,
    content_hash: str | None = None,
    preset: str | None = None,
    seed: int | Sequence[int] | None = None,
    command: str | None = None,
    seconds: float | None = None,
) -> dict[str, object]:
    """What is needed to make a result again, without paths, users or host names of this machine."""
    if not (seed is None or isinstance(seed, int | number_types.Integral)):  # NumPy's integers, too
        seed = [int(one) for one in seed]
    return {
        "dataset": dataset,
        "content_hash": content_hash,
        "preset": preset,
        "seed": seed if seed is None or isinstance(seed, list) else int(seed),
        "command": None if command is None else _ABSOLUTE_PATH.sub(r"…/\1", command),
        "git_commit": _git_commit(project_root()),
        "versions": _versions(),
        "hardware": _hardware(),
        "seconds": None if seconds is None else round(float(seconds), 2),
    }


def project_root() -> Path | None:
    """The checkout that this package is imported from, or None where it is installed without one."""
    root = Path(cxrlib.__file__).resolve().parent.parent
    description = root / "pyproject.toml"
    if description.is_file() and 'name = "cxrlib"' in description.read_text(encoding="utf-8"):
        return root
    return None


def default_out_dir() -> Path:
    """Where results go when nothing else is said: a folder in the cache, never the current one."""
    return cache_root() / "results"


def _save_png(figure: Figure | Axes, target: Path, dpi: int) -> None:
    from matplotlib import pyplot

    whole = figure.figure.figure  # of an axis, of a subfigure's axis, or the figure itself
    with atomic_path(target) as path:
        # "Software" off: the same figure gives the same bytes under another matplotlib release's banner
        whole.savefig(path, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(whole)


def _as_fields(key: str, number: Estimate | float) -> dict[str, float | int]:
    if not _NUMBER_NAME.fullmatch(key):
        raise ConfigError(
            f"{key!r} cannot name a number.", remedy="Use dotted words, such as 'residual.test_auc'."
        )
    fields = number.as_dict() if isinstance(number, Estimate) else {"value": number}
    return {field: _finite(f"{key}, {field}", value) for field, value in fields.items()}


def _as_estimate(key: str, fields: Mapping[str, float]) -> Estimate:
    if not _NUMBER_NAME.fullmatch(key):
        raise ValueError(f"{key!r} cannot name a number")
    there = {field: fields.get(field) for field in ("low", "high", "n", "seeds")}
    known: dict[str, Any] = {f: _finite(key, value) for f, value in there.items() if value is not None}
    return Estimate(_finite(key, fields["value"]), **known)


def _finite(key: str, value: object) -> float | int:
    """The value as a plain int or float."""
    if hasattr(value, "item"):  # numpy and torch scalars
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, number_types.Real):
        raise DataError(f"The number {key!r} is {value!r}.", remedy="Record numbers only.")
    if not math.isfinite(float(value)):
        raise DataError(
            f"The number {key!r} is {value}.",
            remedy="Find out why it is undefined, and leave it out if it must be.",
        )
    return int(value) if isinstance(value, number_types.Integral) else float(value)


def _papermill_command(dataset: str, notebook: str, preset: str | None, seed: int | Sequence[int]) -> str:
    options = f"-p dataset {dataset}" + (f" -p preset {preset}" if preset else "")
    if isinstance(seed, number_types.Integral):
        options += f" -p seed {seed}"
    return f"papermill notebooks/{notebook}.ipynb out.ipynb {options}"


@lru_cache(maxsize=1)
def _git_commit(root: Path | None) -> str | None:
    """The commit of the code, with ``-dirty`` where code has changed since; None outside a repository."""
    if root is None:
        return None
    try:
        commit = _git(root, "rev-parse", "--verify", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", "cxrlib", "notebooks", "pyproject.toml")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("-dirty" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package == "cxrlib":
                versions[package] = cxrlib.__version__
    return versions


@lru_cache(maxsize=1)
def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return " ".join(found[1].split())
    if sys.platform == "darwin":
        asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        if asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine()


def _hardware() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    hardware = f"{_cpu()}, {cores} {'core' if cores == 1 else 'cores'}"
    torch = sys.modules.get("torch")  # not imported only to be asked: it takes seconds
    if torch is not None and torch.cuda.is_available():
        hardware += f"; {torch.cuda.get_device_name()}"
    return hardware
