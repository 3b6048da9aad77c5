"""Disks that fill up or flip bits, processes that die or come in pairs, clocks that go back.

``benchmarks/faults.py`` kills each of five commands at random moments; a short stretch of it is run here.
"""

import errno
import json
import logging
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cxrlib
from cxrlib import parallel
from cxrlib.audit.features import describe
from cxrlib.audit.probes import Probes
from cxrlib.audit.rules import PROBES
from cxrlib.errors import CacheError, CheckpointError, CxrError
from cxrlib.images.cohorts import preprocess
from cxrlib.io import storage
from cxrlib.io.cache import decode_files
from cxrlib.io.storage import atomic_path, intact, stored
from cxrlib.lungs.masks import segment
from cxrlib.lungs.network import LungNet, save_weights
from cxrlib.parallel import run_jobs
from cxrlib.phantom import store as phantom_store
from cxrlib.report.batch import Outcome
from cxrlib.report.site import build as site_build
from cxrlib.training.checkpoints import load_checkpoint, save_checkpoint
from cxrlib.training.config import TrainConfig
from cxrlib.training.store import artefact_folder, train_or_load

ROOT = Path(cxrlib.__file__).resolve().parent.parent
SIZE = 16
unix = pytest.mark.skipif(os.name == "nt", reason="killing and file locks are tested on Unix")


@pytest.fixture
def files(tmp_path) -> list[Path]:
    folder = tmp_path / "files"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(rng.integers(0, 256, (24, 30), dtype=np.uint8)).save(folder / f"{number:02d}.png")
    return sorted(folder.iterdir())


def start(script: str, *arguments: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def flip(path: Path, rng: np.random.Generator) -> None:
    """Turn one bit round, and leave the file's times as they were, as a failing disk does."""
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


# --- Damaged caches ---


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "empty"])
def test_a_damaged_cache_is_noticed_and_built_again(files, tmp_path, damage, caplog):
    rng = np.random.default_rng(0)
    folder = decode_files(files, SIZE, cache_dir=tmp_path).folder
    whole = {path.name: path.read_bytes() for path in folder.glob("*.npy")}
    for name in sorted(path.name for path in folder.iterdir()):
        storage._checked.clear()  # as in another process
        path = folder / name
        if damage == "flip":
            flip(path, rng)
        elif damage == "truncate":
            os.truncate(path, int(rng.integers(path.stat().st_size)))
        elif damage == "remove":
            path.unlink()
        else:
            path.write_bytes(b"")
        caplog.clear()
        decode_files(files, SIZE, cache_dir=tmp_path)
        assert [record.levelname for record in caplog.records] == ["WARNING"], name
        assert str(folder) in caplog.text and "built again" in caplog.text
        assert {path.name: path.read_bytes() for path in folder.glob("*.npy")} == whole


def test_a_flipped_bit_in_any_cache_is_noticed(tmp_path, caplog):
    """Phantoms, preprocessed arrays and lung masks; MedMNIST's goes the same way."""

    def make():
        cohort = phantom_store.load(40, 32, cache_dir=tmp_path, workers=1)
        alike = preprocess(cohort, cache_dir=tmp_path, workers=1)
        return segment(alike, cache_dir=tmp_path, progress=False)

    first = make()
    images, masks = np.array(first.images), np.array(first.lung_masks)
    entries = [path.parent for path in tmp_path.rglob("checksums.json")]
    assert {entry.parent.name for entry in entries} == {"phantom", "preprocessed", "lungs"}
    rng = np.random.default_rng(0)
    del first
    for entry in entries:
        flip(max(entry.iterdir(), key=lambda path: path.stat().st_size), rng)
    storage._checked.clear()
    again = make()
    assert caplog.text.count("built again") == 3
    assert np.array_equal(again.images, images) and np.array_equal(again.lung_masks, masks)
    assert all(intact(entry) for entry in entries)


