"""Use a trained network: its checkpoint read back, its predictions on images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cxrlib.checkpoints import load_checkpoint
from cxrlib.cohort import Rows
from cxrlib.errors import CheckpointError
from cxrlib.models import Classifier, build


def predict_logits(model: Classifier, images: np.ndarray | Rows, batch_size: int = 256) -> np.ndarray:
    """The log odds of pneumonia of each image. ``images``: uint8, (N, H, W). Returns float32, (N,)."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        parts = [
            model(torch.tensor(images[start : start + batch_size]).to(device)).float().cpu()
            for start in range(0, len(images), batch_size)
        ]
    model.train(was_training)
    return torch.cat(parts).numpy() if parts else np.zeros(0, np.float32)


def predict(model: Classifier, images: np.ndarray | Rows, batch_size: int = 256) -> np.ndarray:
    """The probability of pneumonia of each image. ``images``: uint8, (N, H, W). Returns float32, (N,)."""
    logits = torch.from_numpy(predict_logits(model, images, batch_size))
    return torch.sigmoid(logits).numpy()


def load_model(path: str | Path) -> tuple[Classifier, dict]:
    """The network in a checkpoint, ready to predict, and the checkpoint's config, cohort and history."""
    state = load_checkpoint(path)
    config = state["config"]
    model = build(
        config["model"],
        width=config["width"],
        dropout=config["dropout"],
        image_size=state["cohort"]["image_size"],
    )
    weights = state["model"]
    if state["averaged"] is not None:
        weights = {
            k.removeprefix("module."): v for k, v in state["averaged"].items() if k.startswith("module.")
        }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not hold a {config['model']}.", remedy="Use the version of cxrlib that wrote it."
        ) from error
    model.eval()
    return model, {key: state[key] for key in ("config", "cohort", "history", "step", "seconds")}
