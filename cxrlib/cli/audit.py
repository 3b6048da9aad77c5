"""``cxr audit``: what of a label can be predicted without the disease."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from cxrlib.cli import audit_inputs as inputs
from cxrlib.cli import audit_text
from cxrlib.cli.console import Json, SkipBad, echo, named, print_json
from cxrlib.errors import ConfigError, CxrWarning

if TYPE_CHECKING:
    from cxrlib.audit.classifiers import Feed
    from cxrlib.audit.models import Classifiers
    from cxrlib.cohort import Cohort


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
        str,
        typer.Option(
            help="What it wants greys as: 0-1, 0-255, -1-1, imagenet (0-1 less ImageNet's mean) or xrv."
        ),
    ] = "0-1",
    model_channels: Annotated[int | None, typer.Option(help="1 or 3, if its file does not say.")] = None,
    model_output: Annotated[
        int | None,
        typer.Option(help="Column of its answer that means ill, from 0; if not given, the last of two."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Score from which on ill is called; 0.5 for probabilities.")
    ] = None,
    findings: Annotated[
        str | None,
        typer.Option(
            help="Several findings, with commas: columns of the CSV, or values of its label column, where a "
            "cell may hold several (Pneumonia|Effusion). A page for each; p-values are corrected over all."
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="Your network's features, which then stand for the whole image: .npy, a row for each line "
            "of the CSV, or .csv or .parquet with a column image. How to make them stands above."
        ),
    ] = None,
    accept: Annotated[
        Path | None,
        typer.Option(
            help="TOML of findings that are known, each [\\[accepted]] with probe, reason and ceiling: they "
            "end in status 2 only when they get worse. Without it, audit.toml beside the labels."
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Also write JUnit XML here: a test case for each check.")
    ] = None,
    image_size: Annotated[int, typer.Option("--image-size", min=32, help="Pixels a side.")] = 128,
    split: Annotated[
        str | None, typer.Option(help="Only the images of this split: train, val or test.")
    ] = None,
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

    Exit status: 0, nothing severe was found that is not accepted; 2, something was; 1, the audit could not be
    made and the message says why, also where the command was not understood. 5,000 images take some minutes.
    docs/audit.md tells more. Not for clinical use.

    Two lines of Python make embeddings, where features_of reads an image and gives your network's features:

    \b
    x = np.stack(list(map(features_of, pd.read_csv("labels.csv").image)))
    np.save("features.npy", x)
    """
    from cxrlib.audit.accepted import accept as accepting
    from cxrlib.audit.classifiers import Feed
    from cxrlib.audit.junit import write_junit
    from cxrlib.audit.page import content, spare, write
    from cxrlib.audit.run import audit_cohort
    from cxrlib.audit.several import Several, audit_findings, contents, folder_of, labelled, write_all

    started = time.perf_counter()
    progress, asked = False if as_json else None, inputs.named_findings(findings)
    spare([out, *(out / folder_of(n + 1, one) for n in range(len(asked)) for one in asked)])
    if asked and model is not None:
        raise ConfigError(
            "--model gives one score, and --findings names several findings.",
            remedy="Give --scores, with a column for each finding.",
        )
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", CxrWarning)
        cohort, total, known, listed = _cohort(
            images, labels, dataset, data_dir, options, asked, split,
            image_size=image_size, sample=sample, seed=seed, skip_bad=skip_bad, workers=workers,
            progress=progress,
        )  # fmt: skip
    for skipped in cohort.info.get("skipped", ()):
        echo(f"left out: {skipped}", err=True)
    for said in dict.fromkeys(str(one.message) for one in heard if issubclass(one.category, CxrWarning)):
        echo(f"cxr: {said}", err=True)
    if source is not None and source not in cohort.table:
        raise ConfigError(
            f"There is no column {source!r} for --source.",
            remedy=f"Name one of {', '.join(map(repr, cohort.table.columns))}.",
        )
    entries = inputs.accepted(accept, images or data_dir, labels, cohort, asked)
    feed = Feed(model_size, model_range, model_channels, model_output)
    classifiers = _classifiers(cohort, scores, model, feed, threshold)
    features = None
    if embeddings is not None:
        cohort, features = inputs.embedded(cohort, embeddings, listed, quiet=as_json)
    auditing: dict[str, Any] = {
        "out": out, "resume": resume, "source": source or "site", "seed": seed, "workers": workers,
        "progress": progress, "embeddings": features, **known,
    }  # fmt: skip
    cohorts = {cohort.name: cohort}
    if asked:
        cohort, given = inputs.taken_out(cohort, asked)
        cohorts = {one: labelled(cohort, one, given[one]) for one in asked}
        scored = inputs.by_finding(classifiers, asked)
        several = audit_findings(cohort, given, classifiers=scored, **auditing)
    else:
        several = Several({cohort.name: audit_cohort(cohort, classifiers=classifiers, **auditing)})
    audits = {}
    for name, found in several.audits.items():
        if len(cohort) < total:
            limit = (
                f"Only a sample was looked at, {len(cohort):,} of {total:,} images, whole patients: copies "
                "of images outside it are not seen."
            )
            sampled = found.settings | {"sample_of": total}
            found = replace(found, limits=(limit, *found.limits), settings=sampled)
        if split is not None:
            limit = f"Only the images of the split {split!r} were looked at; the others are in no number."
            chosen = found.settings | {"only_split": split}
            found = replace(found, limits=(limit, *found.limits), settings=chosen)
        audits[name] = accepting(found, entries, name if asked else None)
    several = replace(several, audits=audits)
    seconds = time.perf_counter() - started
    made_from: dict[str, Any] = {
        "command": shlex.join(["cxr", *sys.argv[1:]]), "seconds": seconds, "date": date.today().isoformat(),
    }  # fmt: skip
    if asked:
        _, html = write_all(several, cohorts, out, pictures=pictures, **made_from)
    else:
        _, html = write(found := audits[cohort.name], cohort, out, pictures=pictures, **made_from)
    if junit is not None:
        write_junit(audits, junit, seconds)
    if not pictures:  # work has thumbnails, by which duplicates were found
        folders = [folder_of(number, one) for number, one in enumerate(several.audits, 1)] if asked else []
        for work in (out / "work", *(out / folder / "work" for folder in folders)):
            shutil.rmtree(work, ignore_errors=True)
    if as_json:
        print_json(contents(several, **made_from) if asked else content(found, **made_from))
    elif asked:
        audit_text.print_several(several, html)
    else:
        audit_text.print_audit(found, html)
    audit_text.print_doubtful(several)
    if several.severe:
        raise typer.Exit(2)


