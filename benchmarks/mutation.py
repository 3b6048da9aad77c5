"""Mutation testing: how many small changes to the code make a test fail.

    pip install mutmut==3.8.1
    python benchmarks/mutation.py                    # all modules, 30-60 minutes on one core
    python benchmarks/mutation.py --only cache       # one of them

mutmut makes the mutants (a number that is one more, ``<`` for ``<=``, an argument left out, …) in a copy of
the package and runs the tests that reach each. A mutant counts as killed where a test fails, the process dies
or the time runs out; one that no test reaches, and one that the tests pass, survives. Of a module with more
than ``--most`` mutants a sample is tried, drawn with the seed. Functions under a decorator are not mutated by
mutmut; of those there are a few properties and context managers, and ``pixel_free``, whose decorator (one
thread) is taken off in the copy and done by the environment.

Why a survivor may live is judged by reading it, and kept in ``mutation_survivors.json`` by what it changes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

from reliability import OUT, record

ROOT = Path(__file__).resolve().parents[1]
REASONS = Path(__file__).with_name("mutation_survivors.json")
SURVIVED = {0, 5, 33}  # exit codes: the tests pass; none ran; none reaches the function
TARGET = 0.8

# module -> (files that are mutated, which mutants of them, tests)
MODULES = {
    "metrics": (["evaluation/metrics", "evaluation/delong"], ["*"], ["metrics"]),
    "splits": (
        [
            "cohort",
            "studies/leakage",
            "datasets/kermany",
            "datasets/nih",
            "datasets/nih_tables",
            "datasets/folder",
        ],
        ["cxrlib.cohort.*", "*split*"],
        ["cohort", "leakage", "kermany", "nih", "nih_tables", "folder", "determinism"],
    ),
    "cache": (["io/cache"], ["*"], ["cache", "preprocess"]),
    "shortcuts": (["studies/shortcuts"], ["*"], ["shortcuts", "determinism"]),
}
SLOW = [
    "test_a_split_by_image_inflates_the_auc_and_a_split_by_patient_does_not",  # trains networks
    "test_nih_metadata_alone",  # 112,120 rows: what they tell of the code, smaller tables tell too
    "test_shuffling_the_follow_up",
    "test_no_patient_is_scored_by_a_model_that_saw_them",
    "test_labels_shuffled_between_patients",
]


def prepared(folder: Path, module: str) -> None:
    """Copy what the tests need to ``folder``, and tell mutmut what to mutate."""
    files, _, tests = MODULES[module]
    for name in ("cxrlib", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shortcuts = folder / "cxrlib" / "studies" / "shortcuts.py"
    text = shortcuts.read_text(encoding="utf-8")
    shortcuts.write_text(re.sub(r"@one_thread\n", "", text), encoding="utf-8")
    chosen = [
        str(path.relative_to(ROOT)) for name in tests for path in (ROOT / "tests").rglob(f"test_{name}.py")
    ]
    settings = {
        "source_paths": ["cxrlib"],
        "only_mutate": [f"cxrlib/{file}.py" for file in files],
        "pytest_add_cli_args_test_selection": chosen,
        "pytest_add_cli_args": ["-x", "-q", "-p", "no:cacheprovider", "-k", f"not ({' or '.join(SLOW)})"],
        "process_isolation": "forkserver",
        "use_git_change_detection": False,
    }
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (folder / "pyproject.toml").write_text(
        "\n".join([project, "[tool.mutmut]", *lines, ""]), encoding="utf-8"
    )


def mutmut(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder / "mutants"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mutmut", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout


def results(folder: Path) -> dict[str, int | None]:
    """Every mutant's exit code, None where it has not been tried."""
    found = {}
    for meta in sorted((folder / "mutants").rglob("*.py.meta")):
        found |= json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
    return found


def change(folder: Path, mutant: str) -> str:
    """What a mutant changes, as ``function: - line + line``."""
    lines = mutmut(folder, "show", mutant).splitlines()
    changed = [
        f"{line[0]} {line[1:].strip()}"
        for line in lines
        if line[:1] in ("-", "+") and not line.startswith(("---", "+++"))
    ]
    function = mutant.rpartition("__mutmut_")[0].rpartition(".x")[2].strip("_ǁ").replace("ǁ", ".")
    return f"{function}: {' '.join(changed)}"


def campaign(module: str, most: int, seed: int, reasons: dict[str, str]) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "project"
        folder.mkdir()
        prepared(folder, module)
        # a name that no mutant has: the mutants are made, and the tests measured, and nothing is tried
        said = mutmut(folder, "run", "--max-children", "1", "nothing*")
        patterns = MODULES[module][1]
        known = sorted(name for name in results(folder) if any(fnmatch(name, one) for one in patterns))
        if not known:
            raise SystemExit(f"mutmut made no mutant of {module}:\n{said[-3000:]}")
        chosen = known if len(known) <= most else sorted(random.Random(seed).sample(known, most))
        said = mutmut(folder, "run", "--max-children", "1", *chosen)
        codes = {name: code for name, code in results(folder).items() if name in set(chosen)}
        untried = [name for name, code in codes.items() if code is None]
        if untried:
            raise SystemExit(f"mutmut left out {len(untried)} mutants of {module}:\n{said[-3000:]}")
        alive = sorted(change(folder, name) for name, code in codes.items() if code in SURVIVED)
    killed = len(chosen) - len(alive)
    return {
        "name": f"mutation.{module}",
        "what": f"share of mutants of {', '.join(MODULES[module][0])} that a test notices",
        "tried": len(chosen),
        "of": len(known),
        "failed": len(alive),
        "killed": killed,
        "value": round(killed / len(chosen), 4),
        "target": TARGET,
        "at_least": True,
        "unit": "share",
        "seed": seed,
        "survivors": [{"change": one, "reason": reasons.get(one, "not judged")} for one in alive],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=MODULES, default=list(MODULES))
    parser.add_argument("--most", type=int, default=300, help="mutants tried of one module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    reasons = json.loads(REASONS.read_text(encoding="utf-8")) if REASONS.is_file() else {}
    known = json.loads(given.out.read_text(encoding="utf-8"))["rows"] if given.out.is_file() else []
    rows = {row["name"]: row for row in known if row["name"].startswith("mutation.")}
    for module in given.only:
        started = time.perf_counter()
        row = campaign(module, given.most, given.seed, reasons)
        row["seconds"] = round(time.perf_counter() - started, 1)
        rows[row["name"]] = row
        print(f"{module}: {row['killed']} of {row['tried']} mutants killed ({row['value']:.1%})", flush=True)
        seconds = sum(one["seconds"] for one in rows.values())
        record("mutation", list(rows.values()), "python benchmarks/mutation.py", seconds, given.out)


if __name__ == "__main__":
    main()
