"""Several audits side by side, whose p-values are corrected together."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

import numpy as np

from cxrlib.studies.study_stats import holm

T = TypeVar("T")
Steps = Generator[list[float], np.ndarray, T]
"""A computation that yields p-values, is sent them corrected, goes on with those, and ends with a result."""


def together(many: Sequence[Steps[T]]) -> list[T]:
    """Run computations to their ends; what all yield at the same step is corrected together, by Holm."""
    waiting = {number: next(one) for number, one in enumerate(many)}
    results: dict[int, T] = {}
    while waiting:
        corrected = iter(holm([p for asked in waiting.values() for p in asked]))
        for number, asked in list(waiting.items()):
            mine = np.array([next(corrected) for _ in asked])
            try:
                waiting[number] = many[number].send(mine)
            except StopIteration as end:
                results[number] = end.value
                del waiting[number]
    return [results[number] for number in range(len(many))]


def alone(steps: Steps[T]) -> T:
    """The result of one computation, corrected for itself."""
    return together([steps])[0]
