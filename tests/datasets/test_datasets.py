"""The registry: every source under one function, and what it says to a wrong name or option."""

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrlib import datasets
from cxrlib.datasets import describe, fetch, load, verify
from cxrlib.errors import ConfigError, CxrWarning, DataError


def write_image(path: Path, value: int = 0, shape=(20, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value % 256, np.uint8)).save(path)


def test_every_source_is_described():
    assert list(datasets.SOURCES) == [
        "phantom", "nih", "rsna", "chexpert", "padchest", "openi", "mimic_cxr_jpg", "vindr", "kermany",
        "pneumoniamnist", "chestmnist", "lung_masks", "folder",
    ]  # fmt: skip
    for name in datasets.SOURCES:
        facts = describe(name)
        assert facts["name"] == name and facts["needs"] in ("nothing", "folder", "download")
        assert all(facts[key] for key in ("title", "summary", "licence", "citation"))


def test_an_unknown_name_gets_the_list_and_the_nearest():
    with pytest.raises(ConfigError, match=r"Did you mean 'kermany'.*phantom, nih, rsna"):
        load("kermani")
    for function in (describe, fetch, verify):
        with pytest.raises(ConfigError, match="no dataset 'x'"):
            function("x")


def test_an_unknown_option_gets_the_sources_own(tmp_path):
    with pytest.raises(
        ConfigError, match=r"no option 'label_colum'\.\n.*mean 'label_column'.*patient_column"
    ):
        load("folder", data_dir=tmp_path, label_colum="x")


@pytest.mark.parametrize("wrong", [{"image_size": 0}, {"image_size": 12.5}, {"limit": 0}])
def test_impossible_sizes_and_limits_are_refused(wrong):
    with pytest.raises(ConfigError):
        load("phantom", **wrong)


@pytest.mark.parametrize("name", ["nih", "kermany", "lung_masks", "folder"])
def test_a_folder_that_is_not_given_or_not_there(name, tmp_path):
    with pytest.raises(ConfigError, match=r"none is given\.\nWhat to do: Pass data_dir"):
        load(name)
    with pytest.raises(DataError, match="nowhere does not exist"):
        load(name, data_dir=tmp_path / "nowhere")


def test_importing_the_registry_imports_nothing_heavy():
    code = "import sys, cxrlib.datasets as d; d.describe('chestmnist'); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    assert not loaded & {"torch", "torchvision", "torchxrayvision", "medmnist", "pydicom", "sklearn", "scipy"}


def test_the_phantom_renders_no_more_than_the_limit():
    assert len(load("phantom", limit=3, image_size=32)) == 3


def test_fetching_what_cannot_be_fetched_says_so(monkeypatch):
    with pytest.raises(ConfigError, match="rendered, not downloaded"):
        fetch("phantom")
    with pytest.raises(ConfigError, match="no download for folder"):
        fetch("folder")
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ConfigError, match=r"kagglehub.*\n.*cxrlib\[kaggle\].*nih-chest-xrays/data"):
        fetch("nih")


def test_kagglehub_gets_the_folder_it_shall_download_to(tmp_path, monkeypatch):
    def download(handle):
        assert handle == "paultimothymooney/chest-xray-pneumonia"
        return os.environ["KAGGLEHUB_CACHE"] + "/downloaded"

    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=download))
    monkeypatch.delenv("KAGGLEHUB_CACHE", raising=False)
    assert fetch("kermany", tmp_path) == tmp_path / "downloaded"
    assert "KAGGLEHUB_CACHE" not in os.environ


def test_image_files_opens_folders_and_keeps_files(tmp_path):
    for name in ("b/2.png", "a/1.jpg", "c.png"):
        write_image(tmp_path / name)
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "a" / "._1.jpg").touch()
    with pytest.warns(CxrWarning, match=r"1 files .* left out: 1 \(no image, \*\.txt\)"):
        names = [p.name for p in datasets.image_files([tmp_path / "c.png", tmp_path])]
    assert names == ["c.png", "c.png", "1.jpg", "2.png"]
    with pytest.raises(DataError, match="does not exist"):
        datasets.image_files([tmp_path / "d.png"])
