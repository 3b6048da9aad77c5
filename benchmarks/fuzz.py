"""Damaged files by the ten thousand: each must end in a result, or in a CxrError that names the file.

    python benchmarks/fuzz.py                  # 112,000 inputs, writes benchmarks/reliability.json
    python benchmarks/fuzz.py --only png --count 500 --dry
    python benchmarks/fuzz.py --show png 1234 > again.png      # one input of the seeded mutator again

Each target runs in a process of its own, which may take 1 GB more memory than it starts with. An input over
which it works for five seconds (of its own processor time), waits for three minutes, or dies is counted and
the rest go on without it. ``--only`` leaves the other targets' rows as they are. The mutator is seeded: a
target's name, the seed and an input's number make it again. Where ``atheris`` is installed a share of the
inputs of images, tables and records is guided by coverage; what those find depends on the machine.
Inputs that fail are kept in ``benchmarks/build/fuzz``. With CXRLIB_DATA set, seeds include radiographs,
reduced in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fuzz_targets
import numpy as np
import reliability

SEED = 20_261_123
SECONDS = 5.0
BYTES = 2**30
COUNTS = {
    "png": 18_000, "jpeg": 16_000, "tiff": 16_000, "dicom": 14_000, "labels": 8_000, "record": 14_000,
    "audit": 12_000, "checkpoint": 5_000, "config": 5_000, "cache": 4_000,
}  # fmt: skip
GUIDED = ("png", "jpeg", "tiff", "dicom", "labels", "record")
SHARE = 0.25  # of these targets' inputs
KEPT = Path(__file__).resolve().parent / "build" / "fuzz"

NUMBER, DONE, RESULT, TOLD, UNNAMED, RAISED, MEMORY, SLOW, SLOWEST, PEAK = range(10)
WAYS = {UNNAMED: "unnamed", RAISED: "raised", MEMORY: "memory", SLOW: "slow"}


def made(name: str, number: int, seeds: list[bytes], damage, seed: int = SEED) -> bytes:
    """The input of this number."""
    rng = random.Random(f"{seed}:{name}:{number}")
    data = rng.choice(seeds)
    try:
        return damage(rng, data, seeds)
    except (struct.error, IndexError, KeyError, ValueError):  # the second change found nothing to change
        return fuzz_targets.damaged(rng, data, seeds)


def tried(read, path: Path) -> tuple[int, BaseException | None]:
    """What became of a file: RESULT, TOLD, or in which way it failed."""
    from cxrlib.errors import CxrError

    try:
        read(path)
    except CxrError as error:
        return (TOLD if path.stem in str(error) else UNNAMED), error
    except MemoryError as error:
        return MEMORY, error
    except Exception as error:
        return RAISED, error
    return RESULT, None


class Worker:
    """Feeds one target; all that is counted lies in a mapped file, so that it survives the process."""

    def __init__(self, name: str, folder: Path, seed: int):
        self.name, self.folder, self.seed = name, folder, seed
        self.counted = np.memmap(folder / "counted", np.float64, "r+")
        self.seeds, self.damage, self.read, self.ending = fuzz_targets.target(name, folder / "files")
        for data in self.seeds:  # what is imported at first use is no input's fault
            path = folder / "files" / f"seed{self.ending}"
            path.write_bytes(data)
            tried(self.read, path)
            self._clear(path)
        status = Path("/proc/self/status").read_text()
        used = int(status.split("VmSize:")[1].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))

    def one(self, number: int, data: bytes) -> None:
        path = self.folder / "files" / f"f{number}{self.ending}"
        path.write_bytes(data)
        self.counted[NUMBER] = number
        started = time.process_time()  # of this process: others may be at work on the machine
        way, error = tried(self.read, path)
        seconds = time.process_time() - started
        self.counted[DONE] += 1
        if seconds > SECONDS:
            way = SLOW
        if seconds > self.counted[SLOWEST]:
            self.counted[SLOWEST] = seconds
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.counted[PEAK] = max(self.counted[PEAK], peak)
        if peak > BYTES:
            way = MEMORY
        self.counted[way] += 1
        if way in WAYS:
            keep(self.name, WAYS[way], number, data, error)
        self._clear(path)
        if peak > BYTES:  # it does not shrink: go on in a fresh process
            self.counted[NUMBER] = number
            os._exit(3)

    def _clear(self, path: Path) -> None:
        for left in (path, path.with_suffix(".safetensors")):
            left.unlink(missing_ok=True)
        for folder in (path.with_name(path.name + ".d"), self.folder / "files" / "run" / path.name):
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)


def keep(name: str, how: str, number: int, data: bytes, error: BaseException | None = None) -> None:
    """Keep an input that failed, and what was raised over it."""
    import traceback

    folder = KEPT / name
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(data).hexdigest()[:8]
    (folder / f"{how}-{number}-{digest}").write_bytes(data)
    if error is not None:
        told = "".join(traceback.format_exception(error))
        (folder / f"{how}-{number}-{digest}.txt").write_text(told, "utf-8", "replace")


def work(name: str, folder: Path, seed: int, start: int, stop: int, guided: bool) -> None:
    """In the worker: inputs ``start`` to ``stop``."""
    sys.stderr = open(folder / "stderr", "a")  # noqa: SIM115 — for as long as the process lives
    if not guided:
        worker = Worker(name, folder, seed)
        for number in range(start, stop):
            worker.one(number, made(name, number, worker.seeds, worker.damage, seed))
        return
    import atheris

    with atheris.instrument_imports(include=["cxrlib", "PIL", "pydicom"]):
        import cxrlib.audit.files
        import cxrlib.evaluation.results
        import cxrlib.io.decode
        import cxrlib.io.dicom  # noqa: F401
    worker = Worker(name, folder, seed)
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(worker.seeds):
        (corpus / str(number)).write_bytes(data)
    count = iter(range(start, stop))

    def feed(data: bytes) -> None:
        number = next(count, None)
        if number is None:
            os._exit(0)
        if name == "png" and number % 2:  # checksums would turn nearly everything away
            data = fuzz_targets.mended_png(data)
        worker.one(number, data)

    options = [
        "-rss_limit_mb=0",
        "-timeout=600",
        "-max_len=65536",
        f"-seed={seed % 2**31}",
        "-detect_leaks=0",
    ]
    atheris.Setup(["fuzz", str(corpus), *options, f"-artifact_prefix={folder}/"], feed)
    atheris.Fuzz()


def campaign(name: str, count: int, seed: int, guided: int) -> dict:
    """One target's row."""
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="cxr-fuzz-", dir=base) as temporary:
        folder = Path(temporary)
        counted = np.memmap(folder / "counted", np.float64, "w+", shape=(16,))
        ends = {"hang": 0, "crash": 0}
        for is_guided, start, stop in ((False, 0, count - guided), (True, count - guided, count)):
            while start < stop:
                counted[NUMBER] = -1
                how = _watched(name, folder, seed, start, stop, is_guided, counted)
                if how is None:
                    break
                number = int(counted[NUMBER])
                if number < 0:
                    raise SystemExit(f"{name} does not start: {how}")
                if how != "fresh":
                    ends[how] += 1
                    counted[DONE] += 1
                    for left in (folder / "files").glob(f"f{number}.*"):
                        if left.is_file():
                            keep(name, how, number, left.read_bytes())
                            left.unlink()
                start = number + 1
        ways = {label: int(counted[slot]) for slot, label in WAYS.items()} | ends
        failed = {label: found for label, found in ways.items() if found}
        said = ", ".join(f"{found} {label}" for label, found in failed.items())
        return {
            "name": f"fuzz.{name}",
            "what": WHAT[name],
            "tried": int(counted[DONE]),
            "failed": sum(failed.values()),
            "value": round(float(counted[SLOWEST]), 3),
            "unit": "s of processor time, the slowest input",
            "target": SECONDS,
            "at_least": False,
            "seed": seed,
            "results": int(counted[RESULT]),
            "told": int(counted[TOLD]),
            "guided": guided,
            "peak_mb": round(float(counted[PEAK]) / 1e6),
            "note": (f"{said}; " if said else "")
            + f"{int(counted[RESULT]):,} read, {int(counted[TOLD]):,} refused by name, {guided:,} guided by "
            f"coverage; at most {counted[PEAK] / 1e6:,.0f} MB",
        }


