"""The lung network that ships gives by onnxruntime the masks that torch gives."""

import subprocess
import sys

import numpy as np
import pytest

import cxrlib
from cxrlib.datasets import load
from cxrlib.errors import CheckpointError, MissingPackage
from cxrlib.lungs import shipped
from cxrlib.lungs.masks import lung_masks, segment
from cxrlib.lungs.network import export, load_network, lung_probabilities
from cxrlib.lungs.shipped import SHIPPED_ONNX, shipped_probabilities


def torchs_masks(probabilities, shape):
    """What is left of ``lung_masks`` in torch: the interpolation to the images' size."""
    import torch
    import torch.nn.functional as F

    from cxrlib.lungs.masks import _two_largest

    cleaned = torch.from_numpy(np.stack([_two_largest(one) for one in probabilities]))
    return (F.interpolate(cleaned[:, None], shape, mode="bilinear")[:, 0] > 0.5).numpy()


def assert_same_masks(images):
    theirs, ours = lung_probabilities(load_network(), images), shipped_probabilities(images)
    assert ours.dtype == np.float32 and ours.shape == (len(images), 128, 128)
    assert np.abs(ours - theirs).max() < 1e-4
    shape = images.shape[1:]
    masks, _ = lung_masks(ours, shape, empty_implausible=False)
    assert (masks != torchs_masks(theirs, shape)).mean() < 1e-4


@pytest.mark.parametrize("side", [64, 128, 200, 384])
def test_masks_of_phantoms_are_torchs(side):
    assert_same_masks(np.array(cxrlib.load("phantom", n=12, image_size=side, seed=11).images))


def test_masks_of_an_image_that_is_not_square_are_torchs():
    images = cxrlib.load("phantom", n=4, image_size=256, seed=11).images
    assert_same_masks(np.ascontiguousarray(images[:, 20:, 50:]))


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name, folder",
    [("lung_masks", "lung-masks"), ("kermany", "kermany224/chest_xray"), ("nih", "nih-subset")],
)
def test_masks_of_radiographs_are_torchs(name, folder, data_root):
    cohort = load(name, data_dir=data_root / folder, image_size=256, limit=48, progress=False)
    assert_same_masks(np.array(cohort.images))


def test_the_file_that_ships_is_what_the_weights_export_to(tmp_path, monkeypatch):
    images = cxrlib.load("phantom", n=4, image_size=128, seed=12).images
    before = shipped_probabilities(images)
    export(load_network(), tmp_path / "lungs.onnx")
    monkeypatch.setattr(shipped, "SHIPPED_ONNX", tmp_path / "lungs.onnx")
    assert np.abs(shipped_probabilities(images) - before).max() < 1e-6


@pytest.mark.parametrize("threads", ["1", "2"])
def test_batches_and_threads_change_nothing_that_matters(threads, monkeypatch):
    images = np.array(cxrlib.load("phantom", n=40, image_size=128, seed=11).images)
    whole = shipped_probabilities(images)
    assert np.array_equal(whole, shipped_probabilities(images))
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    alone = np.concatenate([shipped_probabilities(image[None]) for image in images[30:34]])
    assert np.abs(alone - whole[30:34]).max() < 1e-5


def test_no_image_gives_no_mask():
    assert shipped_probabilities(np.zeros((0, 50, 50), np.uint8)).shape == (0, 128, 128)


def test_a_damaged_file_is_an_error_that_names_it(tmp_path, monkeypatch):
    damaged = tmp_path / "lungs.onnx"
    damaged.write_bytes(SHIPPED_ONNX.read_bytes()[:1000])
    monkeypatch.setattr(shipped, "SHIPPED_ONNX", damaged)
    with pytest.raises(CheckpointError, match=r"lungs\.onnx"):
        shipped_probabilities(np.zeros((1, 128, 128), np.uint8))


def test_the_shipped_network_is_run_without_importing_torch():
    program = (
        "import sys, numpy as np; sys.modules['torch'] = None\n"
        "from cxrlib.lungs.masks import lung_masks, predictor\n"
        "print(lung_masks(predictor()(np.zeros((1, 90, 90), np.uint8)), (90, 90))[1])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "no lung found" in done.stdout, done.stderr


def test_weights_of_ones_own_without_torch_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "cxrlib.lungs.network")
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "mine.safetensors").write_bytes(b"")
    with pytest.raises(MissingPackage, match=r'needs torch.*pip install "cxrlib\[course\]"'):
        segment(cxrlib.load("phantom", n=2, image_size=64), weights=tmp_path / "mine.safetensors")
