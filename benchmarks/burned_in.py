"""How much of the text that is printed into radiographs the audit's search finds, and what it takes for text.

    CXRLIB_DATA=… python benchmarks/burned_in.py      # rows burned_in.* of reliability.json; three minutes

Three counts: on NIH radiographs, by what a person saw in them (``nih_printed_text.json``); of names and dates
painted into NIH radiographs that have no text; and of such painted into phantoms. The thresholds were set on
216 of the 621 NIH radiographs and on painted text; the NIH rows are of the other 405.
"""

from __future__ import annotations

import json
import os
import time
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from reliability import record

from cxrlib.datasets import load
from cxrlib.evaluation.metrics import proportion
from cxrlib.images.burned_in import text_lines
from cxrlib.io.decode import decode

LABELS = Path(__file__).with_name("nih_printed_text.json")
LOOKED_AT_FIRST, SEED = 216, 7
TEXTS = ("DOE^JANE", "MUELLER, ANNA", "12.03.1961", "ID 4471902", "Smith John", "St. Mary Hosp")
HEIGHTS = (0.02, 0.03, 0.04)  # of the side: 8, 12 and 15 pixels of 384
KINDS = ("bright", "bright on a black plate", "dark")
TARGET = 0.9


def painted(image: np.ndarray, text: str, height: float, kind: str, rng: np.random.Generator) -> np.ndarray:
    """The image with a text near one of its corners, capitals ``height`` of its side high."""
    side, picture = len(image), Image.fromarray(image)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=height * side / 0.72)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    away = rng.uniform(0.01, 0.15, 2) * side
    x = away[0] if rng.random() < 0.5 else max(side - (right - left) - away[0], 0)
    y = away[1] if rng.random() < 0.5 else side - (bottom - top) - away[1]
    box = (x - 4, y - 4, x + right - left + 4, y + bottom - top + 4)
    if kind == KINDS[1]:
        pen.rectangle(box, fill=0)
    pen.text((x - left, y - top), text, font=font, fill=0 if kind == "dark" else 255)
    return np.asarray(picture)


def row(name: str, what: str, right: int, of: int, target: float, note: str = "") -> dict:
    share = proportion(right, of)
    counted = f"{right} of {of}, interval {share.low:.3f} to {share.high:.3f}"
    return {
        "name": f"burned_in.{name}", "what": what, "tried": of, "failed": of - right,
        "value": round(share.value, 4), "unit": "share", "target": target, "at_least": True, "seed": SEED,
        "note": "; ".join(filter(None, [counted, note])),
    }  # fmt: skip


def found_in_painted(name: str, what: str, images: list[np.ndarray], target: float) -> dict:
    rng, found = np.random.default_rng(SEED), {}
    for kind, height in product(KINDS, HEIGHTS):
        found[kind, height] = [
            bool(text_lines(painted(image, TEXTS[number % len(TEXTS)], height, kind, rng)))
            for number, image in enumerate(images)
        ]
    kinds = [f"{kind} {np.mean([found[kind, height] for height in HEIGHTS]):.2f}" for kind in KINDS]
    heights = [f"{height:.0%} {np.mean([found[kind, height] for kind in KINDS]):.2f}" for height in HEIGHTS]
    all_of_it = np.concatenate(list(found.values()))
    return row(name, what, int(all_of_it.sum()), len(all_of_it), target, ", ".join([*kinds, *heights]))


def main() -> None:
    began = time.monotonic()
    folder = Path(os.environ["CXRLIB_DATA"]) / "nih-subset" / "images"
    paths = sorted(folder.glob("*.png"))
    seen = json.loads(LABELS.read_text(encoding="utf-8"))
    order = np.random.default_rng(SEED).permutation(len(paths))
    first, others = ([paths[i] for i in part] for part in np.split(order, [LOOKED_AT_FIRST]))
    said = {path: bool(text_lines(decode(path))) for path in others}
    with_text = [path for path in others if path.name in seen["others"]]
    without = [path for path in others if path.name not in seen["others"]]
    plain = [decode(path) for path in first if path.name not in seen["first"]][:60]
    cohort = load("phantom", n=400, image_size=384, seed=SEED)
    unmarked = cohort.images[cohort.table["portable"].to_numpy() == 0]
    rows = [
        row(
            "nih_found", "share of NIH radiographs with a line of text that the audit names",
            sum(said[path] for path in with_text), len(with_text), TARGET,
        ),
        row(
            "nih_quiet", "share of NIH radiographs without a line of text that it does not name",
            sum(not said[path] for path in without), len(without), 0.98,
        ),
        found_in_painted("nih_painted", "names and dates painted into NIH radiographs, found", plain, TARGET),
        found_in_painted(
            "phantom_painted", "names and dates painted into phantoms, found", list(unmarked[:60]), TARGET
        ),
        row(
            "phantom_quiet", "share of phantoms without text that it does not name",
            sum(not text_lines(image) for image in unmarked), len(unmarked), 0.98,
        ),
    ]  # fmt: skip
    for one in rows:
        print(one["name"], one["note"])
    record("burned_in", rows, "python benchmarks/burned_in.py", time.monotonic() - began)


if __name__ == "__main__":
    main()
