"""Row groups of a selection in; their rows, as the shards hold them, out; what is in memory has a bound.

A row group is kept as it comes from the file, decompressed: pixels as stored (uint16 rather than float32). A reader
holds 16 open files at most. Another process that got it by fork or by pickle opens its own and starts with nothing.
"""

from __future__ import annotations

import copy
import os
import threading
import warnings
from collections import OrderedDict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from augengine.io.shards import read_group
from augengine.io.store import Store
from augengine.selection import Group, Selected
from augengine.selection.reading import open_shard

_OPEN_FILES = 16
_PATIENCE, _WASTE = 64, 8
_PIXELS = ("image", "label", "label_confidence")
# What items are made of: not what would be parsed for nothing, such as provenance.
_COLUMNS = [
    "sample_id",
    "subject_id",
    "volume_id",
    "slice_index",
    "site",
    "split",
    "synthetic",
    "parent_id",
    "policy",
    "channels",
    *_PIXELS,
    "image_dtype",
    "image_shape",
    "label_names",
    "label_codes",
    "affine",
    "intensity_low",
    "intensity_high",
]


class _PlainMemory:
    """While one is entered, Arrow takes memory from the C library, which grows a buffer without copying it.

    Arrow's own pool copies the pixels of a row group several times as they are decoded, each time into fresh pages,
    which takes as long as decoding. Every buffer goes back to the pool that it came from, so that other threads, which
    may meet either pool, lose nothing.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, pa.default_memory_pool()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = pa.default_memory_pool()
                pa.set_memory_pool(pa.system_memory_pool())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                pa.set_memory_pool(self._before)


_PLAIN_MEMORY = _PlainMemory()
if hasattr(os, "register_at_fork"):  # a thread that does not exist in the child may have held the lock
    os.register_at_fork(after_in_child=lambda: _PLAIN_MEMORY.__init__())  # type: ignore[misc]


class GroupRows:
    """The wanted rows of one row group, in memory."""

    def __init__(self, table: pa.Table, places: np.ndarray) -> None:
        self.nbytes = int(table.nbytes)
        self._pixels = {name: _Binaries(table[name]) for name in _PIXELS}
        self._rest: list[dict[str, Any]] = table.drop_columns(list(_PIXELS)).to_pylist()
        self._places = places

    def __getitem__(self, n: int) -> dict[str, Any]:
        """The n-th wanted row; pixels share memory with the group."""
        place = int(self._places[n])
        return {**self._rest[place], **{name: column[place] for name, column in self._pixels.items()}}


class _Binaries:
    """Values of a column of binaries, None where there is none, without a copy."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # the latter copies
        self._there = whole.is_valid().to_pylist()
        _, starts, self._content = whole.buffers()
        self._starts = np.frombuffer(starts, np.int64)[whole.offset :]

    def __getitem__(self, place: int) -> pa.Buffer | None:
        start, stop = self._starts[place : place + 2].tolist()
        return self._content.slice(start, stop - start) if self._there[place] else None


class Groups:
    """Random access to the row groups of a selection.

    Args:
        limit: bytes; beyond it the least recently used groups go, all but one.
    """

    def __init__(self, selected: Selected, limit: int = 0) -> None:
        self.selected, self.limit = selected, limit
        self._reads = self._rows_read = self._given = 0
        self._forget()

    def __getitem__(self, index: int) -> GroupRows:
        """The rows of the group with this number among `selected.groups`."""
        if index in self._rows and self._pid == os.getpid():
            self._rows.move_to_end(index)
            self._given += 1
            return self._rows[index]
        group = self.selected.groups[index]
        rows = self.load(index)
        self._reads, self._rows_read, self._given = self._reads + 1, self._rows_read + len(group), self._given + 1
        if self._reads == _PATIENCE and self._rows_read > _WASTE * self._given:
            warnings.warn(
                f"{self._rows_read} rows were read to give {self._given}: rows are asked for in no order, and the "
                "cache holds few of their row groups; pass sampler=data.sampler(), use ShardStream, or raise cache_mb",
                RuntimeWarning,
                stacklevel=4,
            )
        self._rows[index] = rows
        self.nbytes += rows.nbytes
        while self.nbytes > self.limit and len(self._rows) > 1:
            self.nbytes -= self._rows.popitem(last=False)[1].nbytes
        return rows

    def load(self, index: int) -> GroupRows:
        """Read a group; it is not kept."""
        if self._pid != os.getpid():  # a fork must not share file positions and connections with its parent
            self._forget()
        return self._read(self.selected.groups[index])

    def _read(self, group: Group) -> GroupRows:
        key = (group.source, group.name)
        if key not in self._files:
            self._files[key] = open_shard(self._store(group.source), group.name)
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(key)
        with _PLAIN_MEMORY:
            return GroupRows(read_group(self._files[key], group.group, _COLUMNS), group.rows)

    def _store(self, source: int) -> Store:
        if source not in self._stores:  # a copy connects anew
            self._stores[source] = copy.copy(self.selected.sources[source])
        return self._stores[source]

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._stores: dict[int, Store] = {}
        self._rows: OrderedDict[int, GroupRows] = OrderedDict()
        self._files: OrderedDict[tuple[int, str], pq.ParquetFile] = OrderedDict()
        self.nbytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"selected": self.selected, "limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["selected"], state["limit"])  # type: ignore[misc]
