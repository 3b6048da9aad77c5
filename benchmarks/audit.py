"""The audit, audited: false alarms on clean phantoms, and shortcuts planted at known strength.

    python benchmarks/audit.py              # writes benchmarks/audit.json; 25 minutes on two cores
    python benchmarks/audit.py --summary    # from the cohorts that are finished

Every cohort has 600 images of 128 pixels, and the audit is given image, label and patient, nothing else: no
column, no lung mask. *Clean*: 20 cohorts with all confounders at their usual rates, independent of the label;
a false alarm is a cohort with any severe finding. *Planted*: in the same 20 cohorts one confounder goes along
with the label at an agreement of 0.9, as ``cxrlib.phantom.latents.Confounder`` defines it; it is
found where the finding of its own name is severe. *Curve*: agreements from 0.55 to 1.0 in ten of them.

An image has a confounder or has not, whatever the agreement, so each is rendered and looked at twice for each
confounder and the cohorts are put together from those. The audit was developed on other seeds (50,000 to
50,999, and from 900,000 on). What is finished is kept in ``--work`` and not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cxrlib.audit.features import describe
from cxrlib.audit.run import audit_cohort
from cxrlib.cohort import Cohort
from cxrlib.evaluation.metrics import proportion
from cxrlib.evaluation.results import provenance
from cxrlib.io.storage import atomic_path, cache_root
from cxrlib.lungs.masks import segment
from cxrlib.parallel import progress_bar, run_jobs
from cxrlib.phantom.latents import PhantomConfig
from cxrlib.phantom.phantom import cohort_of, draw_latents, render_latents

#: The finding that names each confounder.
NAMED = {
    "marker": "marker", "portable": "text", "collimation": "border", "exposure": "exposure",
    "devices": "devices", "projection": "projection",
}  # fmt: skip
IMAGES, PIXELS, COHORTS, CURVE_COHORTS = 600, 128, 20, 10
CURVE = (0.55, 0.6, 0.65, 0.7, 0.8, 1.0)
FIRST_SEED = 70_000
CLEAN = PhantomConfig().unconfounded()


def plan(number: int) -> list[tuple[str | None, float]]:
    """What is audited in a cohort: (confounder, agreement)."""
    curve = [(name, agreement) for name in NAMED for agreement in CURVE]
    return [(None, 0.5), *((name, 0.9) for name in NAMED), *(curve if number < CURVE_COHORTS else ())]


def looked_at(seed: int, flipped: str | None, work: Path):
    """The clean cohort of a seed, or the same with one confounder turned round in every image, and its
    features."""
    latents = draw_latents(IMAGES, seed, CLEAN)
    if flipped:
        latents = [replace(one, **{flipped: not getattr(one, flipped)}) for one in latents]
    made = cohort_of(render_latents(latents, image_size=PIXELS, seed=seed), seed, CLEAN)
    table = made.table[["image_id", "patient_id", "label", "split"]]
    cohort = Cohort(made.images, table, name="phantom")
    with tempfile.TemporaryDirectory() as folder:
        masked = segment(cohort, cache_dir=folder, progress=False)
        features = describe(masked, work / f"{seed}-{flipped or 'clean'}", workers=1, progress=False)
    return cohort, features


def run(number: int, work: str) -> list[dict]:
    """All audits of one seed, or what was found before."""
    seed, folder = FIRST_SEED + number, Path(work)
    files = {job: folder / f"{seed}-{job[0] or 'clean'}-{job[1]:g}.json" for job in plan(number)}
    views = {}
    for (confounder, agreement), file in files.items():
        if file.is_file():
            continue
        started = time.process_time()
        for flipped in (None, confounder):
            if flipped not in views:
                views[flipped] = looked_at(seed, flipped, folder)
        (cohort, features), (other, changed) = views[None], views[confounder]
        if confounder:
            knob = replace(getattr(CLEAN, confounder), agreement=agreement)
            before, after = (
                np.array([getattr(one, confounder) for one in draw_latents(IMAGES, seed, config)])
                for config in (CLEAN, replace(CLEAN, **{confounder: knob}))
            )
            turned = before != after
            cohort = cohort.with_images(np.where(turned[:, None, None], other.images, cohort.images))
            features = {
                name: np.where(turned.reshape(-1, *[1] * (values.ndim - 1)), changed[name], values)
                for name, values in features.items()
            }
        options = {"source": None, "has_split": False, "workers": 1, "progress": False}
        audit = audit_cohort(cohort, features=features, **options)
        found = {
            "confounder": confounder,
            "agreement": agreement,
            "seed": seed,
            "severe": list(audit.severe),
            "warnings": [f.probe.name for f in audit.findings if f.severity == "warning"],
            "auc": {f.probe.name: f.auc.as_dict() | {"p_holm": f.p_holm} for f in audit.findings if f.auc},
            "seconds": round(time.process_time() - started, 1),
        }
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files.values()]


def summary(runs: list[dict]) -> dict[str, object]:
    """Dotted names to numbers: shares with Wilson's intervals, ``n`` the number of cohorts."""
    numbers: dict[str, object] = {}
    clean = [one for one in runs if one["confounder"] is None]
    if clean:
        alarms = sum(bool(one["severe"]) for one in clean)
        numbers["clean.false_alarms"] = {"value": alarms, "n": len(clean)}
        numbers["clean.false_alarm_share"] = proportion(alarms, len(clean)).as_dict()
        numbers["clean.warnings"] = {
            "value": sum(bool(one["warnings"]) for one in clean), "n": len(clean),
        }  # fmt: skip
    for name, probe in NAMED.items():
        for agreement in sorted({one["agreement"] for one in runs if one["confounder"] == name}):
            mine = [one for one in runs if one["confounder"] == name and one["agreement"] == agreement]
            hits = sum(probe in one["severe"] for one in mine)
            others = [len(set(one["severe"]) & set(NAMED.values()) - {probe}) for one in mine]
            where = name if agreement == 0.9 else f"{name}.agreement_{round(100 * agreement)}"
            numbers[f"{where}.found"] = {"value": hits, "n": len(mine)}
            numbers[f"{where}.found_share"] = proportion(hits, len(mine)).as_dict()
            numbers[f"{where}.flagged_share"] = proportion(
                sum(probe in one["severe"] + one["warnings"] for one in mine), len(mine)
            ).as_dict()
            numbers[f"{where}.others_named"] = {"value": float(np.mean(others)), "n": len(mine)}
            numbers[f"{where}.auc"] = {
                "value": float(np.mean([one["auc"][probe]["value"] for one in mine])),
                "n": len(mine),
            }
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=cache_root() / "audit-benchmark")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--summary", action="store_true", help="make nothing, only sum up")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    runs: list[dict] = []
    if given.summary:
        runs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(given.work.glob("*.json"))]
    else:
        with progress_bar(COHORTS, "Auditing", True, unit="cohort") as bar:
            for found in run_jobs(
                run, [(number, str(given.work)) for number in range(COHORTS)], given.workers
            ):
                runs += found
                bar.update(1)
    numbers = summary(runs)
    facts = {
        "schema": 1,
        "name": "audit",
        "command": "python benchmarks/audit.py",
        "images": IMAGES,
        "pixels": PIXELS,
        "numbers": numbers,
        "provenance": provenance(
            dataset="phantom",
            command="python benchmarks/audit.py",
            seed=FIRST_SEED,
            seconds=sum(one["seconds"] for one in runs),
        ),
    }
    with atomic_path(given.out) as temporary:
        temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in ("clean.false_alarms", *(f"{name}.found" for name in NAMED)):
        if name in numbers:
            print(f"{name}: {numbers[name]['value']} of {numbers[name]['n']}")


if __name__ == "__main__":
    main()
