"""Fixtures shared by all tests."""

import json
import os
import shutil
import sys
from importlib import resources
from pathlib import Path

import pytest
from filelock import FileLock
from real_files import links

os.environ.setdefault("MPLBACKEND", "Agg")

LONGEST = (
    "browser/test_site", "report/test_evidence", "browser/test_lab", "course/test_runs", "report/test_report",
    "benchmarks/test_bench", "report/test_report_options", "project/test_install", "project/test_faults",
    "training/test_training", "training/test_scale", "browser/test_explorer",
)  # fmt: skip
"""The files that take longest, the longest first: begun first, they leave no process alone at the end."""


def pytest_collection_modifyitems(items):
    order = {f"{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get("/".join(item.path.parts[-2:]), len(order)))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real radiographs that CXRLIB_DATA names; the test is skipped without it."""
    value = os.environ.get("CXRLIB_DATA")
    if not value:
        pytest.skip("CXRLIB_DATA is not set: this test measures real radiographs")
    root = Path(value)
    if not root.is_dir():
        pytest.skip(f"CXRLIB_DATA names {root}, which is no folder")
    return root


@pytest.fixture
def cxr(monkeypatch, capsys):
    """Run a command; return (exit status, standard output, standard error)."""

    def run(*arguments):
        from cxrlib.cli import main as cli

        monkeypatch.setattr(sys, "argv", ["cxr", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """``once(name, make)``: a folder that ``make(folder)`` fills once for all of a run's processes."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder(name: str, make) -> Path:
        made, done = root / name, root / f"{name}.done"
        with FileLock(f"{made}.lock"):
            if not done.exists():
                shutil.rmtree(made, ignore_errors=True)  # of a process that failed
                made.mkdir()
                make(made)
                done.touch()
        return made

    return folder


@pytest.fixture(autouse=True, scope="session")
def _cache_of_their_own(once):
    """Keep the tests' caches and artefacts out of the user's; processes of one run share theirs."""
    os.environ["CXRLIB_CACHE"] = str(once("cache", lambda folder: None))


@pytest.fixture(scope="session")
def toy_report(once) -> tuple[Path, int, str]:
    """Three toy notebooks, run and rendered: the report's folder, the exit status, what was said."""
    import toy_notebooks

    root = once("toy-report", toy_notebooks.toy_report)
    return root / "report", *json.loads((root / "said.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def committed_report(once) -> Path:
    """The folder of the report of the notebooks as they are committed."""
    import toy_notebooks

    return once("committed-report", toy_notebooks.committed_report) / "report"


@pytest.fixture(scope="session")
def some_of_nih(data_root, once) -> Path:
    """A folder with the images at hand that have pneumonia, which are few, or are shown, and every eighth."""
    from cxrlib.datasets import nih_tables
    from cxrlib.report.evidence.radiographs import ADULTS

    def make(folder: Path) -> None:
        root, ill = data_root / "nih-subset", nih_tables.metadata().set_index("image_id")["Pneumonia"]
        images = enumerate(sorted(root.glob("images/*.png")))
        wanted = [path for n, path in images if n % 8 == 0 or ill[path.name] or path.name in ADULTS]
        links(folder, root, wanted)

    return once("nih", make)


@pytest.fixture(scope="session")
def schema():
    """What checks an ``audit.json``."""
    import jsonschema  # takes a second, and processes that tests start import this file

    text = resources.files("cxrlib.audit").joinpath("data/audit.schema.json").read_text(encoding="utf-8")
    checker = jsonschema.Draft202012Validator(json.loads(text))
    checker.check_schema(checker.schema)
    return checker


@pytest.fixture
def styled():
    """The package's style for a test of figures, which are closed after it."""
    import matplotlib.pyplot as plt

    from cxrlib.plots import common as plots

    with plt.rc_context():
        plots.apply_style()
        yield
    plt.close("all")


@pytest.fixture(scope="session")
def blob_cohort():
    return make_blobs()


def make_blobs():
    """240 noisy 32-pixel images from 120 patients; a bright blob in the upper half means disease."""
    import numpy as np
    import pandas as pd

    from cxrlib.cohort import Cohort, split_by_patient

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 240)
    images = rng.normal(90, 25, (240, 32, 32))
    rows, columns = np.mgrid[:32, :32]
    for image, label in zip(images, labels, strict=True):
        y, x = rng.uniform(6, 14), rng.uniform(6, 26)
        image += 80 * label * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18)
    patients = [f"p{i // 2:03d}" for i in range(240)]
    table = pd.DataFrame(
        {
            "image_id": [f"i{i:03d}" for i in range(240)],
            "patient_id": patients,
            "label": labels,
            "split": split_by_patient(patients, (0.6, 0.2, 0.2)),
        }
    )
    return Cohort(images.clip(0, 255).astype(np.uint8), table, name="blobs")
