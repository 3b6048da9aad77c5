"""The images of a batch that one of several processes holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Share:
    """The images of a batch that this process holds: ``first``, ``first + step``, … of ``total``.

    The default is a process that holds them all.
    """

    first: int = 0
    step: int = 1
    total: int = 0

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Those of the batch's rows that are here."""
        return rows[self.first :: self.step]

    def draw(
        self,
        shape: tuple[int, ...],
        generator: Generator | None = None,
        axis: int = 0,
        kind: Callable[..., Tensor] = torch.rand,
    ) -> Tensor:
        """Random numbers of this shape, those that one process with the whole batch would have drawn.

        ``axis`` of the shape goes over the images that are here; ``kind``: torch.rand or torch.randn.
        """
        if self.step == 1:
            return kind(shape, generator=generator)
        whole = (*shape[:axis], self.total, *shape[axis + 1 :])
        return kind(whole, generator=generator)[(slice(None),) * axis + (slice(self.first, None, self.step),)]


ALL = Share()
