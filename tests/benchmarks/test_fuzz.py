"""A short run of the campaign in ``benchmarks/fuzz.py``, and what its long runs found."""

import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dicom_files import dicom, ramp

from cxrlib.audit.asked import read_held
from cxrlib.audit.files import file_facts
from cxrlib.audit.tables import levels_by_label
from cxrlib.cli.report import axes_of
from cxrlib.datasets import folder
from cxrlib.errors import ConfigError, CxrWarning, DataError, DecodeError
from cxrlib.evaluation.results import project_root
from cxrlib.io.cache import _resumed
from cxrlib.io.decode import decode
from cxrlib.io.storage import read_array, read_arrays
from cxrlib.training.augment import Augment
from cxrlib.training.config import TrainConfig

TARGETS = {
    "png": 300, "jpeg": 300, "tiff": 300, "dicom": 250, "labels": 60, "record": 200, "audit": 200,
    "checkpoint": 80, "config": 200, "cache": 200,
}  # fmt: skip


@pytest.fixture(scope="module")
def fuzz():
    benchmarks = project_root() / "benchmarks"
    sys.path.insert(0, str(benchmarks))
    try:
        import fuzz
    except ImportError:
        pytest.skip("needs what only Unix has")
    finally:
        sys.path.remove(str(benchmarks))
    return fuzz


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_ends_in_a_result_or_an_error_that_names_it(fuzz, name, tmp_path, monkeypatch):
    monkeypatch.delenv("CXRLIB_DATA", raising=False)
    seeds, damage, read, ending = fuzz.fuzz_targets.target(name, tmp_path)
    ways = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(TARGETS[name]):
            path = tmp_path / f"f{number}{ending}"
            path.write_bytes(fuzz.made(name, number, seeds, damage, seed=1))
            way, error = fuzz.tried(read, path)
            assert way in (fuzz.RESULT, fuzz.TOLD), (number, error)
            ways.append(way)
        for number, seed in enumerate(seeds):  # undamaged ones, of which some are meant to be read
            path = tmp_path / f"whole{number}{ending}"
            path.write_bytes(seed)
            ways.append(fuzz.tried(read, path)[0])
    assert set(ways) == {fuzz.TOLD, fuzz.RESULT}


def test_an_input_is_made_again_from_its_number(fuzz):
    seeds = fuzz.fuzz_targets.png_seeds()
    damage = fuzz.fuzz_targets.damaged_png
    assert fuzz.made("png", 7, seeds, damage) == fuzz.made("png", 7, seeds, damage)
    assert fuzz.made("png", 7, seeds, damage) != fuzz.made("png", 8, seeds, damage)


def test_frames_that_the_header_does_not_mention_are_refused(tmp_path):
    with pytest.raises(DecodeError, match=r"image\.dcm"):
        decode(dicom(tmp_path, ramp(), Rows=4))


def test_a_header_of_no_pixels_has_no_facts(tmp_path):
    assert file_facts([str(dicom(tmp_path, ramp(), Rows=0))], progress=False).isna().all(axis=None)


@pytest.mark.parametrize("kind", ["empty", "text", "array", "cut", "header"])
def test_a_damaged_cache_is_made_anew(tmp_path, kind):
    whole, array = io.BytesIO(), io.BytesIO()
    np.savez(whole, numbers=np.arange(5.0), scores=np.arange(5.0))
    np.save(array, np.zeros(3))
    data = {
        "empty": b"", "text": b"x", "array": array.getvalue(), "cut": whole.getvalue()[:-30],
        "header": array.getvalue().replace(b"{'descr'", b"{('escr'"),
    }[kind]  # fmt: skip
    path = tmp_path / "state.npz"
    path.write_bytes(data)
    assert read_arrays(path) is None
    if kind != "array":
        with pytest.raises(ValueError):
            read_array(path)
    assert read_held(path) is None
    assert _resumed(tmp_path, 3)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("text", ["image,label\na.png,2\n", "image,label\na.png,\n"])
def test_labels_that_are_none_are_told_with_their_table(tmp_path, text):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "mine.csv").write_text(text)
    for positive in (None, "ill"):
        with pytest.raises(DataError, match=r"mine\.csv"):
            folder.files(tmp_path, labels="mine.csv", positive=positive)


def test_an_infinite_number_in_a_column_is_no_number(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "b.png").write_bytes(b"x")
    (tmp_path / "labels.csv").write_text("image,label,age,dose\na.png,1,inf,1e999\nb.png,0,30,2\n")
    with pytest.warns(CxrWarning, match="1 of 2 values are not that and are lost: 'inf'"):
        table, _ = folder.files(tmp_path, labels="labels.csv", age_column="age", patient_column="image")
    assert table["age"].isna().tolist() == [True, False] and table["dose"].tolist() == ["1e999", "2"]
    values = pd.Series([*np.arange(20.0), np.inf])
    assert len(levels_by_label(values, np.zeros(21, int))) == 5


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": "3"}, {"epochs": 1.5}, {"epochs": True}, {"seed": None}, {"learning_rate": float("inf")},
        {"dropout": "x"}, {"warmup": []}, {"width": "wide"}, {"weight_decay": 10**400},
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_another_kind_are_refused(values):
    with pytest.raises(ConfigError):
        TrainConfig(**values)
    with pytest.raises(ConfigError):
        Augment(rotate="a")


def test_words_of_a_grid_with_an_open_quote_are_refused():
    with pytest.raises(ConfigError, match="seed"):
        axes_of(['seed="0,1'])
    with pytest.raises(ConfigError):
        Augment(noise=float("nan"))


def test_the_campaign_covers_what_it_says(fuzz):
    assert sum(fuzz.COUNTS.values()) >= 100_000
    assert set(fuzz.COUNTS) == set(fuzz.WHAT) == set(TARGETS)
    assert Path(fuzz.KEPT).parts[-2] == "build"  # ignored by git
