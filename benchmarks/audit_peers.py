"""The audit beside other tools that one can install: who sees a planted shortcut, and who cries wolf.

    python benchmarks/audit_peers.py --kermany chest_xray    # writes benchmarks/audit_peers.json; two hours
    python benchmarks/audit_peers.py --tools cxrlib          # one tool again, then the summary
    python benchmarks/audit_peers.py --summary               # from the cohorts that are finished

**Cohorts** (``audit_peers_cohorts.py``). 400 phantoms of one patient each are rendered ill and healthy, with
each confounder turned round, and changed by each of six treatments for which this package had no probe when
they were chosen: PNG files of 256 pixels, grey, all written alike. A cohort is all 400, labels drawn anew, so
chance findings are independent between cohorts, given the 400. *Clean*: nothing goes along with the label
but the disease. *Planted*: 90% of the ill have it and 10% of the healthy. Half of the images are ill, or a
tenth (``ill_10``). *Real*: 1,000 of Kermany's radiographs, one a child, labels by lot, seven treatments.

**Tools**, each in an environment of its own that this script makes (``--environments``), and called as its
documentation says (``audit_peers_tools.py``). What does not depend on the labels is computed once a file.
*Flagged*: the tool reports something at its defaults; for this package something severe. *Detected*: its own
number is above the 95th percentile of its clean cohorts. *Named*: a right name (``RIGHT``) is among those
that it reports; left out where it has no name for the thing. *Others named*: how many other names it reports.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import audit_peers_cohorts as made_of
import numpy as np

from cxrlib.evaluation.metrics import proportion
from cxrlib.evaluation.results import provenance
from cxrlib.io.storage import atomic_path, cache_root
from cxrlib.parallel import progress_bar
from cxrlib.report.site.speed import peer_cells

#: The names that are right for what was planted; a tool without an entry for a kind has no name for it.
RIGHT: dict[str, dict[str, set[str]]] = {
    "cxrlib": {
        "marker": {"marker"}, "portable": {"text"}, "collimation": {"border"}, "exposure": {"exposure"},
        "devices": {"devices"}, "projection": {"projection"}, "gamma": {"exposure", "grey_levels"},
        "jpeg": {"compression"}, "resampled": {"texture"}, "mirrored": {"mirrored"},
        "comb": {"grey_levels"}, "noise": {"texture"},
    },
    "datalab": {
        "exposure": {"dark", "light"}, "gamma": {"dark", "light"}, "resampled": {"blurry"},
        "comb": {"low_information"},
    },
    "deepchecks": {"exposure": {"Brightness"}, "gamma": {"Brightness", "RMS Contrast"}},
    "shortkit": {},
}  # fmt: skip

#: What each tool's environment needs.
NEEDS: dict[str, list[str]] = {
    "cxrlib": [],
    "datalab": ["cleanlab[image]==2.9.0"],
    "deepchecks": [
        "deepchecks[vision]==0.19.1", "numpy<2", "torch<2.6", "torchvision<0.21", "scikit-learn<1.6",
        "category-encoders<2.7", "setuptools<81",
    ],
    "shortkit": ["shortkit-ml==0.1.0"],
}  # fmt: skip

#: What is read off each tool, and how it was asked; the name begins with the tool's.
READINGS: dict[str, dict[str, str]] = {
    "cxrlib": {"title": "this package", "what": "cxr audit; flagged is what has a severe finding."},
    "datalab": {
        "title": "Datalab",
        "what": "cleanlab's correlations of cleanvision's image properties with the label. As it ships, "
        "the accuracy to beat is the commonest class's index, not its count, over the number of images.",
    },
    "datalab_mended": {
        "title": "Datalab, mended",
        "what": "The same with the commonest class's share as the accuracy to beat.",
    },
    "deepchecks": {
        "title": "Deepchecks",
        "what": "PropertyLabelCorrelation of its image properties, at the default of its condition (0.3).",
    },
    "deepchecks_drift": {
        "title": "Deepchecks, drift",
        "what": "ImagePropertyDrift at the default of its condition (0.2). It is given more: the healthy and "
        "the ill as the two data sets.",
    },
    "shortkit_whole": {
        "title": "ShortKIT-ML, whole",
        "what": "It asks for embeddings and gets ours of the whole image, which see the disease. "
        "Flagged is what it calls a high risk. It has no names.",
    },
    "shortkit_outside": {
        "title": "ShortKIT-ML, outside",
        "what": "It is given more: our features of the signs and of the frame, which see no disease.",
    },
}


# --- this package's turn ------------------------------------------------------------------------------------
def looked_at(folder: Path, stems: list[str], work: Path):
    """All files of a pool as `cxr audit` reads them, and their features."""
    import pandas as pd

    from cxrlib.audit.features import describe
    from cxrlib.datasets import load
    from cxrlib.lungs.masks import segment

    work.mkdir(parents=True, exist_ok=True)
    table = work / "files.csv"
    label = np.arange(len(stems)) % 2
    rows = {"image": [f"{stem}.png" for stem in stems], "patient": [stem[:4] for stem in stems]}
    pd.DataFrame(rows | {"label": label}).to_csv(table, index=False)
    cohort = load("folder", data_dir=folder, labels=table, patient_column="patient", cache_dir=work / "cache")
    masked = segment(cohort, cache_dir=work / "cache")
    features = dict(describe(masked, work / "features", workers=1))  # read once
    place = {Path(path).stem: row for row, path in enumerate(cohort.table["path"])}
    return cohort, features, place


def audited(cohort, features, rows: np.ndarray, labels: np.ndarray) -> dict:
    """What this package says of some files with these labels."""
    from cxrlib.audit.run import audit_cohort

    part = cohort.take(rows)
    part = replace(part, table=part.table.assign(label=labels), lung_masks=None)
    audit = audit_cohort(
        part, features={name: values[rows] for name, values in features.items()}, source=None,
        has_patients=False, has_split=False, progress=False,
    )  # fmt: skip
    able = [f for f in audit.findings if f.auc is not None and f.probe.sees == "no"]
    severe = [f.probe for f in able if f.severity == "severe"]
    # Views, and kinds of image, say that something differs and not what.
    named = [probe.name for probe in severe if probe.group != "view" and probe.name != "kinds"]
    return {
        "flag": bool(audit.severe),
        "score": max(f.auc.value for f in able if f.auc is not None),
        "names": named,
        "views": [probe.name for probe in severe if probe.name not in named],
    }


def run_ours(work: Path, made: Mapping) -> None:
    """Audit every cohort that is not in ``cxrlib.jsonl`` yet."""
    done = {line["name"] for line in lines(work / "cxrlib.jsonl")}
    for pool, stems in used(made).items():
        mine = [one for one in made["cohorts"] if one["pool"] == pool and one["name"] not in done]
        if not mine:
            continue
        cohort, features, place = looked_at(work / pool, stems, work / f"cxrlib-{pool}")
        with progress_bar(len(mine), "Auditing", True, unit="cohort") as bar:
            for one in mine:
                started = time.process_time()
                rows = np.array([place[stem] for stem in one["stems"]])
                found = audited(cohort, features, rows, np.asarray(one["labels"]))
                line = {"name": one["name"], "cxrlib": found, "seconds": time.process_time() - started}
                with (work / "cxrlib.jsonl").open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line) + "\n")
                bar.update(1)


def used(made: Mapping) -> dict[str, list[str]]:
    """The files of each pool that the plan needs."""
    stems: dict[str, set[str]] = {"phantom": set(made["timed"]["stems"])}
    for one in made["cohorts"]:
        stems.setdefault(one["pool"], set()).update(one["stems"])
    return {pool: sorted(those) for pool, those in sorted(stems.items())}


def features_for_shortkit(work: Path, made: Mapping) -> None:
    """Write what ShortKIT-ML is given: our features of the whole image, and of what is outside the lungs."""
    outside = ("marker", "text", "border", "exposure", "devices", "projection", "polarity", "frame")
    for pool, stems in used(made).items():
        target = work / f"embeddings-{pool}.npz"
        if target.is_file():
            continue
        _, features, place = looked_at(work / pool, stems, work / f"cxrlib-{pool}")
        rows = [place[stem] for stem in stems]
        found = {"whole": features["whole"], "outside": np.concatenate([features[n] for n in outside], 1)}
        kept = {}
        for name, values in found.items():
            mine = values[rows].astype(np.float32)  # it takes no NaN: of an image whose lungs were not found
            kept[name] = np.where(np.isnan(mine), np.nanmedian(mine, axis=0), mine)
        with atomic_path(target) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, stems=np.array(stems), **kept)


def lines(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def cost_of_ours(work: Path, stems: list[str], labels: list[int]) -> dict[str, float]:
    """CPU seconds and the largest process's GB of `cxr audit` on these files, one worker, nothing kept."""
    with tempfile.TemporaryDirectory() as folder:
        with open(Path(folder, "labels.csv"), "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(
                [("image", "label"), *((f"{s}.png", y) for s, y in zip(stems, labels, strict=True))]
            )
        command = "from cxrlib.cli.main import main; main()"
        arguments = ["audit", str(work), "--labels", f"{folder}/labels.csv", "--out", f"{folder}/out"]
        surroundings = os.environ | {"CXRLIB_CACHE": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", command, *arguments, "--workers", "1"],
            env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": spent, "gb": after.ru_maxrss / 2**20}


# --- the others' turn ---------------------------------------------------------------------------------------
def environment(folder: Path, tool: str) -> str | None:
    """Make a tool's environment, or find it made; the last lines of the error where that fails."""
    stamp, needs = folder / tool / ".made", "\n".join(NEEDS[tool])
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == needs:
        return None
    pip = [str(folder / tool / "bin" / "python"), "-m", "pip", "install", "--quiet", *NEEDS[tool]]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder / tool)], pip):
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            return " ".join(made.stderr.split())[-400:]
    stamp.write_text(needs, encoding="utf-8")
    return None


