"""Networks that turn radiographs into one logit each: ``build(name)`` makes them by name.

Every network is wrapped in a :class:`Classifier`, which takes uint8 images as the Cohort holds them and
carries the mean and spread of its training images along, so that a checkpoint needs nothing beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cxrlib.errors import CheckpointError, ConfigError


class Classifier(nn.Module):
    """A network with its input normalisation.

    ``forward`` takes images of shape (N, 1, H, W) or (N, H, W), 0–255, any dtype, and returns logits, float,
    shape (N,): the log odds of pneumonia.
    """

    mean: Tensor  # of the training pixels, scalar, 0–255
    std: Tensor

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(127.5))
        self.register_buffer("std", torch.tensor(64.0))

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim == 3:
            images = images.unsqueeze(1)
        return self.network((images.to(self.mean.dtype) - self.mean) / self.std).squeeze(1)

    def normalise_by(self, images: np.ndarray) -> None:
        """Use the mean and standard deviation (at least 1) of these images: uint8, (N, H, W)."""
        mean = float(images.mean())
        # Image by image: the array's own std would copy it eightfold.
        std = math.sqrt(np.mean([np.square(one - mean).mean() for one in images]))
        self.mean.fill_(mean)
        self.std.fill_(max(std, 1.0))


class Averaged(AveragedModel):
    """A network's moving average, itself a network: ``module``."""

    module: Classifier


def averaged(model: Classifier, decay: float) -> Averaged | None:
    """The exponential moving average of a network's weights and statistics; None for no decay."""
    if not decay:
        return None
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's own lacks them
    return Averaged(model, multi_avg_fn=average, use_buffers=True)


class Halving(nn.MaxPool2d):
    """Max pooling by two. Same numbers, but three times as fast where it predicts: torch's, which also notes
    where each maximum was, takes channels one by one where they do not fill a vector."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        if channels >= 8 or x.device.type != "cpu" or not torch.is_inference_mode_enabled():
            return super().forward(x)
        last = x.permute(0, 2, 3, 1)[:, : height // 2 * 2, : width // 2 * 2]
        rows = torch.maximum(last[:, :, ::2], last[:, :, 1::2])  # (N, H, W / 2, C)
        return torch.maximum(rows[:, ::2], rows[:, 1::2]).permute(0, 3, 1, 2)


class LeNet(nn.Sequential):
    """LeNet-5 with rectifiers and max pooling (LeCun et al. 1998, doi:10.1109/5.726791)."""

    def __init__(self, width: int = 6, image_size: int = 128, dropout: float = 0.0):
        side = ((image_size - 4) // 2 - 4) // 2
        if side < 1:
            raise ConfigError(
                f"LeNet's two 5 × 5 convolutions leave nothing of {image_size} pixels.",
                remedy="Use images of at least 16 pixels.",
            )
        second = round(width * 16 / 6)
        super().__init__(
            nn.Conv2d(1, width, 5), Halving(), nn.ReLU(),
            nn.Conv2d(width, second, 5), Halving(), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second * side**2, 120), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(120, 84), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(84, 1),
        )  # fmt: skip


class DoubleConv(nn.Sequential):
    """The original project's network: six blocks of two 3 × 3 convolutions, 64 to 2048 channels.

    At its full width of 64 it has 75.5 million parameters and takes 256 × 256 pixels; ``width=8`` is what a
    laptop can train. The average over the last map makes it take any size of at least 64 pixels.
    """

    def __init__(self, width: int = 64, image_size: int = 256, dropout: float = 0.0):
        if image_size < 64:
            raise ConfigError(
                f"Six halvings leave nothing of {image_size} pixels.",
                remedy="Use images of at least 64 pixels for double_conv.",
            )
        layers: list[nn.Module] = []
        channels = 1
        for block in range(6):
            for _ in range(2):
                layers += _conv_norm(channels, width << block)
                channels = width << block
            layers.append(Halving())
        super().__init__(*layers, *_head(channels, dropout))


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions around a shortcut (He et al. 2016, doi:10.1109/CVPR.2016.90)."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            *_conv_norm(channels_in, channels, stride), *_conv_norm(channels, channels)[:2]
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True), nn.Conv2d(channels_in, channels, 1, bias=False)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class Residual(nn.Sequential):
    """A compact residual network: a strided stem and four stages of two blocks, each twice as wide.

    0.7 million parameters at the default width of 16: small enough to train on two CPU cores.
    """

    def __init__(self, width: int = 16, image_size: int = 128, dropout: float = 0.0):
        del image_size  # takes any
        layers = _conv_norm(1, width, stride=2)
        channels = width
        for stage in range(4):
            layers += [
                ResidualBlock(channels, width << stage, stride=2),
                ResidualBlock(width << stage, width << stage, stride=1),
            ]
            channels = width << stage
        super().__init__(*layers, *_head(channels, dropout))


def _conv_norm(channels_in: int, channels: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def _head(channels: int, dropout: float) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, 1)]


def _torchvision(name: str, stem: str, head: str) -> Callable[..., nn.Module]:
    """A builder of one of torchvision's networks with one input channel and one logit."""

    def make(image_size: int = 224, dropout: float = 0.0, weights: str | None = None) -> nn.Module:
        del image_size  # takes any
        import torchvision

        try:
            network = torchvision.models.get_model(
                name, weights="DEFAULT" if weights == "torchvision" else None
            )
        except OSError as error:  # URLError and friends
            raise ConfigError(
                f"torchvision's weights for {name} could not be downloaded ({error}).",
                remedy="Go online once, or give the path of a weights file that you have.",
            ) from error
        colour = network.get_submodule(stem)
        alike = {name: getattr(colour, name) for name in ("out_channels", "kernel_size", "stride", "padding")}
        grey = nn.Conv2d(1, **alike, bias=colour.bias is not None)
        # A grey image is an RGB one with three equal channels: the sum of their weights does the same.
        grey.weight.data.copy_(colour.weight.data.sum(1, keepdim=True))
        network.set_submodule(stem, grey)
        features = network.get_submodule(head).in_features
        network.set_submodule(head, nn.Sequential(nn.Dropout(dropout), nn.Linear(features, 1)))
        return network

    return make


