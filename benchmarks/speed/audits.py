"""What an audit costs: its stages, duplicates beside other tools, and a large one that is killed and resumed.

    python -m benchmarks.speed --only audit --out benchmarks/results.json
    python -m benchmarks.speed.audits --files 112120 --side 256 --distinct 3000    # a row of scale.json

The second writes so many files (links to 300 different ones, or to --distinct), audits them, kills the audit
half-way, has it go on, and removes them. Beside cleanvision and imagededup where CXRLIB_PEERS names a Python
that has both.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.speed.files import phantoms
from cxrlib.evaluation.results import provenance
from cxrlib.io.storage import atomic_path

if TYPE_CHECKING:
    from benchmarks.speed.rows import Setting

SIDE, WANTED, DISTINCT = 1024, 60.0, 300
GIGABYTES_ALLOWED = 2.0
PEERS = {
    "cleanvision": """
from cleanvision import Imagelab
lab = Imagelab(data_path=folder)
start()
lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=workers, verbose=False)
""",
    "imagededup": """
from imagededup.methods import PHash
method = PHash(verbose=False)
start()
codes = method.encode_images(image_dir=folder, num_enc_workers=workers)
method.find_duplicates(encoding_map=codes, max_distance_threshold=10)
""",
}
_TIMED = """
import resource, sys, time
folder, workers = sys.argv[1], int(sys.argv[2])
def spent():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
def start():
    global began
    began = spent()