def test_a_whole_cache_in_a_folder_that_cannot_be_written_is_read(files, tmp_path, monkeypatch):
    cohort = phantom_store.load(4, 32, cache_dir=tmp_path)
    decode_files(files, SIZE, cache_dir=tmp_path)
    # root may write anywhere, so the refusal is that of the system's answer and not of permissions
    monkeypatch.setattr(storage.os, "access", lambda *_: False)
    assert len(decode_files(files, SIZE, cache_dir=tmp_path).images) == 20
    assert len(phantom_store.load(4, 32, cache_dir=tmp_path)) == len(cohort)
    with pytest.raises(CacheError, match="Nothing can be written"):
        decode_files(files, SIZE + 1, cache_dir=tmp_path)


def test_a_damaged_training_of_the_store_is_made_again(blob_cohort, tmp_path, caplog):
    config, rng = TrainConfig(model="lenet", width=2, epochs=1), np.random.default_rng(0)
    first, _ = train_or_load(blob_cohort, config, tmp_path)
    folder = artefact_folder(blob_cohort, config, tmp_path)
    for name in ("last.pt", "best.pt"):
        path = folder / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2 + int(rng.integers(len(data) // 4))] ^= 16
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(path)
        caplog.clear()
        again, _ = train_or_load(blob_cohort, config, tmp_path)
        assert "trained again" in caplog.text
        weights = again.state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in first.state_dict().items())
        load_checkpoint(path)


def test_damaged_work_of_an_audit_is_done_again(blob_cohort, tmp_path):
    masks = np.ones_like(blob_cohort.images)
    cohort = blob_cohort.with_images(blob_cohort.images, lung_masks=masks)
    first = describe(cohort, tmp_path, workers=1, progress=False)
    probes = Probes(cohort, tmp_path / "probes", 19, 0, progress=False)
    held = probes.ask(PROBES["whole"], lambda: first["whole"])
    rng = np.random.default_rng(0)
    for file in (*tmp_path.glob("images-*.npz"), *(tmp_path / "probes").glob("*.npz")):
        os.truncate(file, int(rng.integers(1, file.stat().st_size)))
    again = describe(cohort, tmp_path, workers=1, progress=False)
    assert all(
        np.array_equal(first[name], again[name], equal_nan=first[name].dtype.kind == "f") for name in first
    )
    repeated = Probes(cohort, tmp_path / "probes", 19, 0, progress=False)
    assert np.array_equal(repeated.ask(PROBES["whole"], lambda: again["whole"]).scores, held.scores)


# --- What killed processes leave ---


@unix
def test_the_next_writer_removes_what_a_killed_one_left_and_not_what_a_living_one_writes(tmp_path):
    hangs = """
        import sys, time
        from cxrlib.io.storage import atomic_path
        with atomic_path(sys.argv[1]) as work:
            work.write_text("half")
            print("ready", flush=True)
            time.sleep(60)
    """
    killed, living = start(hangs, tmp_path / "a.txt"), start(hangs, tmp_path / "b.txt")
    assert [process.stdout.readline() for process in (killed, living)] == ["ready\n"] * 2
    killed.kill()
    killed.communicate()
    (tmp_path / ".cxr-other.txt").write_text("somebody else's")
    assert len(list(tmp_path.glob(".cxr-writing-*"))) == 2
    with atomic_path(tmp_path / "a.txt") as work:
        work.write_text("whole")
    left = list(tmp_path.glob(".cxr-writing-*"))
    assert len(left) == 1 and left[0].read_text() == "half"
    living.kill()
    living.communicate()
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", ".cxr-other.txt", left[0].name}


@unix
def test_a_lock_goes_with_its_process(tmp_path):
    holds = """
        import sys, time
        from pathlib import Path
        from cxrlib.io.storage import locked
        with locked(Path(sys.argv[1])):
            print("ready", flush=True)
            time.sleep(60)
    """
    process = start(holds, tmp_path / "entry")
    process.stdout.readline()
    process.kill()
    process.communicate()
    stored(tmp_path / "entry", lambda partial: (partial / "a").write_text("whole"))  # would wait for ever
    assert (tmp_path / "entry" / "a").read_text() == "whole"


@unix
def test_a_worker_that_is_killed_is_an_error_and_no_wait():
    # Builtins, so that the workers have nothing to import.
    with pytest.raises(CxrError, match="was killed") as caught:
        list(run_jobs(os._exit, [(9,)] * 4, workers=2))
    assert "--workers" in str(caught.value)
    with pytest.raises(CxrError, match="memory that it cannot have"):
        list(run_jobs(bytearray, [(1 << 60,)] * 4, workers=2))
    assert sorted(run_jobs(abs, [(-number,) for number in range(4)], workers=2)) == [0, 1, 2, 3]


@unix
def test_shared_memory_of_processes_killed_with_their_workers_is_given_back(tmp_path, monkeypatch):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parallel, "_SHARED", tmp_path / "shm")
    monkeypatch.setattr(parallel, "_marks", [])
    for pid in (11, 12, 13):  # dead, alive, and none of ours
        (tmp_path / "shm" / f"joblib_memmapping_folder_{pid}_abc").mkdir(parents=True)
        (tmp_path / "shm" / f"sem.loky-{pid}-xyz").touch()
    marks = tmp_path / "shm" / f"cxrlib-workers-{os.getuid()}"
    marks.mkdir()
    (marks / "11").touch()
    with open(marks / "12", "wb") as alive:
        assert parallel.locked_at_once(alive)
        list(run_jobs(abs, [(1,), (2,)], workers=2))
    left = {path.name for path in (tmp_path / "shm").iterdir()} - {marks.name}
    assert left == {f"{kind}{pid}{end}" for pid in (12, 13) for kind, end in SHARED}
    assert {path.name for path in marks.iterdir()} == {"12", str(os.getpid())}


