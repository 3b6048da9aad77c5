"""Kill five commands at random moments, run them again, and see whether anything shows.

    python benchmarks/faults.py                       # 100 kills; rows faults.* of reliability.json
    python benchmarks/faults.py --kills 2 --only train

Building a cache of decoded files, `cxr train --resume`, a study of several trainings, a report and `cxr audit
--resume`. Each runs undisturbed twice, which shows how long it takes and that it is repeatable; then it is
killed (SIGKILL to its process group, and half of the time to every process that it started) at moments drawn
from equal stretches of that time, and run again at once. Looked at: files right after the kill (none may be
half-written under a name that is read), the end of the second run against the undisturbed one (weights and
arrays bit for bit, tables and pages but for times), and what is left (temporary files, processes).

The commands run in forks of this process, which has imported the package already, so that moments fall into
their work and not into imports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
import pandas as pd
import psutil
import torch
import torch._dynamo
import torch.utils.tensorboard
import toy_notebooks
from PIL import Image
from reliability import OUT, record

import cxrlib
from cxrlib import parallel
from cxrlib.audit import page as _audit_page  # noqa: F401 — the forked commands find it loaded, as the next ones
from cxrlib.audit import run as _audit_run  # noqa: F401
from cxrlib.cli import main as cli
from cxrlib.evaluation import results
from cxrlib.io import cache
from cxrlib.io.storage import intact, read_arrays
from cxrlib.lungs import network as _lung_network  # noqa: F401
from cxrlib.report import report
from cxrlib.studies import overfitting
from cxrlib.training import distributed as _distributed  # noqa: F401
from cxrlib.training.checkpoints import load_checkpoint

END = 180  # seconds after which a command counts as hanging
stopped: list[int] = []  # by Ctrl-C: the activity ends, and what was tried by then is recorded
LEFT = re.compile(r"^\.cxr-writing-|\.partial$|^allocating_|^work_|^cxrlib-|^joblib_|\.tmp$")
_TIMES = re.compile(
    r"\b\d+(\.\d+)?( |&nbsp;|\u00a0)?(s|seconds|minutes|min|ms)\b|\d{4}-\d\d-\d\d[T ][\d:.+]+"
    r"|<td>(<p>)?\d+(</p>)?</td>(?=\s*<td>(<p>)?<a [^>]*href=\"notebooks/)"
)


@dataclass(frozen=True)
class Activity:
    """What is killed: ``prepare`` makes its input in a folder, ``run`` does it in a fork."""

    what: str
    prepare: Callable[[Path], None]
    run: Callable[[Path, int], None]
    statuses: tuple[int, ...] = (0,)


def _cxr(*arguments: object) -> None:
    sys.argv = ["cxr", *map(str, arguments)]
    cli.main()


def _films(base: Path, images: int, side: int) -> None:
    rng = np.random.default_rng(0)
    (base / "films").mkdir(parents=True)
    rows = []
    for number in range(images):
        name, ill = f"{number:04d}.png", number // 2 % 2
        pixels = rng.integers(30, 200, (side, side)).astype(np.uint8)
        pixels[1 : side // 8, 1 : side // 8] = 255 * ill
        Image.fromarray(pixels).save(base / "films" / name)
        rows.append({"image": name, "label": ill, "patient_id": f"p{number // 2}"})
    pd.DataFrame(rows).to_csv(base / "labels.csv", index=False)


def _cache(base: Path, number: int) -> None:
    cache.FLUSH_SECONDS, cache.CHUNK = 0.05, 16  # as if it were a longer build
    given = {"data_dir": base / "films", "labels": base / "labels.csv", "image_size": 64}
    cxrlib.load("folder", **given, patient_column="patient_id", workers=1 + number % 2)


def _phantoms(base: Path) -> None:
    os.environ["CXRLIB_CACHE"] = str(base / "cache")
    cxrlib.load("phantom", n=160, image_size=32, workers=1)


def _train(base: Path, number: int) -> None:
    _cxr(
        "train", "--out", "out", "--resume", "--dataset", "phantom", "--set", "n=160", "--image-size", 32,
        "--model", "lenet", "--epochs", 12, "--preset", "smoke", "--check-ins", 2, "--accelerator", "cpu",
    )  # fmt: skip


def _study(base: Path, number: int) -> None:
    cohort = cxrlib.load("phantom", n=160, image_size=32, workers=1)
    found = overfitting.capacity(cohort, "smoke", seeds=(0, 1), progress=False)
    results.record(
        None, "capacity", found.numbers, dataset="phantom", notebook="05", preset="smoke", out_dir="out"
    )


def _notebooks(base: Path) -> None:
    recorded = (
        "code",
        "from cxrlib.evaluation import results\n"
        "made = {'dataset': dataset, 'notebook': '03_training', 'preset': preset}\n"
        "results.record(None, 'toy', {'seed': seed, 'one': 1.0}, out_dir=out_dir, **made)\n"
        "seed + 1",
    )
    toy_notebooks.write(base / "notebooks" / "03_training.ipynb", [*toy_notebooks.GOOD[:3], recorded])


def _report(base: Path, number: int) -> None:
    sys.exit(report.run_report(preset="smoke", out="out", notebooks_dir=base / "notebooks"))


def _audit(base: Path, number: int) -> None:
    _cxr(
        "audit", base / "films", "--labels", base / "labels.csv", "--out", "out", "--resume",
        "--image-size", 32, "--workers", 1,
    )  # fmt: skip


ACTIVITIES = {
    "cache": Activity("a cache of 400 decoded files", lambda base: _films(base, 400, 192), _cache),
    "train": Activity("cxr train --resume, 12 epochs of a LeNet", _phantoms, _train),
    "study": Activity("a study of four trainings, kept in the store", _phantoms, _study),
    "audit": Activity("cxr audit --resume of 80 files", lambda base: _films(base, 80, 48), _audit, (0, 2)),
    "report": Activity("cxr report on a notebook", _notebooks, _report),
}


def start(activity: Activity, base: Path, case: Path, number: int) -> int:
    """Fork the command, in a session and with a cache and a folder of temporary files of its own."""
    (case / "tmp").mkdir(parents=True, exist_ok=True)
    if not (case / "cache").exists() and (base / "cache").exists():
        shutil.copytree(base / "cache", case / "cache")
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        os.chdir(case)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ |= {"CXRLIB_CACHE": str(case / "cache"), "XDG_CACHE_HOME": str(case / "cache")}
        os.environ |= {"TMPDIR": str(case / "tmp"), "HOME": str(case), "MPLCONFIGDIR": str(base)}
        os.environ["GIT_DIR"] = str(case)  # a commit made meanwhile is no difference
        tempfile.tempdir = None
        torch.set_num_threads(1)
        activity.run(base, number)
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for mark in parallel._marks:  # what atexit does for a command that is no fork
            Path(mark.name).unlink(missing_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def end(child: int, seconds: float = END) -> int | None:
    """Wait for the command; its exit status, or None where it hangs (it is killed then)."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    _kill(child, everything=True)
    os.waitpid(child, 0)
    return None


