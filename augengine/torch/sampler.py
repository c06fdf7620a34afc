"""Row counts of row groups in; shuffled indices that read each row group once an epoch, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from augengine.torch.order import Order, Part
from augengine.torch.rank import rank_and_world


class WindowSampler(Sampler[int]):
    """Indices of a `ShardDataset`, shuffled among `window` row groups at a time.

    A cache that holds a window reads every row group once an epoch, where a full shuffle reads one for nearly every
    row. Ranks of a distributed run take disjoint, equally many rows; the few that are left over wait for another epoch.
    """

    def __init__(self, counts: Sequence[int], seed: int = 0, window: int = 8) -> None:
        self.order = Order(tuple(counts), seed, window=window)
        self.starts = np.cumsum([0, *counts])[:-1]
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Each epoch has an order of its own."""
        self.epoch = epoch

    def __len__(self) -> int:
        start, stop = self.order.span(self._part())
        return stop - start

    def __iter__(self) -> Iterator[int]:
        for window in self.order.windows(self.epoch, self._part()):
            yield from (self.starts[window[:, 0]] + window[:, 1]).tolist()

    def _part(self) -> Part:
        return Part(*rank_and_world())
