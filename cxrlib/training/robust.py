"""Trainings that are kept from a shortcut: random marks, balanced groups, group DRO, a new last layer.

A group is a label together with something that should not matter, such as a marker. :class:`RandomMarks`
needs no groups. The others need to know for each training image whether the marker is there, which an archive
seldom says.
"""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError, DataError
from cxrlib.training.callbacks import TrainingChange
from cxrlib.training.models import Classifier
from cxrlib.training.share import ALL, Share
from cxrlib.training.trainer import Trainer

_REPEATS = 20  # balanced subsets to which a last layer is fitted
#: What :func:`groups_of` numbers.
GROUPS = ("healthy, without", "healthy, with", "ill, without", "ill, with")


def groups_of(cohort: Cohort, column: str) -> np.ndarray:
    """The group of each image, int64 (N,): twice the label, plus one where ``column`` is true.

    Raises a DataError where the table has no such column, or one that is not true or false everywhere.
    """
    if column not in cohort.table:
        raise DataError(
            f"The table of {cohort.name!r} has no column {column!r}.",
            remedy=f"Name one of {', '.join(map(repr, cohort.table.columns[:12]))}.",
        )
    values = cohort.table[column]
    if not values.isin([0, 1]).all():
        raise DataError(
            f"Column {column!r} holds values that are neither true nor false.",
            offenders=[repr(value) for value in values[~values.isin([0, 1])].unique()],
            remedy="Write 1 where what should not matter is in the image and 0 where it is not.",
        )
    return 2 * cohort.labels + values.to_numpy(dtype=np.int64)


def group_weights(groups: np.ndarray) -> np.ndarray:
    """Probabilities of drawing each row, float64 (N,), that make all groups that occur equally likely."""
    _, code, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return 1 / (sizes[code] * len(sizes))