SHARED = (("joblib_memmapping_folder_", "_abc"), ("sem.loky-", "-xyz"))


# --- Full disks ---


def test_a_file_system_that_is_really_full(files, tmp_path):
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a small tmpfs is mounted, which takes Linux and root")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True
    ).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        with pytest.raises(CacheError, match=r"is full: 0\.2 MB are needed"):
            decode_files(files, 100, workers=1, cache_dir=small)
        assert [path.suffix for path in (small / "decoded").iterdir()] == [".lock"]
        with pytest.raises(CacheError, match="is full"), atomic_path(small / "result.bin") as work:
            work.write_bytes(bytes(100_000))
        with pytest.raises(CacheError, match="is full"):
            save_checkpoint(small / "last.pt", {"model": {"weight": torch.zeros(30_000)}})
        with pytest.raises(CacheError, match="is full"):
            save_weights(LungNet(), small / "lungs.safetensors")
        assert {path.name for path in small.iterdir()} == {"decoded"}
        assert len(decode_files(files, 16, workers=1, cache_dir=small).images) == 20
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_folder_is_named(tmp_path, monkeypatch, number):
    """Root ignores permissions, so the system's refusal is put in its mouth."""

    def refuses(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage.Path, "mkdir", refuses)
    with pytest.raises(CacheError) as caught, atomic_path(tmp_path / "results" / "numbers.json"):
        pass
    assert str(tmp_path / "results") in str(caught.value) and os.strerror(number) in str(caught.value)


# --- Clocks, changed sources, and two at once ---


def test_files_from_the_future_are_cached_and_noticed_when_they_change(files, tmp_path):
    future = time.time() + 10 * 365 * 86_400
    for path in files:
        os.utime(path, (future, future))
    first = decode_files(files, SIZE, cache_dir=tmp_path)
    assert decode_files(files, SIZE, cache_dir=tmp_path).folder == first.folder
    os.utime(files[0])  # changed after the clock was set back: older than the cache
    assert decode_files(files, SIZE, cache_dir=tmp_path).folder != first.folder


