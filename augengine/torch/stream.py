"""Data sets of shards in; an iterable PyTorch data set that streams their rows, and resumes to the row, out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Unpack

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from augengine.errors import ConfigError, RunError
from augengine.rng import digest
from augengine.selection import Selected
from augengine.selection.request import Places
from augengine.torch.choice import Choice, chosen
from augengine.torch.groups import GroupRows, Groups
from augengine.torch.items import Item, Items
from augengine.torch.order import Order, Part, Replaced
from augengine.torch.rank import rank_and_world

_EPOCH, _ELSEWHERE = 0, 1


def replaced_of(selected: Selected) -> Replaced | None:
    """What a request's `balance` comes to in its rows."""
    kinds = [group.kinds for group in selected.groups if group.kinds is not None]
    return Replaced(np.concatenate(kinds), selected.request.augmented_per_real or 0) if kinds else None


class ShardStream(IterableDataset[Item]):
    """Rows of real and augmented data sets, row group by row group, once an epoch.

    Ranks and the workers of their loaders read disjoint rows, every rank as many. The order follows from `seed` and
    the epoch; call `set_epoch` before each, also where workers persist. `state_dict` says how far this process has
    come, and a stream that loads it goes on with the very next row; with several workers use
    `torchdata.stateful_dataloader.StatefulDataLoader`, which keeps a state for each.

    Args:
        seed: of the order.
        shuffle: False keeps the order of the data.
        window: row groups among which rows are shuffled. A worker holds so many in memory, a process without workers
            twice as many, since it reads the next ones beside.
        even: False reads the rows that are left over where ranks take equally many, so that ranks may differ by one.
        batch_size: that of the loader, so that workers share out whole batches.
        rank: of this process; None takes that of `torch.distributed`, or of torchrun's environment.
        world: the number of ranks; None as for `rank`.
        choice: which rows, and what the items are: see `augengine.torch.choice`, which says what may be raised, too.
    """

    def __init__(
        self,
        real: Places,
        augmented: Places = (),
        *,
        seed: int = 0,
        shuffle: bool = True,
        window: int = 8,
        even: bool = True,
        batch_size: int = 1,
        rank: int | None = None,
        world: int | None = None,
        **choice: Unpack[Choice],
    ) -> None:
        if (rank is None) != (world is None):
            raise ConfigError("rank and world belong together", found=f"rank {rank}, world {world}")
        self.selected, self.form = chosen(real, augmented, choice)
        counts = tuple(len(group) for group in self.selected.groups)
        self.order = Order(counts, seed, shuffle, window, even, batch_size, replaced_of(self.selected))
        self._given = None if rank is None or world is None else (rank, world)
        self._groups = Groups(self.selected)
        self._items = Items(self.selected, self.form)
        # Shared with the workers of a loader, so that those that persist learn of a new epoch.
        self._shared = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._row: int | None = None  # rows that this process has given in `_epoch`; None before the first
        self._epoch = 0
        self._resumed = False

    @property
    def channels(self) -> tuple[str, ...]:
        """Of every image, in order."""
        return self.selected.channels

    @property
    def label_names(self) -> tuple[str, ...]:
        """Code n + 1 of a label map is that of the n-th."""
        return self.selected.label_names

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next pass reads."""
        self._shared[_EPOCH] = epoch

    def __len__(self) -> int:
        """Rows of this rank in an epoch."""
        start, stop = self.order.span(Part(*self._rank()))
        return stop - start

    def __iter__(self) -> Iterator[Item]:
        # What is read is settled here and not at the first row: a state may be asked for in between.
        part = self._part()
        if get_worker_info() is not None:
            self._shared[_ELSEWHERE] = 1
        if not self._resumed:
            self._epoch, self._row = int(self._shared[_EPOCH]), 0
        self._resumed = False
        return self._read(part, self._epoch, self._row or 0)

    def _read(self, part: Part, epoch: int, row: int) -> Iterator[Item]:
        for window, held in self._windows(part, epoch, row):
            left = np.bincount(window[:, 0])
            for group, place in window.tolist():
                item = self._items(held[group][place])
                left[group] -= 1
                if not left[group]:
                    del held[group]
                row += 1
                self._row = row
                yield item

    def _windows(self, part: Part, epoch: int, row: int) -> Iterator[tuple[np.ndarray, dict[int, GroupRows]]]:
        """Windows of rows with their row groups; outside a worker, the next is read while one is given."""

        def load(window: np.ndarray) -> dict[int, GroupRows]:
            return {group: self._groups.load(group) for group in np.unique(window[:, 0]).tolist()}

        windows = self.order.windows(epoch, part, row)
        if get_worker_info() is not None:
            yield from ((window, load(window)) for window in windows)
            return
        with ThreadPoolExecutor(1) as thread:
            waiting: deque[tuple[np.ndarray, Future[dict[int, GroupRows]]]] = deque()
            for window in windows:
                waiting.append((window, thread.submit(load, window)))
                if len(waiting) == 2:
                    first, loaded = waiting.popleft()
                    yield first, loaded.result()
            for last, loaded in waiting:
                yield last, loaded.result()

    def state_dict(self) -> dict[str, Any]:
        """Where this process stands: epoch and rows of it that were given, and of what order.

        Raises:
            RunError: the rows are read by workers of a loader, and this process does not know how far they are.
        """
        if self._row is None and bool(self._shared[_ELSEWHERE]) and get_worker_info() is None:
            raise RunError(
                "the workers of the loader know how far they are, this process does not",
                next_step="load by torchdata.stateful_dataloader.StatefulDataLoader, and save its state_dict",
            )
        epoch = int(self._shared[_EPOCH]) if self._row is None else self._epoch
        return {"epoch": epoch, "row": self._row or 0, "order": self._identity(self._part())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken, whatever `set_epoch` said before.

        Raises:
            RunError: a state of other rows, of another order, or of another number of ranks or workers.
        """
        expected = self._identity(self._part())
        if state["order"] != expected:
            raise RunError(
                "a state belongs to the same rows, seed, window, batch size, rank and workers that it was taken with",
                found=f"order {state['order']}, not {expected}",
                next_step="resume with what the run began with",
            )
        self._epoch, self._row, self._resumed = int(state["epoch"]), int(state["row"]), True
        self._shared[_EPOCH] = self._epoch

    def _identity(self, part: Part) -> str:
        order = self.order
        settings: tuple[object, ...] = (order.seed, order.shuffle, order.window, order.even, order.batch_size)
        if order.replaced is not None:
            settings = (*settings, order.replaced.share, digest(order.replaced.kinds.tolist()))
        return digest(self.selected.ids, order.counts, settings, (part.rank, part.world, part.worker, part.workers))

    def _rank(self) -> tuple[int, int]:
        return self._given or rank_and_world()

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is spawned knows nothing of the process group.
        known = rank_and_world() if torch.distributed.is_available() and torch.distributed.is_initialized() else None
        return {**self.__dict__, "_given": self._given or known}

    def _part(self) -> Part:
        info = get_worker_info()
        return Part(*self._rank(), *((info.id, info.num_workers) if info else (0, 1)))