class GroupBalanced(TrainingChange):
    """Draw rows with replacement so that every group (label × ``column``) is seen equally often.

    An epoch keeps its number of images. Set ``class_weighted`` off: classes are balanced too.
    """

    def __init__(self, column: str):
        self.column = column

    def key(self, cohort: Cohort) -> str:
        return f"balanced-{self.column}-{digest(groups_of(cohort, self.column))}"

    def on_fit_start(self, trainer: Trainer) -> None:
        self.groups = groups_of(trainer.train_part, self.column)

    def training_rows(self, trainer: Trainer, epoch: int, rows: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([trainer.config.seed, 5, epoch])
        return rng.choice(len(self.groups), size=len(rows), p=group_weights(self.groups))


class GroupDRO(GroupBalanced):
    """Minimise the loss of the worst group instead of the mean (on one device).

    Each group has a weight q that grows with its loss, ``q ← q · exp(step · loss)``, normalised; the loss of
    a step is the sum of q times the groups' mean losses. Rows are drawn balanced, as in the authors' own
    experiments. Without strong regularisation a network that learns every training image by heart has no
    worst group left; Sagawa et al. say so too.

    - ``step``: of the weights; 0.01 in the paper.

    Reference: Sagawa et al., Distributionally robust neural networks for group shifts, ICLR 2020,
    arXiv:1911.08731.
    """

    def __init__(self, column: str, step: float = 0.01):
        if not step > 0:
            raise ConfigError(f"The step of the weights is {step}.", remedy="Give a positive number.")
        super().__init__(column)
        self.step = step
        self.weights = torch.full((len(GROUPS),), 1 / len(GROUPS), dtype=torch.float64)

    def key(self, cohort: Cohort) -> str:
        return f"dro-{self.step:g}-{super().key(cohort)}"

    def on_fit_start(self, trainer: Trainer) -> None:
        if trainer.share.step > 1:
            raise ConfigError(
                "Group DRO weighs the groups of a whole batch, and this one is spread over devices.",
                remedy="Train it with devices=1.",
            )
        super().on_fit_start(trainer)
        there = torch.tensor([(self.groups == group).any() for group in range(len(GROUPS))])
        self.weights = there.double() / there.sum()

    def training_loss(self, trainer: Trainer, losses: Tensor, rows: np.ndarray, loss: Tensor) -> Tensor:
        group = torch.from_numpy(self.groups[rows]).to(losses.device)
        counts = torch.bincount(group, minlength=len(GROUPS))
        sums = torch.zeros(len(GROUPS), dtype=losses.dtype, device=losses.device).index_add(0, group, losses)
        means = sums / counts.clamp(min=1)  # a group that this batch lacks: 0, its weight stays behind
        grown = self.weights * torch.exp(self.step * means.detach().double().cpu())
        self.weights = grown / grown.sum()
        return (self.weights.to(means) * means).sum()

    def state(self) -> dict:
        return {"weights": self.weights}

    def load_state(self, state: dict) -> None:
        self.weights = state.get("weights", self.weights)


class RandomMarks(TrainingChange):
    """Paint letters and blocks into training images at random, so that a mark says nothing any more.

    Needs no groups. Letters come from a font that is not the phantom's: who has real images knows only that
    there are letters, not which.

    - ``chance``: of each of ``most`` marks to be painted.
    - ``most``: marks an image.
    - ``smallest``, ``largest``: height, as a share of the image's side.
    - ``band``: marks lie within this share of the side from the nearest edge; 0.5 for anywhere.
    """

    def __init__(
        self,
        chance: float = 0.5,
        most: int = 2,
        smallest: float = 0.03,
        largest: float = 0.1,
        band: float = 0.22,
    ):
        if not (0 <= chance <= 1 and most >= 1 and 0 < smallest <= largest < 1 and 0 < band <= 0.5):
            raise ConfigError(
                f"RandomMarks({chance=}, {most=}, {smallest=}, {largest=}, {band=}) makes no sense.",
                remedy="Give shares from 0 to 1, a band up to 0.5, and at least one mark.",
            )
        self.chance, self.most, self.band = chance, most, band
        self.smallest, self.largest = smallest, largest
        self._letters: list[Tensor] = []  # drawn when the first image needs them

    def key(self, cohort: Cohort) -> str:
        return f"marks-{self.chance:g}-{self.most}-{self.smallest:g}-{self.largest:g}-{self.band:g}"

    def training_images(self, trainer: Trainer, images: Tensor, generator: Generator) -> Tensor:
        return self.paint(images, generator, trainer.share)

    def paint(self, images: Tensor, generator: Generator, share: Share = ALL) -> Tensor:
        """A copy of a batch with marks. ``images``: float (B, 1, H, W), 0–255."""
        if not self._letters:
            self._letters = _letters()
        images = images.clone()
        height, width = images.shape[-2:]
        draws = share.draw((len(images), self.most, 8), generator)
        for image, marks in zip(images, draws, strict=True):
            for chance, size, y, x, side, level, kind, which in marks.tolist():
                if chance >= self.chance:
                    continue
                tall = max(2, round(height * (self.smallest + size * (self.largest - self.smallest))))
                ink = self._ink(tall, kind, which).to(images)
                top, left = self._place(y, x, side, height - ink.shape[0], width - ink.shape[1])
                patch = image[0, top : top + ink.shape[0], left : left + ink.shape[1]]
                patch += ink[: patch.shape[0], : patch.shape[1]] * ((150 + 105 * level) - patch)
        return images

    def _ink(self, tall: int, kind: float, which: float) -> Tensor:
        """How much of each pixel is covered, (h, w): a block in one draw of four, else a letter."""
        if kind < 0.25:
            return torch.ones(tall, max(2, round(tall * (0.5 + 2.5 * which))))
        letter = self._letters[int(which * len(self._letters))]
        wide = max(2, round(tall * letter.shape[1] / letter.shape[0]))
        return F.interpolate(letter[None, None], (tall, wide), mode="bilinear", antialias=True)[0, 0]

    def _place(self, y: float, x: float, side: float, lowest: int, rightmost: int) -> tuple[int, int]:
        """Top and left of a mark in the outer band: draws along an edge, across it, and of the edge."""
        along, across, edge = x, y * self.band, int(side * 4)
        if edge % 2:
            across = 1 - across
        v, u = (across, along) if edge < 2 else (along, across)
        return max(0, round(v * lowest)), max(0, round(u * rightmost))


def retrain_last_layer(model: Classifier, cohort: Cohort, column: str, *, seed: int = 0) -> Classifier:
    """A copy of the network whose last layer is fitted anew to images balanced over groups.

    Features before the last layer are standardised; a logistic regression with an L2 penalty is fitted to
    each of 20 random subsets in which every group (label × ``column``) is as large as the smallest one, and
    their coefficients are averaged (Kirichenko, Izmailov, Wilson, ICLR 2023, arXiv:2204.02937). ``cohort``:
    best not the images that the network was trained on; every group must occur.
    """
    from sklearn.linear_model import LogisticRegression

    groups = groups_of(cohort, column)
    members = [np.flatnonzero(groups == group) for group in range(len(GROUPS))]
    if not all(len(rows) for rows in members):
        lacking = [name for name, rows in zip(GROUPS, members, strict=True) if not len(rows)]
        raise DataError(
            f"{cohort.name!r} has no image that is {' or '.join(lacking)} {column}.",
            remedy="Retrain on images in which every group occurs.",
        )
    robust = copy.deepcopy(model).eval()
    last = last_layer(robust)
    features = _features(robust, last, cohort.images)
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread < 1e-6] = 1.0
    standard = (features - mean) / spread
    rng = np.random.default_rng([seed, 13])
    smallest = min(map(len, members))
    slopes, intercepts = [], []
    for _ in range(_REPEATS):
        rows = np.concatenate([rng.choice(rows, smallest, replace=False) for rows in members])
        fit = LogisticRegression(C=1.0, max_iter=1000).fit(standard[rows], cohort.labels[rows])
        slopes.append(fit.coef_[0])
        intercepts.append(fit.intercept_[0])
    slope = np.mean(slopes, axis=0) / spread
    with torch.no_grad():
        last.weight.copy_(torch.as_tensor(slope[None]))
        last.bias.copy_(torch.as_tensor([np.mean(intercepts) - slope @ mean]))
    return robust


