"""The shards of a data set in; their row groups, as tables of wanted columns, out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from augengine.io.dataset import dataset_files
from augengine.io.shards import check_schema, read_group
from augengine.io.store import Store


def open_shard(store: Store, name: str) -> pq.ParquetFile:
    """A shard, open; one that is none is a `DataError`."""
    file = store.parquet(name)
    check_schema(file, store.path(name))
    return file


@dataclass(frozen=True, eq=False)
class Metadata:
    """A row group without its pixels.

    Attributes:
        nbytes: of all its columns, decompressed.
    """

    name: str
    group: int
    file: pq.ParquetFile
    rows: pa.Table
    nbytes: int


def metadata(store: Store, columns: Sequence[str]) -> Iterator[Metadata]:
    """Every row group of a data set with some of its columns; a few files are read ahead."""

    def read(name: str) -> list[Metadata]:
        file = open_shard(store, name)
        sizes = [file.metadata.row_group(n).total_byte_size for n in range(file.num_row_groups)]
        return [Metadata(name, n, file, read_group(file, n, columns), size) for n, size in enumerate(sizes)]

    # A distant file costs the time of its requests, a near one that of its rows.
    ahead = 1 if store.local else 16
    with ThreadPoolExecutor(ahead) as pool:
        waiting: deque[Future[list[Metadata]]] = deque()
        for name in dataset_files(store):
            waiting.append(pool.submit(read, name))
            if len(waiting) > ahead:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def row_groups(store: Store) -> Iterator[tuple[str, int, pq.ParquetFile]]:
    """Every row group of a data set: shard, number within it, and the open file."""
    for name in dataset_files(store):
        file = open_shard(store, name)
        for group in range(file.num_row_groups):
            yield name, group, file


def rows_of(table: pa.Table, places: Sequence[int]) -> list[dict[str, Any]]:
    """Some rows of a table as Python values."""
    return [dict(row) for row in table.take(pa.array(places, pa.int64())).to_pylist()]
