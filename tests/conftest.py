"""Fixtures shared by all tests."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


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


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory):
    """Keep the tests' caches and artefacts out of the user's."""
    os.environ["CXRLIB_CACHE"] = str(tmp_path_factory.mktemp("cache"))


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
