"""The settings behind each preset, and the comparison of networks that they were made for.

``smoke`` shows that everything runs, ``course`` answers in about a minute on a laptop, ``full`` is what is
recorded from real radiographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import Estimate, bootstrap_mean, choose_threshold
from cxrlib.io.storage import cache_root
from cxrlib.parallel import fan_out
from cxrlib.training.augment import Augment
from cxrlib.training.callbacks import Callback
from cxrlib.training.config import TrainConfig
from cxrlib.training.inference import predict
from cxrlib.training.store import train_or_load

PRESETS = ("smoke", "course", "full")

#: Moderate changes of position and generous ones of exposure: hospitals differ more in the latter.
AUGMENT = Augment(rotate=10, translate=0.08, scale=0.12, brightness=0.15, contrast=0.3, gamma=0.3)
#: For a few hundred steps on the embedded cohort, where AUGMENT leaves too little time to learn anything.
MILD_AUGMENT = Augment(rotate=5, translate=0.05, scale=0.08, brightness=0.05, contrast=0.1, gamma=0.1)

_BASE = TrainConfig(class_weighted=True, augment=AUGMENT)
_RECIPES = {
    "lenet": replace(_BASE, model="lenet", learning_rate=1e-3, dropout=0.2),
    "double_conv": replace(_BASE, model="double_conv", width=8, learning_rate=2e-3, dropout=0.2),
    "residual": replace(_BASE, model="residual", learning_rate=3e-3, dropout=0.2),
}
_EPOCHS = {
    "smoke": {"lenet": 1, "double_conv": 1, "residual": 1},
    "course": {"lenet": 15, "double_conv": 6, "residual": 8},
    "full": {"lenet": 12, "double_conv": 5, "residual": 16},
}


def recipe(model: str, preset: str = "course", *, seed: int = 0, **changes: Any) -> TrainConfig:
    """The training settings of a network under a preset: smoke, course or full.

    ``model``: lenet, double_conv (a laptop's width of 8; 4 below ``full``) or residual; torchvision's
    networks get the settings of residual. ``changes``: settings of
    :class:`~cxrlib.training.config.TrainConfig`.
    """
    if preset not in PRESETS:
        raise ConfigError(
            f"There is no preset called {preset!r}.", remedy=f"Use one of {', '.join(PRESETS)}."
        )
    config = _RECIPES.get(model) or replace(_RECIPES["residual"], model=model, learning_rate=1e-3)
    config = replace(config, epochs=_EPOCHS[preset].get(model, _EPOCHS[preset]["residual"]), seed=seed)
    if preset != "full":
        config = replace(config, batch_size=32, augment=MILD_AUGMENT, learning_rate=2e-3)
        config = replace(config, width=4) if model == "double_conv" else config
    return replace(config, **changes)


def described(config: TrainConfig) -> str:
    """The settings that matter most, in words: network, epochs, batch and what happens to its images."""
    how = config.augment
    moved = how is not None and (how.rotate or how.translate or how.scale)
    exposed = how is not None and (how.brightness or how.contrast or how.gamma)
    changes = [
        word for word, there in (("turned and shifted", moved), ("of varied exposure", exposed)) if there
    ]
    images = f"images {' and '.join(changes)}" if changes else "images as they are"
    return f"{config.model} network, {config.epochs} epochs of batches of {config.batch_size}, {images}"


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    - ``numbers``: ``<network>.<quantity>`` → Estimate, as :func:`cxrlib.evaluation.results.record` takes it.
    - ``histories``: network → one history a seed.
    - ``test_scores``, ``val_scores``: network → probabilities, shape (seeds, N images).
    """

    numbers: dict[str, Estimate]
    histories: dict[str, list[pd.DataFrame]]
    test_scores: dict[str, np.ndarray]
    val_scores: dict[str, np.ndarray]


def compare(
    cohort: Cohort,
    models: Sequence[str],
    *,
    preset: str = "course",
    seeds: Sequence[int] = (0,),
    store: str | Path | None = None,
    callbacks: Sequence[Callback] | None = None,
    **changes: Any,
) -> Comparison:
    """Train networks on one cohort, several seeds each, and measure them on its test images.

    Test accuracy is at a probability of ½, which nothing chose, and at Youden's threshold of the validation
    images. Values are means over the seeds; intervals are 95% bootstrap intervals of that mean, by patient.
    ``train_seconds`` is the mean over seeds with its range.
    """
    numbers: dict[str, Estimate] = {}
    histories, test_scores, val_scores = {}, {}, {}
    val, test = cohort.split("val"), cohort.split("test")
    for name in models:
        configs = [recipe(name, preset, seed=seed, **changes) for seed in seeds]
        if callbacks is None:
            one = partial(train_or_load, store=store or cache_root() / "models")
            fan_out(one, [(cohort, config) for config in configs])
        trained = [train_or_load(cohort, config, store, callbacks) for config in configs]
        histories[name] = [history for _, history in trained]
        test_scores[name] = np.stack([predict(model, test.images) for model, _ in trained])
        val_scores[name] = np.stack([predict(model, val.images) for model, _ in trained])
        thresholds = [choose_threshold(val.labels, scores, rule="youden") for scores in val_scores[name]]
        for part, data, scores in (("val", val, val_scores[name]), ("test", test, test_scores[name])):
            estimates = bootstrap_mean(data.labels, list(scores), data.patients)
            numbers |= {f"{name}.{part}_{metric}": estimate for metric, estimate in estimates.items()}
        chosen = bootstrap_mean(test.labels, list(test_scores[name]), test.patients, threshold=thresholds)
        for metric in ("accuracy", "sensitivity", "specificity"):
            numbers[f"{name}.test_{metric}_at_val_threshold"] = chosen[metric]
        last = pd.DataFrame([history.iloc[-1] for history in histories[name]])
        for column in ("train_accuracy", "train_auc", "seconds"):
            mean, low, high = (float(x) for x in last[column].agg(["mean", "min", "max"]))
            key = "train_seconds" if column == "seconds" else column
            numbers[f"{name}.{key}"] = Estimate(mean, low, high, seeds=len(last))
    return Comparison(numbers, histories, test_scores, val_scores)
