"""Row counts of row groups in; the order of an epoch, shared out among ranks and workers, out.

The order of an epoch follows from the seed and its number alone. It is a line of row groups; a rank takes one stretch
of it, and each of its workers one stretch of that, so that a row group is read by one process, or by two where a
boundary falls into it. Within a stretch, rows are shuffled among `window` neighbouring row groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from augengine import rng


@dataclass(frozen=True)
class Part:
    """Who reads: worker `worker` of `workers` on rank `rank` of `world`."""

    rank: int = 0
    world: int = 1
    worker: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Order:
    """The order of all epochs.

    Attributes:
        counts: rows of each row group.
        shuffle: False keeps the order of the data.
        window: row groups among which rows are shuffled.
        even: every rank gets as many rows: those that are left over, fewer than there are ranks, are not read in
            this epoch. False reads all rows.
        batch_size: workers share out whole batches of so many rows, so that a rank has one smaller batch at most.
    """

    counts: tuple[int, ...]
    seed: int = 0
    shuffle: bool = True
    window: int = 8
    even: bool = True
    batch_size: int = 1

    @property
    def rows(self) -> int:
        """Of the data."""
        return sum(self.counts)

    def span(self, part: Part) -> tuple[int, int]:
        """Start and stop of a part's rows, in the line of an epoch."""
        share = self.rows // part.world
        cuts = [self.rows * n // part.world for n in (part.rank, part.rank + 1)]
        start, stop = (share * part.rank, share * (part.rank + 1)) if self.even else cuts
        batches = -(-(stop - start) // self.batch_size)
        first, last = (start + batches * n // part.workers * self.batch_size for n in (part.worker, part.worker + 1))
        return min(first, stop), min(last, stop)

    def windows(self, epoch: int, part: Part, skip: int = 0) -> Iterator[np.ndarray]:
        """The rows of a part, window by window: (row group, place among its wanted rows), int64 (rows, 2).

        Args:
            skip: leave out so many rows at the start; what follows is as it would have been.
        """
        start, stop = self.span(part)
        line, ends = self._line(epoch)
        for first in range(0, len(line), self.window):
            groups = line[first : first + self.window].tolist()
            begin = int(ends[first - 1]) if first else 0
            end = int(ends[first + len(groups) - 1])
            a, b = max(start, begin), min(stop, end)
            if a >= b:
                continue
            if skip >= b - a:
                skip -= b - a
                continue
            yield self._window(epoch, groups, begin, a, b)[skip:]
            skip = 0

    def _window(self, epoch: int, groups: Sequence[int], begin: int, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` of the line, which lie in some neighbouring groups, the first of which starts at
        `begin`."""
        rows = np.concatenate([np.stack([np.full(n, g), np.arange(n)], 1) for g in groups for n in [self.counts[g]]])
        rows = rows[start - begin : stop - begin]
        return rng.generator("rows", self.seed, epoch, start).permutation(rows, axis=0) if self.shuffle else rows

    def _line(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Row groups in the order of an epoch, and where in the line each of them ends."""
        return _line(self.counts, self.seed, epoch, self.shuffle)


@lru_cache(maxsize=4)
def _line(counts: tuple[int, ...], seed: int, epoch: int, shuffle: bool) -> tuple[np.ndarray, np.ndarray]:
    groups = np.arange(len(counts))
    if shuffle:
        groups = rng.generator("row groups", seed, epoch).permutation(len(counts))
    return groups, np.cumsum(np.asarray(counts)[groups])
