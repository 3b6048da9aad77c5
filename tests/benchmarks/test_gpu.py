"""The benchmark of a GPU runs on the CPU at toy size, and says so where there is no GPU."""

import json
import subprocess
import sys

import pytest
import torch

from cxrlib.evaluation.results import project_root


def benchmark(*options):
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, options)]
    return subprocess.run(command, cwd=project_root(), capture_output=True, text=True)


def test_at_toy_size_every_row_is_measured_on_the_cpu(tmp_path):
    done = benchmark("--toy", "--repeats", 1, "--out", tmp_path / "gpu.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["device"] == "CPU" and found["toy"]
    assert {"lenet.train", "residual.train", "train.phantoms"} == {row["name"] for row in found["rows"]}
    assert all(row["ours"] > 0 for row in found["rows"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    done = benchmark("--out", tmp_path / "gpu.json")
    assert done.returncode == 2 and "no GPU" in done.stderr
    assert not (tmp_path / "gpu.json").exists()
