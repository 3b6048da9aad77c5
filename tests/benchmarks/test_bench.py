"""The benchmark compares like with like: both sides of a row give the same results, its record is whole."""

import json
import math
import runpy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.speed import audits, report
from benchmarks.speed import peers as bench_peers
from benchmarks.speed.figure import ratios
from benchmarks.speed.files import nih_files, training_files
from benchmarks.speed.profile import best_workers
from benchmarks.speed.rows import ROWS, Setting, decode_batch, model_ready
from benchmarks.speed.run import read, run
from cxrlib.errors import ConfigError, DataError
from cxrlib.evaluation.resampling import Ranked, draw_patients
from cxrlib.io.cache import decode_files
from cxrlib.report.site.speed import add_reliability, add_to_report, cells


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Setting(
        tmp_path_factory.mktemp("bench"), repeats=1, images=64, pixels=32, predictions=300, replicates=20,
        peer_replicates=5, threads=1, epochs=1, width=1, models=("lenet",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def files(tiny):
    return training_files(tiny.work, None, tiny.images, tiny.pixels)


def test_scikit_learns_loop_and_ours_give_the_same_auc_in_every_replicate():
    rng = np.random.default_rng(3)
    labels, codes = rng.integers(0, 2, 200), np.arange(200) // 2
    scores = np.round(rng.random(200) + 0.3 * labels, 2)  # with ties
    counts = np.concatenate(list(draw_patients(100, 200, 30, seed=1)))
    ours = Ranked.of(labels, scores, codes, 0.5).measure(counts, ("auc",))[:, 0]
    assert bench_peers.auc_of_replicates(labels, scores, codes, counts) == pytest.approx(ours, abs=1e-12)


def test_image_folder_and_the_cache_hold_the_same_pixels(files, tiny):
    cohort, paths, _ = files
    folder = bench_peers.image_folder(paths[0].parents[1], tiny.pixels, augmented=False)
    rows = {int(path.stem): row for row, path in enumerate(paths)}
    for (image, label), (path, _) in zip(folder, folder.samples, strict=True):
        row = rows[int(path[-11:-5])]
        grey = 255 * (image[0].numpy() * bench_peers.STD + bench_peers.MEAN)
        assert np.abs(grey - cohort.images[row]).max() <= 1.01
        assert label == cohort.labels[row]


def test_torchxrayvision_and_the_cache_give_nearly_the_same_arrays(tmp_path):
    paths, _ = nih_files(tmp_path, None, 4)[""]
    peer = np.stack(list(bench_peers.nih_dataset(paths[0].parent, [path.name for path in paths], 64)))
    ours = model_ready(decode_files(paths, 64, cache_dir=tmp_path, progress=False).images)
    assert ours.shape == peer.shape == (4, 1, 64, 64) and ours.dtype == peer.dtype == np.float32
    grey = np.abs(ours - peer) * 255 / 2048  # scikit-image blurs with a Gaussian, Pillow with a triangle
    assert grey.mean() < 1.5 and np.corrcoef(ours.ravel(), peer.ravel())[0, 1] > 0.998


def test_what_the_cache_holds_is_what_decoding_again_gives(files, tiny):
    cohort, paths, _ = files
    assert np.array_equal(decode_batch([str(path) for path in paths[:8]], tiny.pixels), cohort.images[:8])


def test_the_original_has_its_75_million_parameters():
    with torch.device("meta"):
        network = bench_peers.Original([], np.zeros(0)).network
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 75.5


def test_the_best_number_of_workers_is_the_quickest():
    rates = {0: 3.0, 1: 9.0, 2: 5.0}
    epoch, workers = best_workers(lambda n: lambda: rates[n])
    assert workers == 1 and epoch() == 9.0


@pytest.mark.parametrize("name", ["start", "evaluation", "cache", "time_to_82", "profile"])
def test_a_row_measures_finite_numbers(name, tiny, files, tmp_path):
    size = {"time_to_82": 64}.get(name, tiny.pixels)
    setting = Setting(**{**vars(tiny), "pixels": size})
    record, left = run(setting, [name], tmp_path / "results.json")
    assert left == [] and read(tmp_path / "results.json") == record
    assert "phantom" in str(record) or name in ("start", "evaluation")
    for row in record["rows"]:
        numbers = row["parts"].values() if name == "profile" else [row[k] for k in ("ours", "peer", "ratio")]
        assert all(math.isfinite(number) and number >= 0 for number in numbers)
        if name != "profile":
            assert row["low"] <= row["ratio"] <= row["high"] and row["repeats"] == 1


def test_rows_that_train_and_read_beside_their_peers(tiny, files, monkeypatch):
    monkeypatch.setattr("benchmarks.speed.profile.WORKERS", (0,))  # starting workers takes seconds
    rows = run(tiny, ["training"])[0]["rows"]  # a batch takes 64
    rows += run(replace(tiny, images=4), ["arrays"])[0]["rows"]
    assert {row["name"] for row in rows} == {
        "training.lenet.alone", "training.lenet.imagefolder", "training.lenet.imagefolder_1024",
        "arrays", "arrays_1024",
    }  # fmt: skip
    assert all(math.isfinite(row["ratio"]) for row in rows)


def test_an_audits_stages_are_measured_and_a_killed_one_goes_on(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(audits, "SIDE", 256)
    monkeypatch.delenv("CXRLIB_PEERS", raising=False)
    (row,) = audits.rows(Setting(tmp_path, repeats=1), 60)
    assert row["name"] == "audit.images" and row["ours"] > 0
    assert set(row["milliseconds_an_image"]) == {"files", "features", "headers", "probes"}
    row = audits.large(250, audits.SIDE, None, tmp_path / "large", 60)  # the films drawn for the row before
    assert row["name"] == "audit.250" and 0.05 < row["ours"] < 4
    assert 0 < row["hours_until_killed"] < row["hours"]


def test_a_report_is_timed_to_its_end_and_to_its_first_page(tmp_path):
    page = tmp_path / "out" / "index.html"
    program = "import os, pathlib, sys, time; page = pathlib.Path(sys.argv[1]); page.parent.mkdir(); "
    program += "page.write_text(os.environ['CXRLIB_CACHE']); time.sleep(0.6)"
    took, first = report.timed([sys.executable, "-c", program, str(page)], page.parent, tmp_path / "cache")
    assert page.read_text() == str(tmp_path / "cache")
    assert 0 < first < took - 0.3
    with pytest.raises(subprocess.CalledProcessError):
        report.timed([sys.executable, "-c", "import sys; sys.exit(1)"], page.parent, tmp_path)


def test_rows_already_recorded_stay_and_what_had_no_time_is_named(tiny, tmp_path):
    out = tmp_path / "results.json"
    run(tiny, ["evaluation"], out)
    record, left = run(tiny, ["start", "cache"], out, minutes=-1)
    assert left == ["start", "cache"]
    assert [row["name"] for row in record["rows"]] == ["evaluation"]


def test_a_row_that_does_not_exist_is_an_error_that_lists_those_that_do(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks.speed", "--only", "evalution"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("benchmarks.speed", run_name="__main__")
    said = stop.value.code  # a text: it goes to standard error, and the status is 1
    assert isinstance(said, str) and "'evalution'" in said
    assert all(name in said for name in ROWS)


def test_another_file_is_not_overwritten(tiny, tmp_path):
    out = tmp_path / "results.json"
    out.write_text(json.dumps({"numbers": {}}))
    with pytest.raises(DataError, match="no record"):
        run(tiny, ["evaluation"], out)
    with pytest.raises(ConfigError, match="repetitions"):
        run(Setting(tmp_path, repeats=0))


def test_the_figure_and_the_report_show_every_ratio(tmp_path):
    row = {"ours": 30.0, "peer": 10.0, "ratio": 3.0, "low": 2.5, "high": 3.5, "unit": "images/s"}
    row |= {"target": 2.0, "data": "phantoms", "what": "a < b"}
    rows = [{**row, "name": "one"}, {**row, "name": "two", "target": 4.0}, {"name": "profile.x", "parts": {}}]
    record = {"schema": 1, "rows": rows, "command": "cxr bench", "provenance": {"hardware": "a machine"}}
    assert [line[0] for line in cells(record)] == ["one", "two"]
    ax = ratios(record)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "results.json").write_text(json.dumps(record))
    page = tmp_path / "numbers.md"
    page.write_text("# Numbers\n")
    add_to_report(page, tmp_path, tmp_path / "out")
    text = page.read_text()
    assert "## Speed" in text and "3 (2.5–3.5)" in text and "a &lt; b" in text and "cxr bench" in text
    assert (tmp_path / "out" / "benchmarks" / "results.json").is_file()
    page.write_text("# Numbers\n")
    add_to_report(page, tmp_path / "out" / "benchmarks", tmp_path / "out")  # nothing recorded there
    assert page.read_text() == "# Numbers\n"


def test_the_report_shows_what_failed_to_break_the_package(tmp_path):
    page = tmp_path / "numbers.md"
    page.write_text("# Numbers\n")
    add_reliability(page, tmp_path, tmp_path / "out")
    assert page.read_text() == "# Numbers\n"
    rows = [
        {"name": "fuzz.png", "what": "PNG < files", "tried": 18_000, "failed": 2, "value": 0.5, "unit": "s",
         "target": 5, "at_least": False, "note": "2 raised"},
        {"name": "load.a", "what": "kept up", "tried": 1, "failed": 0, "value": 9, "target": 3,
         "at_least": True},
        {"name": "mutation.b", "what": "no number", "tried": 10, "failed": 0},
    ]  # fmt: skip
    campaigns = {"fuzz": {"command": "python benchmarks/fuzz.py"}}
    (tmp_path / "benchmarks").mkdir()
    record = {"rows": rows, "campaigns": campaigns}
    (tmp_path / "benchmarks" / "reliability.json").write_text(json.dumps(record))
    add_reliability(page, tmp_path, tmp_path / "out")
    text = page.read_text()
    assert "## Reliability" in text and "PNG &lt; files" in text and "18,000" in text and "2 raised" in text
    assert "0.5 s (at most 5 wanted)" in text and "9 (at least 3 wanted)" in text
    assert "python benchmarks/fuzz.py" in text
    assert (tmp_path / "out" / "benchmarks" / "reliability.json").is_file()
