"""MedMNIST: images as they are in its files, and files only with the right checksum."""

import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cxrlib.datasets import fetch, load, medmnist, verify
from cxrlib.errors import ConfigError, DataError


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """Archives of the real layout with a few images, and a table of contents that knows their checksums."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    counts = {"train": 7, "val": 2, "test": 3}
    about = {name: dict(medmnist.package_info(name)) for name in medmnist.NAMES}
    rng = np.random.default_rng(0)
    for name, findings in (("pneumoniamnist", 1), ("chestmnist", 14)):
        arrays = {}
        for split, n in counts.items():
            arrays[f"{split}_images"] = rng.integers(0, 256, (n, 64, 64), dtype=np.uint8)
            arrays[f"{split}_labels"] = rng.integers(0, 2, (n, findings), dtype=np.uint8)
        np.savez_compressed(tmp_path / f"{name}_64.npz", **arrays)
        about[name] |= {"n_samples": counts, "MD5_64": medmnist.md5(tmp_path / f"{name}_64.npz")}
    monkeypatch.setattr(medmnist, "_info", lambda: about)
    return tmp_path


@pytest.mark.parametrize("name", ["pneumoniamnist", "chestmnist"])
def test_medmnist_images_labels_and_split_are_the_files(small_mnist, name):
    cohort = load(name, data_dir=small_mnist, image_size=64, cache_dir=small_mnist / "cache")
    with np.load(small_mnist / f"{name}_64.npz") as arrays:
        for split in ("train", "val", "test"):
            part = cohort.split(split)
            assert np.array_equal(part.images, arrays[f"{split}_images"])
            column = 6 if name == "chestmnist" else 0  # the package's label 6 is pneumonia
            assert np.array_equal(part.labels, arrays[f"{split}_labels"][:, column])
    assert isinstance(cohort.images, np.memmap) and not cohort.images.flags.writeable
    assert cohort.table["patient_id"].is_unique
    if name == "chestmnist":
        assert {"effusion", "hernia", "pneumonia"} <= set(cohort.table)
    assert len(load(name, data_dir=small_mnist, image_size=64, limit=5, cache_dir=small_mnist / "cache")) == 5


def test_medmnists_label_six_is_pneumonia_and_all_sizes_are_offered():
    assert medmnist.package_info("chestmnist")["label"]["6"] == "pneumonia"
    assert medmnist.sizes("chestmnist") == medmnist.sizes("pneumoniamnist") == (28, 64, 128, 224)
    with pytest.raises(ConfigError, match="28, 64, 128, 224"):
        load("pneumoniamnist", image_size=100)


def test_a_wrong_checksum_is_refused(small_mnist):
    path = small_mnist / "pneumoniamnist_64.npz"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match="MD5 checksum") as caught:
        load("pneumoniamnist", data_dir=small_mnist, image_size=64, cache_dir=small_mnist / "cache")
    assert str(path) in str(caught.value) and "zenodo.org" in str(caught.value)
    checks = verify("pneumoniamnist", small_mnist, image_size=64)
    assert [check["ok"] for check in checks] == [False]


def test_an_archive_that_is_damaged_in_spite_of_its_checksum(small_mnist):
    path = small_mnist / "pneumoniamnist_64.npz"
    with np.load(path) as whole:
        arrays = dict(whole)
    arrays["val_images"] = arrays["val_images"][:1]
    np.savez_compressed(path, **arrays)
    medmnist._info()["pneumoniamnist"]["MD5_64"] = medmnist.md5(path)
    with pytest.raises(DataError, match="val images"):
        load("pneumoniamnist", data_dir=small_mnist, image_size=64, cache_dir=small_mnist / "cache")
    assert not list((small_mnist / "cache").rglob("manifest.json"))


def test_a_malicious_archive_writes_nothing_outside_and_unpickles_nothing(small_mnist):
    """Even one with the right checksum: members are read by name, and never written where theirs says."""
    path, cache = small_mnist / "pneumoniamnist_64.npz", small_mnist / "a" / "cache"
    with zipfile.ZipFile(path, "a") as members:
        for name in ("../../../evil", "/tmp/../evil", "..\\evil", "images.npy/../../evil"):
            members.writestr(name, b"evil")
    medmnist._info()["pneumoniamnist"]["MD5_64"] = medmnist.md5(path)
    assert len(load("pneumoniamnist", data_dir=small_mnist, image_size=64, cache_dir=cache)) == 12
    assert not [found for found in small_mnist.parent.rglob("*evil")]
    with np.load(path) as whole:
        arrays = {name: whole[name] for name in whole.files if "evil" not in name}
    arrays["val_labels"] = np.array([{}, {}], dtype=object)
    np.savez(path, **arrays)
    medmnist._info()["pneumoniamnist"]["MD5_64"] = medmnist.md5(path)
    with pytest.raises(DataError, match="pneumoniamnist_64"):
        load("pneumoniamnist", data_dir=small_mnist, image_size=64, cache_dir=small_mnist / "b")


def test_what_a_download_gives_is_kept_only_with_the_right_checksum(small_mnist, monkeypatch):
    import io

    class Answer(io.BytesIO):
        headers = {"Content-Length": "4"}  # noqa: RUF012 — as urllib's

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Answer(b"evil"))
    with pytest.raises(DataError, match="MD5 checksum"):
        medmnist.fetch("pneumoniamnist", small_mnist / "new", image_size=64, progress=False)
    assert not list((small_mnist / "new").rglob("*"))


def test_offline_it_says_what_to_download_and_where_to_put_it(small_mnist, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(DataError) as caught:
        load("chestmnist", data_dir=small_mnist / "data", image_size=128, cache_dir=small_mnist / "cache")
    message, about = str(caught.value), medmnist.package_info("chestmnist")
    for wanted in ("chestmnist_128.npz", about["url_128"], about["MD5_128"], str(small_mnist / "data")):
        assert wanted in message
    assert not list((small_mnist / "data").iterdir())


def test_a_download_is_verified_and_put_where_it_was_said(small_mnist, monkeypatch):
    medmnist._info()["chestmnist"]["url_64"] = (small_mnist / "chestmnist_64.npz").as_uri()
    assert (
        fetch("chestmnist", small_mnist / "new", image_size=64) == small_mnist / "new" / "chestmnist_64.npz"
    )
    medmnist._info()["chestmnist"]["url_64"] = (small_mnist / "pneumoniamnist_64.npz").as_uri()
    with pytest.raises(DataError, match="published is"):
        fetch("chestmnist", small_mnist / "newer", image_size=64)
    assert not list((small_mnist / "newer").iterdir())
