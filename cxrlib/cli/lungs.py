"""``cxr lungs``: train, evaluate and apply the lung segmenter."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cxrlib.cli.console import Json, Preset, SkipBad, echo, print_json, print_table
from cxrlib.errors import ConfigError

app = typer.Typer(help="Find the lungs, and cut images by them.", no_args_is_help=True)


class Site(StrEnum):
    montgomery = "Montgomery"
    shenzhen = "Shenzhen"


class What(StrEnum):
    mask = "mask"
    crop = "crop"
    keep = "keep"
    remove = "remove"
    frame = "frame"


Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="A file of `cxr lungs train`; the one that ships if not given."),
]
MaskFolder = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder with images/ and masks/ of Montgomery and Shenzhen.")
]


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="The safetensors file to write.")],
    data_dir: MaskFolder = None,
    site: Annotated[
        list[Site] | None, typer.Option(help="Train on this hospital's radiographs too. Repeatable.")
    ] = None,
    phantoms: Annotated[int, typer.Option(help="How many phantoms to train on; 0 for none.")] = 4000,
    preset: Annotated[Preset, typer.Option(help="How long to train.")] = Preset.full,
    seed: Annotated[int, typer.Option(help="Of weights, order, augmentation and phantoms.")] = 0,
) -> None:
    """Train the segmenter. What ships: --data-dir DIR --site Montgomery (7 minutes on two cores)."""
    from cxrlib.lungs.network import save_weights
    from cxrlib.lungs.study import trained

    sources = (["phantom"] if phantoms else []) + [one.value for one in site or ()]
    if not sources:
        raise ConfigError("Nothing to train on.", remedy="Give --phantoms, or --site with --data-dir.")
    network = trained(sources, data_dir, preset=preset.value, seed=seed, phantoms=phantoms)
    save_weights(network, out, {"trained_on": ", ".join(sources), "preset": preset.value, "seed": str(seed)})
    typer.echo(f"Trained on {', '.join(sources)}: {out} ({out.stat().st_size / 1e6:.1f} MB)")


@app.command()
def evaluate(
    data_dir: MaskFolder = None,
    site: Annotated[Site | None, typer.Option(help="Only this hospital's radiographs.")] = None,
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Measure Dice's coefficient on radiographs with masks, and name the images where it is worst.

    Without --data-dir: on 200 phantoms. The weights that ship were trained on Montgomery, so only Shenzhen's
    radiographs are new to them.
    """
    from cxrlib.datasets import load
    from cxrlib.lungs.study import TEST_SIDE, dice_numbers, hospital, measure

    if data_dir is None and site is not None:
        raise ConfigError(
            f"Radiographs of {site.value} are asked for, and no folder is given.",
            remedy="Add --data-dir, the folder with images/ and masks/.",
        )
    if data_dir is None:
        cohort = load("phantom", n=200, image_size=TEST_SIDE, seed=1)
    elif site is None:
        cohort = load("lung_masks", data_dir=data_dir, image_size=TEST_SIDE)
    else:
        cohort = hospital(data_dir, site.value, TEST_SIDE)
    table = measure(cohort, weights=weights)
    numbers = dice_numbers(table.assign(row="all", seed=0))
    numbers = {name.removeprefix("all."): number for name, number in numbers.items() if "seeds" not in name}
    worst = table.nsmallest(10, "dice")[["image_id", "dice", "problem"]]
    if as_json:
        return print_json(
            {name: number.as_dict() for name, number in numbers.items()} | {"worst": worst.to_dict("records")}
        )
    where = site.value if site else cohort.name
    typer.echo(f"{where}: {len(cohort)} images, compared at {TEST_SIDE} × {TEST_SIDE} pixels")
    print_table(
        ["measure", "value (95% interval)"], [[name, str(number)] for name, number in numbers.items()]
    )
    print_table(
        ["worst images", "Dice", "problem"],
        [
            [str(row.image_id), f"{row.dice:.3f}", str(row.problem or "passes the check")]
            for row in worst.itertuples()
        ],
    )


@app.command()
def apply(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the PNG files and lungs.csv.")],
    what: Annotated[
        What,
        typer.Option(
            help="mask; crop (to the lungs); keep (lungs alone); remove (without lungs); frame (outer tenth)."
        ),
    ] = What.mask,
    margin: Annotated[
        float | None,
        typer.Option(
            help="crop: around the lungs, a share of their longer side (0.05). keep, remove: around the "
            "lungs, a share of the image (0, 0.02). frame: its width, a share of the image (0.1)."
        ),
    ] = None,
    weights: Weights = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Write lung masks, or images cut by them, as PNG of the files' own size; lungs.csv says which to trust.

    An image whose mask is implausible gets no PNG but a row with the reason; the check finds impossible
    masks, not wrong ones. Negatives are recognised; images upside down are not. lungs.csv: plausible,
    problem, negative, lung_area (share of the image), and the lungs' box top, left, bottom, right in
    pixels of the file. Not for clinical use.
    """
    from cxrlib.datasets import image_files
    from cxrlib.lungs.files import apply_to_files

    table = apply_to_files(
        image_files(images),
        out,
        what=what.value,
        margin=margin,
        weights=weights,
        skip_bad=skip_bad,
    )
    good = int(table["plausible"].sum())
    if as_json:
        return print_json(table.to_dict("records"))
    for row in table[~table["plausible"]].itertuples():
        echo(f"left out: {row.image}: {row.problem}", err=True)
    typer.echo(f"{good} of {len(table)} images written to {out}; {out / 'lungs.csv'} lists all.")
    if not good:
        raise typer.Exit(1)
