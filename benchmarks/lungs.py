"""Lung segmentation: images a second in batch, beside a plain U-Net and beside the same network by torch.

    python benchmarks/lungs.py            # writes benchmarks/lungs.json; a minute on two cores

Ours is what ``cxrlib.lungs.masks`` does with arrays in memory: the network on each image and its mirror
image, the two largest regions, the check, the mask at the image's size. The row ``lungs.onnxruntime`` has
torch running the same network as its peer. The other rows run it by torch, and their peer is a U-Net at full
resolution (16, 32, 64, 128 channels) run once an image, its output thresholded at the image's size and
nothing more. Both in turn, in one process, on two threads.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cxrlib.datasets import load
from cxrlib.evaluation.results import provenance
from cxrlib.io.storage import atomic_path
from cxrlib.lungs.masks import lung_masks
from cxrlib.lungs.network import load_network, lung_probabilities
from cxrlib.lungs.shipped import shipped_probabilities
from cxrlib.training.models import count_parameters

TARGET = 60.0


class PlainUNet(nn.Module):
    """Two convolutions a level, four levels, at full resolution (Ronneberger et al. 2015)."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 128)):
        super().__init__()
        self.down = nn.ModuleList(
            self._block(before, after) for before, after in zip((1, *widths[:-1]), widths, strict=True)
        )
        self.up = nn.ModuleList(
            self._block(below + beside, beside)
            for below, beside in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], 1, 1)

    @staticmethod
    def _block(before: int, after: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear"), skip], 1))
        return self.head(x)


def plain(network: PlainUNet, images: np.ndarray) -> np.ndarray:
    masks = []
    with torch.inference_mode():
        for start in range(0, len(images), 32):
            x = torch.from_numpy(images[start : start + 32]).float()[:, None] / 255
            x = x.contiguous(memory_format=torch.channels_last)
            masks.append((network(x) > 0).numpy())
    return np.concatenate(masks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # read by onnxruntime's session
    images = np.array(load("phantom", n=given.images, image_size=128, seed=21).images)
    ours = load_network()
    peer = PlainUNet().to(memory_format=torch.channels_last).eval()
    runs = {
        "onnxruntime": lambda: lung_masks(shipped_probabilities(images), images.shape[1:]),
        "ours": lambda: lung_masks(lung_probabilities(ours, images), images.shape[1:]),
        "once": lambda: lung_masks(lung_probabilities(ours, images, mirror=False), images.shape[1:]),
        "peer": lambda: plain(peer, images),
    }
    rates = {name: [] for name in runs}
    for repeat in range(given.repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if repeat:  # the first round warms up
                rates[name].append(len(images) / (time.perf_counter() - started))
    rows = []
    for name, peer_name, what in (
        ("ours", "peer", "segment, image and mirror image"),
        ("once", "peer", "segment, image once"),
        ("onnxruntime", "ours", "segment by onnxruntime, against the same network by torch"),
    ):
        ratios = np.array(rates[name]) / np.array(rates[peer_name])
        rows.append(
            {
                "name": f"lungs.{name}",
                "what": what,
                "ours": round(float(np.median(rates[name])), 1),
                "peer": round(float(np.median(rates[peer_name])), 1),
                "ratio": round(float(np.median(ratios)), 3),
                "low": round(float(ratios.min()), 3),
                "high": round(float(ratios.max()), 3),
                "target": {"ours": TARGET, "onnxruntime": 1.0}.get(name),
                "unit": "images/s",
                "lowest": round(float(min(rates[name])), 1),
            }
        )
        print(
            f"{what}: {rows[-1]['ours']} images/s, lowest {rows[-1]['lowest']}; "
            f"peer: {rows[-1]['peer']}, ratio {rows[-1]['ratio']} ({rows[-1]['low']} to {rows[-1]['high']})"
        )
    facts = {
        "schema": 1,
        "name": "lungs",
        "command": "python benchmarks/lungs.py",
        "threads": given.threads,
        "processors": os.cpu_count(),
        "images": len(images),
        "repeats": given.repeats,
        "parameters": {"ours": count_parameters(ours), "peer": count_parameters(peer)},
        "rows": rows,
        "provenance": {key: provenance()[key] for key in ("git_commit", "versions", "hardware")},
    }
    with atomic_path(given.out) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
