"""What the commands print: tables for people, JSON for scripts."""

from __future__ import annotations

import json

import typer


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
