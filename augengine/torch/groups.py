"""Row groups of a selection in; their rows, as the shards hold them, out; what is in memory has a bound.

A row group is kept as it comes from the file, decompressed: pixels as stored (uint16 rather than float32). A reader
holds 16 open files at most. Another process that got it by fork or by pickle opens its own and starts with nothing.
"""

from __future__ import annotations

import copy
import os
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
_PIXELS = ("image", "label", "label_confidence")


class Rows:
    """The wanted rows of one row group, in memory."""

    def __init__(self, table: pa.Table, places: np.ndarray) -> None:
        self.nbytes = int(table.nbytes)
        self._pixels = {name: table[name].combine_chunks() for name in _PIXELS if name in table.column_names}
        rest = table.drop_columns([name for name in _PIXELS if name in table.column_names])
        self._rest: list[dict[str, Any]] = rest.to_pylist()
        self._places = places

    def __getitem__(self, n: int) -> dict[str, Any]:
        """The n-th wanted row; pixels are buffers that share memory with the group."""
        place = int(self._places[n])
        pixels = {name: column[place].as_buffer() for name, column in self._pixels.items()}
        return {**self._rest[place], **pixels}


class Groups:
    """Random access to the row groups of a selection.

    Args:
        limit: bytes; beyond it the least recently used groups go, all but one. None keeps them until they are dropped.
    """

    def __init__(self, selected: Selected, limit: int | None = None) -> None:
        self.selected, self.limit = selected, limit
        self._forget()

    def __getitem__(self, index: int) -> Rows:
        """The rows of the group with this number among `selected.groups`."""
        if self._pid != os.getpid():  # a fork must not share file positions and connections with its parent
            self._forget()
        if index in self._rows:
            self._rows.move_to_end(index)
            return self._rows[index]
        rows = self._read(self.selected.groups[index])
        self._rows[index] = rows
        self.nbytes += rows.nbytes
        while self.limit is not None and self.nbytes > self.limit and len(self._rows) > 1:
            self.nbytes -= self._rows.popitem(last=False)[1].nbytes
        return rows

    def drop(self, index: int) -> None:
        """Free a group that will not be asked for soon."""
        if index in self._rows:
            self.nbytes -= self._rows.pop(index).nbytes

    def clear(self) -> None:
        """Free all groups."""
        self._rows.clear()
        self.nbytes = 0

    def _read(self, group: Group) -> Rows:
        key = (group.source, group.name)
        if key not in self._files:
            self._files[key] = open_shard(self._store(group.source), group.name)
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(key)
        return Rows(read_group(self._files[key], group.group), group.rows)

    def _store(self, source: int) -> Store:
        if source not in self._stores:  # a copy connects anew
            self._stores[source] = copy.copy(self.selected.sources[source])
        return self._stores[source]

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._stores: dict[int, Store] = {}
        self._rows: OrderedDict[int, Rows] = OrderedDict()
        self._files: OrderedDict[tuple[int, str], pq.ParquetFile] = OrderedDict()
        self.nbytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"selected": self.selected, "limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.selected, self.limit = state["selected"], state["limit"]
        self._forget()
