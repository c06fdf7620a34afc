"""Row counts of row groups in; the order of an epoch, shared out among ranks and workers, out.

The order of an epoch follows from the seed and its number alone. It is a line of row groups; a rank takes one stretch
of it, and each of its workers one stretch of that, so that a row group is read by one process, or by two where a
boundary falls into it. Within a stretch, rows are shuffled among `window` neighbouring row groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from augengine import rng
from augengine.selection.balance import left_out


@dataclass(frozen=True)
class Part:
    """Who reads: worker `worker` of `workers` on rank `rank` of `world`."""

    rank: int = 0
    world: int = 1
    worker: int = 0
    workers: int = 1


@dataclass(frozen=True, eq=False)
class Replaced:
    """Real rows that give way to augmented ones, in every epoch others (`augengine.selection.balance`).

    Attributes:
        kinds: of all rows of all groups, in order; uint8 (rows,).
        share: of the real rows of each kind.
    """

    kinds: np.ndarray
    share: float

    def places(self, counts: Sequence[int], seed: int, epoch: int) -> list[np.ndarray]:
        """Of each row group the places that an epoch reads, rising."""
        kept = np.ones(len(self.kinds), bool)
        kept[left_out(self.kinds, self.share, seed, epoch)] = False
        return [np.flatnonzero(of_group) for of_group in np.split(kept, np.cumsum(counts)[:-1])]


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
        replaced: which rows give way to others; None reads all rows in every epoch.
    """

    counts: tuple[int, ...]
    seed: int = 0
    shuffle: bool = True
    window: int = 8
    even: bool = True
    batch_size: int = 1
    replaced: Replaced | None = None

    @cached_property
    def rows(self) -> int:
        """Of an epoch, of all ranks."""
        return sum(map(len, self._places(0)))

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
        places = self._places(epoch)
        rows = np.concatenate([np.stack([np.full(len(places[g]), g), places[g]], 1) for g in groups])
        rows = rows[start - begin : stop - begin]
        return rng.generator("rows", self.seed, epoch, start).permutation(rows, axis=0) if self.shuffle else rows

    def _line(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Row groups in the order of an epoch, and where in the line each of them ends."""
        groups = np.arange(len(self.counts))
        if self.shuffle:
            groups = rng.generator("row groups", self.seed, epoch).permutation(len(self.counts))
        return groups, np.cumsum(np.array([len(places) for places in self._places(epoch)])[groups])

    def _places(self, epoch: int) -> Sequence[np.ndarray]:
        """Of each row group the places that an epoch reads, rising."""
        return _places(self.counts, self.replaced, self.seed, epoch if self.replaced else 0)


@lru_cache(maxsize=4)
def _places(counts: tuple[int, ...], replaced: Replaced | None, seed: int, epoch: int) -> Sequence[np.ndarray]:
    if replaced is None:
        return [np.arange(count) for count in counts]
    return replaced.places(counts, seed, epoch)
