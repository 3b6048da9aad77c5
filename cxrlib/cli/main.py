"""``cxr``: the command line. Each command calls the package and says what came of it.

Exit status: 0 when all went well, 1 when something must be mended (the message says what), 2 when the
command was not understood; ``cxr audit`` alone ends with 2 when it found something severe, and with 1 when it
was not understood.
"""

from __future__ import annotations

import io
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrlib.cli import audit as cli_audit
from cxrlib.cli import data as cli_data
from cxrlib.cli import lungs as cli_lungs
from cxrlib.cli.console import (
    Columns,
    DataDir,
    Dataset,
    ImageSize,
    Json,
    Labels,
    Limit,
    Preset,
    SkipBad,
    echo,
    print_json,
    print_table,
    source_options,
)
from cxrlib.cli.report import report
from cxrlib.cli.study import study
from cxrlib.errors import CxrError, course_packages, printable
from cxrlib.parallel import is_main_process

if TYPE_CHECKING:
    from cxrlib.cohort import Cohort

app = typer.Typer(
    name="cxr",
    help="Build a chest X-ray pneumonia classifier, then measure what it is really looking at. "
    "For teaching and research; not for clinical use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_lungs.app, name="lungs")
app.command(cls=cli_audit.Command)(cli_audit.audit)


class Split(StrEnum):
    train = "train"
    val = "val"
    test = "test"


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoints and TensorBoard logs.")],
    dataset: Dataset = "phantom",
    data_dir: DataDir = None,
    labels: Labels = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="lenet, double_conv, residual, resnet18, densenet121 or efficientnet_b0."
        ),
    ] = "residual",
    preset: Annotated[Preset, typer.Option(help="How long to train.")] = Preset.course,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the images; the preset's own unless given.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the first block.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The optimiser's peak rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="'torchvision' or a file of weights to start from.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop when the validation loss has not fallen for so many check-ins.")
    ] = None,
    check_ins: Annotated[int, typer.Option(help="Measurements on the validation images an epoch.")] = 1,
    seed: Annotated[int, typer.Option(help="Of weights, order, augmentation and split.")] = 0,
    image_size: ImageSize = 128,
    limit: Limit = None,
    skip_bad: SkipBad = False,
    options: Columns = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT/last.pt.")] = False,
    devices: Annotated[int, typer.Option(help="Devices (or processes, on CPUs) to train on, a node.")] = 1,
    num_nodes: Annotated[int, typer.Option(help="Machines, each with so many devices.")] = 1,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, mps, or auto for the best there is.")] = "auto",
    precision: Annotated[str, typer.Option(help="Lightning Fabric's, such as bf16-mixed.")] = "32-true",
    as_json: Json = False,
) -> None:
    """Train a network and measure it on the validation images.

    Example: cxr train --dataset phantom --model lenet --out runs/lenet
    """
    from cxrlib.datasets import load
    from cxrlib.training.callbacks import EarlyStopping
    from cxrlib.training.recipes import recipe
    from cxrlib.training.trainer import Trainer, default_callbacks

    given = {"epochs": epochs, "width": width, "learning_rate": learning_rate, "batch_size": batch_size}
    changes = {name: value for name, value in given.items() if value is not None}
    config = recipe(
        model,
        preset.value,
        seed=seed,
        weights=weights,
        check_ins=check_ins,
        devices=devices,
        num_nodes=num_nodes,
        accelerator=accelerator,
        precision=precision,
        **changes,
    )
    if (out / "last.pt").exists() and not resume and is_main_process():
        raise CxrError(
            f"{out} already holds a training (last.pt).",
            remedy="Add --resume to go on with it, or give another --out.",
        )
    cohort = load(dataset, **source_options(data_dir, labels, image_size, limit, skip_bad, options, seed))
    callbacks = default_callbacks(out) + ([EarlyStopping(patience)] if patience else [])
    history = Trainer(config, callbacks, out).fit(cohort, resume=resume)
    if not is_main_process():
        return
    _list_skipped(cohort)
    last = {key: float(value) for key, value in history.iloc[-1].items()}
    if as_json:
        return print_json({"checkpoint": str(out / "last.pt"), "best": str(out / "best.pt"), **last})
    echo(repr(cohort))
    typer.echo(
        f"{last['epoch']:.0f} epoch{'s' * (last['epoch'] != 1)} in {last['seconds']:.0f} s "
        f"({last['images_per_second']:.0f} images/s): "
        f"train AUC {last['train_auc']:.3f}, accuracy {last['train_accuracy']:.1%}; "
        f"validation AUC {last['val_auc']:.3f}, accuracy at ½ {last['val_accuracy']:.1%}"
    )
    best = history.iloc[history["val_loss"].argmin()]
    echo(
        f"Weights: {out / 'last.pt'}, and {out / 'best.pt'} of the lowest validation loss, after epoch "
        f"{best['epoch']:.0f}, where the validation AUC was {best['val_auc']:.3f}."
    )


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A last.pt or best.pt that `cxr train` wrote.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="A source; the checkpoint's own unless given.")
    ] = None,
    data_dir: DataDir = None,
    labels: Labels = None,
    split: Annotated[Split, typer.Option(help="Which images to measure on.")] = Split.test,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Probability from which on an image counts as pneumonia. "
            "Not given: Youden's on the validation images."
        ),
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels; the checkpoint's own unless given.")] = None,
    limit: Limit = None,
    skip_bad: SkipBad = False,
    options: Columns = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the split, where the source has no official one; the training's own."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a trained network, with 95% intervals that resample patients."""
    from cxrlib.datasets import load
    from cxrlib.evaluation.metrics import choose_threshold
    from cxrlib.evaluation.metrics import evaluate as measure
    from cxrlib.training.inference import load_model, predict

    model, facts = load_model(checkpoint)
    size = image_size or facts["cohort"]["image_size"]
    seed = facts["config"]["seed"] if seed is None else seed
    trained = facts["cohort"]
    dataset = dataset or str(trained["name"])
    cohort = load(dataset, **source_options(data_dir, labels, size, limit, skip_bad, options, seed))
    _list_skipped(cohort)
    if cohort.name == trained["name"] and size == trained["image_size"] and limit is None:
        seen = [cohort.split(name, lazy=True).content_hash() for name in ("train", "val")]
        if "".join(seen) != trained["content_hash"]:
            echo(
                "cxr: warning: these are not the training and validation images that the network was trained "
                "with, though the data set is called the same. With other labels, patients or splits some of "
                "the images measured here may have been trained on.",
                err=True,
            )
    part = cohort.split(split.value, lazy=True)
    if not len(part):
        raise CxrError(
            f"{dataset} has no images in its {split.value} split.", remedy="Choose another --split."
        )
    chosen_on = "given"
    if threshold is None:
        val = cohort.split("val", lazy=True)
        threshold, chosen_on = choose_threshold(val.labels, predict(model, val.images)), "Youden on val"
    estimates = measure(part.labels, predict(model, part.images), part.patients, threshold=threshold)
    if as_json:
        return print_json(
            {
                "checkpoint": str(checkpoint),
                "dataset": dataset,
                "split": split.value,
                "images": len(part),
                "threshold": threshold,
                "threshold_chosen": chosen_on,
                **{name: estimate.as_dict() for name, estimate in estimates.items()},
            }
        )
    typer.echo(
        f"{dataset}, {split.value}: {len(part)} images, {int(part.labels.sum())} with pneumonia; "
        f"threshold {threshold:.3f} ({chosen_on})"
    )
    print_table(["metric", "value (95% interval)"], [[name, str(value)] for name, value in estimates.items()])


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="A last.pt or best.pt that `cxr train` wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV to write; standard output if not given.")
    ] = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Predict the probability of pneumonia for image files. Not for clinical use."""
    import numpy as np
    import pandas as pd

    from cxrlib.datasets import image_files
    from cxrlib.io.cache import atomic_path, decode_files
    from cxrlib.training.inference import load_model
    from cxrlib.training.inference import predict as score

    model, facts = load_model(checkpoint)
    paths = image_files(images)
    decoded = decode_files(paths, facts["cohort"]["image_size"], skip_bad=skip_bad)
    table = pd.DataFrame(
        {
            "image": [str(path) for path, keep in zip(paths, decoded.kept, strict=True) if keep],
            "probability": np.round(score(model, decoded.images).astype(float), 6),
        }
    )
    for path, reason in decoded.skipped:
        echo(f"left out: {path}: {reason}", err=True)
    if out is not None:
        with atomic_path(out) as temporary:
            table.to_csv(temporary, index=False, errors="surrogateescape")
        echo(f"{len(table)} predictions in {out}", err=True)
    elif as_json:
        print_json(table.to_dict("records"))
    else:
        if sys.stdout.isatty():
            table["image"] = table["image"].map(printable)
        typer.echo(table.to_csv(index=False).encode("utf-8", "surrogateescape"), nl=False)


app.command()(report)
app.command()(study)


def _list_skipped(cohort: Cohort) -> None:
    for skipped in cohort.info.get("skipped", ()):
        echo(f"left out: {skipped}", err=True)


def _warn(message: Warning | str, *where: object, **more: object) -> None:
    echo(f"cxr: warning: {message}", err=True)


def main() -> None:
    """Run ``cxr``; a CxrError becomes its message and exit status 1."""
    warnings.showwarning = _warn
    asked = " ".join(["cxr", *sys.argv[1:3]][: 3 if sys.argv[1:2] in (["lungs"], ["data"]) else 2])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without a dash prints a question mark for it
            stream.reconfigure(errors="replace")
    try:
        with course_packages(asked):
            app()
    except CxrError as error:
        typer.echo(f"cxr{'' if is_main_process() else ' (another process)'}: {error}", err=True)
        sys.exit(1)
    except MemoryError:
        sys.exit("cxr: The memory is full.\nWhat to do: Ask for fewer or smaller images.")
    except SystemExit as stop:
        if stop.code == 130:  # what Typer makes of Ctrl-C
            typer.echo("cxr: interrupted. What was finished is kept for the next run.", err=True)
        raise
