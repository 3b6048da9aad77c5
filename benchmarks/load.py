"""Large inputs and long use: peak memory, time, and what a thousand trainings in one process leave behind.

    python benchmarks/load.py                 # rows load.* of reliability.json; half an hour and more
    python benchmarks/load.py --only table soak

Every part runs in a process of its own; memory is the resident set of that process and all that it starts,
summed five times a second. The bound aimed at is 2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

BOUND = 2.0  # GB
IMAGES, ENTRIES, ROWS, RESTARTS = 20_000, 200_000, 112_120, 1_000


def audit(folder: Path) -> dict:
    """`cxr audit` of 20,000 PNG files of 64 pixels, noise with a mark that goes with the label."""
    from PIL import Image

    rng, rows = np.random.default_rng(0), []
    (folder / "films").mkdir()
    for number in range(IMAGES):
        name, ill = f"{number:05d}.png", number // 2 % 2
        pixels = rng.integers(30, 200, (64, 64)).astype(np.uint8)
        pixels[2:8, 2:8] = 255 * ill
        Image.fromarray(pixels).save(folder / "films" / name, compress_level=1)
        rows.append({"image": name, "label": ill, "patient_id": f"p{number // 2}"})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    from cxrlib.cli import main as cli

    sys.argv = ["cxr", "audit", str(folder / "films"), "--labels", str(folder / "labels.csv"), "--json"]
    sys.argv += ["--out", str(folder / "out"), "--image-size", "64", "--workers", "1"]
    began = time.monotonic()
    try:
        cli.main()
    except SystemExit as stop:
        status = stop.code
    return {"seconds": time.monotonic() - began, "status": status, "failed": int(status != 2)}


def table(folder: Path) -> dict:
    """A synthetic table of NIH's size through what the report asks of it."""
    from cxrlib.cohort import split_by_patient
    from cxrlib.datasets import nih_tables
    from cxrlib.evaluation import eda, subgroups
    from cxrlib.studies import shortcuts

    rng = np.random.default_rng(0)
    patient = np.sort(rng.integers(1, 30_806, ROWS))
    follow_up = pd.Series(patient).groupby(patient).cumcount()
    words = np.array([*nih_tables.FINDINGS, "No Finding", "Effusion|Pneumonia", "Atelectasis|Edema|Mass"])
    raw = pd.DataFrame(
        {
            "Image Index": [f"{p:08d}_{f:03d}.png" for p, f in zip(patient, follow_up, strict=True)],
            "Finding Labels": rng.choice(words, ROWS),
            "Follow-up #": follow_up,
            "Patient ID": patient,
            "Patient Age": rng.integers(1, 95, ROWS),
            "Patient Gender": rng.choice(["F", "M"], ROWS),
            "View Position": rng.choice(["AP", "PA"], ROWS),
            "OriginalImage[Width": 2048,
            "Height]": 2500,
            "OriginalImagePixelSpacing[x": 0.143,
        }
    )
    raw.to_csv(folder / "table.csv", index=False)
    began = time.monotonic()
    nih = nih_tables.metadata(folder / "table.csv", check=False)
    eda.concentration(eda.images_per_patient(nih))
    eda.image_split_leakage(nih)
    for column in ("view", "sex"):
        eda.prevalence_by(nih, column, replicates=500)
    split_by_patient(nih["patient_id"], (0.7, 0.1, 0.2))
    blind = shortcuts.pixel_free(nih, replicates=500)
    groups = subgroups.divisions(nih)
    subgroups.by_subgroup(
        nih["label"].to_numpy(), [blind.scores], groups, nih["patient_id"].to_numpy(), thresholds=0.07,
        replicates=200,
    )  # fmt: skip
    return {"seconds": time.monotonic() - began, "failed": int(len(nih) != ROWS)}


def folder(root: Path) -> dict:
    """A folder of 200,000 files: the list of them, the first decoded, and the first error."""
    from PIL import Image

    from cxrlib.datasets import folder as own
    from cxrlib.datasets import image_files
    from cxrlib.errors import DataError
    from cxrlib.io.decode import decode

    films = root / "films"
    films.mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(root / "one.png")
    data = (root / "one.png").read_bytes()
    for number in range(ENTRIES):
        (films / f"{number:06d}.png").write_bytes(data)
    names = [f"{number:06d}.png" for number in range(ENTRIES)]
    labels = {"image": [*names, "gone.png"], "label": 0, "patient_id": range(ENTRIES + 1)}
    pd.DataFrame(labels).to_csv(root / "labels.csv", index=False)
    began = time.monotonic()
    paths = image_files([films])
    listed = time.monotonic() - began
    decode(paths[0])
    first = time.monotonic() - began
    began = time.monotonic()
    try:
        own.files(films, labels=root / "labels.csv", patient_column="patient_id")
        named = False
    except DataError as error:
        named = "gone.png" in str(error)
    return {
        "seconds": first,
        "failed": int(len(paths) != ENTRIES or not named),
        "note": f"listed in {listed:.1f} s, first image decoded after {first:.1f} s, a missing file named "
        f"after {time.monotonic() - began:.1f} s; other work on the machine",
    }


