"""The lung segmenter: a small U-Net, its weights inside the package, and its training.

Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28, at half resolution inside: 2 × 2 pixels become four
channels before the first convolution and are put back after the last, which makes it several times as fast
on a CPU. The weights that ship (``data/lungs.safetensors``) were trained on phantoms and on the Montgomery
radiographs; ``data/lungs.md`` is their card. ``python -m cxrlib.lungs.network`` exports them to
``data/lungs.onnx``, which :mod:`cxrlib.lungs.shipped` runs without torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrlib.cohort import Cohort
from cxrlib.errors import CheckpointError, ConfigError, DataError
from cxrlib.io.cache import progress_bar
from cxrlib.io.storage import atomic_path, cache_root
from cxrlib.lungs.shipped import SHIPPED_ONNX, SIDE
from cxrlib.training.augment import LungAugment
from cxrlib.training.checkpoints import load_checkpoint, load_state_dict, save_checkpoint

log = logging.getLogger(__name__)

SHIPPED_WEIGHTS = SHIPPED_ONNX.with_suffix(".safetensors")

_DOWN = (24, 40, 56, 72, 88)
_UP = (64, 56, 40, 24)


class LungNet(nn.Module):
    """0.58 million parameters; ``forward`` takes images (N, H, W) or (N, 1, H, W), of any dtype and scale,
    and returns logits, float, shape (N, 128, 128): the log odds of lung.

    The first layer sees each image twice, brought to mean 0 and standard deviation 1 as a whole, and within
    a neighbourhood of about a fifth of the side. Gain and offset do not matter, and a shift of exposure
    across the image hardly does.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = 8
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for width in _DOWN:
            self.down.append(nn.Sequential(*_convolution(channels, width), *_convolution(width, width)))
            channels = width
        for width, skipped in zip(_UP, _DOWN[-2::-1], strict=True):
            self.up.append(
                nn.Sequential(*_convolution(channels + skipped, width), *_convolution(width, width))
            )
            channels = width
        self.head = nn.Conv2d(channels, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = images.float()
        x = x.unsqueeze(1) if x.ndim == 3 else x
        if x.shape[-2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        x = (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 1e-3)
        around = _neighbourhood(x)
        spread = (_neighbourhood(x * x) - around * around).clamp(min=0) + 0.05
        x = torch.cat([x, (x - around) / spread.sqrt()], 1)
        x = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], 1))
        return F.pixel_shuffle(self.head(x), 2).squeeze(1)


def _neighbourhood(x: Tensor) -> Tensor:
    """The mean over some 28 × 28 pixels around each, by way of a quarter of the resolution."""
    coarse = F.avg_pool2d(F.avg_pool2d(x, 4), 7, stride=1, padding=3, count_include_pad=False)
    return F.interpolate(coarse, scale_factor=4, mode="bilinear", align_corners=False)


def _convolution(channels_in: int, channels: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


@lru_cache(maxsize=4)
def load_network(weights: str | Path | None = None) -> LungNet:
    """The segmenter with the weights that ship, or those of a file (safetensors, or of ``cxr lungs train``).

    - Raises CheckpointError: the file is missing, damaged, or holds another network.
    """
    path = SHIPPED_WEIGHTS if weights is None else Path(weights)
    try:
        state = load_state_dict(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} cannot be read as weights of the lung segmenter.",
            remedy="Give a file that `cxr lungs train` wrote, or none for the weights that ship.",
        ) from error
    state = {name: tensor.float() for name, tensor in state.items() if torch.is_tensor(tensor)}
    network = LungNet()
    # Batch normalisation counts its batches in an integer that prediction does not need.
    needed = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    if needed - set(state) or any(state[n].shape != network.state_dict()[n].shape for n in needed):
        raise CheckpointError(
            f"{path} does not hold the weights of the lung segmenter.",
            remedy="Give a file that `cxr lungs train` wrote, or none for the weights that ship.",
        )
    network.load_state_dict(state, strict=False)
    return network.to(memory_format=torch.channels_last).eval()


