"""Networks kept under the content of their cohort and their settings, so that none is trained twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from cxrlib.cohort import Cohort
from cxrlib.io.storage import cache_root, locked
from cxrlib.parallel import is_main_process
from cxrlib.training.callbacks import Callback
from cxrlib.training.checkpoints import drop_damaged
from cxrlib.training.config import TrainConfig
from cxrlib.training.models import Classifier
from cxrlib.training.trainer import Trainer, default_callbacks


def train_or_load(
    cohort: Cohort,
    config: TrainConfig,
    store: str | Path | None = None,
    callbacks: Sequence[Callback] | None = None,
) -> tuple[Classifier, pd.DataFrame]:
    """The network that this config trains on this cohort, with its history: from the artefact store, or
    trained now.

    The store's key is the content of the cohort and the config; a training that was cut off is resumed.
    ``store``: a folder; None for ``models`` in the cache.
    """
    folder = artefact_folder(cohort, config, store)
    if callbacks is None:
        callbacks = default_callbacks(folder, tensorboard=False)
    trainer = Trainer(config, callbacks, folder)
    # Of several processes of one training the first holds the lock for all.
    with locked(folder) if is_main_process() else nullcontext():
        if is_main_process():
            drop_damaged(folder)
        history = trainer.fit(cohort, resume=True)
    return trainer.model.eval(), history


def artefact_folder(cohort: Cohort, config: TrainConfig, store: str | Path | None = None) -> Path:
    """Where :func:`train_or_load` keeps this training: ``last.pt``, and ``best.pt`` of the lowest loss."""
    key = hashlib.sha256(
        json.dumps([cohort.content_hash(), asdict(config)], sort_keys=True).encode()
    ).hexdigest()
    return (cache_root() / "models" if store is None else Path(store)) / f"{config.model}-{key[:16]}"
