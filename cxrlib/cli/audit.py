"""``cxr audit``: what of a label can be predicted without the disease."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from cxrlib.cli.console import Json, SkipBad, echo, named, print_json
from cxrlib.errors import ConfigError, CxrError, CxrWarning, printable

if TYPE_CHECKING:
    from rich.console import Console

    from cxrlib.audit.classifiers import Feed
    from cxrlib.audit.models import Classifiers
    from cxrlib.audit.run import Audit
    from cxrlib.cohort import Cohort

_COLOURS = {"severe": "bold white on red", "warning": "black on yellow", "note": "cyan", "fine": "dim"}


class Command(TyperCommand):
    """Status 2 is kept for what an audit found: a command line that is not understood ends with 1."""

    # A context of click, or of the copy of it that newer versions of typer bring along.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _slips_end_with_1():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _slips_end_with_1():
            return super().invoke(ctx)


@contextmanager
def _slips_end_with_1() -> Iterator[None]:
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if hasattr(error, "exit_code") and error.exit_code == 2:
            error.exit_code = 1
        raise


def audit(
    images: Annotated[Path | None, typer.Argument(help="The folder that the CSV's paths begin at.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", help="CSV with a line an image: its file (column image), its label (column label), …"
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for audit.html, audit.json and finished work.")
    ] = Path("audit"),
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="A source of `cxr data list`, instead of IMAGES.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The folder of --dataset.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An option of the source as name=value: image_column, label_column, positive, "
            "patient_column, split_column, site_column, … Columns called patient_id, split, site, view, age "
            "and sex are recognised. Repeatable.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="The column that says where an image comes from; site, if there is one."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="CSV of your classifiers' scores: column image, and a column for each classifier."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A classifier to run: an ONNX, .pt2, TorchScript or cxrlib file, xrv:NAME (torchxrayvision) "
            "or package.module:function taking uint8 (N, H, W) and returning (N,) scores."
        ),
    ] = None,
    model_size: Annotated[
        int | None, typer.Option(min=8, help="Pixels a side that --model wants, if its file does not say.")
    ] = None,
    model_range: Annotated[
        str, typer.Option(help="What it wants greys as: 0-1, 0-255, -1-1, imagenet or xrv (-1024 to 1024).")
    ] = "0-1",
    model_channels: Annotated[int | None, typer.Option(help="1 or 3, if its file does not say.")] = None,
    model_output: Annotated[int | None, typer.Option(help="Column of its answer that means ill.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Score from which on ill is called; 0.5 for probabilities.")
    ] = None,
    image_size: Annotated[int, typer.Option("--image-size", min=32, help="Pixels a side.")] = 128,
    sample: Annotated[
        int | None, typer.Option(min=1, help="A quick look: whole patients, about so many images.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample, folds and permutations.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what --out holds of this audit.")
    ] = False,
    skip_bad: SkipBad = False,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures/--no-pictures", help="Show images on the page; without, nothing is kept for --resume."
        ),
    ] = True,
    workers: Annotated[
        int | None, typer.Option(help="Processes; as many as processors if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Audit images and labels for shortcuts, leaks and duplicates; no training is needed.

    Exit status: 0, nothing severe was found; 2, something was; 1, the audit could not be made and the message
    says why, also where the command was not understood. 5,000 images take some minutes. Not for clinical use.
    """
    from cxrlib.audit.classifiers import Feed
    from cxrlib.audit.page import content, write
    from cxrlib.audit.run import audit_cohort

    started = time.perf_counter()
    progress = False if as_json else None
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", CxrWarning)
        cohort, total, known = _cohort(
            images, labels, dataset, data_dir, options,
            image_size=image_size, sample=sample, seed=seed, skip_bad=skip_bad, workers=workers,
            progress=progress,
        )  # fmt: skip
    for skipped in cohort.info.get("skipped", ()):
        echo(f"left out: {skipped}", err=True)
    for one in heard:
        if issubclass(one.category, CxrWarning):
            echo(f"cxr: {one.message}", err=True)
    if source is not None and source not in cohort.table:
        raise ConfigError(
            f"There is no column {source!r} for --source.",
            remedy=f"Name one of {', '.join(map(repr, cohort.table.columns))}.",
        )
    feed = Feed(model_size, model_range, model_channels, model_output)
    classifiers = _classifiers(cohort, scores, model, feed, threshold)
    found = audit_cohort(
        cohort,
        classifiers=classifiers,
        out=out,
        resume=resume,
        source=source or "site",
        seed=seed,
        workers=workers,
        progress=progress,
        has_patients=known.get("has_patients"),
        has_split=known.get("has_split", True),
    )
    if len(cohort) < total:
        limit = (
            f"Only a sample was looked at, {len(cohort):,} of {total:,} images, whole patients: copies of "
            "images outside it are not seen."
        )
        found = replace(found, limits=(limit, *found.limits), settings=found.settings | {"sample_of": total})
    made_from = {"command": shlex.join(["cxr", *sys.argv[1:]]), "seconds": time.perf_counter() - started}
    _, html = write(found, cohort, out, pictures=pictures, **made_from)
    if not pictures:
        shutil.rmtree(out / "work", ignore_errors=True)  # has thumbnails, by which duplicates were found
    if as_json:
        print_json(content(found, **made_from))
    else:
        _print(found, html)
    if found.severe:
        raise typer.Exit(2)


