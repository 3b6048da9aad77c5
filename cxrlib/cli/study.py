"""``cxr study``: the studies behind the recorded evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cxrlib.cli.console import DataDir, Json, Preset, echo, print_json, print_table
from cxrlib.errors import ConfigError


def study(
    name: Annotated[str, typer.Argument(help="A study, or `list` for what there is.")],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", "-d", help="The study's first in `cxr study list` unless given."),
    ] = None,
    data_dir: DataDir = None,
    nih_dir: Annotated[
        Path | None, typer.Option(help="Folder of NIH's images, where they are another hospital's.")
    ] = None,
    chexnet_dir: Annotated[
        Path | None, typer.Option(help="Folder with CheXNet's published preds.csv.")
    ] = None,
    preset: Annotated[
        Preset, typer.Option(help="smoke: does it run; course: minutes; full: what is recorded.")
    ] = Preset.course,
    seeds: Annotated[
        str | None, typer.Option(help="As in 0,1,2: one a training. Three under full unless given, else 0.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side; the study's own unless given.", min=16)
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder that gets <dataset>/<study>.png and .json.")
    ] = Path("figures"),
    as_json: Json = False,
) -> None:
    """Make recorded evidence again: a figure, its numbers, and where they come from.

    Networks that a study trains are kept in the cache: stopped, it goes on where it was. In a checkout the
    default --out renews the committed evidence.
    """
    from cxrlib.evaluation.results import read_record
    from cxrlib.report.evidence.registry import STUDIES, checked, run_study

    if name == "list":
        if as_json:
            return print_json(
                [{"name": e.name, "datasets": e.datasets, "answers": e.answers} for e in STUDIES.values()]
            )
        rows = [[e.name, ", ".join(e.recorded) + ", …" * e.anywhere, e.answers] for e in STUDIES.values()]
        return print_table(["study", "data sets", "what it answers"], rows)
    run = checked(
        name, dataset=dataset, preset=preset.value, seeds=_seeds(seeds), image_size=image_size,
        data_dir=data_dir, nih_dir=nih_dir, chexnet_dir=chexnet_dir,
    )  # fmt: skip
    if not as_json:
        echo(f"{name} on {run.dataset}, preset {run.preset}: {STUDIES[name].answers}", err=True)
    path = run_study(name, run, out)
    found = read_record(path)
    if as_json:
        return print_json(json.loads(path.read_text(encoding="utf-8")) | {"path": str(path)})
    print_table(["number", "value (95% interval)"], [[key, str(e)] for key, e in found.numbers.items()])
    echo(f"In {path} and beside it the figure. Again with: {found.command}")


def _seeds(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    words = text.split(",")
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise ConfigError(
            f"{text!r} is no list of seeds.", remedy="Write different whole numbers, as in 0,1,2."
        )
    return tuple(map(int, words))
