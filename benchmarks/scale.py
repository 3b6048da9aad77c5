"""What it costs to scale: the memory that 112,120 images take, and what a second process brings.

    python benchmarks/scale.py                    # writes benchmarks/scale.json; under eight minutes
    python benchmarks/scale.py --rows processes   # that row alone; the others of the file stay

*memory*: the shape of NIH ChestX-ray14, 112,120 images of 224 pixels, as a sparse file that is mapped into
memory (5.6 GB; the system makes its pages when they are read, so no disk is measured), and a cohort of 2,048
images in memory. LeNet trains on both in turn; rates are per second of processor time of one thread, which
other work on the machine does not change. The resident set is the highest of the process that trained on the
large cohort.
*processes*: one epoch of the residual network on phantoms by one process and by two, with the same batches of
32: the largest difference of any weight, exactly and with usual round-off. Then images a second by the clock,
after a few steps to warm up: two processes together, one alone, and two at the same time that train a network
each and know nothing of each other, with batches of 32 and of 16. Processes that wait for each other lose
more to other work on the machine than those apart do, so the same per second of processor time stands beside
it: what the sharing itself costs.
*densenet121*: images a second of one thread, for the hours in the page on eight GPUs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxrlib.cohort import Cohort
from cxrlib.datasets import load
from cxrlib.evaluation.results import provenance
from cxrlib.io.storage import atomic_path
from cxrlib.training.callbacks import Callback
from cxrlib.training.config import TrainConfig
from cxrlib.training.recipes import recipe
from cxrlib.training.trainer import Trainer

NIH, PIXELS, SMALL = 112_120, 224, 2048


class Watch(Callback):
    """Times steps, after a few to warm up, and ends the training after so many."""

    def __init__(self, steps: int, warm_up: int = 4):
        self.steps, self.warm_up = steps, warm_up
        self.seconds = {}

    def on_step_end(self, trainer) -> None:
        clock = {"processor": time.process_time(), "wall": time.perf_counter()}
        if trainer.step == self.warm_up:
            self.started = clock
        if trainer.step == self.steps:
            self.seconds = {name: clock[name] - self.started[name] for name in clock}
            trainer.should_stop = True

    def rate(self, batch_size: int, clock: str = "processor") -> float:
        return (self.steps - self.warm_up) * batch_size / self.seconds[clock]


def blank(count: int, folder: Path | None) -> Cohort:
    """A cohort of black images: in memory, or in a sparse file under ``folder``."""
    shape = (count, PIXELS, PIXELS)
    images = np.zeros(shape, np.uint8)
    if folder is not None:
        path = folder / "images.npy"
        np.lib.format.open_memmap(path, "w+", np.uint8, shape).flush()
        images = np.load(path, mmap_mode="r")
    rows = np.arange(count)
    table = {"image_id": rows, "patient_id": rows, "label": rows // 10 % 20 == 0}
    table["split"] = np.select([rows % 10 < 7, rows % 10 < 8], ["train", "val"], "test")
    table = pd.DataFrame(table).astype({"label": int})
    return Cohort(images, table.sample(frac=1, random_state=0), name="blank")


def resident() -> float:
    """The highest resident set of this process so far, GB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1) / 1e9


def memory(given) -> list[dict]:
    """Both cohorts in one process: the small one's 100 MB count as well."""
    config = TrainConfig(model="lenet", epochs=1000, batch_size=64, accelerator="cpu")
    rates: dict[str, list[float]] = {"large": [], "small": []}
    with tempfile.TemporaryDirectory() as folder:
        cohorts = {"large": blank(NIH, Path(folder)), "small": blank(SMALL, None)}
        for repeat in range(given.repeats + 1):
            for name, cohort in cohorts.items():
                watch = Watch(given.steps)
                trainer = Trainer(config, [watch])
                trainer.fit(cohort)
                if repeat:  # the first round warms up
                    rates[name].append(watch.rate(config.batch_size))
        # And what a check-in reads: the validation images, 11,212 of the large cohort.
        trainer = Trainer(config, [])
        trainer._set_up(cohorts["large"])
        trainer._check_in()
    ratios = np.array(rates["large"]) / np.array(rates["small"])
    return [
        {
            "name": "memory.throughput",
            "what": f"training images a second from {NIH:,} images in a mapped file against {SMALL:,} "
            "in memory",
            "ours": round(float(np.median(rates["large"])), 1),
            "peer": round(float(np.median(rates["small"])), 1),
            "ratio": round(float(np.median(ratios)), 3),
            "low": round(float(ratios.min()), 3),
            "high": round(float(ratios.max()), 3),
            "target": 0.9,
            "unit": "images per second of processor time",
        },
        {
            "name": "memory.resident",
            "what": f"highest resident set, against the {NIH:,} images",
            "ours": round(resident(), 3),
            "peer": round(NIH * PIXELS**2 / 1e9, 3),
            "ratio": round(resident() / (NIH * PIXELS**2 / 1e9), 3),
            "target": 1.5,
            "unit": "GB",
        },
    ]


class Together(Watch):
    """Starts its clock when as many processes are warm as there should be."""

    def __init__(self, steps: int, folder: Path, count: int):
        super().__init__(steps)
        self.folder, self.count = folder, count

    def on_step_end(self, trainer) -> None:
        if trainer.step == self.warm_up:
            (self.folder / str(os.getpid())).touch()
            while len(list(self.folder.iterdir())) < self.count:
                time.sleep(0.001)
        super().on_step_end(trainer)