def test_a_source_of_the_same_size_is_noticed_by_its_time_and_only_by_it(tmp_path):
    """The limit is the module's: bytes changed with size and time kept to the nanosecond are missed."""
    path, rng = tmp_path / "a.bmp", np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8) for _ in range(2))
    Image.fromarray(first).save(path)
    before = path.stat()
    assert np.array_equal(decode_files([path], SIZE, cache_dir=tmp_path).images[0], first)
    Image.fromarray(second).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert path.stat().st_size == before.st_size
    assert np.array_equal(decode_files([path], SIZE, cache_dir=tmp_path).images[0], second)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert np.array_equal(decode_files([path], SIZE, cache_dir=tmp_path).images[0], first)


def test_a_page_cut_short_is_rendered_again_and_all_are_when_the_clock_was_set_back(tmp_path, monkeypatch):
    source, out, work = (tmp_path / name for name in ("source", "out", "work"))
    for folder in (source, out, work):
        folder.mkdir()
    (source / "index.md").write_text("# A page\n\nIts words.\n")
    site_build.build(source, out, work)
    # Killed while Sphinx was writing: the page is newer than its source, and half there.
    os.replace(work / "rendered", work / "rendering")
    (work / "site" / "index.html").write_text("<html>half")
    (work / site_build.MARKER).unlink()
    site_build.build(source, out, work)
    page = (out / "index.html").read_text()
    assert "Its words" in page and page.rstrip().endswith("</html>")
    assert not (work / "rendering").exists()

    hour = time.time() + 3600
    os.utime(work / "rendered", (hour, hour))  # rendered before the clock was set back
    (source / "index.md").write_text("# A page\n\nOther words.\n")
    there = []

    def sphinx(*_, **__):
        there.append((work / "doctrees").exists())
        (work / "site").mkdir()

    monkeypatch.setattr(site_build, "_sphinx", sphinx)
    site_build.build(source, out, work)
    assert there == [False]


def test_a_notebook_cut_short_is_shown_as_one_that_died(tmp_path):
    cut = tmp_path / "01_cut.ipynb"
    cut.write_text('{"cells": [{"cell_type": "mark')
    died = {
        "01_cut": Outcome("01_cut", "died", 1.0, error={"name": "ProcessDied", "message": "", "cell": None})
    }
    chapters = site_build.write_sources(
        tmp_path / "source", tmp_path, {"01_cut": cut}, died, {}, {"01_cut": "cxr report"}
    )
    assert chapters[0].status == "died"
    assert json.loads((tmp_path / "notebooks" / "01_cut.ipynb").read_text())["cells"] == []


@unix
def test_a_second_report_into_the_same_folder_waits(tmp_path, monkeypatch, caplog):
    """One holds the report; the other says that it waits, and reads what the first made."""
    from concurrent.futures import ThreadPoolExecutor
    from io import StringIO
    from threading import Event

    import toy_notebooks
    from rich.console import Console

    from cxrlib.report import report

    toy_notebooks.write(tmp_path / "notebooks" / "01_one.ipynb", [("code", "1 + 1")])
    at_work, go_on, ran, began = Event(), Event(), [], []

    def run(batch, notebooks, selected, console):
        began.append(1)
        if len(began) == 1:
            at_work.set()
            assert go_on.wait(60)
        ran.append(len(began))
        return {}

    monkeypatch.setattr(report, "_run", run)
    monkeypatch.setattr(report, "render", lambda *_, **__: None)

    def once():
        return report.run_report(
            out=tmp_path / "report", notebooks_dir=tmp_path / "notebooks", console=Console(file=StringIO())
        )

    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(2) as pool:
        first = pool.submit(once)
        assert at_work.wait(60)
        second = pool.submit(once)
        while "waiting for it" not in caplog.text:
            time.sleep(0.01)
        assert began == [1]
        go_on.set()
        assert (first.result(60), second.result(60)) == (0, 0)
    assert ran == [1, 2]


@unix
def test_commands_killed_at_random_moments_and_run_again_end_as_undisturbed(tmp_path):
    """Two kills of the campaign; the whole of it takes a quarter of an hour and more."""
    campaign = ROOT / "benchmarks" / "faults.py"
    done = subprocess.run(
        [sys.executable, campaign, "--kills", "1", "--only", "cache", "train", "--keep", tmp_path / "cases"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
