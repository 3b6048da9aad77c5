"""Trainings that mix how images look, so that a look says nothing of the label; and a head that looks for it.

None needs to know of a training image where it comes from, but :class:`Adversarial`. All run on one device:
patients of a batch exchange their looks, and a batch that is spread over devices is several.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.utils.hooks import RemovableHandle

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError
from cxrlib.training.callbacks import TrainingChange
from cxrlib.training.models import Residual
from cxrlib.training.robust import digest, groups_of, last_layer
from cxrlib.training.trainer import Trainer


def _on_one_device(trainer: Trainer) -> None:
    if trainer.share.step > 1:
        raise ConfigError(
            "Patients exchange their looks within a batch, and this one is spread over devices.",
            remedy="Train it with devices=1.",
        )


class _Exchange(TrainingChange):
    """Give some images of each batch the look of another patient's; ``chance``: of each image."""

    name = ""

    def __init__(self, chance: float = 0.5):
        if not 0 <= chance <= 1:
            raise ConfigError(f"The chance is {chance}.", remedy="Give a share from 0 to 1.")
        self.chance = chance

    def key(self, cohort: Cohort) -> str:
        return f"{self.name}-{self.chance:g}"

    def on_fit_start(self, trainer: Trainer) -> None:
        _on_one_device(trainer)

    def training_images(self, trainer: Trainer, images: Tensor, generator: Generator) -> Tensor:
        other = images[torch.randperm(len(images), generator=generator).to(images.device)]
        chosen = torch.rand(len(images), generator=generator).to(images.device) < self.chance
        return torch.where(chosen[:, None, None, None], self.mixed(images, other), images)

    @abstractmethod
    def mixed(self, images: Tensor, other: Tensor) -> Tensor:
        """``images`` with the look of ``other``, float (B, 1, H, W), 0–255."""


class HistogramExchange(_Exchange):
    """The greys of another patient: the darkest pixel gets its darkest grey, and so on."""

    name = "histograms"

    def mixed(self, images: Tensor, other: Tensor) -> Tensor:
        place = images.flatten(1).argsort(dim=1, stable=True)
        greys = other.flatten(1).sort(dim=1).values
        return torch.empty_like(greys).scatter_(1, place, greys).view_as(images)


class AmplitudeExchange(_Exchange):
    """The low frequencies' amplitudes of another patient, the phases its own.

    - ``reach``: how far the exchange goes, as a share of the highest frequency.

    Reference: Yang and Soatto, FDA: Fourier domain adaptation for semantic segmentation, CVPR 2020,
    arXiv:2004.05498.
    """

    name = "amplitudes"

    def __init__(self, chance: float = 0.5, reach: float = 0.1):
        super().__init__(chance)
        self.reach = reach

    def key(self, cohort: Cohort) -> str:
        return f"{super().key(cohort)}-{self.reach:g}"

    def mixed(self, images: Tensor, other: Tensor) -> Tensor:
        own, theirs = torch.fft.rfft2(images), torch.fft.rfft2(other)
        rows = torch.fft.fftfreq(images.shape[-2], device=images.device).abs()[:, None]
        columns = torch.fft.rfftfreq(images.shape[-1], device=images.device)[None]
        low = torch.maximum(rows, columns) <= self.reach / 2
        spectrum = torch.where(low, torch.polar(theirs.abs(), own.angle()), own)
        return torch.fft.irfft2(spectrum, s=images.shape[-2:]).clamp(0, 255)