def _kill(child: int, everything: bool) -> None:
    others = psutil.Process(child).children(recursive=True) if everything else []
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # so early that it has no group of its own yet
        os.kill(child, signal.SIGKILL)
    for process in others:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def half_written(case: Path, whole: Path) -> list[str]:
    """Files under names that are read, right after a kill, which are not whole; ``whole``: undisturbed."""
    bad = []
    for path in _files(case):
        if "tmp" in path.relative_to(case).parts or path.name.startswith(".cxr-writing-"):
            continue
        if any(part.endswith(".partial") for part in path.parts) or ".build" in path.parts:
            continue
        try:
            content, same = _canonical(path), whole / path.relative_to(case)
            if "_static" in path.parts and content != same.read_bytes():
                raise ValueError("is not the file that it should be")
        except FileNotFoundError:
            continue
        except Exception as error:
            bad.append(f"{path.relative_to(case)}: {type(error).__name__} {error}"[:200])
    for manifest in case.glob("cache/*/*/checksums.json"):
        if not manifest.parent.name.endswith(".partial") and not intact(manifest.parent):
            bad.append(f"{manifest.parent.relative_to(case)}: checksums")
    return bad


def outcome(case: Path) -> dict[str, str]:
    """What a run left, by file: a hash of all that must not differ."""
    found = {}
    for path in _files(case):
        parts = path.relative_to(case).parts
        if (
            parts[0] not in ("cache", "out")
            or "matplotlib" in parts
            or ".build" in parts
            or path.suffix == ".lock"
        ):
            continue
        if path.name == "checksums.json" or "tfevents" in path.name:
            continue
        found["/".join(parts)] = hashlib.sha256(_canonical(path)).hexdigest()[:16]
    return found


