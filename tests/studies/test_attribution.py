"""Attribution: axioms, a network small enough to do by hand, and regions whose chance is known."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError, DataError
from cxrlib.studies.attribution import (
    attribute,
    box_masks,
    estimates,
    grad_cam_layer,
    hold_out,
    inside_share,
    localisation,
    pointing,
    randomisation,
    randomised,
    rank_correlation,
    regions,
    with_boxes,
)
from cxrlib.training.inference import predict_logits
from cxrlib.training.models import Classifier, build


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build("residual", width=4, image_size=32).eval()


def test_integrated_gradients_add_up_to_the_change_of_the_logit(network, images):
    maps = attribute(network, images, "integrated_gradients", steps=200)
    with torch.no_grad():
        grey = network(torch.full((1, 1, 32, 32), float(network.mean))).numpy()
    change = predict_logits(network, images) - grey
    assert maps.sum(axis=(1, 2)) == pytest.approx(change, rel=0.02, abs=2e-3)


def test_grad_cam_of_a_tiny_network_by_hand(images):
    torch.manual_seed(1)
    convolution = nn.Conv2d(1, 3, 3, padding=1)
    dense = nn.Linear(3, 1)
    model = Classifier(
        nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense)
    ).eval()
    with torch.no_grad():
        x = (torch.tensor(images).float().unsqueeze(1) - model.mean) / model.std
        activations = torch.relu(convolution(x))
        # After a global mean, the logit's gradient is the dense weight over the number of cells, everywhere.
        weights = dense.weight[0] / (32 * 32)
        expected = (weights[None, :, None, None] * activations).sum(dim=1).numpy()
    found = attribute(model, images, "grad_cam", layer="network.1")
    assert found == pytest.approx(expected, abs=1e-6)


def test_occlusion_is_the_loss_of_logit_under_the_window(images):
    torch.manual_seed(0)
    linear = nn.Linear(32 * 32, 1)
    model = Classifier(nn.Sequential(nn.Flatten(), linear)).eval()
    maps = attribute(model, images, "occlusion", window=8)
    covered = images.astype(np.float32).copy()
    covered[:, :8, :8] = float(model.mean)
    with torch.no_grad():
        loss = model(torch.tensor(images)) - model(torch.tensor(covered))
    # The corner pixel lies under this window alone.
    assert maps[:, 0, 0] == pytest.approx(loss.numpy(), abs=1e-4)


def test_a_pixel_the_network_does_not_see_gets_nothing(images):
    class Left(nn.Module):
        def forward(self, x):
            return x[:, :, :, :16].mean(dim=(2, 3)) + x[:, :, :, :16].amax(dim=(2, 3))

    model = Classifier(Left()).eval()
    for method in ("integrated_gradients", "occlusion"):
        maps = attribute(model, images, method, window=4)
        assert np.abs(maps[:, :, 18:]).max() == 0
        assert np.abs(maps[:, :, :16]).max() > 0


def test_grad_cam_takes_the_deepest_layer_that_is_fine_enough(network):
    assert grad_cam_layer(network, 128, smallest=8) == "network.8"
    assert grad_cam_layer(network, 64, smallest=8) == "network.6"
    assert grad_cam_layer(network, 32, smallest=1000) == "network.0"
    with pytest.raises(ConfigError, match="no layer"):
        attribute(network, np.zeros((1, 32, 32), np.uint8), layer="head")


def test_share_of_an_even_map_is_the_area():
    masks = np.zeros((3, 10, 10), np.uint8)
    masks[:, :3, :] = 1
    maps = np.ones((3, 10, 10))
    assert inside_share(maps, masks) == pytest.approx([0.3] * 3)
    found = localisation(maps, masks, replicates=50)
    assert found["excess"].value == pytest.approx(0)
    assert found["area"].value == pytest.approx(0.3)


def test_negative_attribution_does_not_count():
    maps = np.array([[[1.0, -5.0], [1.0, 0.0]]])
    assert inside_share(maps, np.array([[[1, 1], [0, 0]]])) == pytest.approx([0.5])


def test_maps_that_know_only_the_usual_place_do_not_go_beyond_it():
    rng = np.random.default_rng(0)
    masks, follows = np.zeros((60, 16, 16), np.uint8), np.full((60, 16, 16), 0.01)
    usual = np.full((60, 16, 16), 0.01)
    usual[:, 4:12, 4:12] = 1
    for row in range(60):
        y, x = rng.integers(4, 9, 2)
        masks[row, y : y + 4, x : x + 4] = 1
        follows[row, y : y + 4, x : x + 4] = 1
    place, patient = (localisation(maps, masks, replicates=200) for maps in (usual, follows))
    assert place["excess"].low > 0
    assert place["beyond_place"].value == pytest.approx(0, abs=0.02)
    assert patient["beyond_place"].low > 0.3
    assert patient["pointing"].value == 1


def test_pointing_with_and_without_tolerance():
    maps = np.zeros((3, 9, 9))
    maps[0, 4, 4] = maps[1, 4, 7] = 1
    masks = np.zeros((3, 9, 9), np.uint8)
    masks[:, 3:6, 3:6] = 1
    assert pointing(maps, masks)[:2].tolist() == [1, 0]
    assert pointing(maps, masks, tolerance=2)[:2].tolist() == [1, 1]
    assert np.isnan(pointing(maps, masks)[2])  # a constant map points nowhere


def test_rank_correlation_is_scipys_and_ignores_a_change_of_sign():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 6, 6))
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    assert rank_correlation(a, b, absolute=False) == pytest.approx(expected)
    assert rank_correlation(a, -a) == pytest.approx(np.ones(3))
    assert rank_correlation(a, np.zeros_like(a)).tolist() == [0, 0, 0]


def test_the_cascade_changes_one_block_after_another_and_leaves_the_network_alone(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cascade = randomised(network, seed=1)
    changed = [
        {name for name, value in noisy.state_dict().items() if "weight" in name
         and not torch.equal(value, before[name])} for _, noisy in cascade
    ]  # fmt: skip
    assert cascade[0][0] == "14"
    assert changed[0] == {"network.14.weight"}
    assert all(a <= b for a, b in itertools.pairwise(changed))
    assert "network.0.weight" in changed[-1]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_method_blind_to_the_weights_fails_the_sanity_check_and_grad_cam_passes(network, images):
    table = randomisation(network, images, ("grad_cam",), replicates=50)
    assert table["step"].tolist() == list(range(len(randomised(network)) + 1))
    assert table["correlation"].iloc[-1] < 0.9
    edges = np.abs(np.gradient(images.astype(float), axis=1))  # an edge detector never asks the network
    assert rank_correlation(edges, edges) == pytest.approx(np.ones(len(images)))


def test_boxes_become_masks_at_the_images_scale():
    boxes = pd.DataFrame(
        {"image_id": ["a", "a"], "x": [0.0, 512.0], "y": [0.0, 512.0], "w": 256.0, "h": 128.0}
    )
    masks = box_masks(["b", "a"], boxes, 64)
    assert masks[0].sum() == 0
    assert masks[1, :8, :16].all()
    assert masks[1].sum() == 2 * 8 * 16
    table = pd.DataFrame({"image_id": ["b", "a"], "patient_id": ["1", "2"], "label": 0, "split": "test"})
    boxed = with_boxes(Cohort(np.zeros((2, 64, 64), np.uint8), table), boxes)
    assert boxed.table["image_id"].tolist() == ["a"]
    assert set(regions(boxed)) == {"border", "lesion"}


def test_patients_with_a_box_are_held_out_of_training():
    table = pd.DataFrame(
        {"image_id": list("abc"), "patient_id": ["1", "1", "2"], "label": [1, 0, 1], "split": "train"}
    )
    cohort = hold_out(Cohort(np.zeros((3, 64, 64), np.uint8), table), ["b", "not here"])
    assert cohort.table["split"].tolist() == ["test", "test", "train"]


def test_what_is_recorded_names_region_method_and_step(network, images):
    masks = np.zeros(images.shape, np.uint8)
    masks[:, :16] = 1
    maps = attribute(network, images)
    shares = {"lungs": {"grad_cam": localisation(maps, masks, replicates=20)}}
    numbers = estimates(shares, randomisation(network, images, ("grad_cam",), replicates=20))
    assert {"lungs.grad_cam.share", "randomisation.grad_cam.another_image"} <= set(numbers)
    assert numbers["randomisation.grad_cam.all_random"] == numbers["randomisation.grad_cam.step_11"]


def test_what_cannot_be_measured_is_refused(network, images):
    with pytest.raises(ConfigError, match="no method"):
        attribute(network, images, "guess")
    with pytest.raises(DataError, match="positive map"):
        localisation(-np.ones((2, 4, 4)), np.ones((2, 4, 4), np.uint8))
    with pytest.raises(DataError, match="uint8"):
        attribute(network, images / 255)
    with pytest.raises(ConfigError, match="window of 100"):
        attribute(network, images, "occlusion", window=100)
