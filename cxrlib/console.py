"""What the commands share: options, tables for people, JSON for scripts."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer


class Preset(StrEnum):
    smoke = "smoke"
    course = "course"
    full = "full"


SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable files out, and list them.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of text for a person.")]


def plain(value) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {plain(inner)}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def print_json(value) -> None:
    typer.echo(json.dumps(value, indent=1, default=str))


def print_table(header: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, show_header=any(header), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