def _watched(name, folder, seed, start, stop, guided, counted) -> str | None:
    """Run a worker; None when it is through, else hang, crash, or fresh (it asks for a new one)."""
    job = [name, str(folder), str(seed), str(start), str(stop), str(int(guided))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    with open(folder / "stderr", "a") as errors:
        process = subprocess.Popen(
            [sys.executable, __file__, "--worker", *job], stdout=errors, stderr=errors, env=environment
        )
    last, since, used = -1.0, time.monotonic(), 0.0
    while process.poll() is None:
        time.sleep(0.05)
        if counted[NUMBER] != last:
            last, since, used = float(counted[NUMBER]), time.monotonic(), _used(process.pid)
        waits = time.monotonic() - since
        if waits > 180 or (last >= 0 and waits > SECONDS and _used(process.pid) - used > SECONDS):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return "hang"
    if process.returncode == 0:
        return None
    if process.returncode == 1:
        raise SystemExit(f"{name}: the campaign itself failed:\n{(folder / 'stderr').read_text()[-3000:]}")
    return "fresh" if process.returncode == 3 else "crash"


def _used(pid: int) -> float:
    """Processor time of a process so far, in seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


WHAT = {
    "png": "PNG files with bytes, chunks and pixels changed, decoded and read for an audit",
    "jpeg": "JPEG files with bytes and segments changed",
    "tiff": "TIFF files of 1 to 32 bits, compressed and not, with bytes and directory entries changed",
    "dicom": "DICOM files, plain, compressed and of several frames, with bytes and elements changed",
    "labels": "CSVs of labels with cells, names and separators changed",
    "record": "recorded results with values and bytes changed, read as notebooks and the site do",
    "audit": "audit.json with values and bytes changed, read for its numbers",
    "checkpoint": "checkpoints with bytes, pickles and headers changed: loaded, predicted with, resumed",
    "config": "settings of checkpoints, grids and notebooks with values of other kinds",
    "cache": "arrays of a cache with bytes changed: made anew or named",
}


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        name, folder, seed, start, stop, guided = sys.argv[2:]
        work(name, Path(folder), int(seed), int(start), int(stop), guided == "1")
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=COUNTS, help="These targets.")
    parser.add_argument("--count", type=int, help="Inputs a target.")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--dry", action="store_true", help="Record nothing.")
    parser.add_argument("--show", nargs=2, metavar=("TARGET", "NUMBER"), help="Write an input, run nothing.")
    given = parser.parse_args()
    if given.show:
        name, number = given.show
        with tempfile.TemporaryDirectory() as folder:
            seeds, damage, _, _ = fuzz_targets.target(name, Path(folder))
            sys.stdout.buffer.write(made(name, int(number), seeds, damage, given.seed))
        return
    started, rows = time.perf_counter(), []
    has_atheris = importlib.util.find_spec("atheris") is not None
    for name in given.only or COUNTS:
        count = given.count or COUNTS[name]
        guided = int(count * SHARE) if has_atheris and name in GUIDED else 0
        row = campaign(name, count, given.seed, guided)
        rows.append(row)
        told = f"{row['tried']:,} tried, {row['failed']} failed; slowest {row['value']} s; {row['note']}"
        print(f"{row['name']}: {told}", flush=True)
    if not given.dry:
        words = ["--only", *given.only] if given.only else []
        words += ["--count", str(given.count)] if given.count else []
        command = " ".join(["python benchmarks/fuzz.py", *words])
        seconds = time.perf_counter() - started
        if given.only and reliability.OUT.is_file():
            known = json.loads(reliability.OUT.read_text())
            new = {row["name"] for row in rows}
            rows += [
                row for row in known["rows"] if row["name"].startswith("fuzz.") and row["name"] not in new
            ]
            before = known["campaigns"].get("fuzz", {"command": "", "seconds": 0})
            command = f"{before['command']}; {command}".strip("; ")
            seconds += before["seconds"]
        reliability.record("fuzz", rows, command, seconds)


if __name__ == "__main__":
    main()
