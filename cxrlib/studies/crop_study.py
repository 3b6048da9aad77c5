"""Does it help to show a network only the chest? Whole, cropped and masked images, and what is left.

Images are loaded larger than they are shown, lungs are found on them, and every way of looking ends at the
same size, so that a crop shows the lungs in more detail and a mask does not. All arms have the same patients,
settings and seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import Estimate, choose_threshold
from cxrlib.images.regions import crop_to_lungs, keep_lungs, shown
from cxrlib.io.cache import progress_bar
from cxrlib.io.decode import resize
from cxrlib.lungs.masks import segment
from cxrlib.studies.study import Study, cut, of_preset, study_of, train_all
from cxrlib.studies.study_stats import Draws, draws, mean_draws, pooled
from cxrlib.training.config import TrainConfig
from cxrlib.training.inference import predict
from cxrlib.training.models import Classifier
from cxrlib.training.recipes import recipe


@dataclass(frozen=True)
class Budget:
    """How much a preset spends: training images (None for all), pixels shown, epochs, batch size, arms."""

    images: int | None
    size: int
    epochs: int
    batch_size: int
    arms: tuple[str, ...]


def smaller(cohort: Cohort, size: int) -> Cohort:
    """The cohort at ``size`` pixels a side, masks as well."""
    images = np.stack([resize(image, size) for image in cohort.images])
    masks = cohort.lung_masks
    if masks is not None:
        masks = np.stack([resize(255 * mask, size) >= 128 for mask in masks]).astype(np.uint8)
    return cohort.with_images(images, lung_masks=masks, lesion_masks=None)


#: How an image may be shown: name -> function of a cohort with lung masks, large, and of the same cohort at
#: the size that the network sees.
ARMS: dict[str, Callable[[Cohort, Cohort], Cohort]] = {
    "whole": lambda large, small: small,
    "crop": lambda large, small: crop_to_lungs(large, 0.0, size=_side(small)),
    "crop_05": lambda large, small: crop_to_lungs(large, 0.05, size=_side(small)),
    "crop_15": lambda large, small: crop_to_lungs(large, 0.15, size=_side(small)),
    "mask": lambda large, small: keep_lungs(small),
    "mask_box": lambda large, small: keep_lungs(small, box=True),
    "whole_frame": lambda large, small: shown(small, "frame"),
    # A margin of 15% is wider than a tenth of that image: no lung lies in its outer tenth.
    "crop_frame": lambda large, small: shown(crop_to_lungs(large, 0.15, size=_side(small)), "frame"),
    "whole_lungs_removed": lambda large, small: shown(small, "lungs_removed"),
    "crop_lungs_removed": lambda large, small: shown(
        crop_to_lungs(large, 0.05, size=_side(small)), "lungs_removed"
    ),
}
TITLES = {
    "whole": "whole image",
    "crop": "cropped to the lungs' box",
    "crop_05": "cropped, margin 5%",
    "crop_15": "cropped, margin 15%",
    "mask": "all but the lungs black",
    "mask_box": "all but the lungs' box black, not enlarged",
    "whole_frame": "outer tenth of the whole image",
    "crop_frame": "outer tenth after cropping, margin 15%",
    "whole_lungs_removed": "lungs' box removed",
    "crop_lungs_removed": "lungs' box removed after cropping",
}
#: Without the lungs: what is reached here is not reached by looking at them.
LEFT = ("whole_frame", "crop_frame", "whole_lungs_removed", "crop_lungs_removed")

BUDGETS = {
    "smoke": Budget(100, 32, 1, 32, ("whole", "crop", "crop_frame")),
    "course": Budget(1000, 48, 6, 32, ("whole", "crop", "mask", "whole_frame", "crop_frame")),
    "full": Budget(None, 64, 16, 64, tuple(ARMS)),
}


def _side(cohort: Cohort) -> int:
    return int(cohort.images.shape[1])


def budget(preset: str) -> Budget:
    """What a preset spends: smoke, course or full."""
    return of_preset(BUDGETS, preset)


def settings(preset: str, seed: int) -> TrainConfig:
    """The compact residual network's own recipe, for as long as the preset allows; under ``full`` whole."""
    spend = budget(preset)
    return recipe("residual", preset, epochs=spend.epochs, batch_size=spend.batch_size, seed=seed)


