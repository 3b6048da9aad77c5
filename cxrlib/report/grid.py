"""``cxr report --grid``: a report for each point of a grid of parameters, and a site that compares them.

``OUT/runs/<point>/`` holds the report of a point, a whole one that can be opened by itself and goes on after
an interruption as any report does; ``OUT/index.html`` leads to their numbers side by side.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cxrlib.errors import ConfigError, CxrError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.report.batch import find_notebooks
from cxrlib.report.report import (
    check_parameters,
    command_line,
    notebooks_folder,
    report_dir,
    run_report,
    tell_single_file,
)
from cxrlib.report.site import build as site_build
from cxrlib.report.site.scoreboard import collect

MOST = 64
"""Points of a grid: more are likelier a slip of the keyboard than a wish."""


@dataclass(frozen=True)
class Point:
    """One combination of the axes' values, and how its report ended.

    - ``values``: axis to value.
    - ``status``: ``done`` or ``failed``.
    - ``said``: what went wrong, for people.
    - ``seconds``: of its notebooks together.
    - ``numbers``: (chapter, record, number) to estimate.
    """

    values: Mapping[str, object]
    status: str = "done"
    said: str = ""
    seconds: float = 0.0
    numbers: Mapping[tuple[str, str, str], Estimate] | None = None

    @property
    def name(self) -> str:
        """As in ``dataset=phantom,seed=0``: its folder, and its column's heading."""
        words = (f"{axis}={Path(str(value)).name}" for axis, value in self.values.items())
        return re.sub(r"[^\w=,.+-]", "_", ",".join(words))


def run_grid(
    axes: Mapping[str, Sequence[object]],
    out: str | Path = "report",
    *,
    single_file: bool = False,
    parameters: Mapping[str, object] | None = None,
    only: Sequence[str] | None = None,
    notebooks_dir: str | Path | None = None,
    console: Console | None = None,
    **options: Any,
) -> int:
    """Make a report for each point of a grid and compare them in ``out/index.html``.

    A point whose report cannot be made, or whose notebooks do not all finish, is marked and stops no other.

    - ``axes``: name of an option (dataset, seed, …) or of a notebook's parameter, to the values it takes.
    - ``out``: folder of the site; the points' reports are in ``out/runs``.
    - ``options``, and the rest: as for :func:`cxrlib.report.report.run_report`, for all points. ``data_dir``
      is given to those datasets only that need one.
    - Returns: int, exit status: 0, or 1 where a point did not finish.
    - Raises ConfigError: an axis that is no parameter, too many points, or two whose folders would have one
      name.
    """
    console = console or Console(stderr=True)
    folder = notebooks_folder(notebooks_dir)
    notebooks, _ = find_notebooks(folder, only)
    for name, values in axes.items():
        for value in values:
            check_parameters({name: value}, notebooks)
    points = [Point(dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]
    names = [point.name for point in points]
    if len(points) > MOST or len(set(names)) < len(names):
        raise ConfigError(
            f"The grid has {len(points)} points, {len(set(names))} of them with a name of their own.",
            remedy=f"Give values that differ in letters and digits, and at most {MOST} points.",
        )
    out = report_dir(out)
    if (out / "manifest.json").is_file():
        raise ConfigError(
            f"{out} holds the report of one run.", remedy="Give the grid a folder of its own with --out."
        )
    finished = []
    for number, point in enumerate(points, 1):
        console.rule(f"{number} of {len(points)}: {point.name}", align="left")
        given = options | {"parameters": dict(parameters or {}) | dict(point.values), "only": only}
        finished.append(_run(point, out / "runs" / point.name, given, notebooks_dir=folder, console=console))
    chapters = [notebook.name for notebook in notebooks]
    _render(
        out,
        finished,
        chapters,
        axes,
        command_line(options, parameters, options.get("jobs", 1), only, axes),
        single_file,
    )
    console.print(f"Open {out / 'index.html'}.", highlight=False, soft_wrap=True)
    if single_file:
        tell_single_file(out, console)
    return int(any(point.status != "done" for point in finished))


def _run(
    point: Point, out: Path, options: Mapping[str, Any], *, notebooks_dir: Path, console: Console
) -> Point:
    """The point with how its report ended and what it recorded."""
    dataset = options["parameters"].get("dataset", options.get("dataset", "phantom"))
    if not _needs_a_folder(str(dataset)):
        options = {**options, "data_dir": None}
    out.parent.mkdir(exist_ok=True)
    try:
        run_report(out=out, notebooks_dir=notebooks_dir, console=console, **options)
    except CxrError as error:  # this point's own trouble
        console.print(f"[red]{point.name} has no report[/]:", highlight=False)
        console.print(str(error), highlight=False, markup=False)
        return Point(point.values, "failed", error.message)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    listed = {entry["name"]: entry["status"] for entry in manifest["notebooks"]}
    stopped = [name for name, status in listed.items() if status != "done"]
    said = (
        f"{len(stopped)} of {len(listed)} notebooks did not finish: {', '.join(stopped)}" if stopped else ""
    )
    numbers = {
        (one.notebook, study if one.dataset == manifest["dataset"] else f"{study} ({one.dataset})", number): e
        for one in collect(out / "artifacts" / "figures", "", from_run=True)
        for study in [one.record.path.stem]
        for number, e in one.record.numbers.items()
        if one.notebook in listed
    }
    how = ("failed", said) if stopped else ("done", "")
    return Point(point.values, *how, manifest["seconds"], numbers)


def _needs_a_folder(dataset: str) -> bool:
    from cxrlib.datasets import SOURCES

    return dataset not in SOURCES or SOURCES[dataset].needs != "nothing"


def _render(
    out: Path,
    points: list[Point],
    chapters: list[str],
    axes: Mapping[str, Sequence[object]],
    command: str,
    single_file: bool,
) -> None:
    """The site that compares the points."""
    work = out / ".build"
    (work / "source").mkdir(exist_ok=True)
    keys = dict.fromkeys(key for point in points for key in point.numbers or ())
    tables: dict[str, dict[str, list[tuple[str, list[Estimate | None]]]]] = {}
    for chapter, record, number in sorted(
        keys, key=lambda key: key[:2]
    ):  # numbers stay as they were recorded
        row = [(point.numbers or {}).get((chapter, record, number)) for point in points]
        tables.setdefault(chapter, {}).setdefault(record, []).append((number, row))
    titles = {point.name: _has_page(out, point) for point in points}
    values: dict[str, object] = {"points": points, "pages": titles, "axes": axes, "command": command}
    site_build.write_text(work / "source" / "index.md", site_build.fill("grid.md.j2", **values))
    values |= {"tables": tables, "chapters": chapters, "show": site_build.shown}
    site_build.write_text(work / "source" / "numbers.md", site_build.fill("grid_numbers.md.j2", **values))
    site_build.write_reference(work / "source", api=False)
    facts = {
        "schema": 1,
        "axes": axes,
        "command": command,
        "points": [
            {
                "folder": f"runs/{point.name}",
                "parameters": point.values,
                "status": point.status,
                "said": point.said,
                "seconds": point.seconds,
                "numbers": {"/".join(key): e.as_dict() for key, e in (point.numbers or {}).items()},
            }
            for point in points
        ],
    }
    site_build.write_manifest(out / "grid.json", facts)
    site_build.build(work / "source", out, work, single_file=single_file)


def _has_page(out: Path, point: Point) -> bool:
    return point.numbers is not None and (out / "runs" / point.name / "index.html").is_file()
