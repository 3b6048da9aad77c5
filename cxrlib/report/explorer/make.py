"""Write the explorer's assets: ``python -m cxrlib.report.explorer.make``.

The networks come from the artefact store, or are trained. The films are the phantom's own, up to the last
step before the film's curve, without disease and with each step of a growing consolidation. For what the page
adds (exposure, collimator, letter) it takes the numbers that the phantom draws.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cxrlib.cohort import Cohort
from cxrlib.evaluation.results import recorded
from cxrlib.images.regions import crop_to_lungs
from cxrlib.io.storage import atomic_path
from cxrlib.phantom import overlays, phantom
from cxrlib.phantom.latents import OVERLAY, Streams
from cxrlib.report.explorer import HERE
from cxrlib.studies.explorer import NETWORKS, networks, patients, rounded, weights
from cxrlib.training.inference import predict

SEED, SIZE, PHANTOMS, STEPS = 0, 128, 4, 12
SURE = 0.8
SEVERITY = 2.0  # of the last step; 1 is the phantom's calibrated difficulty
_NOTE = (
    "Synthetic chests, drawn by a model: nothing here is clinical. Both networks run in this page. With the "
    "letter network A changes its answer on {naive:.0f}% of {n:,} test chests, network B on {lungs:.1f}%. "
    "The chests here were chosen from those on which A alone changes."
)


def make() -> None:
    """Train or load the networks, choose phantoms, and write ``assets.json`` and ``assets.bin``."""
    planted = patients("full", SIZE, SEED)
    arrays: dict[str, np.ndarray] = {}
    described: dict[str, Any] = {"size": SIZE, "steps": STEPS, "exposure": phantom.EXPOSURE, "note": note()}
    described["networks"], described["patients"] = {}, []
    answers: dict[tuple[str, bool], np.ndarray] = {}
    for name, view, model in networks(planted, "full", SEED):
        described["networks"][name] = {"mean": float(model.mean), "std": float(model.std)}
        arrays |= {f"{name}.{layer}": array for layer, array in weights(model).items()}
        for letter, cohort in ((False, view.off), (True, view.on)):
            answers[name, letter] = predict(rounded(model, SIZE), cohort.images)
    for number, row in enumerate(chosen(planted.off, answers)):
        described["patients"].append(_patient(planted.off.take(np.array([row])), number, arrays))
    described["arrays"], content = _laid_out(arrays)
    for name, text in (("assets.bin", content), ("assets.json", json.dumps(described).encode())):
        with atomic_path(HERE / name) as path:
            path.write_bytes(text)


def chosen(off: Cohort, answers: Mapping[tuple[str, bool], np.ndarray]) -> Iterator[int]:
    """The first healthy test phantoms, a lobe each, on which the letter alone turns the naive network well.

    They have no text, border or device; the other network calls them healthy with and without the letter.
    ``answers``: the probability of ill, by the network's name and whether the letter is there; (N,).
    """
    table = off.table
    turned = (answers["naive", True] >= SURE) & (answers["naive", False] < 0.5)
    steady = (answers["lungs", False] < 0.5) & (answers["lungs", True] < 0.5)
    plain = ~table[["portable", "collimation", "devices"]].any(axis=1)
    healthy = (table["split"] == "test") & (table["label"] == 0) & plain
    lobes: set[str] = set()
    for row in np.flatnonzero(healthy & turned & steady):
        lobe = phantom.latents_of(off.take(np.array([row])))[0].lesion.lobe
        if lobe not in lobes and len(lobes) < PHANTOMS:
            lobes.add(lobe)
            yield int(row)


def _patient(cohort: Cohort, number: int, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    latents = phantom.latents_of(cohort)[0]
    streams = Streams(int(cohort.info["seed"]))
    healthy = phantom.exposed(latents, SIZE, streams)
    ill = [
        replace(latents, label=1, subtype="lobar", severity=SEVERITY * k / STEPS) for k in range(1, STEPS + 1)
    ]
    grown = [phantom.exposed(one, SIZE, streams) - healthy for one in ill]
    rows, columns = (np.flatnonzero(np.any(grown, axis=(0, axis))) for axis in (2, 1))
    box = [int(rows[0]), int(columns[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1]
    part = np.s_[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
    unit = [float(layer.max()) / 65535 for layer in grown]
    layers = [np.rint(layer[part] / one) for layer, one in zip(grown, unit, strict=True)]
    cropped = crop_to_lungs(cohort, margin=0.0)
    assert cropped.lung_masks is not None
    names = {name: f"{number}.{name}" for name in ("film", "lungs", "layers")}
    arrays[names["film"]] = healthy
    arrays[names["lungs"]] = np.packbits(cropped.lung_masks[0].astype(bool))
    arrays[names["layers"]] = np.array(layers, np.uint16)
    return {
        "who": f"{'woman' if latents.body.female else 'man'}, {latents.body.age}",
        "index": latents.index,
        "film": names["film"],
        "lungs": names["lungs"],
        "window": [int(cropped.table[f"window_{name}"].iloc[0]) for name in ("top", "left", "side")],
        "greys": phantom.greys(replace(latents, exposure=False)),
        "curve": phantom.curve_ends(latents),
        "collimation": _collimation(streams(OVERLAY, 8 * latents.index + 1)),
        "letter": _letter(streams(OVERLAY, 8 * latents.index + 3)),
        "lesion": {"box": box, "layers": names["layers"], "unit": unit, "lobe": latents.lesion.lobe},
    }


def _letter(rng: np.random.Generator) -> dict[str, Any]:
    """What :func:`cxrlib.phantom.overlays.marker` draws for this image."""
    one = overlays.letter(rng)
    drawn = {name: getattr(one, name) for name in ("name", "height", "angle", "plate", "ink")}
    return drawn | {"bitmap": one.bitmap.astype(int).tolist(), "home": one.centre}


def _collimation(rng: np.random.Generator) -> dict[str, float]:
    """What :func:`cxrlib.phantom.overlays.collimation` draws for this image, but for its margins."""
    one = overlays.border(rng)
    return {name: getattr(one, name) for name in ("tilt", "edge", "level")}


def _laid_out(arrays: dict[str, np.ndarray]) -> tuple[dict[str, list], bytes]:
    """Where each array lies in the bytes: kind, length, offset (a multiple of four)."""
    content, places = bytearray(), {}
    for name, array in arrays.items():
        content += bytes(-len(content) % 4)
        places[name] = [array.dtype.str[1:], array.size, len(content)]
        content += array.astype(array.dtype.newbyteorder("<")).tobytes()
    return places, bytes(content)


def note() -> str:
    """What stands below the explorer, with the recorded shares of flips; empty where nothing is recorded."""
    record = recorded("phantom/explorer")
    if record is None:
        return ""
    flips = {name: 100 * record.estimate(f"{name}.flip_rate").value for name in NETWORKS}
    return _NOTE.format(n=record.estimate("naive.flip_rate").n, **flips)


if __name__ == "__main__":
    make()
