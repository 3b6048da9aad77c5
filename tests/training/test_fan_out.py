"""Trainings of a study fan out over processes or a Dask scheduler, and the study does not notice."""

import os
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import make_blobs

from cxrlib.errors import ConfigError
from cxrlib.parallel import fan_out
from cxrlib.studies.study import PLAIN, train_all


def leave_a_note(folder, name):
    (folder / f"{name}-{os.getpid()}").touch()
    while len(list(folder.iterdir())) < 2:  # the other one runs at the same time, or this waits for ever
        time.sleep(0.01)


def trainings():
    blobs = make_blobs()
    return [(blobs, replace(PLAIN, epochs=1, seed=seed)) for seed in (0, 1)]


def test_jobs_run_at_the_same_time_in_processes_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CXRLIB_JOBS", "2")
    fan_out(leave_a_note, [(tmp_path, "a"), (tmp_path, "b")])
    processes = {path.name.partition("-")[2] for path in tmp_path.iterdir()}
    assert len(processes) == 2 and str(os.getpid()) not in processes


@pytest.mark.parametrize("jobs", ["1", ""])
def test_nothing_is_done_ahead_unless_asked_for(tmp_path, monkeypatch, jobs):
    monkeypatch.setenv("CXRLIB_JOBS", jobs)
    fan_out(leave_a_note, [(tmp_path, "a"), (tmp_path, "b")])
    assert not list(tmp_path.iterdir())


def test_a_study_that_fans_out_trains_the_same_networks(tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a process of the fan
    alone = train_all(trainings(), tmp_path / "alone")
    monkeypatch.setenv("CXRLIB_JOBS", "2")
    fanned = train_all(trainings(), tmp_path / "fanned")
    torch.set_num_threads(threads)
    assert len(list((tmp_path / "fanned" / "overfitting").glob("*/last.pt"))) == 2
    for one, other in zip(alone, fanned, strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(one.last.parameters(), other.last.parameters(), strict=True)
        )
        told = [run.history.drop(columns=["seconds", "images_per_second"]) for run in (one, other)]
        pd.testing.assert_frame_equal(*told)


def test_a_dask_scheduler_is_used_where_one_is_named(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="needs pip install 'cxrlib[dask]'")
    local = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**local) as cluster:
        monkeypatch.setenv("CXRLIB_SCHEDULER", cluster.scheduler_address)
        fan_out(leave_a_note, [(tmp_path, "a"), (tmp_path, "b")])
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("jobs", ["many", "0", "-1", "2.5"])
def test_a_number_of_jobs_that_is_none_is_named(monkeypatch, jobs):
    monkeypatch.setenv("CXRLIB_JOBS", jobs)
    with pytest.raises(ConfigError, match="CXRLIB_JOBS"):
        fan_out(print, [(1,), (2,)])


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("distributed", reason="needs pip install 'cxrlib[dask]'")
    monkeypatch.setattr("cxrlib.parallel._PATIENCE", "1s")
    monkeypatch.setenv("CXRLIB_SCHEDULER", "tcp://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1"):
        fan_out(print, [(1,), (2,)])
