"""How long a fresh environment takes to install, and its size: without the extra ``course``, and with it.

    python -m benchmarks.speed.install                # the rows install.audit and install.course
    python -m benchmarks.speed.install --only audit

The wheel is built first, which is not counted. What is: making the environment, fetching the packages from
the index that pip is set up for (its own cache is not used) and unpacking them. They are removed then.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.speed.run import read
from cxrlib.evaluation.results import project_root, provenance
from cxrlib.io.storage import atomic_path

EXTRAS = {"audit": "", "course": "[course]"}
MEGABYTES_ALLOWED, SECONDS_ALLOWED = 600, 60


def build_wheel(folder: Path) -> Path:
    """The project's wheel, built with the setuptools at hand, from a copy of what git knows of."""
    root = project_root()
    assert root is not None
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in names:
        if name.startswith("cxrlib/") or name in ("pyproject.toml", "README.md", "LICENSE"):
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((root / name).read_bytes())
    command = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *command, str(folder / "source")], check=True)
    (wheel,) = folder.glob("cxrlib-*.whl")
    return wheel


def install(wheel: Path, extra: str, environment: Path, *options: str) -> float:
    """Make the environment and install the wheel with the extra, such as "[course]"; return seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    command = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", *options]
    python = environment / "bin" / "python"
    subprocess.run([str(python), *command, f"{wheel}{extra}"], check=True, capture_output=True, text=True)
    return time.perf_counter() - started


def megabytes(folder: Path) -> float:
    """What a folder takes on disk: the blocks of its files, in millions of bytes."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*")) / 1e6


def row(name: str, seconds: float, size: float) -> dict:
    """A row of results.json; only the audit's is held to an aim."""
    made = provenance()
    facts = {
        "name": f"install.{name}",
        "what": f"pip install cxrlib{EXTRAS[name]} into a fresh environment, pip's cache not used: "
        f"{size:,.0f} MB on disk, {seconds:.0f} seconds",
        "megabytes": round(size, 1),
        "seconds": round(seconds, 1),
    }
    if name == "audit":
        ratio = float(f"{SECONDS_ALLOWED / seconds:.4g}")
        facts |= {"ours": float(f"{60 / seconds:.4g}"), "peer": 60 / SECONDS_ALLOWED, "ratio": ratio}
        facts |= {"low": ratio, "high": ratio, "target": 1.0, "unit": "installs/min", "data": "none"}
        facts |= {"megabytes_target": MEGABYTES_ALLOWED}
    return facts | {"repeats": 1, "hardware": made["hardware"], "commit": made["git_commit"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=EXTRAS, action="append")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results.json"))
    given = parser.parse_args()
    record = read(given.out)
    for name in given.only or EXTRAS:
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work)
            seconds = install(build_wheel(folder), EXTRAS[name], folder / "env", "--no-cache-dir")
            made = row(name, seconds, megabytes(folder / "env"))
        print(f"{made['name']}: {made['megabytes']} MB, {made['seconds']} seconds")
        record["rows"] = [one for one in record["rows"] if one["name"] != made["name"]] + [made]
        with atomic_path(given.out) as temporary:
            temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