def left_over(case: Path, pids: list[int]) -> list[str]:
    """Temporary files that should be gone, in the case's folders and in shared memory."""
    found = [str(path.relative_to(case)) for path in case.rglob("*") if LEFT.search(path.name)]
    found += [str(path.relative_to(case)) for path in (case / "tmp").iterdir()]
    shared = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    found += [name for name in shared if any(re.search(rf"[_-]{pid}[_-]", name) for pid in pids)]
    return sorted(set(found))


def processes_of(case: Path) -> list[int]:
    """Processes that still run with this case's cache."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CXRLIB_CACHE") == str(case / "cache"):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def _files(case: Path) -> list[Path]:
    return sorted(path for path in case.rglob("*") if path.is_file() and path.name != "log.txt")


def _canonical(path: Path) -> bytes:
    """A file's content without what differs from run to run; raises where the file is not whole."""
    data = path.read_bytes()
    if "_static" in path.parts:
        return data
    if path.suffix == ".pt":
        return repr(_flat(load_checkpoint(path))).encode()
    if path.suffix == ".npy":
        return np.load(path).tobytes()
    if path.suffix == ".npz":
        arrays = read_arrays(path)
        if arrays is None:
            raise ValueError("cannot be read")
        return repr(
            {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
        ).encode()
    if path.suffix in (".json", ".ipynb"):
        return json.dumps(_timeless(json.loads(data)), sort_keys=True).encode()
    if path.suffix == ".html":
        if not data.rstrip().endswith(b"</html>"):
            raise ValueError("is cut short")
        return _TIMES.sub("…", data.decode()).encode()
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.testzip()
    if path.name == "searchindex.js":  # which has the durations as words
        if not (data.startswith(b"Search.setIndex(") and data.endswith(b")")):
            raise ValueError("is cut short")
        return b""
    if path.suffix in (".js", ".md", ".inv", ".txt"):
        return _TIMES.sub("…", data.decode(errors="replace")).encode()
    return data


def _timeless(value):
    """JSON without clock times, durations, and whether something was reused."""
    if isinstance(value, dict):
        drop = (
            "seconds",
            "reused",
            "papermill",
            "execution",
            "images_per_second",
            "started",
            "finished",
            "created",
        )
        return {key: _timeless(inner) for key, inner in value.items() if key not in drop}
    if isinstance(value, list):
        return [_timeless(inner) for inner in value]
    return _TIMES.sub("…", value) if isinstance(value, str) else value


def _flat(value):
    """A checkpoint as nested lists of bytes, without durations."""
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        drop = ("seconds", "interval", "images_per_second")
        return [(str(key), _flat(inner)) for key, inner in value.items() if key not in drop]
    return [_flat(inner) for inner in value] if isinstance(value, list | tuple) else value


def campaign(name: str, root: Path, kills: int, seed: int) -> tuple[dict, list[str]]:
    """Kill one activity so often; a row for reliability.json, and what went wrong."""
    activity, base = ACTIVITIES[name], root / name
    base.mkdir(parents=True)
    activity.prepare(base)
    whole, lasted, usual = [], [], set()
    for number in (0, 1):
        began = time.monotonic()
        status = end(start(activity, base, root / f"{name}-whole-{number}", number))
        lasted.append(time.monotonic() - began)
        if status not in activity.statuses:
            log = (root / f"{name}-whole-{number}" / "log.txt").read_text(errors="replace")
            raise SystemExit(f"{name} ends with {status} undisturbed:\n{log[-3000:]}")
        whole.append(outcome(root / f"{name}-whole-{number}"))
        usual |= set(left_over(root / f"{name}-whole-{number}", []))  # torch keeps a folder of its own
    wrong = [f"{name}: two undisturbed runs differ in {_difference(*whole)}"] if whole[0] != whole[1] else []
    rng = np.random.default_rng([seed, *name.encode()])
    moments, unhit = 0.95 * (np.arange(kills) + rng.random(kills)) / kills, 0
    stopped.clear()
    for number, moment in enumerate(rng.permutation(moments).tolist()):
        if stopped:
            kills = number
            break
        case = root / f"{name}-{number:03d}"
        began = time.monotonic()
        child = start(activity, base, case, number)
        alive = end_or_kill(child, began + moment * lasted[number % 2], everything=number % 4 >= 2)
        unhit += not alive
        faults = [f"half-written: {one}" for one in half_written(case, root / f"{name}-whole-0")]
        second = start(activity, base, case, number)
        status = end(second)
        if status not in activity.statuses:
            log = (case / "log.txt").read_text(errors="replace")
            faults.append(f"the second run ends with {status}: {log[-1500:]}")
        elif (made := outcome(case)) != whole[number % 2]:
            faults.append(f"the outcome differs: {_difference(made, whole[number % 2])}")
        stop = time.monotonic() + 20
        while (running := processes_of(case)) and time.monotonic() < stop:
            time.sleep(0.2)
        faults += [f"processes go on: {running}"] if running else []
        faults += [f"left: {one}" for one in left_over(case, [child, second]) if one not in usual]
        wrong += [f"{name}, kill {number} at {moment:.0%}: {fault}" for fault in faults]
        print(
            f"{name} {number + 1}/{kills} at {moment:.0%}{'' if alive else ' (had ended)'}:",
            faults or "ok",
            flush=True,
        )
        if not faults:
            shutil.rmtree(case)
    failed = len({fault.split(":")[0] for fault in wrong})
    hit = f"{kills - unhit} of {kills} kills met the command at work"
    row = {
        "name": f"faults.{name}", "what": f"SIGKILL of {activity.what}, run again: outcome, files, leftovers",
        "tried": kills, "failed": failed, "seed": seed,
        "value": round(float(np.mean(lasted)), 2), "unit": "s undisturbed", "note": hit,
    }  # fmt: skip
    return row, wrong


def end_or_kill(child: int, moment: float, everything: bool) -> bool:
    """Kill the command at a time of the monotonic clock; False where it had ended by then."""
    while (left := moment - time.monotonic()) > 0:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(min(left, 0.002))
    if os.waitpid(child, os.WNOHANG)[0]:
        return False
    _kill(child, everything)
    os.waitpid(child, 0)
    return True


def _difference(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))[:8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="of each activity")
    parser.add_argument("--only", nargs="+", choices=list(ACTIVITIES), default=list(ACTIVITIES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the cases; those with faults stay there")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
    began, rows, wrong = time.monotonic(), [], []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        for name in given.only:
            row, more = campaign(name, (given.keep or Path(folder)).absolute(), given.kills, given.seed)
            rows.append(row)
            wrong += more
            if given.kills >= 20:
                known = json.loads(OUT.read_text(encoding="utf-8"))["rows"] if OUT.is_file() else []
                kept = {one["name"]: one for one in [*known, *rows] if one["name"].startswith("faults.")}
                command = f"python benchmarks/faults.py --kills {given.kills} --seed {given.seed}"
                record("faults", list(kept.values()), command, time.monotonic() - began)
    print(json.dumps(rows, indent=1))
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
