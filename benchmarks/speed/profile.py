"""Where the time of a training step goes, and which number of workers suits a DataLoader."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from cxrlib.training.recipes import recipe

WORKERS = (0, 1, 2)


def parts_of_a_step(
    model: str, images: np.ndarray, threads: int, repeats: int, batch: int = 64
) -> dict[str, float]:
    """Milliseconds a batch, medians over steps.

    ``gather`` takes the batch from the cache and makes it float, ``move`` and ``expose`` augment,
    ``forward``, ``backward`` and ``step`` are the network's and the optimiser's.

    ``images``: uint8, (N, H, W).
    """
    from cxrlib.training.models import build

    config = recipe(model, "full")
    augment = config.augment
    assert augment is not None  # every recipe has one
    made = build(model, width=config.width, dropout=config.dropout, image_size=images.shape[1]).train()
    optimizer = torch.optim.AdamW(made.parameters(), config.learning_rate)
    targets = torch.arange(batch).remainder(2).float()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    spent: dict[str, list[float]] = defaultdict(list)
    try:
        for turn in range(repeats + 1):
            clock = _Clock(spent if turn else defaultdict(list))  # the first turn warms up
            rows = np.sort(np.random.default_rng(turn).integers(0, len(images), batch))
            x = torch.from_numpy(np.ascontiguousarray(images[rows])).unsqueeze(1).float()
            clock("gather")
            draws = torch.rand(12, batch, generator=torch.Generator().manual_seed(turn))
            x = augment._move(x, draws[:5])
            clock("move")
            x = augment._expose(x, draws[5:8]).clamp(0, 255)
            clock("expose")
            loss = F.binary_cross_entropy_with_logits(made(x), targets)
            clock("forward")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            clock("backward")
            optimizer.step()
            clock("step")
    finally:
        torch.set_num_threads(before)
    return {part: round(float(np.median(times)), 2) for part, times in spent.items()}


def best_workers(passes: Callable[[int], Callable[[], float]]) -> tuple[Callable[[], float], int]:
    """The quickest of 0, 1 and 2 workers: ``passes(workers)`` gives what runs an epoch and returns its rate.

    The second epoch of each counts; in the first, workers start.
    """
    found = {}
    for workers in WORKERS:
        epoch = passes(workers)
        epoch()
        found[workers] = (epoch(), epoch)
        slowest = min(found, key=lambda n: found[n][0])
        if len(found) > 1:
            del found[slowest]  # its workers end with its loader
    (workers, (_, epoch)) = found.popitem()
    return epoch, workers


class _Clock:
    """Adds the milliseconds since the last call to a part's list."""

    def __init__(self, spent: dict[str, list[float]]):
        self.spent, self.last = spent, time.perf_counter()

    def __call__(self, part: str) -> None:
        now = time.perf_counter()
        self.spent[part].append(1e3 * (now - self.last))
        self.last = now