def epoch(given) -> None:
    """The residual network's epoch, or ``given.timed`` steps; the first process leaves what is asked for."""
    torch.set_num_threads(given.threads)
    changes = {"precision": "64-true", "augment": None} if given.exact else {}
    watch = []
    if given.timed:
        watch = [Together(given.timed, given.out, given.devices * given.copies)]
        changes = {"epochs": 1000, "check_ins": 1e-3, "batch_size": given.batch}
    config = recipe("residual", "smoke", devices=given.devices, accelerator="cpu", **changes)
    trainer = Trainer(config, watch)
    trainer.fit(load("phantom", n=given.images, image_size=128))
    if given.timed:
        print(watch[0].seconds["wall"], watch[0].seconds["processor"], flush=True)
    elif trainer.share.first == 0:
        torch.save(trainer.raw_model.state_dict(), given.out)


def processes(given) -> list[dict]:
    load("phantom", n=given.images, image_size=128)  # rendered once, then from the cache

    def start(devices: int, threads: int = 1, *more: object) -> subprocess.Popen:
        command = [sys.executable, __file__, "--devices", devices, "--threads", threads, *more]
        command += ["--images", given.images]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        return subprocess.Popen(
            list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def said(process: subprocess.Popen) -> list[list[float]]:
        text, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{' '.join(process.args)} ended with status {process.returncode}")
        return [[float(number) for number in line.split()] for line in text.splitlines()]

    def weights(devices: int, threads: int = 1, *more: object) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            said(start(devices, threads, "--out", f"{folder}/epoch.pt", *more))
            return torch.load(f"{folder}/epoch.pt", weights_only=True)

    def difference(first: dict, second: dict) -> float:
        return max(float((first[key].double() - second[key].double()).abs().max()) for key in first)

    def rates(devices: int, copies: int = 1, batch: int = 32) -> list[float]:
        """Images a second by the clock, and of all processes' processor time."""
        steps = 2 * given.steps
        with tempfile.TemporaryDirectory() as folder:
            timed = ("--timed", steps, "--copies", copies, "--batch", batch, "--out", folder)
            started = [start(devices, 1, *timed) for _ in range(copies)]
            seconds = np.array([line for one in started for line in said(one)])
        images = (steps - Watch(steps).warm_up) * batch * copies
        return [images / seconds[:, 0].mean(), images / seconds[:, 1].sum()]

    exact = difference(weights(1, 1, "--exact"), weights(2, 1, "--exact"))
    one, two, threads = weights(1), weights(2), weights(1, 2)
    rounds = np.array([(rates(2), rates(1), rates(1, 2), rates(1, 2, 16)) for _ in range(given.repeats)])
    peers = {
        "throughput": "one",
        "apart": "two that train a network each at the same time",
        "apart_16": "two that train a network each at the same time, with batches of 16",
    }
    clocks = {"": "images/s", ".processor": "images per second of processor time"}
    compared = itertools.product(enumerate(peers.items(), 1), enumerate(clocks.items()))
    return [
        {
            "name": "processes.weights",
            "what": "largest difference of a weight or statistic after an epoch by two processes and by one, "
            "64-bit and without augmentation, so that nothing but the sharing differs",
            "ours": exact,
            "target": 1e-5,
            "unit": "",
        },
        {
            "name": "processes.round_off",
            "what": "the same with the 32-bit recipe, beside one process with two threads and with one: "
            "Adam turns round-off into steps",
            "ours": difference(one, two),
            "peer": difference(one, threads),
            "target": None,
            "unit": "",
        },
        *(
            {
                "name": f"processes.{name}{suffix}",
                "what": f"training images a second by two processes that share batches of 32 against {peer}, "
                "one thread each",
                "ours": round(float(np.median(rounds[:, 0, clock])), 1),
                "peer": round(float(np.median(rounds[:, column, clock])), 1),
                "ratio": round(float(np.median(ratios := rounds[:, 0, clock] / rounds[:, column, clock])), 3),
                "low": round(float(ratios.min()), 3),
                "high": round(float(ratios.max()), 3),
                "target": 0.95 if name == "apart" else None,
                "unit": unit,
            }
            for (column, (name, peer)), (clock, (suffix, unit)) in compared
        ),
    ]


def densenet121(given) -> list[dict]:
    config = TrainConfig(
        model="densenet121", epochs=1000, batch_size=8, accelerator="cpu", learning_rate=1e-4
    )
    watch = Watch(steps=4, warm_up=1)
    Trainer(config, [watch]).fit(blank(240, None))
    return [
        {
            "name": "densenet121.train",
            "what": f"training images a second, {PIXELS} pixels, 32-bit, one thread",
            "ours": round(watch.rate(config.batch_size), 3),
            "target": None,
            "unit": "images per second of processor time",
        }
    ]


ROWS = {"memory": memory, "processes": processes, "densenet121": densenet121}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--steps", type=int, default=20, help="of the row memory; fewer than an epoch has")
    parser.add_argument("--images", type=int, default=640, help="phantoms of the row processes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    for name in ("--devices", "--threads", "--timed", "--copies", "--batch"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--exact", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.devices:
        return epoch(given)
    torch.set_num_threads(1)
    started = time.perf_counter()
    rows = json.loads(given.out.read_text(encoding="utf-8"))["rows"] if given.out.is_file() else []
    command = "python benchmarks/scale.py"
    for chosen in given.rows:
        made = ROWS[chosen](given)
        rows = [row for row in rows if row["name"].split(".")[0] != chosen] + made
        for row in made:
            print(f"{row['what']}: {row['ours']:.4g} {row['unit']}", flush=True)
        facts = {
            "schema": 1,
            "name": "scale",
            "command": command,
            "threads": 1,
            "repeats": given.repeats,
            "rows": sorted(rows, key=lambda row: row["name"]),
            "provenance": provenance(command=command, seconds=time.perf_counter() - started),
        }
        with atomic_path(given.out) as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