def _cohort(
    images: Path | None,
    labels: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    options: list[str] | None,
    *,
    sample: int | None,
    **loading: Any,
) -> tuple[Cohort, int, dict[str, bool]]:
    """The cohort, the images that it is a sample of, and whether its patients and splits are known."""
    from cxrlib.audit.stats import sample_patients
    from cxrlib.datasets import folder, load
    from cxrlib.datasets._files import cohort_from_files

    given: dict[str, Any] = named(options)
    seed = loading["seed"]
    if dataset not in (None, "folder"):
        if images is not None or labels is not None:
            raise ConfigError(
                f"Both --dataset {dataset} and a folder or CSV are given.",
                remedy="Give IMAGES and --labels, or --dataset and --data-dir.",
            )
        where: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
        cohort = load(dataset, **where, **loading, **given)
        rows = sample_patients(cohort.patients, sample, seed)
        return (cohort if rows.all() else cohort.take(rows)), len(rows), {}
    root = images or data_dir
    if root is None or labels is None:
        raise ConfigError(
            "No folder of images, or no CSV of their labels, is given.",
            remedy="cxr audit IMAGES --labels labels.csv, or cxr audit --dataset NAME.",
        )
    fit = str(given.pop("fit", "letterbox"))
    header = _header(root, labels)
    for role, column in folder.ROLES.items():
        if column in header and column not in given.values():
            given.setdefault(role, column)
    table, info = folder.files(
        root, labels=labels, seed=seed, allow_missing=loading["skip_bad"], allow_shared_patients=True, **given
    )
    total = len(table)
    table = table[sample_patients(table["patient_id"].to_numpy(), sample, seed)]
    cohort = cohort_from_files("folder", table, info=info, fit=fit, allow_shared_patients=True, **loading)
    known = {"has_patients": "patient_column" in given, "has_split": "split_column" in given}
    return cohort, total - len(cohort.info.get("skipped", ())), known


