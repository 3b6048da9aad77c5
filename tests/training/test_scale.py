"""Several processes train the network that one process trains, and a cohort need not fit into memory."""

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_processes import CONFIG, cohort, quiet

from cxrlib import cohort as cohort_module
from cxrlib.cohort import Rows
from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import auc
from cxrlib.evaluation.results import project_root, recorded
from cxrlib.training.augment import Augment
from cxrlib.training.checkpoints import load_checkpoint
from cxrlib.training.inference import load_model, predict_logits
from cxrlib.training.share import Share
from cxrlib.training.trainer import TrainConfig, Trainer

WORKER = Path(__file__).with_name("toy_processes.py")
PATIENCE = 600
"""Seconds after which processes that wait for each other are ended."""


def environment(**more) -> dict:
    root = str(project_root())
    scheduler = ("SLURM", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER", "NODE_RANK", "TORCHELASTIC")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(scheduler)}
    path = os.pathsep.join(filter(None, [root, f"{root}/tests", os.environ.get("PYTHONPATH")]))
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | {k: str(v) for k, v in more.items()}


def end(processes) -> list[tuple[int, str]]:
    """Status and messages of each; none outlives the test."""
    try:
        said = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def start(command, **more) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One epoch by one process in ``alone`` and ``one``; what two processes did from there."""
    folder = tmp_path_factory.mktemp("scale")
    for name in ("alone", "one"):
        Trainer(CONFIG, quiet(folder / name), folder / name).fit(cohort())
    [(status, said)] = end([start([WORKER, folder, "together"])])
    assert status == 0, said
    return folder


def largest_difference(first: Path, second: Path) -> float:
    """Over all weights, statistics and averages of two checkpoints."""
    states = [load_checkpoint(path) for path in (first, second)]
    differences = []
    for part in ("model", "averaged"):
        one, other = (state[part] for state in states)
        assert one.keys() == other.keys()
        differences += [float((one[key].double() - other[key].double()).abs().max()) for key in one]
    return max(differences)


def seen(folder: Path, rank: int) -> dict:
    return json.loads((folder / f"{rank}.json").read_text())


def test_an_epoch_of_two_processes_ends_with_the_weights_of_one(runs):
    assert largest_difference(runs / "alone/last.pt", runs / "epoch-of-0/last.pt") < 1e-5


def test_two_processes_go_on_where_one_stopped_and_one_where_two_did(runs):
    for name in ("alone", "epoch-of-0"):
        Trainer(replace(CONFIG, epochs=2), quiet(runs / name), runs / name).fit(cohort(), resume=True)
    assert load_checkpoint(runs / "one/last.pt")["step"] == load_checkpoint(runs / "alone/last.pt")["step"]
    assert largest_difference(runs / "alone/last.pt", runs / "one/last.pt") < 1e-5
    assert largest_difference(runs / "alone/last.pt", runs / "epoch-of-0/last.pt") < 1e-5


def test_the_second_process_writes_nothing(runs):
    assert {path.name for path in (runs / "epoch-of-0").iterdir()} == {"last.pt", "best.pt", "tensorboard"}
    assert not (runs / "epoch-of-1").exists()


def test_metrics_are_those_of_all_images_in_order(runs):
    val = cohort().split("val")
    assert len(val) % 2 == 1
    model, facts = load_model(runs / "epoch-of-0" / "best.pt")
    logits = predict_logits(model, val.images)
    row = facts["history"][-1]
    assert row["val_auc"] == pytest.approx(auc(val.labels, logits), abs=1e-12)
    assert row["val_accuracy"] == np.mean((logits > 0) == val.labels)


def test_all_processes_see_one_history_and_decide_alike(runs):
    first, second = seen(runs, 0), seen(runs, 1)
    assert first == second
    assert first["factor"] == 0.5  # a NaN in one process sent both back
    assert len(first["stopped"]["epoch"]) < 30


def test_a_process_that_fails_ends_the_others_with_its_message(tmp_path):
    shared = {
        "SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 2, "SLURM_NNODES": 1, "SLURM_NODEID": 0,
        "SLURM_JOB_ID": 7, "SLURM_STEP_ID": 0, "SLURM_JOB_NAME": "train",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(),
    }  # fmt: skip
    command = [WORKER, tmp_path, "fail"]
    started = [start(command, SLURM_PROCID=rank, SLURM_LOCALID=rank, **shared) for rank in (0, 1)]
    first, second = end(started)
    assert first[0] != 0 and second[0] != 0
    assert "The second process lost its disk." in second[1]
    assert "Another of the 2 processes of this training has ended." in first[1]


@pytest.mark.parametrize(
    ("variables", "settings", "message"),
    [
        ({"SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}, {}, "SLURM started 4 processes"),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}, {"devices": 3}, "torchrun started 2 processes"),
        ({}, {"num_nodes": 2}, "nothing says where the others are"),
        ({}, {"devices": 32, "batch_size": 16}, "cannot be shared by 32 devices"),
        ({}, {"accelerator": "abacus"}, "cannot be started"),
    ],
)
def test_devices_that_do_not_fit_are_refused(monkeypatch, variables, settings, message):
    for name in ("SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        Trainer(TrainConfig(model="lenet", **settings), []).fit(cohort())


def test_shares_of_a_batch_are_augmented_as_the_batch():
    images = torch.rand(7, 1, 16, 16) * 255
    change = Augment(noise=0.1, erase=0.5, flip=0.5)
    whole = change(images, torch.Generator().manual_seed(5))
    for rank in range(3):
        share = Share(rank, 3, 7)
        part = change(images[rank::3], torch.Generator().manual_seed(5), share)
        assert torch.equal(part, whole[rank::3])


def test_rows_of_a_memory_map_leave_it_on_the_disk(tmp_path, monkeypatch):
    values = np.arange(4096 * 4096, dtype=np.uint8).reshape(4096, 64, 64)
    np.save(tmp_path / "images.npy", values)
    monkeypatch.setattr(cohort_module, "MAPPED", 2**20)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    rows = Rows(mapped, np.arange(0, 4096, 2))
    for start_row in range(0, len(rows), 64):
        assert np.array_equal(rows[start_row : start_row + 64], values[::2][start_row : start_row + 64])
    assert np.array_equal(Rows(rows, np.array([5, 3]))[:], values[[10, 6]])
    assert np.array_equal(rows[3], values[6]) and len(rows) == 2048 and rows.shape == (2048, 64, 64)
    if sys.platform == "linux":
        assert mapped_bytes(tmp_path / "images.npy") < 4 * 2**20


def mapped_bytes(path: Path) -> int:
    """How much of a mapped file is in this process's resident set."""
    text = Path("/proc/self/smaps").read_text()
    block = text[text.index(str(path)) :]
    return 1024 * int(block.split("Rss:")[1].split()[0])


PAGE = (project_root() / "cxrlib/report/site/pages/eight_gpus.md").read_text(encoding="utf-8")


def test_the_pages_sizes_follow_from_the_shapes():
    from cxrlib.training.models import build, count_parameters

    rows = json.loads((project_root() / "benchmarks" / "scale.json").read_text(encoding="utf-8"))["rows"]
    rates = {row["name"]: row["ours"] for row in rows}
    names = {"parameters": count_parameters(build("densenet121")), "scale": rates.__getitem__}
    claims = re.findall(r"([\d.,]+)<!-- = (.+?) : (\S+) -->", PAGE)
    assert len(claims) == 8
    for text, expression, form in claims:
        assert text == format(eval(expression, {}, names), form), expression


def test_the_pages_recorded_numbers_are_those_recorded():
    claims = re.findall(r"(\d\.\d+ \([\d.–]+\))<!-- ([\w-]+/[\w-]+):([\w.]+) -->", PAGE)
    assert len(claims) == 2
    for text, place, key in claims:
        assert text == str(recorded(place).estimate(key))


def test_the_pages_measurements_are_those_recorded():
    rows = json.loads((project_root() / "benchmarks" / "scale.json").read_text(encoding="utf-8"))["rows"]
    by_name = {row["name"]: row for row in rows}
    claims = re.findall(r"([\d.e-]+)<!-- scale:([\w.]+):(\w+):(\S+) -->", PAGE)
    assert len(claims) == PAGE.count("<!-- scale:") == 8
    for text, name, key, form in claims:
        assert text == format(by_name[name][key], form), name


@pytest.mark.real_data
def test_two_processes_train_on_nih_images_and_one_evaluates(cxr, data_root, tmp_path):
    source = ["--dataset", "nih", "--data-dir", data_root / "nih-subset" / "images"]
    out = tmp_path / "run"
    settings = ["--model", "lenet", "--preset", "smoke", "--image-size", 64, "--out", out, "--json"]
    command = ["-m", "cxrlib.cli", "train", *source, *settings, "--devices", 2, "--accelerator", "cpu"]
    [(status, said)] = end([start(command)])
    assert status == 0, said
    assert said.count('"val_auc"') == 1  # one process speaks
    status, told, _ = cxr("evaluate", out / "last.pt", *source, "--threshold", 0.5, "--json")
    assert status == 0
    assert json.loads(told)["images"] == 115
