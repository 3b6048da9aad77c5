"""Fixtures shared by all tests."""

import os
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


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory):
    """Keep the tests' caches and artefacts out of the user's."""
    os.environ["CXRLIB_CACHE"] = str(tmp_path_factory.mktemp("cache"))