def _cohort(
    images: Path | None,
    labels: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    options: list[str] | None,
    findings: list[str],
    split: str | None,
    *,
    sample: int | None,
    **loading: Any,
) -> tuple[Cohort, int, dict[str, bool], list[str] | None]:
    """The cohort, the images that it is a sample of, whether its patients and splits are known, and the CSV's
    images in its order.
    """
    from cxrlib.audit.looking import Look
    from cxrlib.audit.stats import sample_patients
    from cxrlib.datasets import folder, load
    from cxrlib.datasets._files import beside, cohort_from_files

    given: dict[str, Any] = named(options)
    seed = loading["seed"]
    if dataset not in (None, "folder"):
        if images is not None or labels is not None:
            raise ConfigError(
                f"Both --dataset {dataset} and a folder or CSV are given.",
                remedy="Give IMAGES and --labels, or --dataset and --data-dir.",
            )
        if findings:
            raise ConfigError(
                "--findings reads a CSV of your own, and --dataset is given.",
                remedy="Give IMAGES and --labels.",
            )
        where: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
        with nullcontext() if dataset == "lung_masks" else beside(Look):  # that one has masks of its own
            cohort = load(dataset, **where, **loading, **given)
        if split is not None:
            cohort = cohort.take(inputs.of_split(cohort.table["split"], split))
        rows = sample_patients(cohort.patients, sample, seed)
        return (cohort if rows.all() else cohort.take(rows)), len(rows), {}, None
    root = images or data_dir
    if root is None or labels is None:
        raise ConfigError(
            "No folder of images, or no CSV of their labels, is given.",
            remedy="cxr audit IMAGES --labels labels.csv, or cxr audit --dataset NAME.",
        )
    fit = str(given.pop("fit", "letterbox"))
    header, listed = inputs.header_and_images(root, labels, str(given.get("image_column", "image")))
    for role, column in folder.ROLES.items():
        if column in header and column not in given.values():
            given.setdefault(role, column)
    reading: dict[str, Any] = {"labels": labels, "seed": seed, "allow_missing": loading["skip_bad"]}
    if findings:
        table, info = inputs.finding_files(root, findings, header, given, **reading)
    else:
        table, info = folder.files(root, allow_shared_patients=True, **reading, **given)
    known = {"has_patients": "patient_column" in given, "has_split": "split_column" in given}
    if split is not None:
        table = table[inputs.of_split(table["split"], split, known["has_split"])]
    total, info = len(table), {**info, "called": ", ".join(filter(None, (root.resolve().name, labels.name)))}
    table = table[sample_patients(table["patient_id"].to_numpy(), sample, seed)]
    with beside(Look):
        cohort = cohort_from_files("folder", table, info=info, fit=fit, allow_shared_patients=True, **loading)
    return cohort, total - len(cohort.info.get("skipped", ())), known, listed


def _classifiers(
    cohort: Cohort, scores: Path | None, model: str | None, feed: Feed, threshold: float | None
) -> Classifiers:
    """The classifiers that are audited: those of the CSV, and the one that is run."""
    import pandas as pd

    from cxrlib.audit.classifiers import load_classifier
    from cxrlib.audit.models import Classifiers, model_images, thresholds
    from cxrlib.audit.scores import read_scores, varied

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