def last_layer(model: nn.Module) -> nn.Linear:
    """The layer that gives the logit; a ConfigError where the network ends in another."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers or layers[-1].out_features != 1:
        raise ConfigError(
            "The network does not end in a linear layer with one output.",
            remedy="Use one of cxrlib.training.models.",
        )
    return layers[-1]


def _features(model: Classifier, last: nn.Linear, images: np.ndarray) -> np.ndarray:
    """What goes into the last layer, float64 (N, F)."""
    from cxrlib.training.inference import predict_logits

    seen: list[Tensor] = []
    handle = last.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].double().cpu()))
    try:
        predict_logits(model, images)
    finally:
        handle.remove()
    return torch.cat(seen).numpy()


def _letters() -> list[Tensor]:
    """Capitals and digits in Pillow's own font, float 0–1, (h, w) each, cut to their ink."""
    from PIL import Image, ImageDraw, ImageFont

    font, found = ImageFont.load_default(48), []
    for letter in "ABCDEFGHJKLMNPRSTUVWXYZ2345789":
        page = Image.new("L", (96, 96))
        ImageDraw.Draw(page).text((16, 16), letter, fill=255, font=font, stroke_width=2)
        found.append(torch.from_numpy(np.array(page.crop(page.getbbox()), np.float32) / 255))
    return found


def digest(values: np.ndarray) -> str:
    """Eight hexadecimal digits of an array's bytes, for the name under which a training is kept."""
    return hashlib.sha256(values.tobytes()).hexdigest()[:8]
