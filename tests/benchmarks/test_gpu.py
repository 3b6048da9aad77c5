"""The benchmark of a GPU runs on the CPU at toy size, and says so where there is no GPU."""

import json
import sys

import pytest
import torch

from benchmarks import gpu


@pytest.fixture
def benchmark(monkeypatch):
    """Run the benchmark with options, as ``python -m benchmarks.gpu`` does."""

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *map(str, options)])
        gpu.main()

    return run


def test_at_toy_size_every_row_is_measured_on_the_cpu(benchmark, tmp_path):
    benchmark("--toy", "--repeats", 1, "--out", tmp_path / "gpu.json")
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["device"] == "CPU" and found["toy"]
    assert {"lenet.train", "residual.train", "train.phantoms"} == {row["name"] for row in found["rows"]}
    assert all(row["ours"] > 0 for row in found["rows"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(benchmark, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark("--out", tmp_path / "gpu.json")
    assert stop.value.code == 2 and "no GPU" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()
