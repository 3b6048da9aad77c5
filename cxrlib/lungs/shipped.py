"""The lung network that ships, run by onnxruntime: no torch is needed.

``data/lungs.onnx`` holds the weights of ``data/lungs.safetensors``; :func:`cxrlib.lungs.network.export`
made it, and its card is ``data/lungs.md``.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cxrlib.errors import CheckpointError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SIDE = 128
"""The network works at this many pixels a side; other sizes are brought to it and back."""

SHIPPED_ONNX = Path(__file__).parent / "data" / "lungs.onnx"

_BATCH = 32


def shipped_probabilities(images: np.ndarray) -> np.ndarray:
    """The probability of lung, float32, shape (N, 128, 128), of uint8 images of shape (N, H, W).

    The mean over the image and its mirror image, as :func:`cxrlib.lungs.network.lung_probabilities` has it.
    """
    session = _session(SHIPPED_ONNX, _threads())
    found = np.zeros((len(images), SIDE, SIDE), np.float32)
    for start in range(0, len(images), _BATCH):
        x = np.stack([_sized(image) for image in images[start : start + _BATCH]])
        (logits,) = session.run(None, {"images": x})
        (mirrored,) = session.run(None, {"images": np.ascontiguousarray(x[:, :, ::-1])})
        found[start : start + _BATCH] = 1 / (1 + np.exp(-(logits + mirrored[:, :, ::-1]) / 2))
    return found


def _threads() -> int:
    """As many as this process may use, or OMP_NUM_THREADS, which is 1 in worker processes."""
    from joblib import cpu_count

    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cpu_count(), int(wanted) if wanted.isdecimal() else cpu_count()))


def _sized(image: np.ndarray) -> np.ndarray:
    """float32, (128, 128). Pillow's bilinear filter is the one that torch's ``antialias=True`` follows."""
    x = image.astype(np.float32)
    if x.shape == (SIDE, SIDE):
        return x
    return np.asarray(Image.fromarray(x).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


@lru_cache(maxsize=1)
def _session(path: Path, threads: int) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for work give the processor to others, such as the processes that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an error of its own for each kind of damage
        raise CheckpointError(
            f"{path} cannot be read as the lung network: {type(error).__name__}.",
            remedy="Install cxrlib again.",
        ) from error
