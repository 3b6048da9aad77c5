"""Every chapter runs from top to bottom, solutions included, on each source, at preset smoke.

The cells are run in this process, one after the other, and the value of a cell's last line is rendered, as a
kernel would. Real radiographs are small parts of those that CXRLIB_DATA names.
"""

import ast
import io
import json
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import committed
import matplotlib.pyplot as plt
import numpy as np
import pytest
from real_files import links

import cxrlib
from cxrlib.audit import own_folder
from cxrlib.datasets import medmnist
from cxrlib.phantom.latents import PhantomConfig

SIZE = 64


def run(name: str, source: str, data_dir: Path | None, out: Path) -> dict:
    """The chapter's names after its last cell; an error names the cell that raised it."""
    given = {"dataset": source, "data_dir": data_dir and str(data_dir), "image_size": SIZE, "preset": "smoke"}
    given |= {"seed": 0, "out_dir": str(out)}
    space: dict = {"__name__": "__main__"}
    with (
        plt.rc_context(),
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        for cell in committed.code_cells(committed.read(name)):
            try:
                execute(cell.source, space)
            except Exception as error:
                raise AssertionError(f"{name} on {source} fails at cell {cell.id}: {error!r}") from error
            if "parameters" in cell.metadata.get("tags", ()):
                space |= given
            plt.close("all")
    return space


def execute(source: str, space: dict) -> None:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), space)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), space)
        value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)


every_chapter = pytest.mark.parametrize("name", committed.notebooks())


@pytest.fixture(scope="module")
def phantoms():
    return cxrlib.load(
        "phantom", n=160, image_size=SIZE, seed=5, config=replace(PhantomConfig().unconfounded())
    )


# A class for each source, so that they can be run side by side (--dist loadscope).


class TestPhantom:
    @every_chapter
    def test_it_runs_and_what_it_measured_is_written(self, name, tmp_path):
        run(name, "phantom", None, tmp_path)
        written = list(tmp_path.rglob("*.json"))
        calls = [c for c in committed.code_cells(committed.read(name)) if "record(None" in c.source]
        assert bool(written) == bool(calls)
        assert all(json.loads(path.read_text())["numbers"] for path in written)


@pytest.fixture(scope="class")
def own_images(phantoms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    own_folder(phantoms, folder)
    return folder


class TestFolder:
    @every_chapter
    def test_it_runs(self, name, own_images, tmp_path):
        run(name, "folder", own_images, tmp_path)


@pytest.fixture(scope="class")
def archive(phantoms, tmp_path_factory):
    """An archive of the real layout with phantoms in it, and contents that know its checksum."""
    folder = tmp_path_factory.mktemp("mnist")
    about = {"pneumoniamnist": dict(medmnist.package_info("pneumoniamnist"))}
    for times in (1, 2):  # a chapter may look at twice the size
        arrays, counts = {}, {}
        for split in ("train", "val", "test"):
            part = phantoms.split(split)
            arrays[f"{split}_images"] = np.asarray(part.images).repeat(times, 1).repeat(times, 2)
            arrays[f"{split}_labels"] = part.labels[:, None].astype(np.uint8)
            counts[split] = len(part)
        path = folder / f"pneumoniamnist_{times * SIZE}.npz"
        np.savez_compressed(path, **arrays)
        about["pneumoniamnist"] |= {"n_samples": counts, f"MD5_{times * SIZE}": medmnist.md5(path)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medmnist, "_info", lambda: about)
        yield folder


class TestPneumoniaMNIST:
    @every_chapter
    def test_it_runs(self, name, archive, tmp_path):
        run(name, "pneumoniamnist", archive, tmp_path)


@pytest.fixture(scope="class")
def some_of_kermany(data_root, once):
    """Links to every 40th radiograph, every tenth of the test, half of the published validation part."""
    root, some = data_root / "kermany224", []
    for part, every in (("train", 40), ("val", 2), ("test", 10)):
        some += sorted(root.glob(f"chest_xray/{part}/*/*.jpeg"))[::every]
    return once("kermany", lambda folder: links(folder, root, some))


@pytest.mark.real_data
class TestKermany:
    @every_chapter
    def test_it_runs(self, name, some_of_kermany, tmp_path):
        run(name, "kermany", some_of_kermany, tmp_path)


@pytest.mark.real_data
class TestNIH:
    @every_chapter
    def test_it_runs(self, name, some_of_nih, tmp_path):
        run(name, "nih", some_of_nih, tmp_path)
