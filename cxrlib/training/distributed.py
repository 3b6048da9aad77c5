"""Several processes that train one network together, so that it ends up as one process would have left it.

A step's batch is the same for any number of processes: it is drawn and put in order for all of them, and
process ``r`` of ``W`` takes the images ``r``, ``r + W``, … of it. Random numbers (augmentation, dropout) are
drawn for the whole batch by every process, which uses those of its own images. Batch normalisation takes its
statistics from the whole batch. What is decided on (a loss, a check-in) is gathered and the same everywhere.

Two things differ: dropout on GPUs draws other masks with several devices than with one, and the stochastic
depth of torchvision's EfficientNet draws for each device by itself.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from cxrlib.errors import ConfigError
from cxrlib.training.exchange import connect, rows_of_all
from cxrlib.training.share import Share

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from cxrlib.training.config import TrainConfig

Network = TypeVar("Network", bound=nn.Module)


class _Normalised(torch.autograd.Function):
    """A batch normalised by all processes' mean and variance: one exchange forward, one back.

    Back it is Ioffe and Szegedy's gradient (2015, arXiv:1502.03167) with its two means over all processes'
    images. torch's own kernels do what goes over pixels; what there is one of a channel is NumPy's, in 64
    bits, whose calls take a fraction of torch's.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor, layer: SyncedBatchNorm) -> Tensor:
        # layers that spread_layers meets have nn.BatchNorm2d's defaults, which keep statistics
        assert layer.num_batches_tracked is not None and layer.momentum is not None
        assert layer.running_mean is not None and layer.running_var is not None
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        # torch.var_mean gives the same and takes three times as long.
        own = torch.ops.aten.batch_norm_update_stats(exact, None, None, 0.0)
        mean, variance = (one.numpy().astype(np.float64) for one in own)
        moments = rows_of_all(np.stack([mean, variance + mean * mean]) * (len(x) / layer.share.total))
        mean, square = moments.sum(0)
        variance = square - mean * mean
        count = layer.share.total * x.shape[2] * x.shape[3]
        known = [mean, 1 / np.sqrt(variance + layer.eps), variance, variance * count / (count - 1)]
        mean_, scale, variance_, unbiased = torch.from_numpy(np.stack(known)).to(exact.dtype).unbind()
        layer.num_batches_tracked.add_(1)
        layer.running_mean.lerp_(mean_, layer.momentum)
        layer.running_var.lerp_(unbiased, layer.momentum)
        context.save_for_backward(x, weight, mean_, scale)
        context.known = *known[:2], count
        return torch.batch_norm(x, weight, bias, mean_, variance_, False, 0.0, layer.eps, False)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (x, weight, *exact), back = context.saved_tensors, gradients[0]
        mean, scale, count = context.known
        if back.stride() != x.stride():  # kernels take six times as long where the two lie differently
            back = torch.empty_like(x, dtype=back.dtype).copy_(back)
        _, for_weight, for_bias = torch.ops.aten.native_batch_norm_backward(
            back, x, weight, None, None, *exact, True, 0.0, [False, True, True]
        )
        by_image, by_pixel = rows_of_all(np.stack([for_bias.numpy(), for_weight.numpy()])).sum(0) / count
        # weight · scale · (back − mean(back) − normalised · mean(back · normalised)), channel by channel
        factor = weight.detach().numpy() * scale
        slope = -by_pixel * scale * factor
        coefficients = np.stack([-by_image * factor - mean * slope, slope, factor])[..., None, None]
        shift, slope, factor = torch.from_numpy(coefficients).to(weight.dtype).unbind()
        found = torch.addcmul(shift, x, slope).addcmul_(back, factor)
        return found.to(x.dtype), for_weight, for_bias, None


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the whole batch's statistics on CPUs; torch's SyncBatchNorm needs GPUs."""

    share: Share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y = _Normalised.apply(x, self.weight, self.bias, self)
        assert isinstance(y, Tensor)
        return y


class SharedDropout(nn.Dropout):
    """Dropout whose mask is drawn for the whole batch; on a CPU the one that ``nn.Dropout`` would draw."""

    share: Share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        mask = x.new_empty(self.share.total, *x.shape[1:]).bernoulli_(1 - self.p).div_(1 - self.p)
        return x * mask[self.share.first :: self.share.step]


def spread_layers(model: Network, share: Share, device: torch.device) -> Network:
    """The network with layers that see the whole batch where they have to; weights and names stay."""
    for module in model.modules():
        # The class alone is replaced, so that parameters, buffers and their names are those of a checkpoint.
        if type(module) is nn.BatchNorm2d and device.type == "cpu":
            module.__class__ = SyncedBatchNorm
            assert isinstance(module, SyncedBatchNorm)
            module.share = share
        elif type(module) is nn.Dropout:
            module.__class__ = SharedDropout
            assert isinstance(module, SharedDropout)
            module.share = share
    if device.type == "cpu":
        return model
    # A network that is no batch normalisation itself comes back as it is, with its layers replaced.
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]


def launch(config: TrainConfig) -> Fabric:
    """Fabric with its processes running: it starts them itself unless torchrun or SLURM has.

    Raises a ConfigError where devices, nodes and the processes that were started do not fit together.
    """
    # lightning.fabric is slow to import, and a reader of histories does not need it
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    wanted = config.devices * config.num_nodes
    launcher, started = _started_by(wanted)
    asked = f"{config.devices} devices on each of {config.num_nodes} nodes"
    if launcher and started != wanted:
        raise ConfigError(
            f"{launcher} started {started} processes, and the settings ask for {asked}.",
            remedy=f"Give --devices (on a node) and --num-nodes whose product is {started}, or start "
            f"{wanted} processes: torchrun --nproc-per-node, srun --ntasks-per-node.",
        )
    if config.num_nodes > 1 and not launcher and "MASTER_ADDR" not in os.environ:
        raise ConfigError(
            f"The settings ask for {asked}, and nothing says where the others are.",
            remedy="Start it with torchrun or srun, or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each.",
        )
    if wanted > config.batch_size:
        raise ConfigError(
            f"A batch of {config.batch_size} images cannot be shared by {wanted} devices.",
            remedy=f"Give a batch_size of at least {wanted}.",
        )
    precision: Any = config.precision  # Fabric refuses what it does not know: a ValueError
    # Buffers are the same everywhere: every process computes the whole batch's statistics.
    shared = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=shared if wanted > 1 else "auto",
            precision=precision,
        )
        if fabric.world_size > 1:
            fabric.launch()
            if fabric.device.type == "cpu":
                connect()
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"The processes for {asked} ({config.accelerator}, {config.precision}) cannot be started: "
            f"{' '.join(str(error).split())}",
            remedy="Ask for devices that this machine has. Several devices need a terminal, not a notebook.",
        ) from error
    return fabric


def gathered(fabric: Fabric, mine: np.ndarray, share: Share) -> np.ndarray:
    """One number for each of ``share.total`` images, in order, from each process's numbers for its own.

    Each process puts its numbers where they belong and zeros elsewhere: the sum is exact, and shares that are
    one image shorter need no padding.
    """
    if share.step == 1:
        return mine
    whole = torch.zeros(share.total, dtype=torch.from_numpy(mine).dtype)
    whole[share.first :: share.step] = torch.from_numpy(mine)
    found = fabric.all_reduce(fabric.to_device(whole), reduce_op="sum")
    assert isinstance(found, Tensor)  # Fabric takes collections as well, and gives back what it was given
    return found.cpu().numpy()


def mean_of_all(fabric: Fabric, number: Tensor) -> float:
    """The mean of one number over all processes, the same in each."""
    if fabric.world_size > 1 and number.device.type == "cpu":
        return float(rows_of_all(number.numpy().reshape(1)).mean())
    found = fabric.all_reduce(number)
    assert isinstance(found, Tensor)
    return float(found)


def is_lost_process(error: Exception) -> bool:
    """Whether a collective failed because another process is gone."""
    from torch import distributed

    kinds = tuple(
        getattr(distributed, name)
        for name in ("DistBackendError", "DistNetworkError")
        if hasattr(distributed, name)
    )
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def end_others(fabric: Fabric) -> None:
    """End the processes that this one started; they may wait for it in a collective, minutes on GPUs."""
    for process in getattr(getattr(fabric.strategy, "launcher", None), "procs", ()):
        process.terminate()


def _started_by(wanted: int) -> tuple[str, int]:
    """What has already started several processes, and how many; ("", 1) where nothing has."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun", int(environment["WORLD_SIZE"])
    interactive = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    # A batch script sees SLURM_NTASKS as well; one device may be used there without srun.
    if "SLURM_NTASKS" in environment and not interactive and (wanted > 1 or "SLURM_STEP_ID" in environment):
        return "SLURM", int(environment["SLURM_NTASKS"])
    return "", 1
