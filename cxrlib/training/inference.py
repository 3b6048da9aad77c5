"""Use a trained network: its checkpoint read back, its predictions on images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from cxrlib.cohort import Rows
from cxrlib.errors import CheckpointError, CxrError
from cxrlib.training.checkpoints import load_checkpoint
from cxrlib.training.models import Classifier, build

_LARGEST = 8192  # pixels a side
_PIXELS = 256 * 128 * 128  # of a batch: what the first layers make of more would fill the memory


def predict_logits(model: Classifier, images: np.ndarray | Rows) -> np.ndarray:
    """The log odds of pneumonia of each image. ``images``: uint8, (N, H, W). Returns float32, (N,)."""
    device = next(model.parameters()).device
    batch_size = max(1, min(256, _PIXELS // math.prod(images.shape[1:])))
    was_training = model.training
    model.eval()
    # Filled in place: small results kept between large batches would hold the heap open.
    logits = np.empty(len(images), np.float32)
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            logits[batch] = model(torch.tensor(images[batch]).to(device)).float().cpu().numpy()
    model.train(was_training)
    return logits


def predict(model: Classifier, images: np.ndarray | Rows) -> np.ndarray:
    """The probability of pneumonia of each image. ``images``: uint8, (N, H, W). Returns float32, (N,)."""
    logits = torch.from_numpy(predict_logits(model, images))
    return torch.sigmoid(logits).numpy()


def load_model(path: str | Path) -> tuple[Classifier, dict]:
    """The network in a checkpoint, ready to predict, and the checkpoint's config, cohort and history."""
    state = load_checkpoint(path)
    try:
        weights = state["model"]
        if state["averaged"] is not None:
            weights = {
                k.removeprefix("module."): v for k, v in state["averaged"].items() if k.startswith("module.")
            }
        config, size = state["config"], state["cohort"]["image_size"]
        if not (isinstance(size, int) and 1 <= size <= _LARGEST and isinstance(config["seed"], int)):
            raise ValueError("its image size or seed is no such thing")
        made = {name: config[name] for name in ("width", "dropout")} | {"image_size": size}
        # Without memory first: a width that somebody made up must not be allocated.
        with torch.device("meta"):
            wanted = build(config["model"], **made).state_dict()
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        stored = sum(tensor.numel() for tensor in weights.values())
        if shapes != {n: tuple(t.shape) for n, t in wanted.items()} or stored > Path(path).stat().st_size:
            raise ValueError("its weights have other shapes")
        model = build(config["model"], **made)
        model.load_state_dict(weights)
        facts = {key: state[key] for key in ("config", "cohort", "history", "step", "seconds")}
    except (CxrError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"{path} does not hold a network of cxrlib: {type(error).__name__}, {error}",
            remedy="Use another checkpoint, or the version of cxrlib that wrote it.",
        ) from error
    model.eval()
    return model, facts