def soak(root: Path) -> dict:
    """A thousand trainings in one process, each resumed from the one before for another step."""
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from conftest import make_blobs

    from cxrlib.training.config import TrainConfig
    from cxrlib.training.trainer import Trainer, default_callbacks

    torch.set_num_threads(1)
    cohort, me, seen = make_blobs().take(np.arange(80)), psutil.Process(), []
    temporary = Path(tempfile.gettempdir())
    began = time.monotonic()
    for number in range(RESTARTS):
        out = root / f"run-{number // 20:02d}"
        config = TrainConfig(model="lenet", width=2, batch_size=64, epochs=number % 20 + 1, accelerator="cpu")
        Trainer(config, default_callbacks(out, progress=False), out).fit(cohort, resume=True)
        if number % 100 == 99:
            left = [path for path in root.rglob(".cxr-writing-*")] + list(temporary.glob("cxrlib-*"))
            facts = (me.num_fds(), me.num_threads(), me.memory_info().rss / 2**20, len(left))
            seen.append(facts)
            print(number + 1, facts, file=sys.stderr, flush=True)
    first, last = seen[1], seen[-1]  # the first two hundred are warm-up
    grown = [b - a for a, b in zip(first, last, strict=True)]
    return {
        "seconds": time.monotonic() - began,
        "failed": int(grown[0] > 0) + int(grown[1] > 0) + int(grown[2] > 32) + int(last[3] > 0),
        "value": round(grown[2], 1),
        "note": f"from restart 200 to {RESTARTS}: {grown[0]:+d} file descriptors, {grown[1]:+d} threads, "
        f"{grown[2]:+.1f} MiB resident; {last[3]} temporary files",
    }


PARTS = {"table": table, "folder": folder, "soak": soak, "audit": audit}


def measured(name: str, root: Path) -> dict:
    """One part in a process of its own, with the peak of its resident set and its children's."""
    (root / "tmp").mkdir()  # its own, so that what others leave is not counted
    environment = {**os.environ, "CXRLIB_CACHE": str(root / "cache"), "TMPDIR": str(root / "tmp")}
    environment["OMP_NUM_THREADS"] = "1"
    process = subprocess.Popen(
        [sys.executable, __file__, "--one", name, "--folder", str(root)],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    peak = [0]

    def watch() -> None:
        while process.poll() is None:
            try:
                tree = [psutil.Process(process.pid)]
                tree += tree[0].children(recursive=True)
                peak[0] = max(peak[0], sum(one.memory_info().rss for one in tree))
            except psutil.Error:
                pass
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}")
    return json.loads(said.splitlines()[-1]) | {"peak": peak[0] / 1e9}


def row(name: str, found: dict) -> dict:
    """As reliability.json keeps it."""
    what = " ".join(PARTS[name].__doc__.split())
    over = "value" not in found and found["peak"] > BOUND
    facts = {"name": f"load.{name}", "what": what, "tried": 1, "failed": int(bool(found["failed"] or over))}
    if "value" in found:
        facts |= {"value": found["value"], "unit": "MiB grown", "target": 32, "at_least": False}
        facts["tried"] = RESTARTS
    else:
        facts |= {"value": round(found["peak"], 2), "unit": "GB at most", "target": BOUND, "at_least": False}
    note = [f"{found['seconds']:.0f} s", f"{found['peak']:.2f} GB", *filter(None, [found.get("note")])]
    return facts | {"seed": 0, "note": "; ".join(note)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--one", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print("\n" + json.dumps(PARTS[given.one](given.folder)))
        return
    from reliability import OUT, record

    known = json.loads(OUT.read_text(encoding="utf-8"))["rows"] if OUT.is_file() else []
    rows = {one["name"]: one for one in known if one["name"].startswith("load.")}
    began = time.monotonic()
    for name in given.only:
        with tempfile.TemporaryDirectory(prefix="load-") as root:
            rows[f"load.{name}"] = row(name, measured(name, Path(root)))
        print(rows[f"load.{name}"], flush=True)
        record("load", list(rows.values()), "python benchmarks/load.py", time.monotonic() - began)


if __name__ == "__main__":
    main()