"""


def films(folder: Path, data: Path | None, count: int, distinct: int = DISTINCT, side: int = SIDE) -> Path:
    """PNG files of ``side`` pixels, links to the first ``distinct``; the CSV that says what they are.

    NIH's own where they are at hand, those of another size resized, with noise; else phantoms. The label is
    the projection (phantoms': their own), so that probes find something and go through all permutations.
    """
    rng, sources = np.random.default_rng(0), list[tuple[Image.Image, int]]()
    distinct = min(distinct, count)
    if data is None:
        sources = [
            (Image.fromarray(image), int(label)) for image, label in zip(*phantoms(distinct), strict=True)
        ]
    else:
        from cxrlib.datasets import nih_tables

        views = nih_tables.metadata().set_index("image_id")["view"]
        parts = [sorted((data / "nih-subset" / part).glob("*.png")) for part in ("original-1024", "images")]
        for path in [*parts[0], *rng.permutation(np.array(parts[1]))][:distinct]:
            sources.append((Image.open(path).convert("L"), int(views[path.name] == "AP")))
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        target = folder / f"{number:06d}.png"
        picture, label = sources[number % len(sources)]
        if number >= len(sources):
            os.link(folder / f"{number % len(sources):06d}.png", target)
        elif max(picture.size) == side:
            picture.save(target)
        else:
            shape = tuple(round(length * side / max(picture.size)) for length in picture.size)
            enlarged = np.asarray(picture.resize(shape, Image.Resampling.BICUBIC), np.float32)
            noisy = enlarged + rng.normal(0, 1, enlarged.shape)
            Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)).save(target)
        rows.append({"image": target.name, "label": label, "patient": f"p{number // 2:06d}"})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def stages(labels: Path, work: Path, workers: int = 1) -> dict[str, float]:
    """Processor seconds of each stage of an audit by one process, everything imported before."""
    from cxrlib.audit import run
    from cxrlib.audit.features import describe
    from cxrlib.audit.files import file_facts
    from cxrlib.audit.looking import Look
    from cxrlib.datasets import load
    from cxrlib.datasets._files import beside
    from cxrlib.parallel import keep_freed_memory

    keep_freed_memory()  # as an audit's processes do
    seconds: dict[str, float] = {}

    def timed(name: str, made: Callable[[], object]) -> object:
        began = time.process_time()
        result = made()
        seconds[name] = time.process_time() - began
        return result

    options = {"workers": workers, "progress": False}
    with tempfile.TemporaryDirectory(dir=work) as made:
        cache = {"cache_dir": made}
        source = {"data_dir": labels.parent, "labels": labels, "patient_column": "patient"}
        with beside(Look):  # the files are decoded once, for all that is asked of them
            cohort = timed(
                "files", lambda: load("folder", **source, allow_shared_patients=True, **options, **cache)
            )
        features = timed("features", lambda: describe(cohort, Path(made) / "features", **options))
        paths = cohort.table["path"].tolist()
        timed("headers", lambda: file_facts(paths, **options))
        without = cohort.with_columns(path="")  # what is left: probes, permutations, duplicates
        timed("probes", lambda: run.audit_cohort(without, features=features, **options))
    return seconds


def ours(paths: list[Path], work: Path) -> float:
    """Processor seconds in which equal and nearly equal pictures are found among files."""
    from cxrlib.audit.features import _blocks
    from cxrlib.audit.files import duplicates, file_facts
    from cxrlib.io.cache import decode_files

    began = time.process_time()
    with tempfile.TemporaryDirectory(dir=work) as cache:
        images = decode_files(paths, 128, cache_dir=cache, workers=1, progress=False).images
        thumbnails = _blocks(np.asarray(images), 64).round().astype(np.uint8)
        duplicates(thumbnails, file_facts([str(path) for path in paths], workers=1, progress=False)["sha256"])
    return time.process_time() - began


def peer(name: str, python: str, folder: Path) -> float:
    """Processor seconds of another tool for the same, its imports not counted."""
    script = f"{_TIMED}{PEERS[name]}\nprint('seconds', spent() - began)"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [python, "-c", script, str(folder), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.rsplit("seconds", 1)[1])


def rows(setting: Setting, count: int) -> Iterator[dict]:
    """The rows audit.images and, where the tools are at hand, audit.peers.*."""
    from benchmarks.speed.rows import compared, row_of
    from cxrlib.audit.asked import SMALL

    folder = setting.work / "films"
    labels = films(folder, setting.data, count, count, SIDE)
    data = f"{count} phantoms"
    if setting.data is not None:
        published = len(list((setting.data / "nih-subset" / "original-1024").glob("*.png")))
        data = f"NIH, {count} PNG of {SIDE} pixels, {min(published, count)} as published"
    turns = [stages(labels, setting.work) for _ in range(setting.repeats + 1)][1:]
    # Of few images probes are asked in one process, the rest is done in two.
    seconds = [(sum(turn.values()) + turn["probes"] * (count < SMALL)) / 2 for turn in turns]
    spent = {
        name: round(1e3 * float(np.median([turn[name] for turn in turns])) / count, 2) for name in turns[0]
    }
    yield row_of(
        "audit.images",
        f"a whole audit of files of {SIDE} pixels on two cores, from the processor time of its stages "
        f"{'(probes on one core)' if count < SMALL else '(probes too)'}, against {WANTED:g} a second",
        np.array([(count / one, WANTED) for one in seconds]),
        target=1.0, unit="images/s", data=data, milliseconds_an_image=spent,
    )  # fmt: skip
    python = os.environ.get("CXRLIB_PEERS")
    labels.unlink()
    paths = sorted(folder.glob("*.png"))
    for name in PEERS if python else ():
        yield compared(
            f"audit.peers.{name}",
            f"finding equal and nearly equal pictures among files of {SIDE} pixels, against {name}, "
            "images a second of processor time",
            lambda: count / ours(paths, setting.work),
            lambda name=name: count / peer(name, str(python), folder),
            target=1.0, unit="images/s", data=data, repeats=setting.repeats,
        )  # fmt: skip


def large(count: int, side: int, data: Path | None, work: Path, distinct: int = DISTINCT) -> dict:
    """The row of an audit of so many files that is killed half-way and goes on."""
    folder, out = work / "films", work / "audit"
    labels = films(folder, data, count, distinct, side)
    command = [sys.executable, "-m", "cxrlib.cli", "audit", str(folder), "--labels", str(labels), "--resume",
               "--set", "patient_column=patient", "--out", str(out), "--json"]  # fmt: skip
    environment = os.environ | {"CXRLIB_CACHE": str(work / "cache"), "OMP_NUM_THREADS": "1"}
    watch, seconds, features = _Watch(), [], -(-count // 200)
    for kill in (True, False):
        began = time.perf_counter()
        with open(work / "out.json", "wb") as stdout, open(work / "err.txt", "wb") as stderr:
            running = subprocess.Popen(
                command, env=environment, stdout=stdout, stderr=stderr, start_new_session=True
            )
        watch.root = running.pid
        while running.poll() is None:
            if kill and len(list(out.glob("work/*/features/images-*.npz"))) >= features / 2:
                os.killpg(running.pid, signal.SIGKILL)
            time.sleep(0.05)
        seconds.append(time.perf_counter() - began)
        if kill and running.returncode != -signal.SIGKILL:
            raise RuntimeError("The audit ended before it could be killed: give more files.")
    watch.done = True
    if running.returncode not in (0, 2):
        raise RuntimeError((work / "err.txt").read_text("utf-8"))
    made = provenance()
    return {
        "name": f"audit.{count}",
        "what": f"an audit of {count:,} PNG files of {side} pixels ({min(distinct, count):,} different "
        "ones), killed when half of the features were there, and resumed; highest memory of all its "
        "processes",
        "ours": round(watch.most / 1e9, 3), "target": GIGABYTES_ALLOWED, "unit": "GB",
        "without_mapped_files": round(watch.own / 1e9, 3),
        "hours": round(sum(seconds) / 3600, 3), "hours_until_killed": round(seconds[0] / 3600, 3),
        "images_per_second": round(count / sum(seconds), 2),
        "load": [round(one, 1) for one in os.getloadavg()],
        "hardware": made["hardware"], "commit": made["git_commit"],
    }  # fmt: skip


class _Watch(threading.Thread):
    """Sees how much memory a process and those that it started have, shared pages counted once: the most of
    it, and the most without pages of mapped files, which the system takes back when it needs them.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.root, self.most, self.own, self.done = 0, 0, 0, False
        self.start()

    def run(self) -> None:
        while not self.done:
            family = [_proportional(one) for one in _family(self.root)] if self.root else []
            self.most = max(self.most, sum(one["Pss"] for one in family))
            self.own = max(self.own, sum(one["Pss"] - one["Pss_File"] for one in family))
            time.sleep(1)


def _family(root: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            fields = status.read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == root:  # its session
                found.append(int(status.parent.name))
    return found


def _proportional(process: int) -> Counter[str]:
    """Bytes of a process by kind, as ``smaps_rollup`` has them."""
    found = Counter[str]()
    with suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
        found.update({line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=112_120)
    parser.add_argument("--side", type=int, default=SIDE, help="pixels of the files' longer side")
    parser.add_argument("--distinct", type=int, default=DISTINCT, help="different ones; the rest are copies")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/scale.json"))
    given = parser.parse_args()
    data = os.environ.get("CXRLIB_DATA")
    with tempfile.TemporaryDirectory() as work:
        made = large(given.files, given.side, Path(data) if data else None, Path(work), given.distinct)
    print(f"{made['name']}: {made['ours']} GB, {made['hours']} hours, {made['images_per_second']} images/s")
    record = json.loads(given.out.read_text("utf-8"))
    others = [one for one in record["rows"] if one["name"] != made["name"]]
    record["rows"] = sorted([*others, made], key=lambda one: one["name"])
    with atomic_path(given.out) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
