"""Our decoder beside pydicom, Pillow and what was written: see ``benchmarks/differential.py``."""

import sys

import pytest

from cxrlib.evaluation.results import project_root


@pytest.fixture(scope="module")
def differential():
    benchmarks = str(project_root() / "benchmarks")
    sys.path.insert(0, benchmarks)
    try:
        import differential
    finally:
        sys.path.remove(benchmarks)
    return differential


def test_pydicoms_own_files_are_read_as_pydicom_does_or_refused_by_name(differential):
    results = list(differential.pydicoms())
    assert [one for one in results if one[1] == differential.FAILS] == []
    assert sum(one[1] == differential.AGREES for one in results) >= 63


def test_files_of_many_kinds_are_read_as_they_were_written(differential, tmp_path):
    results = list(differential.grids(tmp_path))
    assert [one for one in results if one[1] != differential.AGREES] == []
    assert len(results) > 500