def run_peer(folder: Path, tool: str, work: Path) -> str | None:
    """Let a tool look at every cohort of ``work/plan.json``; the last lines of the error where it fails."""
    script = Path(__file__).with_name("audit_peers_tools.py")
    command = [str(folder / tool / "bin" / "python"), str(script), tool, str(work)]
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    costed = (work / f"{tool}-cost.json").is_file()
    for more in ([],) if costed else ([], ["cost"]):
        ran = subprocess.run(
            [*command, *more],
            env=clean | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if ran.returncode:
            return " ".join(ran.stderr.split())[-400:]
    return None


# --- the numbers --------------------------------------------------------------------------------------------
def summary(found: Mapping[str, list[dict]], cohorts: Mapping[str, dict]) -> dict[str, dict]:
    """Dotted names to numbers: ``tool.ill.kind.measure``, shares of cohorts with Wilson's intervals."""
    numbers: dict[str, dict] = {}
    for reading, rows in found.items():
        tool = reading.split("_")[0]
        groups: dict[tuple, list[dict]] = {}
        for row in rows:
            cohort = cohorts[row["name"]]
            groups.setdefault((cohort["pool"], cohort["ill"], cohort["kind"]), []).append(row)
        order = sorted(groups, key=lambda place: (place[0], -place[1], place[2] != "clean", place[2]))
        for pool, ill, kind in order:
            mine = groups[pool, ill, kind]
            place = f"{reading}.{'real' if pool == 'real' else f'ill_{ill}'}.{kind}"
            numbers[f"{place}.flagged"] = _share([row["flag"] for row in mine])
            clean = sorted(row["score"] for row in groups.get((pool, ill, "clean"), []))
            if kind == "clean" and pool == "phantom":
                numbers[f"{place}.threshold"] = {"value": _percentile(clean), "n": len(clean)}
            if kind == "clean":
                continue
            if pool == "phantom" and clean:
                numbers[f"{place}.detected"] = _share([row["score"] > _percentile(clean) for row in mine])
            if right := RIGHT[tool].get(kind):
                numbers[f"{place}.named"] = _share([bool(right & set(row["names"])) for row in mine])
            wrong = [len(set(row["names"]) - RIGHT[tool].get(kind, set())) for row in mine]
            numbers[f"{place}.others_named"] = {"value": float(np.mean(wrong)), "n": len(mine)}
    return numbers


def _percentile(clean: list[float]) -> float:
    """The smallest clean score that at most 5% of the clean ones exceed."""
    return float(np.quantile(clean, 0.95, method="inverted_cdf"))


def _share(of: list[bool]) -> dict:
    return proportion(sum(of), len(of)).as_dict()


def behind(numbers: Mapping[str, dict]) -> list[dict]:
    """Every row in which another tool is ahead of this package, with the share of clean cohorts it flags."""
    rows = []
    for key, ours in numbers.items():
        if not key.startswith("cxrlib.") or not key.endswith((".flagged", ".detected", ".named")):
            continue
        rest = key.removeprefix("cxrlib.")
        better = -1 if ".clean." in key else 1
        for reading in list(READINGS)[1:]:
            theirs = numbers.get(f"{reading}.{rest}")
            if theirs and better * (theirs["value"] - ours["value"]) > 0:
                alarms = numbers.get(f"{reading}.{rest.split('.')[0]}.clean.flagged", {}).get("value")
                row = {"row": rest, "tool": reading, "its": theirs["value"], "ours": ours["value"]}
                rows.append(row | {"its_false_alarms": alarms})
    return rows


def names_given(found: Mapping[str, list[dict]], cohorts: Mapping[str, dict]) -> dict[str, dict]:
    """For each tool and kind, how often it reported each name."""
    given: dict[str, dict] = {}
    for reading, rows in found.items():
        for row in rows:
            one = cohorts[row["name"]]
            place = f"{reading}.{'real' if one['pool'] == 'real' else 'ill_' + str(one['ill'])}.{one['kind']}"
            given.setdefault(place, Counter()).update([*row["names"], *row.get("views", [])])
    return {place: dict(counts.most_common()) for place, counts in sorted(given.items()) if counts}


def read_found(work: Path, cohorts: Mapping[str, dict]) -> dict[str, list[dict]]:
    """What every reading found in the plan's cohorts that it has seen."""
    found = {}
    for reading in READINGS:
        kept = [one for one in lines(work / f"{reading.split('_')[0]}.jsonl") if one["name"] in cohorts]
        if rows := [{"name": line["name"], **line[reading]} for line in kept if reading in line]:
            found[reading] = rows
    return found


def prepared(
    work: Path, data: Path | None, counts: tuple[int, int, int], images: int, phantoms: int, pixels: int
) -> dict:
    """Make the pools and ``work/plan.json``; the plan: cohorts, and 1,000 files to take the time of.

    ``counts``: clean cohorts, planted ones of a kind, real ones of a kind.
    """
    has = {"phantom": made_of.phantom_pool(work / "phantom", phantoms, pixels)}
    if data is not None and counts[2]:
        has["real"] = made_of.real_pool(work / "real", data)
    cohorts = [one for one in made_of.plan(*counts) if one["pool"] in has]
    for one in cohorts:
        stems, labels = made_of.drawn(
            one, has[one["pool"]], images if one["pool"] == "phantom" else made_of.REAL_IMAGES
        )
        one |= {"stems": stems, "labels": labels.tolist()}
    timed = [f"{number:04d}-{label}-plain" for number in range(min(500, phantoms)) for label in (0, 1)]
    made = {"cohorts": cohorts, "timed": {"stems": timed, "labels": [int(stem[5]) for stem in timed]}}
    with atomic_path(work / "plan.json") as temporary:
        temporary.write_text(json.dumps(made), encoding="utf-8")
    return made


def run(tool: str, made: dict, work: Path, environments: Path) -> str | None:
    """Let one tool look at everything; None, or why it could not."""
    if tool == "cxrlib":
        run_ours(work, made)
        if not (work / "cxrlib-cost.json").is_file():
            spent = cost_of_ours(work / "phantom", made["timed"]["stems"], made["timed"]["labels"])
            (work / "cxrlib-cost.json").write_text(json.dumps(spent), encoding="utf-8")
        return None
    if problem := environment(environments, tool):
        return problem
    if tool == "shortkit":
        features_for_shortkit(work, made)
    return run_peer(environments, tool, work)


def written(work: Path, out: Path) -> dict:
    """Sum up what is finished and write the record."""
    cohorts = {one["name"]: one for one in json.loads((work / "plan.json").read_text("utf-8"))["cohorts"]}
    found = read_found(work, cohorts)
    numbers = summary(found, cohorts)
    versions, failed = {}, {}
    for tool in NEEDS:
        file = work / f"{tool}-failed.txt"
        if file.is_file() and (problem := file.read_text(encoding="utf-8")):
            failed[tool] = problem
        for kind, target in (("cost", numbers), ("versions", versions)):
            if (file := work / f"{tool}-{kind}.json").is_file():
                told = json.loads(file.read_text(encoding="utf-8"))
                if kind == "versions":
                    target[tool] = told
                else:
                    target |= {f"{tool}.per_1000.{name}": {"value": told[name]} for name in ("seconds", "gb")}
    facts = {
        "schema": 1,
        "name": "audit_peers",
        "command": "python benchmarks/audit_peers.py",
        "images": made_of.IMAGES,
        "pixels": made_of.PIXELS,
        "agreement": made_of.AGREEMENT,
        "unseen": list(made_of.UNSEEN),
        "right_names": {t: {k: sorted(v) for k, v in kinds.items()} for t, kinds in RIGHT.items()},
        "tools": {reading: READINGS[reading] for reading in found},
        "failed": failed,
        "versions": versions,
        "numbers": numbers,
        "ahead_of_cxrlib": behind(numbers),
        "names_given": names_given(found, cohorts),
        "provenance": provenance(
            dataset="phantom, kermany", command="python benchmarks/audit_peers.py", seed=made_of.SEED
        ),
    }
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return facts


def table(facts: Mapping) -> list[str]:
    """The lines of the table in ``docs/findings.md``."""
    titles = ["planted", "cohorts", *(about["title"] for about in facts["tools"].values())]
    rows = [titles, ["---"] * len(titles), *peer_cells(facts)]
    return [f"| {' | '.join(row)} |" for row in rows]


def put_table(facts: Mapping, page: Path) -> None:
    """Replace the table in a page, which is known by how its first line begins."""
    old = page.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(old) if line.startswith("| planted | cohorts | "))
    stop = next((n for n, line in enumerate(old[start:], start) if not line.startswith("|")), len(old))
    page.write_text("\n".join([*old[:start], *table(facts), *old[stop:]]) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=cache_root() / "audit-peers")
    parser.add_argument("--environments", type=Path, default=cache_root() / "audit-peers-environments")
    parser.add_argument("--kermany", type=Path, help="chest_xray of Kermany's data, for the real trial")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--tools", nargs="+", choices=list(NEEDS), default=list(NEEDS)[::-1])
    counts = (made_of.CLEAN_COHORTS, made_of.COHORTS, made_of.REAL_COHORTS)
    parser.add_argument(
        "--cohorts", nargs=3, type=int, default=counts, metavar=("CLEAN", "PLANTED", "REAL"),
        help="how many of each",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=made_of.IMAGES)
    parser.add_argument("--phantoms", type=int, default=made_of.PHANTOMS)
    parser.add_argument("--pixels", type=int, default=made_of.PIXELS)
    parser.add_argument("--summary", action="store_true", help="run nothing, only sum up")
    given = parser.parse_args()
    if not given.summary:
        made = prepared(
            given.work, given.kermany, tuple(given.cohorts), given.images, given.phantoms, given.pixels
        )
        for tool in given.tools:
            print(tool, flush=True)
            problem = run(tool, made, given.work, given.environments)
            (given.work / f"{tool}-failed.txt").write_text(problem or "", encoding="utf-8")
    facts = written(given.work, given.out)
    if given.out == Path(__file__).with_suffix(".json"):
        put_table(facts, Path(__file__).parents[1] / "docs" / "findings.md")
    for tool, problem in facts["failed"].items():
        print(f"{tool} could not be tried: {problem}")
    for row in facts["ahead_of_cxrlib"]:
        print(f"{row['tool']} is ahead in {row['row']}: {row['its']:.2f} against {row['ours']:.2f}")


if __name__ == "__main__":
    main()
