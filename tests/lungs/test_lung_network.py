"""The segmenter: its size, its loss and measure, its training and its weights."""

import numpy as np
import pytest
import torch

import cxrlib
from cxrlib.errors import CheckpointError, ConfigError, DataError
from cxrlib.lungs import network as lung_network
from cxrlib.lungs.network import (
    SHIPPED_WEIGHTS,
    LungNet,
    LungTraining,
    dice,
    load_network,
    lung_probabilities,
    save_weights,
    segmentation_loss,
    train_segmenter,
)
from cxrlib.lungs.shipped import SHIPPED_ONNX
from cxrlib.training.augment import Augment, LungAugment
from cxrlib.training.checkpoints import save_checkpoint
from cxrlib.training.models import count_parameters


@pytest.fixture(scope="module")
def phantoms():
    return cxrlib.load("phantom", n=24, image_size=128, seed=4)


def test_it_is_small_enough_to_ship():
    assert count_parameters(LungNet()) <= 600_000
    for path in (SHIPPED_WEIGHTS, SHIPPED_ONNX):
        assert path.stat().st_size <= 2_500_000


def test_the_weights_have_a_card():
    card = SHIPPED_WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")
    for word in ("Montgomery", "phantom", "Dice", "children", "clinical"):
        assert word in card


def test_dice_of_two_overlapping_squares_is_the_hand_computed_one():
    a, b = np.zeros((2, 10, 10), np.uint8)
    a[0:4, 0:4] = 1  # 16
    b[2:6, 0:4] = 1  # 16, 8 in common
    assert dice(a[None], b[None])[0] == 2 * 8 / 32
    assert dice(np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8))[0] == 1
    with pytest.raises(ConfigError, match="shape"):
        dice(a[None], b[None, :5])


def test_the_loss_is_near_zero_for_the_truth_and_large_for_its_opposite():
    masks = torch.zeros(1, 1, 8, 8)
    masks[..., 2:6, 2:6] = 1
    assert segmentation_loss(40 * masks - 20, masks) < 1e-3
    assert segmentation_loss(20 - 40 * masks, masks) > 5


def test_the_mean_over_an_image_and_its_mirror_image_is_mirrored_with_it(phantoms):
    network = load_network()
    a = lung_probabilities(network, phantoms.images[:2])
    b = lung_probabilities(network, np.ascontiguousarray(phantoms.images[:2, :, ::-1]))
    assert np.abs(a - b[:, :, ::-1]).max() < 1e-4


def test_augmentation_moves_the_mask_with_the_image(phantoms):
    moved = LungAugment(tilt=0, blur=0, patch=0, exposure=Augment(0, 0, 0, 0, 0, 0))
    masks = torch.tensor(phantoms.lung_masks[:8]).float()[:, None]
    images, varied = moved(255 * masks, masks, torch.Generator().manual_seed(0))
    assert ((images > 127.5).float() == varied).float().mean() > 0.999
    assert not torch.equal(varied, masks)


def test_augmentation_follows_from_its_seed(phantoms):
    masks = torch.tensor(phantoms.lung_masks[:4]).float()[:, None]
    images = torch.tensor(phantoms.images[:4]).float()[:, None]
    a, b, c = (LungAugment()(images, masks, torch.Generator().manual_seed(s))[0] for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.isfinite().all()


def test_a_training_that_was_cut_off_ends_with_the_same_weights(phantoms, tmp_path, monkeypatch):
    config = LungTraining(images=96, batch_size=8, average_decay=0.5, precision="32")
    whole = train_segmenter(phantoms, config, store=tmp_path / "a", progress=False)
    advance = lung_network._Training.advance

    def dies_at_step_seven(self):
        if self.step == 7:
            raise KeyboardInterrupt
        advance(self)
        if self.step == 5:
            save_checkpoint(tmp_path / "b" / name / "last.pt", self.state())

    (name,) = [path.name for path in (tmp_path / "a").iterdir()]
    monkeypatch.setattr(lung_network._Training, "advance", dies_at_step_seven)
    with pytest.raises(KeyboardInterrupt):
        train_segmenter(phantoms, config, store=tmp_path / "b", progress=False)
    monkeypatch.setattr(lung_network._Training, "advance", advance)
    resumed = train_segmenter(phantoms, config, store=tmp_path / "b", progress=False)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_training_brings_the_loss_down(phantoms, tmp_path):
    config = LungTraining(images=320, batch_size=16, average_decay=0.5, augment=None)
    network = train_segmenter(phantoms, config, store=tmp_path, progress=False)
    masks = (lung_probabilities(network, phantoms.images) > 0.5).astype(np.uint8)
    assert dice(masks, phantoms.lung_masks).mean() > 0.6


def test_weights_survive_the_way_through_a_file(tmp_path):
    torch.manual_seed(0)
    network = LungNet().eval()
    save_weights(network, tmp_path / "w.safetensors", {"note": "x"})
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64), dtype=np.uint8)
    again = load_network(tmp_path / "w.safetensors")
    assert np.allclose(lung_probabilities(network, image), lung_probabilities(again, image), atol=1e-6)


def test_weights_of_another_network_are_an_error(tmp_path):
    save_weights(torch.nn.Linear(2, 2), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors does not hold"):
        load_network(tmp_path / "other.safetensors")


def test_a_cohort_without_masks_or_of_another_size_cannot_train(phantoms, tmp_path):
    for cohort in (
        phantoms.with_images(phantoms.images, lung_masks=None),
        cxrlib.load("phantom", n=4, image_size=64),
    ):
        with pytest.raises(DataError, match="image_size=128"):
            train_segmenter(cohort, store=tmp_path)
