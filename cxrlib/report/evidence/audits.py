"""Studies that are audits of data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cxrlib.audit import study
from cxrlib.audit.page import numbers
from cxrlib.audit.plots import scorecard as draw
from cxrlib.audit.run import Audit, audit_cohort
from cxrlib.datasets import load
from cxrlib.phantom.latents import Confounder, PhantomConfig
from cxrlib.report.evidence.registry import Made, Run


def scorecard(run: Run) -> Made:
    return _made(audit_cohort(run.load(smoke=300, course=1500), seed=run.seed))


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


def _made(audit: Audit) -> Made:
    return Made(numbers(audit), draw(audit), audit.facts["content_hash"])
