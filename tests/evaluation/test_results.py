"""Recorded evidence keeps its numbers, says where they are from, and never lies half-written."""

import json
import socket
import subprocess
import sys
from getpass import getuser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from cxrlib.errors import ConfigError, CxrError, DataError
from cxrlib.evaluation import results
from cxrlib.evaluation.metrics import Estimate

NUMBERS = {
    "residual.test_auc": Estimate(0.981, 0.97, 0.99, 624, 3),
    "residual.train_seconds": 183.5,
    "images": np.int64(624),
}


def write(tmp_path, figure=None, numbers=NUMBERS, **changes):
    options = {"dataset": "kermany", "out_dir": tmp_path, "preset": "full"}
    return results.record(figure, "official_test", numbers, **{**options, **changes})


def a_figure():
    figure, axis = plt.subplots(figsize=(2, 1))
    axis.plot([0, 1])
    return figure


def test_the_json_is_as_the_design_says(tmp_path):
    path = write(tmp_path, seed=[0, 1, 2], content_hash="abc", command="cxr train", seconds=550.123)
    assert path == tmp_path / "figures/kermany/official_test.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["schema"] == 1
    assert content["name"] == "official_test"
    assert content["numbers"] == {
        "residual.test_auc": {"value": 0.981, "low": 0.97, "high": 0.99, "n": 624, "seeds": 3},
        "residual.train_seconds": {"value": 183.5},
        "images": {"value": 624},
    }
    made_from = content["provenance"]
    assert list(made_from) == [
        "dataset",
        "content_hash",
        "preset",
        "seed",
        "command",
        "git_commit",
        "versions",
        "hardware",
        "seconds",
    ]
    assert (made_from["seed"], made_from["preset"], made_from["seconds"]) == ([0, 1, 2], "full", 550.12)
    assert set(made_from["versions"]) >= {"python", "numpy", "torch", "torchvision", "scikit-learn", "cxrlib"}
    assert "core" in made_from["hardware"]


def test_what_is_recorded_is_read_back(tmp_path):
    write(tmp_path, a_figure(), command="cxr train --seeds 3")
    found = results.recorded("kermany/official_test", root=tmp_path)
    assert found.estimate("residual.test_auc") == NUMBERS["residual.test_auc"]
    assert found.numbers["images"] == Estimate(624)
    assert found.command == "cxr train --seeds 3"
    assert Image.open(found.image_path).size[0] > 200


def test_what_is_not_there_is_none(tmp_path, monkeypatch):
    assert results.recorded("kermany/no_such_figure", root=tmp_path) is None
    monkeypatch.setattr(results, "project_root", lambda: None)
    assert results.recorded("kermany/official_test") is None


def test_numbers_alone_have_no_image(tmp_path):
    assert results.read_record(write(tmp_path)).image_path is None


def test_the_figure_is_closed_and_an_axis_will_do(tmp_path):
    plt.close("all")
    write(tmp_path, a_figure().axes[0])
    assert plt.get_fignums() == []


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    first = write(tmp_path / "a", a_figure()).with_suffix(".png").read_bytes()
    assert first == write(tmp_path / "b", a_figure()).with_suffix(".png").read_bytes()
    assert b"matplotlib" not in first.lower()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), "0.9", None, True])
def test_a_value_that_is_no_finite_number_is_refused_by_name(tmp_path, value):
    with pytest.raises(DataError, match=r"lenet\.test_auc"):
        write(tmp_path, numbers={"lenet.test_auc": value})
    assert not list(tmp_path.rglob("*.*"))


def test_a_limit_that_is_not_finite_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"lenet\.test_auc, high"):
        write(tmp_path, numbers={"lenet.test_auc": Estimate(0.9, 0.8, np.nan)})


@pytest.mark.parametrize("change", [{"dataset": "../kermany"}, {"notebook": "a b"}, {"dataset": ".hidden"}])
def test_a_name_that_would_leave_the_folder_is_refused(tmp_path, change):
    with pytest.raises(ConfigError):
        write(tmp_path, **change)


def test_a_number_with_a_space_in_its_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="test auc"):
        write(tmp_path, numbers={"test auc": 0.9})


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = write(tmp_path)
    before = path.read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(CxrError, match=r"full|No space left"):
        write(tmp_path, numbers={"lenet.test_auc": 0.5})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"schema": 2, "numbers": {}}',
        '{"schema": 1}',
        '{"schema": 1, "numbers": {"a": {}}}',
        '{"schema": 1, "numbers": {"a": {"value": "high"}}}',
        '{"schema": 1, "numbers": {"a": {"value": NaN}}}',
        '{"schema": 1, "numbers": {}, "provenance": 3}',
    ],
)
def test_malformed_evidence_is_named(tmp_path, text):
    path = tmp_path / "figures/nih/pixel_free.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(DataError, match=r"pixel_free\.json"):
        results.recorded("nih/pixel_free", root=tmp_path)


def test_an_unknown_number_lists_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=r"residual\.test_auc"):
        results.read_record(write(tmp_path)).estimate("residual.auc")


def test_nothing_recorded_names_this_machine(tmp_path):
    home = Path.home()
    command = f"cxr train --data-dir {tmp_path}/kermany --out={home}/runs/x -p url https://host/a/b ~/z/w.csv"
    path = write(tmp_path, a_figure(), command=command)
    text = path.read_text(encoding="utf-8")
    recorded = json.loads(text)["provenance"]["command"]
    assert recorded == "cxr train --data-dir …/kermany --out=…/x -p url https://host/a/b …/w.csv"
    secrets = {str(tmp_path), f"{home}/", socket.gethostname(), getuser()}
    for secret in (secret for secret in secrets if len(secret) > 4):  # "vm" may be part of any word
        assert secret not in text
        assert secret.encode() not in path.with_suffix(".png").read_bytes()


def test_without_a_command_the_papermill_call_is_given(tmp_path):
    found = results.read_record(write(tmp_path, seed=1, notebook="03_training"))
    expected = "papermill notebooks/03_training.ipynb out.ipynb -p dataset kermany -p preset full -p seed 1"
    assert found.command == expected


def test_the_commit_is_that_of_the_code_and_none_outside_a_repository(tmp_path):
    assert results._git_commit(tmp_path) is None
    run = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*run, "init", "-q"], check=True)
    results._git_commit.cache_clear()
    assert results._git_commit(tmp_path) is None  # no commit yet
    subprocess.run([*run, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    results._git_commit.cache_clear()
    commit = results._git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "cxrlib").mkdir()
    (tmp_path / "cxrlib" / "a.py").write_text("")
    results._git_commit.cache_clear()
    assert results._git_commit(tmp_path) == commit + "-dirty"
    results._git_commit.cache_clear()


def test_results_go_to_the_cache_and_not_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = write(None, out_dir=None)
    assert tmp_path / "cache" in path.parents


def test_recording_does_not_wait_for_torch_to_be_imported():
    code = "import sys, cxrlib.evaluation.results as r; r.provenance(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=results.project_root())