def save_weights(network: LungNet, path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write the weights as safetensors."""
    from safetensors.torch import save

    state = {
        name: tensor.contiguous()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(state, metadata))


def export(network: LungNet, path: str | Path) -> None:
    """Write the network as ONNX: ``images``, float32 (N, 128, 128), to ``logits`` of the same shape.

    It needs the packages onnx and onnxscript, which the extra ``dev`` brings.
    """
    images = torch.zeros(2, SIDE, SIDE)
    with atomic_path(path) as temporary:
        torch.onnx.export(
            network.cpu().eval(), (images,), temporary, input_names=["images"], output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},), external_data=False, dynamo=True,
            verbose=False,
        )  # fmt: skip


def lung_probabilities(
    network: LungNet, images: np.ndarray, *, mirror: bool = True, batch: int = 32
) -> np.ndarray:
    """The probability of lung, float32, shape (N, 128, 128), of uint8 images of shape (N, H, W).

    ``mirror``: the mean over the image and its mirror image; twice the time.
    """
    device = next(network.parameters()).device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            x = torch.from_numpy(np.array(images[start : start + batch])).to(device)
            logits = network(x)
            if mirror:
                logits = (logits + network(x.flip(-1)).flip(-1)) / 2
            parts.append(torch.sigmoid(logits).cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, SIDE, SIDE), np.float32)


@dataclass(frozen=True)
class LungTraining:
    """How the segmenter is trained.

    - ``images``: how many images are shown in all, each as often as its turn comes.
    - ``batch_size``, ``learning_rate``, ``weight_decay``: AdamW's, with a linear rise over the first
      twentieth and a cosine down to zero.
    - ``average_decay``: of the moving average of the weights that is kept.
    - ``augment``: None shows every image as it is.
    - ``precision``: "bf16" (autocast) or "32".
    - ``seed``: of weights, order and augmentation.
    """

    images: int = 30_000
    batch_size: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    average_decay: float = 0.995
    augment: LungAugment | None = field(default=LungAugment())
    precision: str = "bf16"
    seed: int = 0


def train_segmenter(
    cohorts: Cohort | Sequence[Cohort],
    config: LungTraining | None = None,
    *,
    store: str | Path | None = None,
    progress: bool | None = None,
) -> LungNet:
    """Train on cohorts with lung masks, or take the network from the artefact store where it was trained.

    Batches draw from all cohorts alike, however many images each has. A training that was cut off is resumed
    and ends with the same weights.

    - ``cohorts``: with ``lung_masks``, at :data:`SIDE` pixels; all their images are trained on, whatever
      their split.
    - ``store``: a folder; None for ``models`` in the cache.
    - Raises DataError: a cohort has no lung masks, or images of another size.
    """
    cohorts = [cohorts] if isinstance(cohorts, Cohort) else list(cohorts)
    config = config or LungTraining()
    masks = [_masks_of(cohort) for cohort in cohorts]
    hashes = [_masked_hash(cohort, one) for cohort, one in zip(cohorts, masks, strict=True)]
    facts = [hashes, asdict(config), _DOWN, _UP]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = (cache_root() / "models" if store is None else Path(store)) / f"lungs-{key}" / "last.pt"
    training = _Training(cohorts, masks, config)
    if path.exists():
        training.load(load_checkpoint(path))
    with progress_bar(training.steps, "Training the lung segmenter", progress, unit="step") as bar:
        bar.update(training.step)
        while training.step < training.steps:
            training.advance()
            bar.update(1)
            if training.step % 250 == 0 or training.step == training.steps:
                save_checkpoint(path, training.state())
    network = training.averaged.module
    assert isinstance(network, LungNet)
    return network.eval()


class _Training:
    """The loop's state. Every draw of a step follows from the seed and the step's number."""

    def __init__(self, cohorts: list[Cohort], masks: list[np.ndarray], config: LungTraining) -> None:
        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

        self.cohorts, self.masks, self.config = cohorts, masks, config
        self.steps = max(1, config.images // config.batch_size)
        self.step = 0
        torch.manual_seed(config.seed)
        self.network = LungNet().to(memory_format=torch.channels_last).train()
        average = get_ema_multi_avg_fn(config.average_decay)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def advance(self) -> None:
        progress = self.step / self.steps
        rise = min(1.0, (progress + 1 / self.steps) / 0.05)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rise * (1 + math.cos(math.pi * progress)) / 2
        images, masks = self._batch()
        # Half the time on processors that have bfloat16; the weights and their average stay in float32.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            logits = self.network(images)
        loss = segmentation_loss(logits.float().unsqueeze(1), masks)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.averaged.update_parameters(self.network)
        self.step += 1

    def _batch(self) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.config.seed, 1, self.step])
        which = np.arange(self.config.batch_size) % len(self.cohorts)
        rows = [int(rng.integers(len(self.cohorts[k]))) for k in which]
        drawn = list(zip(which, rows, strict=True))
        images = _as_batch([self.cohorts[k].images[row] for k, row in drawn])
        masks = _as_batch([self.masks[k][row] for k, row in drawn])
        if self.config.augment is None:
            return images, masks
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return self.config.augment(images, masks, generator)

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy plus one minus the soft Dice of each image (Milletari et al. 2016,
    doi:10.1109/3DV.2016.79). Both of shape (B, 1, H, W)."""
    probability = torch.sigmoid(logits)
    overlap = 2 * (probability * masks).sum((1, 2, 3)) + 1
    dice = overlap / (probability.sum((1, 2, 3)) + masks.sum((1, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, masks) + (1 - dice).mean()


def _as_batch(arrays: list[np.ndarray]) -> Tensor:
    """uint8 (H, W) each -> float (B, 1, H, W)."""
    return torch.from_numpy(np.stack(arrays)).float()[:, None]


def _masks_of(cohort: Cohort) -> np.ndarray:
    if cohort.lung_masks is None or cohort.images.shape[1:] != (SIDE, SIDE):
        raise DataError(
            f"{cohort!r} cannot train the segmenter.",
            remedy=f"Give cohorts with lung_masks at image_size={SIDE}.",
        )
    return cohort.lung_masks


def _masked_hash(cohort: Cohort, masks: np.ndarray) -> str:
    some = hashlib.sha256(np.ascontiguousarray(masks[:: 1 + len(cohort) // 512]).tobytes())
    return cohort.content_hash() + some.hexdigest()[:16]


def dice(masks: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Dice's coefficient of each pair of masks (uint8 0/1, both (N, H, W)); 1 where both are empty."""
    if masks.shape != reference.shape:
        raise ConfigError(
            f"Masks of shape {masks.shape} cannot be compared with {reference.shape}.",
            remedy="Bring both to one size.",
        )
    axes = (1, 2)
    overlap = (masks & reference).sum(axes, dtype=np.int64)
    total = masks.sum(axes, dtype=np.int64) + reference.sum(axes, dtype=np.int64)
    return np.where(total == 0, 1.0, 2 * overlap / np.maximum(total, 1))


if __name__ == "__main__":
    export(load_network(), SHIPPED_ONNX)
