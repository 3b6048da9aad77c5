"""What ``make bench`` compares with: other people's ways to the same arrays, steps and intervals.

Each is written as its makers' documentation would have it, with what makes it quick: persistent workers,
Pillow's uint8 operations in place of float ones, no sorting that can be spared.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from cxrlib.errors import DataError
from cxrlib.training.recipes import AUGMENT, recipe

MEAN, STD = 0.48, 0.24
"""Grey on the 0–1 scale; only the time of normalising matters here."""


class RandomGamma:
    """transforms v2 has no random gamma; its own ``adjust_gamma`` with a draw before it."""

    def __call__(self, image: Any) -> Any:  # whatever transforms v2 takes
        from torchvision.transforms.v2 import functional

        exponent = (2 * torch.rand(()).item() - 1) * AUGMENT.gamma
        return functional.adjust_gamma(image, math.exp(exponent))


def image_folder(root: Path, pixels: int, *, augmented: bool = True) -> Dataset:
    """torchvision's ImageFolder with the augmentation of our recipes in transforms v2."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    varied = [
        v2.RandomAffine(
            AUGMENT.rotate,
            (AUGMENT.translate, AUGMENT.translate),
            (1 - AUGMENT.scale, 1 + AUGMENT.scale),
            interpolation=v2.InterpolationMode.BILINEAR,
        ),
        RandomGamma(),
        v2.ColorJitter(brightness=AUGMENT.brightness, contrast=AUGMENT.contrast),
    ]
    steps = [v2.Grayscale(), v2.Resize((pixels, pixels), v2.InterpolationMode.BILINEAR, antialias=True)]
    steps += varied if augmented else []
    steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([MEAN], [STD])]
    return ImageFolder(root, v2.Compose(steps))


def nih_dataset(folder: Path, names: list[str], pixels: int) -> Dataset:
    """TorchXRayVision's NIH dataset with its crop and resize: these files, in this order."""
    import torchxrayvision as xrv
    from torchvision.transforms import Compose

    transform = Compose([xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(pixels)])
    dataset = xrv.datasets.NIH_Dataset(
        str(folder), views=["PA", "AP"], transform=transform, unique_patients=False
    )
    rows = {name: row for row, name in enumerate(dataset.csv["Image Index"])}
    missing = [name for name in names if name not in rows]
    if missing:
        raise DataError(
            "Images that NIH's table does not know.", offenders=missing, remedy="Give NIH's own files."
        )
    return _Images(Subset(dataset, [rows[name] for name in names]))


class _Images(Dataset):
    """The image of each sample, without the rest of its dict."""

    def __init__(self, samples: Subset):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.samples[row]["img"]


def loader(dataset: Dataset, workers: int, *, shuffle: bool = True, batch_size: int = 64) -> DataLoader:
    """A DataLoader whose workers stay from epoch to epoch, so that their start is not counted."""
    return DataLoader(
        dataset,
        batch_size,
        shuffle=shuffle,
        num_workers=workers,
        drop_last=shuffle,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )


def rate(batches: DataLoader) -> float:
    """Images a second of one pass."""
    started = time.perf_counter()
    images = sum(len(batch) for batch in batches)
    return images / (time.perf_counter() - started)


def network(model: str, pixels: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Our recipe's network and optimiser without our loop; inputs are normalised by the caller."""
    from cxrlib.training.models import build

    config = recipe(model, "full")
    made = build(model, width=config.width, dropout=config.dropout, image_size=pixels).network.train()
    return made, torch.optim.AdamW(made.parameters(), config.learning_rate, weight_decay=config.weight_decay)


def train_on(
    batches: Iterable[tuple[Tensor, Tensor]], made: nn.Module, optimizer: torch.optim.Optimizer
) -> float:
    """The plain loop over an epoch of batches. Returns images a second."""
    images, started = 0, time.perf_counter()
    for x, y in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = F.binary_cross_entropy_with_logits(made(x).squeeze(1), y.float())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        images += len(x)
    return images / (time.perf_counter() - started)


class Original:
    """The network that the course grew from: 75.5 million parameters at 256 pixels, fed file by file.

    Each file is opened when its turn comes, made grey, resized and divided by 255, in the training process.
    """

    def __init__(self, paths: list[str], labels: np.ndarray, *, width: int = 64, pixels: int = 256):
        from cxrlib.training.models import DoubleConv

        self.paths, self.labels, self.pixels = paths, labels, pixels
        self.network = DoubleConv(width, pixels).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-4)

    def rate(self, images: int = 4) -> float:
        """Images a second of one step on so many images."""
        return train_on(self._batches(images), self.network, self.optimizer)

    def _batches(self, images: int) -> Iterator[tuple[Tensor, Tensor]]:
        from PIL import Image

        made = []
        for path in self.paths[:images]:
            with Image.open(path) as image:
                grey = image.convert("L").resize((self.pixels, self.pixels), Image.Resampling.BILINEAR)
            made.append(np.asarray(grey, np.float32)[None] / 255)
        yield torch.from_numpy(np.stack(made)), torch.from_numpy(self.labels[:images])


def auc_of_replicates(
    labels: np.ndarray, scores: np.ndarray, codes: np.ndarray, counts: np.ndarray
) -> list[float]:
    """scikit-learn's AUC in a Python loop.

    ``codes``: the patient of each row, 0 … P − 1; ``counts``, (B, P): how often each is in a replicate.
    """
    from sklearn.metrics import roc_auc_score

    found = []
    for drawn in counts:
        rows = np.repeat(np.arange(len(labels)), drawn[codes])
        found.append(roc_auc_score(labels[rows], scores[rows]))
    return found
