"""Suspected label errors, counted: labels turned round on purpose, and how many of them the audit lists.

    python benchmarks/audit_labels.py       # writes benchmarks/audit_labels.json; two minutes of one core

Phantoms of 128 pixels without a confounder, in cohorts of 600. Of 2, 5 and 10 in a hundred patients the
labels are turned round; the whole-image probe, which learns from the labels as given, is asked whom it
contradicts, as ``cxr audit`` does it. *usual*: disease as faint as it comes by default, of which the probe
knows so little that no label is listed; *plain* and *clear*: two and four times as strong. Precision, recall
and the flip rate are over all images of the cohorts, with intervals by patient; *first_20*: of the 20 that
stand first in each. The module was developed on other seeds (from 900,300 on).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from cxrlib.audit.doubts import doubts
from cxrlib.audit.features import _looked
from cxrlib.audit.ridge import Ridge, reduced
from cxrlib.audit.stats import aucs
from cxrlib.evaluation.label_errors import agreement, plant
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.results import provenance
from cxrlib.io.storage import atomic_path
from cxrlib.phantom.latents import PhantomConfig
from cxrlib.phantom.phantom import cohort_of, render

IMAGES, COHORTS, FIRST_SEED, FIRST = 600, 3, 74_000, 20
RATES = (0.02, 0.05, 0.10)
SEVERITY = {"usual": 1.0, "plain": 2.0, "clear": 4.0}


def cohorts(severity: float, first: int, count: int):
    """Cohorts and what the whole-image probe sees of them."""
    config = PhantomConfig(severity=severity).unconfounded()
    for seed in range(first, first + count):
        cohort = cohort_of(render(IMAGES, image_size=128, seed=seed, config=config), seed, config)
        yield seed, cohort, reduced(_looked(cohort.images, "whole", cohort.images))


def measured(severity: float, first: int = FIRST_SEED, count: int = COHORTS) -> dict[str, Estimate]:
    rows: dict[float, list] = {rate: [] for rate in RATES}
    reached: dict[float, list[float]] = {rate: [] for rate in RATES}
    for seed, cohort, seen in cohorts(severity, first, count):
        for rate in RATES:
            given, wrong = plant(cohort.labels, rate, cohort.patients, seed=int(1000 * rate))
            part = cohort.with_columns(label=given)
            score = Ridge(seen, given, cohort.patients, 0).predicted(given)
            listed = [one.image for one in doubts(part, {"whole": score}).found]
            ids = cohort.table["image_id"].to_numpy(str)
            suspected, top = np.isin(ids, listed), np.isin(ids, listed[:FIRST])
            owners = np.char.add(f"{seed} ", cohort.patients.astype(str))
            rows[rate].append((suspected, top, wrong, owners))
            reached[rate].append(float(aucs(given[:, None], score[:, None])[0]))
    numbers = {}
    for rate, parts in rows.items():
        suspected, top, wrong, owners = (np.concatenate(column) for column in zip(*parts, strict=True))
        name = f"flipped_{round(100 * rate):02d}"
        found = agreement(suspected, wrong, patients=owners)
        kept = ("base", "precision", "recall") if suspected.any() else ("base",)
        numbers |= {f"{name}.{key}": found[key] for key in kept}
        if top.any():
            numbers[f"{name}.first_{FIRST}.precision"] = agreement(top, wrong, patients=owners)["precision"]
        numbers[f"{name}.listed_share"] = Estimate(float(suspected.mean()), n=len(suspected))
        numbers[f"{name}.auc"] = Estimate(float(np.mean(reached[rate])), n=len(parts))
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--cohorts", type=int, default=COHORTS)
    given = parser.parse_args()
    started, numbers = time.perf_counter(), {}
    for name, severity in SEVERITY.items():
        found = measured(severity, given.first_seed, given.cohorts)
        numbers |= {f"{name}.{key}": value for key, value in found.items()}
    for name, value in numbers.items():
        print(f"{name}: {value}")
    facts = {
        "schema": 1,
        "name": "audit_labels",
        "numbers": {name: value.as_dict() for name, value in numbers.items()},
        "provenance": provenance(
            dataset="phantom", seed=given.first_seed, command="python benchmarks/audit_labels.py",
            seconds=time.perf_counter() - started,
        ),
    }  # fmt: skip
    with atomic_path(given.out) as temporary:
        temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
