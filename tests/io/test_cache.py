"""The cache of decoded images: whole or not there, whatever happens while it is made."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from cxrlib.errors import CacheError, ConfigError, DataError
from cxrlib.evaluation.results import project_root
from cxrlib.io import cache, storage
from cxrlib.io.cache import atomic_path, cache_root, decode_files
from cxrlib.io.decode import FITS, decode, resize

SIZE = 16


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """300 different PNG files: enough for worker processes to be started."""
    folder = tmp_path / "files"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(300):
        pixels = rng.integers(0, 256, (24, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return sorted(folder.iterdir())


def entries(cache_dir: Path, pattern: str = "*") -> list[str]:
    return sorted(p.name for p in (cache_dir / "decoded").glob(pattern) if p.suffix != ".lock")


def run_script(script: str, *arguments: object, wait: bool = True):
    environment = {**os.environ, "PYTHONPATH": str(project_root()), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        process.communicate(timeout=60)
    return process


def test_rows_are_the_decoded_files_in_the_order_given(files, tmp_path):
    shuffled = [files[i] for i in np.random.default_rng(1).permutation(len(files))]
    decoded = decode_files(shuffled, SIZE, workers=1, cache_dir=tmp_path)
    images, kept, skipped = decoded.images, decoded.kept, decoded.skipped
    assert images.shape == (300, SIZE, SIZE) and images.dtype == np.uint8
    assert kept.all() and skipped == []
    for row in (0, 137, 299):
        assert np.array_equal(images[row], resize(decode(shuffled[row]), SIZE))


def test_worker_processes_give_the_same_array(files, tmp_path):
    alone = decode_files(files, SIZE, workers=1, cache_dir=tmp_path / "one").images
    together = decode_files(files, SIZE, workers=2, cache_dir=tmp_path / "two").images
    assert np.array_equal(alone, together)


def test_images_are_a_read_only_memory_map(files, tmp_path):
    images = decode_files(files[:3], SIZE, cache_dir=tmp_path).images
    assert isinstance(images, np.memmap) and not images.flags.writeable


def test_a_second_call_decodes_nothing(files, tmp_path, monkeypatch):
    first = decode_files(files, SIZE, workers=1, cache_dir=tmp_path).images
    monkeypatch.setattr(cache, "decode_with_shape", lambda *_, **__: pytest.fail("decoded again"))
    assert np.array_equal(decode_files(files, SIZE, cache_dir=tmp_path).images, first)


def test_what_a_cache_is_made_from_keys_it(files, tmp_path):
    some = files[:4]
    decode_files(some, SIZE, cache_dir=tmp_path)
    decode_files(some, SIZE + 1, cache_dir=tmp_path)
    decode_files(some, SIZE, fit="stretch", cache_dir=tmp_path)
    decode_files(some[::-1], SIZE, cache_dir=tmp_path)
    assert len(entries(tmp_path)) == 4
    before = decode_files(some, SIZE, cache_dir=tmp_path).images[0].copy()
    Image.new("L", (24, 30), 200).save(some[0])
    after = decode_files(some, SIZE, cache_dir=tmp_path).images[0]
    assert len(entries(tmp_path)) == 5 and not np.array_equal(before, after)


def test_the_decoders_version_keys_it(files, tmp_path, monkeypatch):
    decode_files(files[:2], SIZE, cache_dir=tmp_path)
    monkeypatch.setattr(cache, "DECODER_VERSION", -1)
    decode_files(files[:2], SIZE, cache_dir=tmp_path)
    assert len(entries(tmp_path)) == 2


def test_the_manifest_says_what_it_is(files, tmp_path):
    decoded = decode_files(files[:5], SIZE, cache_dir=tmp_path)
    manifest = json.loads((decoded.folder / "manifest.json").read_text())
    assert manifest["files"] == manifest["kept"] == 5
    assert (manifest["image_size"], manifest["fit"]) == (SIZE, "letterbox")
    assert manifest["decoder_version"] == cache.DECODER_VERSION
    assert manifest["made_from"] == str(files[0].parent) and 0 < manifest["seconds"] < 60
    assert decoded.shapes.tolist() == [[24, 30]] * 5 and decoded.shapes.dtype == np.int32
    for name in ("images", "kept"):
        array = np.load(decoded.folder / f"{name}.npy")
        assert array.dtype == {"images": np.uint8, "kept": bool}[name] and len(array) == 5


@pytest.mark.parametrize("fit", FITS)
def test_files_are_fitted_as_asked(files, tmp_path, fit):
    images = decode_files(files[:3], SIZE, fit=fit, cache_dir=tmp_path).images
    assert all(np.array_equal(images[row], resize(decode(files[row]), SIZE, fit)) for row in range(3))
    with pytest.raises(ConfigError, match="no fit called 'squash'") as caught:
        decode_files(files[:3], SIZE, fit="squash", cache_dir=tmp_path)
    assert caught.value.remedy == f"Use one of {', '.join(FITS)}."


def test_the_bar_says_what_is_done_and_the_log_where_it_goes_on(files, tmp_path, capsys, caplog, monkeypatch):
    decode_files(files[:3], SIZE, cache_dir=tmp_path, progress=True)
    assert "Decoding" in capsys.readouterr().err
    decode_files(files[:3], SIZE, process=Framed(), cache_dir=tmp_path, progress=True)
    assert "Preprocessing" in capsys.readouterr().err
    with monkeypatch.context() as broken:
        broken.setattr(cache, "_finish", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            decode_files(files[:4], SIZE, cache_dir=tmp_path)
    with caplog.at_level("INFO"):
        decode_files(files[:4], SIZE, cache_dir=tmp_path)
    assert any("partial: 4 of 4 images are done." in one for one in caplog.messages)


# --- Bad files ---


@pytest.fixture
def some_bad(files) -> list[Path]:
    for number in range(0, 300, 25):  # 12 of them
        files[number].write_bytes(b"")
    files[7].write_bytes(files[7].read_bytes()[:-20])
    files[8].unlink()
    return files


def test_bad_files_are_listed_ten_and_a_count(some_bad, tmp_path):
    with pytest.raises(DataError) as caught:
        decode_files(some_bad, SIZE, workers=2, cache_dir=tmp_path)
    message = str(caught.value)
    with pytest.raises(DataError, match="14 of 300 image files cannot be used"):
        decode_files(some_bad, SIZE, workers=2, cache_dir=tmp_path)  # bad files are skipped only if asked
    with pytest.raises(DataError) as caught:
        decode_files(some_bad[:1], SIZE, process=Framed(), skip_bad=True, cache_dir=tmp_path)
    assert str(caught.value).endswith(
        "What to do: Mend or replace them, or check that these are radiographs: none of them could be read."
    )
    assert "14 of 300 image files cannot be used" in message
    assert f"{some_bad[0]}: is empty (0 bytes)" in message
    assert f"{some_bad[7]}: is truncated" in message
    assert f"{some_bad[8]}: does not exist" in message
    assert message.count("  - ") == 10 and "… and 4 more" in message and "--skip-bad" in message


def test_skipping_bad_files_keeps_the_others_in_order_and_lists_them(some_bad, tmp_path):
    decoded = decode_files(some_bad, SIZE, skip_bad=True, workers=1, cache_dir=tmp_path)
    good = [path for path, keep in zip(some_bad, decoded.kept, strict=True) if keep]
    assert len(decoded.images) == len(good) == 286 == len(decoded.shapes)
    for row, path in enumerate(good):
        assert np.array_equal(decoded.images[row], resize(decode(path), SIZE))
    with open(decoded.folder / "skipped.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [path for path, _ in decoded.skipped]
    assert set(rows[0]) == {"path", "reason"} and len(rows) == 14


@dataclass(frozen=True)
class Framed:
    """Cuts an image to its corner, and notes the row and the file's height."""

    key: str = "framed"
    beside: ClassVar = {"values": np.dtype((np.float64, 2))}

    def __call__(self, image, row, shape, size, path):
        corner = image[:size, :size]
        return corner, (row, shape[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_process_makes_of_each_file_stays_with_it(some_bad, tmp_path, workers):
    decoded = decode_files(
        some_bad, SIZE, skip_bad=True, workers=workers, process=Framed(), cache_dir=tmp_path
    )
    good = np.flatnonzero(decoded.kept)
    assert len(good) == 286 and decoded.beside["values"].tolist() == [[row, 24] for row in good]
    for place, row in enumerate(good):
        corner = decode(some_bad[row])[:SIZE, :SIZE]
        assert np.array_equal(decoded.images[place], corner)
    for said in ("is empty (0 bytes)", "does not exist", "is truncated"):
        assert any(said in reason for _, reason in decoded.skipped)
    processes = (None, Framed(), Framed("other"))
    made = [decode_files(some_bad[1:4], SIZE, process=each, cache_dir=tmp_path) for each in processes]
    assert len({one.folder for one in made}) == 3


def test_skipping_after_the_error_decodes_only_the_bad_files_again(some_bad, tmp_path, monkeypatch):
    with pytest.raises(DataError):
        decode_files(some_bad, SIZE, workers=1, cache_dir=tmp_path)
    decoded, original = [], cache.decode_with_shape
    monkeypatch.setattr(cache, "decode_with_shape", lambda p, **o: (decoded.append(p), original(p, **o))[1])
    assert len(decode_files(some_bad, SIZE, skip_bad=True, cache_dir=tmp_path).images) == 286
    assert len(decoded) == 14


def test_a_file_that_becomes_readable_is_used(files, tmp_path, monkeypatch):
    def unreadable(path, **options):
        if path == str(files[3]):
            raise cache.DecodeError(f"{path} cannot be read: Permission denied.")
        return original(path, **options)

    original = cache.decode_with_shape
    monkeypatch.setattr(cache, "decode_with_shape", unreadable)
    assert len(decode_files(files[:5], SIZE, skip_bad=True, cache_dir=tmp_path).images) == 4
    monkeypatch.setattr(cache, "decode_with_shape", original)
    assert len(decode_files(files[:5], SIZE, cache_dir=tmp_path).images) == 5


def test_no_readable_file_at_all_is_an_error_even_when_skipping(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of them could be read"):
        decode_files([tmp_path / "a.png"], SIZE, skip_bad=True, cache_dir=tmp_path)


# --- Interruption ---

KILLED = """
    import os, signal, sys
    from cxrlib.io import cache

    cache.FLUSH_SECONDS, cache.CHUNK = 0, 16
    checkpoint, calls = cache._checkpoint, []

    def and_die(*arguments):
        checkpoint(*arguments)
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    cache._checkpoint = and_die
    folder, cache_dir, workers = sys.argv[1:]
    files = sorted(os.path.join(folder, name) for name in os.listdir(folder))
    cache.decode_files(files, 16, skip_bad=True, workers=int(workers), cache_dir=cache_dir)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_build_goes_on_and_equals_an_undisturbed_one(some_bad, tmp_path, monkeypatch, workers):
    process = run_script(KILLED, some_bad[0].parent, tmp_path / "killed", workers)
    assert process.returncode == -signal.SIGKILL
    assert [name.endswith(".partial") for name in entries(tmp_path / "killed")] == [True]
    remaining = [path for path in some_bad if path.exists()]
    undisturbed = decode_files(remaining, SIZE, skip_bad=True, workers=1, cache_dir=tmp_path / "whole")

    decoded, original = [], cache.decode_with_shape
    monkeypatch.setattr(cache, "decode_with_shape", lambda p, **o: (decoded.append(p), original(p, **o))[1])
    resumed = decode_files(remaining, SIZE, skip_bad=True, workers=1, cache_dir=tmp_path / "killed")
    assert len(decoded) == len(remaining) - 5 * 16
    assert np.array_equal(resumed.images, undisturbed.images)
    assert np.array_equal(resumed.kept, undisturbed.kept)
    assert resumed.skipped == undisturbed.skipped
    assert np.array_equal(resumed.shapes, undisturbed.shapes)
    assert {p.name for p in resumed.folder.iterdir()} == {p.name for p in undisturbed.folder.iterdir()}
    assert entries(tmp_path / "killed", "*.partial") == []


def test_a_build_killed_before_its_first_checkpoint_starts_again(files, tmp_path, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cache, "_decode_chunk", dies)
        decode_files(files, SIZE, workers=1, cache_dir=tmp_path)
    assert entries(tmp_path, "*.partial")
    images = decode_files(files, SIZE, workers=1, cache_dir=tmp_path).images
    assert np.array_equal(images[-1], resize(decode(files[-1]), SIZE))


def test_a_damaged_checkpoint_is_no_obstacle(files, tmp_path):
    process = run_script(KILLED, files[0].parent, tmp_path / "cache", 1)
    assert process.returncode < 0
    (state,) = (tmp_path / "cache" / "decoded").glob("*.partial/state.npz")
    state.write_bytes(state.read_bytes()[:100])
    images = decode_files(files, SIZE, workers=1, cache_dir=tmp_path / "cache").images
    assert np.array_equal(images[0], resize(decode(files[0]), SIZE))


def test_two_processes_at_once_build_it_once_and_agree(files, tmp_path):
    script = """
        import hashlib, os, sys
        from cxrlib.io import cache
        build, built = cache._build, []
        def counted(*arguments):
            built.append(1)
            build(*arguments)
        cache._build = counted
        folder, cache_dir = sys.argv[1:]
        files = sorted(os.path.join(folder, name) for name in os.listdir(folder))
        images = cache.decode_files(files, 64, workers=1, cache_dir=cache_dir).images
        print(len(built), hashlib.sha256(images.tobytes()).hexdigest())
    """
    both = [run_script(script, files[0].parent, tmp_path / "cache", wait=False) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    built, hashes = zip(*(out.split() for out, _ in outputs), strict=True)
    assert sorted(built) == ["0", "1"] and len(set(hashes)) == 1


# --- A full or read-only disk ---


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_at_the_start(files, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_reserve", no_space)
        with pytest.raises(CacheError) as caught:
            decode_files(files, 100, workers=1, cache_dir=tmp_path)
    message = str(caught.value)
    assert (
        str(tmp_path / "decoded") in message and "3.0 MB are needed" in message and "CXRLIB_CACHE" in message
    )
    assert entries(tmp_path) == []
    assert len(decode_files(files, 100, workers=1, cache_dir=tmp_path).images) == 300


@pytest.mark.parametrize("place", ["_decode_chunk", "_finish", "_checkpoint"])
def test_a_disk_that_fills_up_on_the_way(files, tmp_path, monkeypatch, place):
    with monkeypatch.context() as patch, pytest.raises(CacheError, match="is full"):
        patch.setattr(cache, place, no_space)
        decode_files(files, SIZE, workers=1, cache_dir=tmp_path)
    assert entries(tmp_path) == []


def test_space_is_reserved_not_only_claimed(tmp_path):
    storage.allocate(tmp_path / "a.npy", (100, 100, 100))
    if not hasattr(os.stat_result, "st_blocks"):
        pytest.skip("this system does not say how much of a file is on the disk")
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 1_000_000
    assert np.load(tmp_path / "a.npy").shape == (100, 100, 100) and not np.load(tmp_path / "a.npy").any()


def test_a_cache_folder_that_cannot_be_made(files, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"Nothing can be written to .*CXRLIB_CACHE"):
        try:
            decode_files(files[:2], SIZE, cache_dir=tmp_path / "file")
        except CacheError as error:
            raise CacheError(str(error).replace("\n", " ")) from error


# --- The rest ---


def test_atomic_path_replaces_in_one_step_or_not_at_all(tmp_path):
    target = tmp_path / "folder" / "result.txt"
    with atomic_path(target) as work:
        work.write_text("first")
        assert not target.exists() and work.parent == target.parent
    with pytest.raises(RuntimeError), atomic_path(target) as work:
        work.write_text("half of the sec")
        raise RuntimeError
    assert target.read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["result.txt"]


def test_atomic_path_turns_a_full_disk_into_a_cache_error(tmp_path):
    with pytest.raises(CacheError, match="full"), atomic_path(tmp_path / "a"):
        no_space()
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "elsewhere"))
    assert cache_root() == tmp_path / "elsewhere"
    monkeypatch.delenv("CXRLIB_CACHE")
    assert cache_root().name == "cxrlib"


def test_no_progress_bar_unless_someone_watches(files, tmp_path, capsys):
    decode_files(files[:3], SIZE, cache_dir=tmp_path)
    assert capsys.readouterr() == ("", "")
    decode_files(files[:4], SIZE, cache_dir=tmp_path, progress=True)
    assert "/4" in capsys.readouterr().err


def test_an_unknown_fit_is_refused_before_anything_is_written(files, tmp_path):
    with pytest.raises(ConfigError, match="no fit called 'crop'"):
        decode_files(files, SIZE, fit="crop", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
