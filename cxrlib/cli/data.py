"""``cxr data``: see, fetch and check the sources of radiographs."""

from __future__ import annotations

from typing import Annotated

import typer

from cxrlib.cli.console import (
    Columns,
    DataDir,
    ImageSize,
    Json,
    Labels,
    Limit,
    SkipBad,
    named,
    plain,
    print_json,
    print_table,
    source_options,
)

app = typer.Typer(help="See, fetch and check the data sources.", no_args_is_help=True)


@app.command("list")
def data_list(as_json: Json = False) -> None:
    """List the data sources and what each of them needs."""
    from cxrlib.datasets import SOURCES

    if as_json:
        return print_json({name: {"title": s.title, "needs": s.needs} for name, s in SOURCES.items()})
    print_table(["name", "needs", "what"], [[name, s.needs, s.title] for name, s in SOURCES.items()])


@app.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="A source that `cxr data list` shows.")],
    data_dir: DataDir = None,
    labels: Labels = None,
    image_size: ImageSize = 128,
    limit: Limit = None,
    skip_bad: SkipBad = False,
    options: Columns = None,
    as_json: Json = False,
) -> None:
    """Describe a source: what it is, its terms and, where its images are at hand, what is in them."""
    from cxrlib.datasets import describe, load

    facts = describe(name)
    if data_dir is not None or facts["needs"] == "nothing":
        cohort = load(name, **source_options(data_dir, labels, image_size, limit, skip_bad, options))
        counts = cohort.table.groupby(["split", "label"], observed=True).size().unstack(fill_value=0)
        facts |= {
            "images": len(cohort),
            "patients": int(cohort.table["patient_id"].nunique()),
            "splits": {split: {str(k): int(v) for k, v in row.items()} for split, row in counts.iterrows()},
            "columns": list(cohort.table.columns),
            "skipped": len(cohort.info.get("skipped", ())),
        }
    if as_json:
        return print_json(facts)
    print_table(["", ""], [[key, plain(value)] for key, value in facts.items()])


@app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A source that `cxr data list` shows.")],
    data_dir: DataDir = None,
    image_size: ImageSize = 128,
) -> None:
    """Download a source's images (MedMNIST's own; NIH and Kermany through kagglehub)."""
    from cxrlib.datasets import fetch

    typer.echo(str(fetch(name, data_dir=data_dir, image_size=image_size)))


@app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="A source that `cxr data list` shows.")],
    data_dir: DataDir = None,
    labels: Labels = None,
    options: Columns = None,
    as_json: Json = False,
) -> None:
    """Check a source's files: counts, readability, duplicates. Exit status 1 where a check fails."""
    from cxrlib.datasets import verify

    checks = verify(name, data_dir=data_dir, **named(options), **({"labels": labels} if labels else {}))
    if as_json:
        print_json(checks)
    else:
        marks = {True: "ok", False: "FAILED"}
        print_table(
            ["check", "", "found", "expected"],
            [[str(c["name"]), marks[bool(c["ok"])], plain(c["found"]), plain(c["expected"])] for c in checks],
            {"ok": "green", "FAILED": "red"},
        )
    if not all(check["ok"] for check in checks):
        raise typer.Exit(1)
