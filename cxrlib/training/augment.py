"""Augmentation of a whole batch at once, on whatever device the batch is on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrlib.errors import ConfigError
from cxrlib.training.share import ALL, Share


@dataclass(frozen=True)
class Augment:
    """How far an image may be changed without changing what a radiologist would say of it.

    Each setting is the half-width of a uniform draw around no change. All zero is no augmentation.

    - ``rotate``: degrees.
    - ``translate``: share of the image's side.
    - ``scale``: relative zoom.
    - ``brightness``: shift, as a share of the 0–255 range.
    - ``contrast``: relative gain around the image's own mean.
    - ``gamma``: half-width of the exponent's logarithm: 0.2 draws from exp(-0.2) to exp(0.2).
    - ``noise``: largest standard deviation of added Gaussian noise, as a share of the 0–255 range.
    - ``flip``: probability of a left-right flip. The heart then lies on the right: off unless you mean it.
    - ``erase``: probability of blanking a random rectangle (Zhong et al. 2020, doi:10.1609/aaai.v34i07.7000).
    """

    rotate: float = 7.0
    translate: float = 0.06
    scale: float = 0.1
    brightness: float = 0.1
    contrast: float = 0.2
    gamma: float = 0.2
    noise: float = 0.0
    flip: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            size: Any = abs(value) if isinstance(value, Real) else math.inf
            if not size < 1e9 or value < 0 or (name in ("flip", "erase", "scale", "contrast") and value > 1):
                raise ConfigError(
                    f"Augment({name}={value}) makes no sense.",
                    remedy="Give a value from 0 to 1, or degrees for rotate.",
                )

    def __call__(self, images: Tensor, generator: torch.Generator, share: Share = ALL) -> Tensor:
        """Change every image of a batch, float (B, 1, H, W), 0–255, by a draw of its own.

        ``generator`` is on the CPU, so that every device sees the same draws; images that are a ``share`` of
        a larger batch get the draws that they would get within it.
        """
        draws = share.draw((12, len(images)), generator, axis=1).to(images.device)
        images = self._move(images, draws[:5])
        images = self._expose(images, draws[5:8])
        if self.noise:
            spread = draws[8].view(-1, 1, 1, 1) * self.noise * 255
            noise = share.draw(tuple(images.shape), generator, kind=torch.randn).to(images.device)
            images = images + spread * noise
        if self.erase:
            images = _erase(images, draws[9] < self.erase, draws[10:12])
        return images.clamp(0, 255)

    def _move(self, images: Tensor, draws: Tensor) -> Tensor:
        if not (self.rotate or self.translate or self.scale or self.flip):
            return images
        angle, zoom, right, down = 2 * draws[:4] - 1
        angle = angle * math.radians(self.rotate)
        zoom = 1 + zoom * self.scale
        mirror = torch.where(draws[4] < self.flip, -1.0, 1.0)
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        # affine_grid's coordinates run from -1 to 1, hence the factor 2 for a share of the side.
        theta = torch.stack(
            [
                torch.stack([cos * mirror, -sin, 2 * self.translate * right], -1),
                torch.stack([sin * mirror, cos, 2 * self.translate * down], -1),
            ],
            dim=1,
        )
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

    def _expose(self, images: Tensor, draws: Tensor) -> Tensor:
        if not (self.brightness or self.contrast or self.gamma):
            return images
        shift, gain, exponent = (2 * draws - 1).view(3, -1, 1, 1, 1)
        if self.gamma:
            images = (images / 255).clamp_(1e-6, 1).pow_(torch.exp(exponent * self.gamma)).mul_(255)
        mean = images.mean((1, 2, 3), keepdim=True)
        # In place on what was just made: large intermediate results cost more than the arithmetic.
        images = (images - mean).mul_(1 + gain * self.contrast)
        return images.add_(mean).add_(255 * shift * self.brightness)


@dataclass(frozen=True)
class LungAugment:
    """How training radiographs are varied, so that a scanner or a pose not seen is not a surprise.

    Half-widths of uniform draws, as in :class:`Augment`, which does the exposure; the rest is drawn here
    because a mask has to move along.

    - ``rotate``, ``translate``: degrees; share of the side.
    - ``zoom``, ``stretch``: logarithm of the magnification, and of the ratio of height to width.
    - ``exposure``: brightness, contrast, gamma and noise.
    - ``tilt``: a brightness slope across the image, as a share of its spread.
    - ``blur``: probability of each of: blurring, sharpening.
    - ``patch``: probability of each of: a bright or dark box, a padded edge, a soft opacity.
    - ``flip``: probability of a mirror image.
    """

    rotate: float = 10.0
    translate: float = 0.08
    zoom: float = 0.2
    stretch: float = 0.15
    exposure: Augment = field(
        default=Augment(rotate=0, translate=0, scale=0, brightness=0.0, contrast=0.3, gamma=0.5, noise=0.05)
    )
    tilt: float = 0.4
    blur: float = 0.15
    patch: float = 0.2
    flip: float = 0.5

    def __call__(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Vary a batch: images float (B, 1, H, W), 0–255, and masks float (B, 1, H, W), 0–1."""
        count, size = len(images), images.shape[-1]
        u = torch.rand(20, count, generator=generator)
        column = u.view(20, count, 1, 1, 1)  # one draw an image, to broadcast over its pixels
        images, masks = self._move(images, masks, 2 * u[:5] - 1, u[5] < self.flip)
        images = self.exposure(images, generator)
        spread = images.std((1, 2, 3), keepdim=True)
        across = torch.linspace(-1, 1, size)
        down = across.view(-1, 1)
        slope = (2 * column[6] - 1) * down + (2 * column[7] - 1) * across
        images = images + self.tilt * spread * slope

        amount = torch.where(u[8] < self.blur, u[9], torch.where(u[8] > 1 - self.blur, -1.5 * u[9], 0.0))
        some = amount != 0
        soft = F.avg_pool2d(F.pad(images[some], (2, 2, 2, 2), mode="reflect"), 5, stride=1)
        images[some] = torch.lerp(images[some], soft, amount[some].view(-1, 1, 1, 1))

        rows, columns = (down + 1) / 2, (across + 1) / 2
        y, x, h, w = column[10:14]
        levels = 255 * (column[14] > 0.5).float()
        box = ((rows - y).abs() < 0.02 + 0.08 * h) & ((columns - x).abs() < 0.02 + 0.12 * w)
        images = torch.where(box & (column[15] < self.patch), levels, images)
        strength = 1.5 * spread * (column[16] < self.patch) * column[17]
        up_down = torch.exp(-(((rows - y) / (0.05 + 0.15 * w)) ** 2))
        images = images + strength * up_down * torch.exp(-(((columns - x) / (0.05 + 0.15 * h)) ** 2))

        edge = torch.where(column[18] < self.patch, 0.2 * column[19], 0.0)
        side = (4 * column[12]).long()
        depth = torch.where(side < 2, rows, columns)
        padded = torch.where(side % 2 == 1, 1 - depth, depth) < edge
        return torch.where(padded, levels, images), torch.where(padded, 0.0, masks)

    def _move(self, images: Tensor, masks: Tensor, u: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        angle = u[0] * math.radians(self.rotate)
        zoom, ratio = torch.exp(u[1] * self.zoom), torch.exp(u[2] * self.stretch / 2)
        sign = torch.where(mirrored, -1.0, 1.0)
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        theta = torch.stack(
            [
                torch.stack([cos * sign / ratio, -sin / ratio, 2 * self.translate * u[3]], -1),
                torch.stack([sin * sign * ratio, cos * ratio, 2 * self.translate * u[4]], -1),
            ],
            dim=1,
        )
        both = torch.cat([images, 255 * masks], 1)
        grid = F.affine_grid(theta, list(both.shape), align_corners=False)
        both = F.grid_sample(both, grid, padding_mode="zeros", align_corners=False)
        return both[:, :1], (both[:, 1:] > 127.5).float()


def _erase(images: Tensor, chosen: Tensor, centre: Tensor) -> Tensor:
    """Blank a rectangle of a fifth of the side around the centres of the chosen images."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device).view(1, 1, -1, 1)
    columns = torch.arange(width, device=images.device).view(1, 1, 1, -1)
    y, x = (centre[0] * height).view(-1, 1, 1, 1), (centre[1] * width).view(-1, 1, 1, 1)
    inside = ((rows - y).abs() < height / 10) & ((columns - x).abs() < width / 10) & chosen.view(-1, 1, 1, 1)
    return images.masked_fill(inside, 0)
