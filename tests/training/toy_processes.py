"""What test_scale.py starts in several processes: ``python toy_processes.py FOLDER together|fail``.

Every process runs this whole file; what each saw is in ``FOLDER/<process>.json``.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from conftest import make_blobs

from cxrlib.errors import DataError
from cxrlib.training.augment import Augment
from cxrlib.training.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    NonFiniteRecovery,
)
from cxrlib.training.trainer import TrainConfig, Trainer, default_callbacks

#: Everything that could depend on the number of processes: batches that do not divide by two, dropout, batch
#: norms, per-image noise, class weights, averaging. A constant rate, so that an epoch can be added.
CONFIG = TrainConfig(
    model="residual", width=4, dropout=0.3, epochs=1, batch_size=15, schedule="constant", warmup=0.0,
    learning_rate=1e-3, class_weighted=True, average_decay=0.9, accelerator="cpu",
    augment=Augment(noise=0.05, erase=0.3, flip=0.5),
)  # fmt: skip
RANK = int(os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", "0")))


def cohort():
    """Blobs with an odd number of validation images."""
    blobs = make_blobs()
    last = np.flatnonzero(blobs.table["split"] == "val")[-1]
    assert (blobs.table["split"] == "val").sum() % 2 == 0
    return blobs.take(np.arange(len(blobs)) != last)


class PoisonOne(Callback):
    """A NaN in the weights of the second process alone, once."""

    done = False

    def on_step_end(self, trainer):
        if trainer.step == 3 and trainer.share.first == 1 and not self.done:
            self.done = True
            trainer.raw_model.network[-1].bias.data.fill_(float("nan"))


class FailOne(Callback):
    def on_step_end(self, trainer):
        if trainer.step == 2 and trainer.share.first == 1:
            raise DataError("The second process lost its disk.")


def quiet(out_dir=None):
    return default_callbacks(out_dir, progress=False)


def together(folder: Path) -> dict:
    config, data = replace(CONFIG, devices=2), cohort()
    own = folder / f"epoch-of-{RANK}"
    history = Trainer(config, quiet(own), own).fit(data)
    resumed = Trainer(replace(config, epochs=2), quiet(folder / "one"), folder / "one")
    resumed.fit(data, resume=True)
    poisoned = Trainer(config, [NonFiniteRecovery(), PoisonOne()])
    poisoned.fit(data)
    stopping = Trainer(
        replace(config, model="lenet", width=None, epochs=30, learning_rate=0.05), [EarlyStopping(patience=2)]
    )
    stopped = stopping.fit(data)
    return {
        "history": history.to_dict("list"),
        "factor": poisoned.learning_rate_factor,
        "stopped": stopped.to_dict("list"),
        "threads": torch.get_num_threads(),
    }


def fail(folder: Path) -> dict:
    Trainer(replace(CONFIG, devices=2, epochs=50), [FailOne(), Checkpoint()], folder / "run").fit(cohort())
    return {}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    seen = {"together": together, "fail": fail}[sys.argv[2]](folder)
    (folder / f"{RANK}.json").write_text(json.dumps(seen))
