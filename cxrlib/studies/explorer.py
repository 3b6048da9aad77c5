"""The networks of the shortcut explorer: one that met a letter with the disease, one after the best remedy.

Both learn as in :mod:`cxrlib.studies.remedies`, on the same patients; LeNet is narrower, and the lungs are
the phantom's own. A page can carry such networks once their large layer is rounded to 8 bits, and it is the
rounded ones that are measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxrlib.evaluation.metrics import Estimate
from cxrlib.io.cache import progress_bar
from cxrlib.studies.planting import Pairs, pairs
from cxrlib.studies.remedies import LUNGS, REMEDIES, budget, measure, settings_of
from cxrlib.studies.study import Study, study_of, train
from cxrlib.training.inference import predict
from cxrlib.training.models import Classifier, build

WIDTH = 3
LARGE = 7  # the layer of most weights
#: What each network is shown: steps of :func:`cxrlib.studies.planting.seen`.
NETWORKS: dict[str, tuple[str, ...]] = {"naive": (), "lungs": LUNGS}


def patients(preset: str = "full", image_size: int = 128, seed: int = 0) -> Pairs:
    """The phantoms of a preset, with and without the letter."""
    spend = budget(preset)
    return pairs(spend.images, image_size, seed, external=spend.external, find_lungs=False)


def networks(
    planted: Pairs, preset: str = "full", seed: int = 0, *, store: str | Path | None = None,
    progress: bool | None = None,
) -> Iterator[tuple[str, Pairs, Classifier]]:  # fmt: skip
    """Each of :data:`NETWORKS`: its name, the patients as it sees them, and itself, not yet rounded.

    They come from the artefact store, or are trained now.
    """
    config = replace(settings_of(REMEDIES["naive"], preset, seed), width=WIDTH)
    with progress_bar(len(NETWORKS), "networks", progress, "training") as bar:
        for name, steps in NETWORKS.items():
            view = planted.seen(steps)
            yield name, view, train(view.confounded, config, store, bar, shelf="explorer").last


def weights(model: Classifier) -> dict[str, np.ndarray]:
    """LeNet's weights by their names, those of the large dense layer in 8 bits: ``7.weight`` int8, (120, F),
    ``7.scale`` float32, (120,), what a step of each row is. The others are float32.
    """
    found = {name: array.numpy() for name, array in model.network.state_dict().items()}
    large = found[f"{LARGE}.weight"]
    scale = np.abs(large).max(axis=1) / np.float32(127)
    return found | {
        f"{LARGE}.weight": np.rint(large / scale[:, None]).astype(np.int8),
        f"{LARGE}.scale": scale,
    }


def network_of(found: Mapping[str, np.ndarray], mean: float, std: float, image_size: int) -> Classifier:
    """The network that has these :func:`weights` (any shape of the right size) and this normalisation."""
    model = build("lenet", width=WIDTH, image_size=image_size)
    state = model.network.state_dict()
    scale = found[f"{LARGE}.scale"][:, None]
    large = found[f"{LARGE}.weight"].reshape(len(scale), -1) * scale
    arrays = {name: found[name] for name in state} | {f"{LARGE}.weight": large}
    shaped = {n: torch.from_numpy(np.array(array)).reshape(state[n].shape) for n, array in arrays.items()}
    model.network.load_state_dict(shaped)
    model.mean.fill_(mean)
    model.std.fill_(std)
    return model.eval()


def rounded(model: Classifier, image_size: int) -> Classifier:
    """The network with its weights as :func:`weights` gives them."""
    return network_of(weights(model), float(model.mean), float(model.std), image_size)


def explorer(
    planted: Pairs, preset: str = "full", seeds: Sequence[int] = (0,), *, store: str | Path | None = None,
    progress: bool | None = None, replicates: int = 1000,
) -> Study:  # fmt: skip
    """What the explorer's two networks reach on the test patients.

    - Returns: Study: ``runs`` with each test patient's ``label`` and answers ``without`` and ``with_letter``,
      for each ``network``; ``estimates`` named ``<network>.…`` as :func:`cxrlib.studies.remedies.measure`
      names them, and ``<network>.rounding``: the largest change of an answer by the rounding of the weights.
    """
    numbers: dict[str, Estimate | float] = {}
    tables, size = [], planted.off.images.shape[1]
    for name, view, model in networks(planted, preset, seeds[0], store=store, progress=progress):
        sent = rounded(model, size)
        numbers |= {
            f"{name}.{k}": v.estimate() for k, v in measure([sent], view, replicates=replicates).items()
        }
        off, on = view.off.split("test"), view.on.split("test")
        answers = {"without": predict(sent, off.images), "with_letter": predict(sent, on.images)}
        change = np.abs(predict(model, on.images) - answers["with_letter"]).max()
        numbers[f"{name}.rounding"] = float(change)
        tables.append(pd.DataFrame({"network": name, "label": off.labels} | answers))
    return study_of(pd.concat(tables, ignore_index=True), numbers)
