"""``cxr report``: the options of the report, of a grid of them and of comparisons."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cxrlib.cli.console import DataDir, Dataset, Preset, named, typed
from cxrlib.errors import ConfigError


def report(
    axes: Annotated[
        list[str] | None,
        typer.Argument(help="More axes of a --grid, as name=value,value.", show_default=False),
    ] = None,
    dataset: Dataset = "phantom",
    data_dir: DataDir = None,
    preset: Annotated[
        Preset, typer.Option(help="smoke: does it run; course: minutes; full: hours.")
    ] = Preset.course,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Notebooks to run side by side.")] = 1,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report.")] = Path("report"),
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    image_size: Annotated[
        int | None,
        typer.Option(help="Side of the square images, in pixels; the notebooks' own unless given."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Run only these notebooks, such as 03. Repeatable.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run notebooks again that have not changed.")
    ] = False,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", help="name=value for every notebook that has such a parameter. Repeatable."),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="An axis, as in seed=0,1,2: one run for each combination, and a page that compares them. "
            "Repeatable."
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            help="An earlier report, or a folder with figures/: which numbers moved beyond their intervals."
        ),
    ] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Also write the site as one file, OUT/report.html.")
    ] = False,
) -> None:
    """Run the notebooks and render the site: open OUT/index.html.

    Example: cxr report --grid seed=0,1,2 dataset=phantom,pneumoniamnist --out report-grid
    """
    import cxrlib.report.light  # noqa: F401 — before what it spares is imported
    from cxrlib.report.grid import run_grid
    from cxrlib.report.report import run_report

    options: dict[str, Any] = {
        "dataset": dataset,
        "data_dir": data_dir,
        "preset": preset.value,
        "seed": seed,
        "image_size": image_size,
        "jobs": jobs,
        "only": only,
        "fresh": fresh,
        "parameters": named(parameters),
    }
    if not grid:
        if axes:
            raise typer.BadParameter(f"{axes[0]!r} stands alone.", param_hint="--grid")
        raise typer.Exit(run_report(out=out, compare_with=compare, single_file=single_file, **options))
    if compare is not None:
        raise typer.BadParameter("A grid compares its own runs.", param_hint="--compare")
    raise typer.Exit(run_grid(axes_of([*grid, *(axes or ())]), out=out, single_file=single_file, **options))


def axes_of(words: Sequence[str]) -> dict[str, list[object]]:
    """``["seed=0,1", "dataset=phantom,kermany"]`` as axis to values; words may also share a string.

    - Raises ConfigError: a word that is no axis, an axis given twice, or a value twice on an axis.
    """
    axes: dict[str, list[object]] = {}
    try:
        parts = [part for given in words for part in shlex.split(given)]
    except ValueError as error:
        raise ConfigError(f"{words!r}: {error}.", remedy="Write an axis as seed=0,1,2.") from None
    for word in parts:
        name, equals, values = word.partition("=")
        if not equals or not name.isidentifier() or not all(values.split(",")):
            raise ConfigError(f"{word!r} is no axis of a grid.", remedy="Write it as seed=0,1,2.")
        found = [typed(value) for value in values.split(",")]
        if name in axes or len(set(map(str, found))) < len(found):
            raise ConfigError(f"{word!r} repeats an axis or a value.", remedy="Name each of them once.")
        axes[name] = found
    return axes
