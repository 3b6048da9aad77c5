"""Montgomery and Shenzhen: every image with its mask."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrlib.datasets import load
from cxrlib.errors import DataError


def write_image(path: Path, value: int = 0, shape=(20, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value % 256, np.uint8)).save(path)


@pytest.fixture
def here(tmp_path):
    """Options that keep the decoded images of a test in its own folder."""
    return {"image_size": 16, "cache_dir": tmp_path / "cache", "workers": 1}


@pytest.fixture
def small_lungs(tmp_path):
    for number, name in enumerate(["MCUCXR_0001_0", "MCUCXR_0002_1", "CHNCXR_0001_1"]):
        write_image(tmp_path / "images" / f"{name}.png", 100 + number, shape=(32, 32))
        mask = np.zeros((32, 32), bool)
        mask[8:24, 4:12] = True
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def test_lung_masks_come_with_the_images(small_lungs, here):
    cohort = load("lung_masks", data_dir=small_lungs, **here)
    assert cohort.table["image_id"].tolist() == ["CHNCXR_0001_1", "MCUCXR_0001_0", "MCUCXR_0002_1"]
    assert cohort.table["site"].tolist() == ["Shenzhen", "Montgomery", "Montgomery"]
    assert cohort.labels.tolist() == [1, 0, 1] and cohort.info["label"] == "tuberculosis"
    expected = np.zeros((16, 16), np.uint8)
    expected[4:12, 2:6] = 1
    assert all(np.array_equal(mask, expected) for mask in cohort.lung_masks)


def test_an_image_without_its_mask_is_named(small_lungs, here):
    (small_lungs / "masks" / "MCUCXR_0001_0.png").unlink()
    with pytest.raises(DataError, match=r"1 images .* have no mask") as caught:
        load("lung_masks", data_dir=small_lungs, **here)
    assert "MCUCXR_0001_0.png" in str(caught.value)


@pytest.mark.real_data
def test_the_real_lung_masks_cover_a_quarter_of_the_picture(data_root, tmp_path):
    cohort = load("lung_masks", data_dir=data_root / "lung-masks", image_size=64, cache_dir=tmp_path)
    assert cohort.table["site"].value_counts().to_dict() == {"Shenzhen": 566, "Montgomery": 138}
    assert cohort.lung_masks.shape == cohort.images.shape and 0.2 < cohort.lung_masks.mean() < 0.32