def crop_study(
    cohort: Cohort, preset: str = "course", seeds: Sequence[int] = (0,), *,
    arms: Sequence[str] | None = None, small: Cohort | None = None,
    store: str | Path | None = None, progress: bool | None = None, replicates: int = 1000,
) -> Study:  # fmt: skip
    """Whole, cropped and masked images, each against whole on the same patients; and images without lungs.

    - ``cohort``: loaded at about twice the pixels that the preset shows. Lungs are found where it has no
      masks.
    - ``arms``: some of :data:`ARMS`; None for the preset's. ``whole`` is always there.
    - ``small``: the same images as they are when loaded at the preset's pixels, so that ``whole`` is the same
      network as elsewhere; None to make them from ``cohort``.
    - Returns: Study. ``runs`` has a row for each network: ``arm``, ``seed``, ``val_auc``, ``test_auc``,
      ``test_accuracy`` (at ½) and ``test_accuracy_at_val`` (at the validation images' Youden threshold).
      ``estimates`` are these as ``<arm>.…``, and for every arm with lungs ``<arm>_minus_whole.…``, paired by
      patient and seed, with Holm's p over the arms; ``crop_frame_minus_whole_frame.…`` and
      ``crop_lungs_removed_minus_whole_lungs_removed.…``, a family of their own, say what cropping takes from
      the shortcuts. ``<label>.lungs_found`` is the share of images with a mask, ``healthy`` and ``ill``.
    """
    spend = budget(preset)
    names = list(dict.fromkeys(["whole", *(spend.arms if arms is None else arms)]))
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise ConfigError(f"There is no arm {unknown[0]!r}.", remedy=f"Use some of {', '.join(ARMS)}.")
    cohort = cut(cohort, spend.images)
    if cohort.lung_masks is None:
        cohort = segment(cohort, progress=progress)
    made = smaller(cohort, spend.size)
    if small is None:
        small = made
    else:
        small = made.with_images(cut(small, spend.images).images, lung_masks=made.lung_masks)
    measured = {}
    with progress_bar(len(names) * len(seeds), "crop", progress, "training") as bar:
        for name in names:
            view = ARMS[name](cohort, small)
            runs = train_all([(view, settings(preset, seed)) for seed in seeds], store, bar, shelf=None)
            measured[name] = _measure([run.last for run in runs], view, replicates)
    assert cohort.lung_masks is not None
    rows, numbers = [], _found(cohort.labels, cohort.lung_masks)
    for name, found in measured.items():
        numbers |= {f"{name}.{metric}": drawn.estimate() for metric, drawn in found.items()}
        for k, seed in enumerate(seeds):
            rows.append(
                {"arm": name, "seed": seed} | {metric: drawn.values[k] for metric, drawn in found.items()}
            )
    pairs = [(name, "whole") for name in names if name != "whole" and name not in LEFT]
    left = [("crop_frame", "whole_frame"), ("crop_lungs_removed", "whole_lungs_removed")]
    left = [pair for pair in left if set(pair) <= set(names)]
    tests = []
    for family, metric in product((pairs, left), measured["whole"]):
        changes = pooled({
            f"{one}_minus_{other}.{metric}": measured[one][metric] - measured[other][metric]
            for one, other in family
        })  # fmt: skip
        numbers |= {key: change.estimate() for key, change in changes.items()}
        tests.append({key: change.p_value() for key, change in changes.items()})
    return study_of(pd.DataFrame(rows), numbers, tests)


def _measure(models: Sequence[Classifier], view: Cohort, replicates: int) -> dict[str, Draws]:
    val, test = view.split("val"), view.split("test")
    on_val, on_test = (np.stack([predict(model, part.images) for model in models]) for part in (val, test))
    cuts = [choose_threshold(val.labels, scores, rule="youden") for scores in on_val]
    right = [(scores >= cut) == (test.labels == 1) for scores, cut in zip(on_test, cuts, strict=True)]
    return {
        "val_auc": draws(val.labels, on_val, val.patients, replicates=replicates),
        "test_auc": draws(test.labels, on_test, test.patients, replicates=replicates),
        "test_accuracy": draws(test.labels, on_test, test.patients, "accuracy", replicates=replicates),
        "test_accuracy_at_val": mean_draws(right, test.patients, replicates=replicates),
    }


def _found(labels: np.ndarray, masks: np.ndarray) -> dict[str, Estimate]:
    there = np.asarray(masks.reshape(len(masks), -1).any(axis=1))
    return {
        f"{name}.lungs_found": Estimate(float(there[labels == label].mean()), n=int(np.sum(labels == label)))
        for label, name in enumerate(("healthy", "ill"))
    }