class MixStyle(TrainingChange):
    """Mix the mean and spread of each channel between patients, after the stages of the residual network.

    - ``stages``: how many of its first stages; ``chance``: of each batch; ``alpha``: of the Beta distribution
      that says how much of the other patient.

    Reference: Zhou et al., Domain generalization with MixStyle, ICLR 2021, arXiv:2104.02008.
    """

    def __init__(self, stages: int = 2, chance: float = 0.5, alpha: float = 0.1):
        self.stages, self.chance, self.alpha = stages, chance, alpha
        self.hooks: list[RemovableHandle] = []

    def key(self, cohort: Cohort) -> str:
        return f"mixstyle-{self.stages}-{self.chance:g}-{self.alpha:g}"

    def on_fit_start(self, trainer: Trainer) -> None:
        _on_one_device(trainer)
        network = trainer.raw_model.network
        if not isinstance(network, Residual):
            raise ConfigError(
                f"MixStyle looks for the stages of a residual network, and this is {trainer.config.model}.",
                remedy="Train with model='residual'.",
            )
        # A stem of three layers, then two blocks a stage.
        self.hooks = [network[4 + 2 * stage].register_forward_hook(self._mix) for stage in range(self.stages)]

    def on_fit_close(self, trainer: Trainer) -> None:
        for hook in self.hooks:
            hook.remove()

    def _mix(self, module: nn.Module, given: object, features: Tensor) -> Tensor:
        # The trainer seeds torch's generator at every step, for dropout.
        if not module.training or float(torch.rand(())) >= self.chance:
            return features
        mean = features.mean(dim=(2, 3), keepdim=True).detach()
        spread = features.std(dim=(2, 3), keepdim=True).detach() + 1e-6
        order = torch.randperm(len(features)).to(features.device)
        beta = torch.distributions.Beta(self.alpha, self.alpha)
        own = beta.sample((len(features), 1, 1, 1)).to(features)
        plain = (features - mean) / spread
        return plain * (own * spread + (1 - own) * spread[order]) + own * mean + (1 - own) * mean[order]


class Adversarial(TrainingChange):
    """A second head tries to tell from the features, among the ill, what should not matter; they unlearn it.

    Among the ill alone, because where a machine has no healthy child in training, its name is a diagnosis.

    - ``column``: of the table, true or false.
    - ``weight``: of the reversed gradient.

    Reference: Ganin et al., Domain-adversarial training of neural networks, JMLR 17, 2016, arXiv:1505.07818.
    """

    def __init__(self, column: str, weight: float = 0.3):
        self.column, self.weight = column, weight
        self.hook: RemovableHandle | None = None

    def key(self, cohort: Cohort) -> str:
        return f"adversarial-{self.column}-{self.weight:g}-{digest(groups_of(cohort, self.column))}"

    def on_fit_start(self, trainer: Trainer) -> None:
        _on_one_device(trainer)
        groups = groups_of(trainer.train_part, self.column)
        self.truth, self.ill = torch.tensor(groups % 2), groups >= 2
        last = last_layer(trainer.raw_model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(trainer.config.seed)
            self.head = nn.Sequential(nn.Linear(last.in_features, 32), nn.ReLU(), nn.Linear(32, 1))
        self.head.to(trainer.fabric.device)
        self.optimizer = torch.optim.Adam(self.head.parameters(), lr=1e-3)
        self.hook = last.register_forward_pre_hook(self._keep)

    def on_fit_close(self, trainer: Trainer) -> None:
        if self.hook is not None:
            self.hook.remove()

    def _keep(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.features = given[0]

    def training_loss(self, trainer: Trainer, losses: Tensor, rows: np.ndarray, loss: Tensor) -> Tensor:
        ill = torch.from_numpy(self.ill[rows]).to(losses.device)
        if not ill.any():
            return loss
        features = self.features[ill]
        turned = features.detach() * (1 + self.weight) - self.weight * features  # the gradient, reversed
        truth = self.truth[rows].to(losses)[ill]
        return loss + F.binary_cross_entropy_with_logits(self.head(turned)[:, 0], truth)

    def on_step_end(self, trainer: Trainer) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)  # a batch without an ill image teaches the head nothing

    def state(self) -> dict:
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict) -> None:
        if state:
            self.head.load_state_dict(state["head"])
            self.optimizer.load_state_dict(state["optimizer"])
