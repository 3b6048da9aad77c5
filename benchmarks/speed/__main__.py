"""``make bench``, or ``python -m benchmarks.speed``: the speed of this machine beside other people's ways."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cxrlib.cli.console import Json, print_json, print_table
from cxrlib.errors import CxrError


def bench(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSON to write; rows in it not measured now stay.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="start, evaluation, cache, arrays, training, time_to_82, profile, audit, report; repeatable",
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Begin no further row after so long.")] = 16.0,
    repeats: Annotated[int, typer.Option(help="Pairs of turns a row.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads of torch, and processes that decode.")] = 2,
    images: Annotated[int, typer.Option(help="Images of the training rows.")] = 512,
    as_json: Json = False,
) -> None:
    """Measure speed beside torchvision, TorchXRayVision and scikit-learn, by turns.

    Real radiographs are used where CXRLIB_DATA names their folder, phantoms where it does not.

    Example: python -m benchmarks.speed --out benchmarks/results.json
    """
    from benchmarks.speed.figure import ratios, save
    from benchmarks.speed.rows import Setting
    from benchmarks.speed.run import run
    from cxrlib.report.site.speed import cells, measured

    data = os.environ.get("CXRLIB_DATA")
    tell = lambda name: typer.echo(f"measuring {name} …", err=True)  # noqa: E731
    with tempfile.TemporaryDirectory() as work:
        setting = Setting(
            Path(work), Path(data) if data else None, repeats=repeats, threads=threads, images=images
        )
        record, left = run(setting, only or (), out, minutes, tell)
    if out is not None and cells(record):
        save(ratios(record), out.with_suffix(".png"))
        typer.echo(f"Wrote {out} and {out.with_suffix('.png')}.", err=True)
    if as_json:
        print_json(record)
    else:
        print_table(["row", "ours", "peer", "ratio (range)", "wanted", "data"], cells(record))
        for row in measured(record):
            typer.echo(f"{row['name']}: {row['what']}.")
        typer.echo("A ratio is how many times the peer's rate ours is: more is better.")
    if left:
        options = " ".join(f"--only {name}" for name in left)
        typer.echo(
            f"no time was left for: {', '.join(left)}; go on with: python -m benchmarks.speed {options}",
            err=True,
        )


if __name__ == "__main__":
    try:
        typer.run(bench)
    except CxrError as error:
        sys.exit(f"benchmarks.speed: {error}")