def _classifiers(
    cohort: Cohort, scores: Path | None, model: str | None, feed: Feed, threshold: float | None
) -> Classifiers:
    """The classifiers that are audited: those of the CSV, and the one that is run."""
    import pandas as pd

    from cxrlib.audit.classifiers import load_classifier, read_scores, varied
    from cxrlib.audit.models import Classifiers, model_images, thresholds

    ids = cohort.table["image_id"].to_numpy(str)
    table = pd.DataFrame(index=range(len(cohort))) if scores is None else read_scores(scores, ids)
    if model is None:
        return Classifiers(table, thresholds(table, threshold))
    scorer = load_classifier(model, feed)
    images, name = model_images(cohort, scorer.size), Path(model).name
    if name in table:
        raise ConfigError(
            f"Both --model and a column of {scores} are called {name!r}.", remedy="Rename the column."
        )
    table[name] = varied(scorer(images), model)
    return Classifiers(table, thresholds(table, threshold), scorer, name, images)


def _header(root: Path, labels: Path) -> list[str]:
    """The table's column names, or none: a table that cannot be read is named where it is read."""
    from cxrlib.io.tables import read_table

    for path in (labels.expanduser(), Path(root) / labels):
        if path.is_file():
            with suppress(CxrError):
                return list(map(str, read_table(path)[0]))
            return []
    return []


def _print(found: Audit, html: Path) -> None:
    from rich.console import Console
    from rich.markup import escape as escaped
    from rich.table import Table

    from cxrlib.audit.page import sentence, share_of
    from cxrlib.datasets.columns import told as columns_told

    def escape(text: str) -> str:
        return escaped(printable(text))

    console = Console(soft_wrap=False, emoji=False)
    facts = found.facts
    console.print(
        f"{escape(facts['name'])}: {facts['images']:,} images of {facts['patients']:,} patients, "
        f"{facts['ill']:,} ill"
    )
    if facts["columns"]:
        console.print(f"[dim]{escape(columns_told(facts['columns']))}[/]")
    table = Table("", "shown", "AUC (95%)", "of the whole", "p", box=None, pad_edge=False)
    for one in found.findings:
        style = _COLOURS[one.severity]
        severity = f"[{style}]{one.severity}[/]"
        if one.auc is None or one.p_holm is None:  # a count
            table.add_row(severity, escape(one.probe.title), f"{one.images:,} images", "", "")
            continue
        p = "< 0.001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}"
        table.add_row(severity, escape(one.probe.title), str(one.auc), share_of(one), p)
    console.print(table)
    for one in found.findings:
        if one.severity in ("severe", "warning"):
            console.print(f"\n[{_COLOURS[one.severity]}]{one.severity}[/] [bold]{escape(one.probe.title)}[/]")
            console.print(escape(sentence(one)))
            console.print(f"What to do: {escape(one.probe.advice)}")
    _print_attributes(found, console)
    for limit in found.limits:
        console.print(f"[dim]Not checked: {escape(limit)}[/]")
    typer.echo(f"\nVerdict: {found.verdict}. The evidence: {html}")


def _print_attributes(found: Audit, console: Console) -> None:
    """What could be learnt, what is used, and what changing the pictures does."""
    from rich.markup import escape
    from rich.table import Table

    names = [escape(printable(name)) for name in found.classifiers]
    table = Table(
        "", "attribute", "pixels show it", *(f"followed by {n}" for n in names), box=None, pad_edge=False
    )
    for one in found.attributes:
        if one.verdict != "harmless":
            seen = "measured there" if one.visible is None else str(one.visible.concordance)
            followed = [str(use.told.concordance) for use in one.uses.values()]
            table.add_row(one.verdict, escape(printable(one.probe.title)), seen, *followed)
    if table.row_count:
        console.print("\nWith the label held fixed (0.5 is nothing):", highlight=False)
        console.print(table)
    if found.effects:
        table = Table(
            "", "change", "calls that flip", "by a control", "AUC after it", box=None, pad_edge=False
        )
        for effect in found.effects:
            flips = ["" if e is None else format(e, ".0%") for e in (effect.flips, effect.control_flips)]
            said = "answers" if effect.expected == "stays" and effect.believed else ""
            table.add_row(said, effect.title, *flips, str(effect.auc))
        console.print("\nThe classifier on changed pictures:", highlight=False)
        console.print(table)
