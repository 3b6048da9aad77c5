"""Studies that are audits of data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cxrlib.audit import study
from cxrlib.audit.features import VERSION as FEATURES
from cxrlib.audit.features import describe
from cxrlib.audit.page import numbers
from cxrlib.audit.plots import scorecard as draw
from cxrlib.audit.plots import strata_named
from cxrlib.audit.run import Audit, audit_cohort
from cxrlib.cohort import Cohort
from cxrlib.datasets import load
from cxrlib.io.storage import cache_root
from cxrlib.lungs.masks import segment
from cxrlib.phantom.latents import Confounder, PhantomConfig
from cxrlib.phantom.phantom import cohort_of, render
from cxrlib.report.evidence.registry import Made, Run
from cxrlib.report.evidence.strata import LABELS
from cxrlib.studies.strata import read_labels


def scorecard(run: Run) -> Made:
    return _made(audit_cohort(run.load(smoke=150, course=1500), seed=run.seed))


def skewed_source(run: Run) -> Made:
    pooled = study.skewed(run.load(smoke=300, course=1500), seed=run.seed)
    return _made(audit_cohort(pooled, seed=run.seed))


def own_folder(run: Run) -> Made:
    n = {"smoke": 150, "course": 450, "full": 1500}[run.preset]
    world = replace(PhantomConfig().unconfounded(), marker=Confounder(0.5, agreement=0.9))
    phantoms = load("phantom", n=n, image_size=run.image_size, seed=run.seed + 80, config=world)
    with TemporaryDirectory(prefix="audit-") as folder:
        csv = study.own_folder(phantoms, Path(folder))
        columns: dict[str, Any] = {
            "patient_column": "patient_id",
            "split_column": "split",
            "age_column": "age",
        }
        cohort = load("folder", data_dir=folder, labels=csv, image_size=run.image_size, **columns)
        return _made(audit_cohort(cohort, out=Path(folder) / "audit"))


def audit_strata(run: Run) -> Made:
    others, phantoms, cohorts = {"smoke": (60, 60, 2), "course": (400, 200, 20), "full": (1300, 240, 60)}[
        run.preset
    ]
    cohort = run.load(smoke=10_000)
    labels = read_labels(LABELS).set_index("image_id")
    known = np.flatnonzero(cohort.table["image_id"].isin(labels.index))
    rng = np.random.default_rng(run.seed)
    rest = rng.choice(np.setdiff1d(np.arange(len(cohort)), known), others, replace=False)
    if run.preset == "smoke":
        known = rng.choice(known, 140, replace=False)
    cohort = segment(cohort.take(np.sort(np.concatenate([known, rest]))), progress=False)
    seen = labels.reindex(cohort.table["image_id"])
    strata = {
        "machine": (seen["letter"] == "tall").to_numpy(),
        "washed_out": (seen["tone"] == "washed_out").to_numpy(),
    }
    config = PhantomConfig().unconfounded()
    clean = cohort_of(render(phantoms, image_size=224, seed=910_000 + run.seed, config=config), 0, config)
    with TemporaryDirectory(prefix="audit-") as name:
        folder = Path(name)
        features = describe(cohort, _kept(cohort), progress=False)
        (folder / "probes").mkdir()
        read = seen["letter"].notna().to_numpy()
        named = study.strata_named(cohort, features, strata, read, folder / "probes", seed=run.seed)
        looked_at = describe(clean, _kept(clean), progress=False)
        alarms = study.clean_alarms(clean, looked_at, folder / "splits", cohorts=cohorts, seed=run.seed)
    return Made(named.numbers | alarms, strata_named(named), cohort.content_hash())


def _kept(cohort: Cohort) -> Path:
    """Where features are kept, so that a run that was cut short goes on."""
    return cache_root() / "audit" / f"{cohort.content_hash()[:16]}-{FEATURES}"


def _made(audit: Audit) -> Made:
    return Made(numbers(audit), draw(audit), audit.facts["content_hash"])
