"""What only a GPU shows; ``python -m benchmarks.gpu`` runs these too."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_blobs

from cxrlib.training.inference import load_model, predict
from cxrlib.training.trainer import TrainConfig, Trainer, default_callbacks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CONFIG = TrainConfig(
    model="residual", width=4, epochs=1, batch_size=16, class_weighted=True, accelerator="gpu"
)


def test_a_gpu_learns_what_a_cpu_learns():
    """64-bit and without augmentation, so that nothing but the device differs."""
    weights = []
    for accelerator in ("gpu", "cpu"):
        trainer = Trainer(replace(CONFIG, precision="64-true", accelerator=accelerator), [])
        trainer.fit(make_blobs())
        weights.append({key: value.cpu().double() for key, value in trainer.raw_model.state_dict().items()})
    one, other = weights
    assert max(float((one[key] - other[key]).abs().max()) for key in one) < 1e-5


def test_a_network_trained_in_bfloat16_on_a_gpu_predicts_on_a_cpu(tmp_path):
    config = replace(CONFIG, precision="bf16-mixed", average_decay=0.9)
    trainer = Trainer(config, default_callbacks(tmp_path, progress=False), tmp_path)
    history = trainer.fit(make_blobs())
    assert np.isfinite(history["val_loss"]).all()
    images = make_blobs().split("val").images
    there = predict(trainer.model, images)
    here, _ = load_model(tmp_path / "last.pt")
    assert next(here.parameters()).device.type == "cpu"
    assert np.allclose(predict(here, images), there, atol=0.02)


def test_a_training_that_a_gpu_began_goes_on_on_a_cpu(tmp_path):
    for accelerator, epochs in (("gpu", 1), ("cpu", 2)):
        config = replace(CONFIG, accelerator=accelerator, epochs=epochs)
        trainer = Trainer(config, default_callbacks(tmp_path, progress=False), tmp_path)
        history = trainer.fit(make_blobs(), resume=True)
    assert list(history["epoch"]) == [1, 2]
