"""ChestX-ray14 from a folder: layouts, lists, and agreement with torchxrayvision."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrlib.cohort import split_by_patient
from cxrlib.datasets import load, nih_tables
from cxrlib.errors import DataError


def write_image(path: Path, value: int = 0, shape=(20, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value % 256, np.uint8)).save(path)


@pytest.fixture
def here(tmp_path):
    """Options that keep the decoded images of a test in its own folder."""
    return {"image_size": 16, "cache_dir": tmp_path / "cache", "workers": 1}


@pytest.fixture
def nih_images():
    """The first 40 images of NIH's table: nine patients, six of whom have several."""
    return nih_tables.metadata()["image_id"].tolist()[:40]


@pytest.mark.parametrize("layout", ["{name}", "images/{name}", "images_{part:03d}/images/{name}"])
def test_nih_is_read_in_every_layout(nih_images, tmp_path, here, layout):
    for number, name in enumerate(nih_images):
        write_image(tmp_path / "nih" / layout.format(name=name, part=1 + number % 12), number)
    write_image(tmp_path / "nih" / layout.format(name="99999999_000.png", part=1))
    cohort = load("nih", data_dir=tmp_path / "nih", **here)
    assert cohort.table["image_id"].tolist() == nih_images
    assert [int(image[8, 8]) for image in cohort.images] == list(range(40))
    assert cohort.info["missing_images"] == 112_120 - 40 and cohort.info["unknown_images"] == 1
    assert (cohort.table["split"] == split_by_patient(cohort.patients)).all()
    assert cohort.info["official_split"] is False
    assert (cohort.table["original_width"] > 1024).all(), "the radiographs' own width, not the files'"


def test_nih_uses_the_official_lists_where_they_are(nih_images, tmp_path, here):
    for name in nih_images:
        write_image(tmp_path / "images" / name)
    test = [name for name in nih_images if name < "00000005"]
    (tmp_path / "test_list.txt").write_text("\n".join(test))
    (tmp_path / "train_val_list.txt").write_text("\n".join(sorted(set(nih_images) - set(test))))
    cohort = load("nih", data_dir=tmp_path, **here)
    assert cohort.info["official_split"] is True
    assert set(cohort.split("test").table["image_id"]) == set(test)
    assert set(cohort.table["split"]) <= {"train", "val", "test"}
    (tmp_path / "train_val_list.txt").write_text(nih_images[-1])
    with pytest.raises(DataError, match="images are on neither of the official lists"):
        load("nih", data_dir=tmp_path, **here)


def test_nih_without_any_of_its_images(tmp_path, here):
    write_image(tmp_path / "photo.png")
    with pytest.raises(DataError, match="1 images, none with a name of the dataset's"):
        load("nih", data_dir=tmp_path, **here)


@pytest.mark.real_data
def test_nih_labels_and_pixels_agree_with_torchxrayvisions_own_class(data_root, tmp_path):
    xrv = pytest.importorskip("torchxrayvision")
    folder = data_root / "nih-subset"
    cohort = load("nih", data_dir=folder, image_size=384, cache_dir=tmp_path)
    assert len(cohort) == 621 and cohort.labels.sum() == 32
    theirs = xrv.datasets.NIH_Dataset(str(folder / "images"), views=["PA", "AP"], unique_patients=False)
    row_of = {name: row for row, name in enumerate(theirs.csv["Image Index"])}
    rows = [row_of[name] for name in cohort.table["image_id"]]
    for finding in nih_tables.FINDINGS:
        their_labels = theirs.labels[rows, theirs.pathologies.index(finding)]
        assert np.array_equal(cohort.table[finding], their_labels == 1), finding
    assert np.array_equal(cohort.table["view"], theirs.csv["View Position"].iloc[rows])
    for ours, row in zip(cohort.images, rows, strict=True):
        # (pixel / 255 × 2 − 1) × 1024, turned back
        their_pixels = np.rint((theirs[row]["img"][0] / 1024 + 1) / 2 * 255)
        assert np.array_equal(ours, their_pixels), theirs.csv["Image Index"].iloc[row]


@pytest.mark.real_data
def test_nih_originals_rgba_ones_included_agree_with_torchxrayvisions_own_class(data_root, tmp_path):
    xrv = pytest.importorskip("torchxrayvision")
    folder = data_root / "nih-subset" / "original-1024"
    cohort = load("nih", data_dir=folder, image_size=1024, cache_dir=tmp_path)
    theirs = xrv.datasets.NIH_Dataset(str(folder), views=["PA", "AP"], unique_patients=False)
    row_of = {name: row for row, name in enumerate(theirs.csv["Image Index"])}
    assert len(cohort) == 12
    for ours, name in zip(cohort.images, cohort.table["image_id"], strict=True):
        their_pixels = np.rint((theirs[row_of[name]]["img"][0] / 1024 + 1) / 2 * 255)
        assert np.array_equal(ours, their_pixels), name
