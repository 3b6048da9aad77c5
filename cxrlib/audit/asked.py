"""An audit's questions, asked in several processes where that pays, and their answers, which are kept.

A process reads what it needs by itself, and features of a view are never in memory whole. Nothing depends on
the number of processes.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cxrlib.audit.features import Kept, Rows
from cxrlib.audit.ridge import COMPONENTS, ROWS
from cxrlib.audit.stats import Held, held_out
from cxrlib.errors import CxrWarning, DataError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.io.storage import atomic_path, read_arrays
from cxrlib.parallel import run_jobs

SMALL = 2000  # images, below which processes take as long to start as they save
T = TypeVar("T")


class Blocks:
    """Features (N, D) that lie in chunks on disk, in blocks of as many rows whatever the chunks."""

    def __init__(self, kept: Kept, name: str, rows: np.ndarray | None):
        self.kept, self.name, self.rows = kept, name, rows

    def __iter__(self) -> Iterator[np.ndarray]:
        waiting: list[np.ndarray] = []
        start = 0
        for part in self.kept.parts(self.name):
            end = start + len(part)
            if self.rows is not None:
                first, last = np.searchsorted(self.rows, (start, end))
                part = part[self.rows[first:last] - start]
            waiting.append(part)
            start = end
            while sum(map(len, waiting)) >= ROWS:
                ready = np.concatenate(waiting)
                waiting = [ready[ROWS:]]
                yield ready[:ROWS]
        if sum(map(len, waiting)):
            yield np.concatenate(waiting)


def blocks(features: Mapping[str, np.ndarray], name: str) -> np.ndarray | Blocks:
    """Features of :func:`cxrlib.audit.features.describe` in blocks of rows, or as they are if at hand."""
    features = _owner(features, name)
    rows, kept = (features.rows, features.features) if isinstance(features, Rows) else (None, features)
    if isinstance(kept, Kept) and (rows is None or (np.diff(rows) > 0).all()):
        return Blocks(kept, name, rows)
    return features[name]


def taken(features: np.ndarray | Iterable[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Some rows, ascending, of an array or of blocks."""
    if isinstance(features, np.ndarray):
        return features[rows]
    found, start = [], 0
    for part in features:
        first, last = np.searchsorted(rows, (start, start + len(part)))
        found.append(part[rows[first:last] - start])
        start += len(part)
    return np.concatenate(found)


def _owner(features: Mapping[str, np.ndarray], name: str) -> Mapping[str, np.ndarray]:
    """The least that holds features of this name, since what another process is given is copied."""
    if isinstance(features, ChainMap):
        return _owner(next(one for one in features.maps if name in one), name)
    if isinstance(features, Rows):
        return Rows(_owner(features.features, name), features.rows)
    return features if isinstance(features, Kept) else {name: features[name]}


class Shown:
    """What a probe is shown, made when it is called, in whichever process."""

    def __init__(
        self,
        features: Mapping[str, np.ndarray],
        name: str,
        shaped: Callable[[str, np.ndarray], np.ndarray] | None = None,
    ):
        self.features, self.name, self.shaped = _owner(features, name), name, shaped

    def __call__(self) -> np.ndarray | Blocks:
        if self.shaped is None:
            return blocks(self.features, self.name)
        return self.shaped(self.name, self.features[self.name])


@dataclass(frozen=True, eq=False)
class Asking:
    """A question: the name that it is kept by; what is to be told, 0/1 of each of ``rows``, ascending."""

    name: str
    target: np.ndarray
    permutations: int
    rows: np.ndarray | None = None
    components: int | None = COMPONENTS


Made = Callable[[], "np.ndarray | Iterable[np.ndarray]"]


def ask(
    questions: Sequence[tuple[Made, Sequence[Asking]]],
    patients: np.ndarray,
    *,
    work: Path | None,
    seed: int,
    workers: int | None,
    done: Callable[[int], object] = lambda _: None,
    beside: Sequence[tuple] = (),
) -> dict[str, tuple[Any, bool]]:
    """By name what is told from features by :func:`held_out`, a Held or a DataError, or was before; and
    whether it was.

    - ``questions``: how features are made, and all that is asked of them.
    - ``work``: where answers are kept; None: nowhere. ``done`` is called with how many more are there.
    - ``beside``: other jobs, functions and what they are given, that return answers of theirs by name.
    """
    found: dict[str, tuple[Any, bool]] = {}
    jobs = list(beside)
    for made, asked in questions:
        left = []
        for one in asked:
            if work is not None and (kept := read_held(_file(work, one.name))) is not None:
                found[one.name] = kept, True
                done(1)
            else:
                left.append(one)
        if left:
            jobs.append((_answers, made, left, patients, seed, work))
    for answers in each(jobs, workers, len(patients)):
        found |= {name: (held, False) for name, held in answers.items()}
        done(len(answers))
    return found


def each(jobs: Sequence[tuple], workers: int | None, images: int) -> Iterator[Any]:
    """What each job, a function and what it is given, returns, as they end; warnings are given here."""
    asked = [(function, given) for function, *given in jobs]
    for result, said in run_jobs(_heard, asked, workers, small=images < SMALL):
        for message in said:
            warnings.warn(message, CxrWarning, stacklevel=2)
        yield result


def _heard(function: Callable[..., T], given: Sequence) -> tuple[T, list[str]]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", CxrWarning)
        result = function(*given)
    return result, [str(one.message) for one in heard if issubclass(one.category, CxrWarning)]


def _answers(
    made: Made, asked: Sequence[Asking], patients: np.ndarray, seed: int, work: Path | None
) -> dict[str, Held | DataError]:
    features, found = made(), dict[str, "Held | DataError"]()
    rows = [one.rows for one in asked if one.rows is not None]
    if len(rows) == len(asked):  # once through what lies on disk
        needed = np.unique(np.concatenate(rows))
        features = taken(features, needed)
    for one in asked:
        part, people = features, patients
        if one.rows is not None:
            assert isinstance(features, np.ndarray)
            part, people = features[np.searchsorted(needed, one.rows)], patients[one.rows]
        try:
            held = held_out(
                part, one.target, people, seed=seed, permutations=one.permutations, components=one.components
            )
        except DataError as error:  # too few patients to hold any out
            found[one.name] = error
            continue
        found[one.name] = held
        if work is not None:
            write_held(_file(work, one.name), held)
    return found


def _file(work: Path, name: str) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]  # a column's name may be no file's
    return work / f"probe-{digest}.npz"


def write_held(file: Path, held: Held) -> None:
    auc = held.auc
    numbers = np.asarray([auc.value, auc.low, auc.high, auc.n, held.p_value])
    with atomic_path(file) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, numbers=numbers, scores=held.scores)


def read_held(file: Path) -> Held | None:
    """What was kept, or None if it is not there or damaged."""
    if (stored := read_arrays(file)) is None:
        return None
    try:
        value, low, high, n, p = stored["numbers"].tolist()
        return Held(Estimate(value, low, high, int(n)), p, stored["scores"])
    except (ValueError, KeyError, TypeError, OverflowError):  # whole, but of something else
        return None