#: name -> (builder, default width or None where the width is fixed, one line about it)
MODELS: dict[str, tuple[Callable[..., nn.Module], int | None, str]] = {
    "lenet": (LeNet, 6, "LeNet-5 for a larger image: two convolutions, three dense layers"),
    "double_conv": (DoubleConv, 64, "the original project's: six double convolutions, 75.5 M parameters"),
    "residual": (Residual, 16, "compact residual network, 0.7 M parameters; trains on a laptop"),
    "resnet18": (_torchvision("resnet18", "conv1", "fc"), None, "torchvision's ResNet-18"),
    "densenet121": (
        _torchvision("densenet121", "features.conv0", "classifier"),
        None,
        "torchvision's DenseNet-121, CheXNet's network",
    ),
    "efficientnet_b0": (
        _torchvision("efficientnet_b0", "features.0.0", "classifier.1"),
        None,
        "torchvision's EfficientNet-B0",
    ),
}


def build(
    name: str,
    *,
    width: int | None = None,
    image_size: int = 128,
    dropout: float = 0.0,
    weights: str | Path | None = None,
) -> Classifier:
    """Make a network by name, a key of ``MODELS``.

    - ``width``: channels of the first block; None for the network's own. Torchvision's have a fixed one.
    - ``image_size``: side of the square images, in pixels. Only LeNet's dense layers depend on it.
    - ``dropout``: probability of dropping a feature before each dense layer, from 0 up to 1.
    - ``weights``: None for random ones, ``"torchvision"`` for ImageNet's (downloaded once), or the path of a
      file of this network's own weights: a checkpoint of ours, a ``state_dict``, or safetensors.
    - Raises ConfigError: unknown name, a width where it is fixed, or an image that is too small.
    - Raises CheckpointError: a weights file that cannot be read or belongs to another network.
    """
    if name not in MODELS:
        raise ConfigError(f"There is no model called {name!r}.", remedy=f"Use one of {', '.join(MODELS)}.")
    if not 0 <= dropout < 1:
        raise ConfigError(
            f"dropout is {dropout}.", remedy="Give a probability from 0 up to, not including, 1."
        )
    builder, default_width, _ = MODELS[name]
    settings: dict = {"image_size": image_size, "dropout": dropout}
    if default_width is not None:
        if width is not None and width < 1:
            raise ConfigError(f"width is {width}.", remedy="Give at least 1 channel.")
        settings["width"] = width or default_width
    elif width is not None:
        raise ConfigError(
            f"{name} has a fixed width.", remedy="Leave the width out, or use lenet, double_conv or residual."
        )
    if weights == "torchvision":
        if default_width is not None:
            raise ConfigError(f"torchvision has no weights for {name}.", remedy="Use weights=None.")
        settings["weights"] = "torchvision"
    # CPUs and GPUs both convolve this memory layout faster.
    model = Classifier(builder(**settings)).to(memory_format=torch.channels_last)
    if weights is not None and weights != "torchvision":
        _load_weights(model, Path(weights), name)
    return model


def count_parameters(model: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _load_weights(model: Classifier, path: Path, name: str) -> None:
    from cxrlib.training.checkpoints import load_state_dict

    state = load_state_dict(path)
    target = model if any(key.startswith("network.") for key in state) else model.network
    try:
        target.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        detail = " ".join(str(error).split())[-200:]
        raise CheckpointError(
            f"{path} holds the weights of another network than {name}: {detail}",
            remedy="Give the name, width and image size that the weights were trained with.",
        ) from error
