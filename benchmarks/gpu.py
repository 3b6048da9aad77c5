"""What a GPU does: our training loop beside the network alone, on data that lie on the device already.

    python -m benchmarks.gpu --nih-dir nih-subset/images   # a GPU; writes benchmarks/gpu.json
    python -m benchmarks.gpu --toy --out FILE              # the same on a CPU with tiny images: does it run?

For LeNet, the residual network, ResNet-18 and DenseNet-121 at 224 pixels in bfloat16: images a second of the
loop (from a cohort in memory, augmented), the same network and optimiser stepping on one batch that lies on
the device (wanted: at least 0.95 of it), the share of the device's peak where it is known, the memory it
needed, and the hours that an epoch of NIH's images would take. The rows *train* give the whole of a training
by the preset ``full``, of NIH's images where their folder is given; *tests* counts the tests that need a GPU.
What is measured is written row by row, so a run that is cut off keeps what it has. No GPU has run it yet.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scale import Watch
from cxrlib.cohort import Cohort
from cxrlib.datasets import load
from cxrlib.evaluation.results import provenance
from cxrlib.io.storage import atomic_path
from cxrlib.training.config import TrainConfig
from cxrlib.training.models import build
from cxrlib.training.recipes import recipe
from cxrlib.training.trainer import Trainer

MODELS = ("lenet", "residual", "resnet18", "densenet121")
NIH = 112_120
#: Dense bfloat16 operations a second, by what the device's name holds; as its maker states them.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "T4": 65e12}


def noise(count: int, pixels: int) -> Cohort:
    """Images of noise in memory, half of them ill: what is in them does not matter to the time."""
    rng = np.random.default_rng(0)
    rows = np.arange(count)
    table = pd.DataFrame({"image_id": rows, "patient_id": rows, "label": rows // 10 % 2})
    table["split"] = np.where(rows % 10 < 8, "train", np.where(rows % 10 < 9, "val", "test"))
    return Cohort(rng.integers(0, 256, (count, pixels, pixels), np.uint8), table, name="noise")


def alone(config: TrainConfig, pixels: int, steps: int, device: torch.device) -> tuple[float, float]:
    """Images a second of the network stepping on one batch on the device; and operations of a step."""
    model = build(config.model, image_size=pixels).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randint(0, 256, (config.batch_size, 1, pixels, pixels), device=device).float() / 255
    labels = torch.rand(config.batch_size, device=device).round()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images).float(), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    with FlopCounterMode(display=False) as counted:
        step()
    for _ in range(3):
        step()
    waited(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    waited(device)
    rate = steps * config.batch_size / (time.perf_counter() - started)
    return rate, float(counted.get_total_flops())


def waited(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def networks(given: argparse.Namespace, device: torch.device) -> Iterator[dict]:
    """A row a network: the loop beside the network alone."""
    pixels, batch, steps = (32, 8, 6) if given.toy else (224, 256, 40)
    cohort = noise(batch * (steps + 6) * 10 // 8 if given.toy else 8192, pixels)
    for name in MODELS[: 2 if given.toy else None]:
        accelerator = "cpu" if device.type == "cpu" else "gpu"
        config = TrainConfig(
            model=name, epochs=1000, batch_size=batch, precision="bf16-mixed", accelerator=accelerator,
            augment=recipe("residual", "full").augment,
        )  # fmt: skip
        ours, peers, memory = [], [], 0.0
        for _ in range(given.repeats):  # in turn, so that what else happens meets both
            watch = Watch(steps)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            Trainer(config, [watch]).fit(cohort)
            ours.append(watch.rate(batch, "wall"))
            if device.type == "cuda":
                memory = max(memory, torch.cuda.max_memory_allocated() / 1e9)
            rate, operations = alone(config, pixels, steps, device)
            peers.append(rate)
        peak = next((value for key, value in PEAKS.items() if key in named(device)), None)
        ratios = np.array(ours) / np.array(peers)
        yield {
            "name": f"{name}.train",
            "what": f"training images a second, our loop beside the network alone, {pixels} pixels, bfloat16",
            "ours": float(np.median(ours)),
            "peer": float(np.median(peers)),
            "ratio": float(np.median(ratios)),
            "low": float(ratios.min()),
            "high": float(ratios.max()),
            "target": 0.95,
            "unit": "images/s",
            "share_of_peak": None if peak is None else float(np.median(ours)) / batch * operations / peak,
            "memory_gb": memory or None,
            "hours_for_an_epoch_of_nih": NIH / float(np.median(ours)) / 3600,
        }


def trainings(given: argparse.Namespace, device: torch.device) -> Iterator[dict]:
    """A row a whole training: phantoms, and NIH's images where their folder is given."""
    size, accelerator = (32, "cpu") if given.toy else (128, "auto")
    wanted = {"phantoms": lambda: load("phantom", n=60 if given.toy else given.phantoms, image_size=size)}
    if given.nih_dir:
        wanted["nih"] = lambda: load("nih", data_dir=given.nih_dir, image_size=224)
    for name, read in wanted.items():
        cohort = read()
        precision = {"precision": "bf16-mixed", "accelerator": accelerator}
        trainer = Trainer(recipe("residual", "smoke" if given.toy else "full", **precision), [])
        started = time.perf_counter()
        trainer.fit(cohort)
        waited(device)
        yield {
            "name": f"train.{name}",
            "what": f"seconds of a whole training of the residual network on {len(cohort):,} images",
            "ours": time.perf_counter() - started,
            "target": None,
            "unit": "s",
        }


def tests(given: argparse.Namespace, device: torch.device) -> Iterator[dict]:
    """How many of the tests that need a GPU pass; none may fail."""
    if given.toy:
        return
    command = [sys.executable, "-m", "pytest", "-q", "tests/training/test_on_gpu.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    passed = re.search(r"(\d+) passed", done.stdout)
    if done.returncode or not passed:
        raise SystemExit(done.stdout + done.stderr)
    what = "tests that need a GPU and pass"
    yield {"name": "tests", "what": what, "ours": int(passed[1]), "target": None, "unit": "tests"}


def named(device: torch.device) -> str:
    """The device's name."""
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="tiny images on the CPU: does it run?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--phantoms", type=int, default=100_000)
    parser.add_argument("--nih-dir", type=Path, help="folder of NIH's images")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    if not given.toy and not torch.cuda.is_available():
        parser.exit(2, "There is no GPU here. `--toy` runs the same on the CPU, with tiny images.\n")
    device = torch.device("cpu" if given.toy else "cuda")
    started = time.perf_counter()
    rows: list[dict] = []
    for row in itertools.chain.from_iterable(make(given, device) for make in (tests, networks, trainings)):
        rows.append(row)
        facts = {"schema": 1, "name": "gpu", "device": named(device), "toy": given.toy, "rows": rows}
        facts["provenance"] = provenance(
            command="python -m benchmarks.gpu", seconds=time.perf_counter() - started
        )
        with atomic_path(given.out) as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        more = {key: row[key] for key in ("ratio", "memory_gb", "hours_for_an_epoch_of_nih") if row.get(key)}
        print(f"{row['name']}: {row['ours']:.4g} {row['unit']}", *(f"{k} {v:.3g}" for k, v in more.items()))


if __name__ == "__main__":
    main()
