"""What the commands share: options, tables for people, JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cxrlib.errors import printable


class Preset(StrEnum):
    smoke = "smoke"
    course = "course"
    full = "full"


Dataset = Annotated[str, typer.Option("--dataset", "-d", help="A source that `cxr data list` shows.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="The folder with the images, for sources that need one.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable files out, and list them.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of text for a person.")]
Labels = Annotated[Path | None, typer.Option("--labels", help="CSV of labels (for --dataset folder).")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="An option of the source as name=value, such as label_column=finding. Repeatable."
    ),
]
ImageSize = Annotated[int, typer.Option("--image-size", help="Side of the square images, in pixels.")]
Limit = Annotated[int | None, typer.Option("--limit", help="Use only so many images, for a quick look.")]


def named(options: list[str] | None, option: str = "--set") -> dict[str, object]:
    """``name=value`` arguments as a dict; numbers and true/false become what they look like.

    Columns and labels stay text, whatever they look like: ``positive=2`` is the text "2".
    """
    given: dict[str, object] = {}
    for word in options or ():
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{word!r} is not name=value.", param_hint=option)
        meant = typed(value)
        text = name.endswith("_column") or name in ("positive", "negative", "separator", "uncertain")
        if text and isinstance(meant, list):
            meant = [one if isinstance(one, str) else json.dumps(one) for one in meant]
        given[name] = value if text and not isinstance(meant, list) else meant
    return given


def typed(value: str) -> object:
    """A word of the command line as the JSON that it is, or else as text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {plain(inner)}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=1, default=str))


def echo(text: str, *, err: bool = False) -> None:
    """A line for people, in which names of strangers do nothing to the terminal."""
    typer.echo(printable(text), err=err)


def print_table(header: list[str], rows: list[list[str]], styles: Mapping[str, str] | None = None) -> None:
    """A table for people; cells are text, whatever they hold. ``styles``: a cell's text to its style."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, show_header=any(header), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell), (styles or {}).get(cell, "")) for cell in row))
    Console().print(table)


def source_options(
    data_dir: Path | None,
    labels: Path | None,
    image_size: int,
    limit: int | None,
    skip_bad: bool,
    options: list[str] | None,
    seed: int = 0,
) -> dict[str, Any]:
    """The keyword arguments of ``load`` that a command was given."""
    asked = {"data_dir": data_dir, "labels": labels, "limit": limit}
    given = {name: value for name, value in asked.items() if value is not None}
    return {"image_size": image_size, "skip_bad": skip_bad, "seed": seed, **given, **named(options)}
