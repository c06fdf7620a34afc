"""The shards of a data set in; their row groups, as tables of wanted columns, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from augengine.io.commits import sample_files
from augengine.io.shards import SCHEMA, check_schema
from augengine.io.store import Store


def shards(store: Store) -> list[str]:
    """Names of the files that hold a data set's rows."""
    return sample_files(store)


def open_shard(store: Store, name: str) -> pq.ParquetFile:
    """A shard, open; one that is none is a `DataError`."""
    file = store.parquet(name)
    check_schema(file, store.path(name))
    return file


def read_columns(file: pq.ParquetFile, group: int, columns: Sequence[str] | None = None) -> pa.Table:
    """A row group in the present schema; None reads every column."""
    there = [c for c in columns or SCHEMA.names if c in file.schema_arrow.names]
    return file.read_row_group(group, columns=there)


def row_groups(store: Store) -> Iterator[tuple[str, int, pq.ParquetFile]]:
    """Every row group of a data set: shard, number within it, and the open file."""
    for name in shards(store):
        file = open_shard(store, name)
        for group in range(file.num_row_groups):
            yield name, group, file


def rows_of(table: pa.Table, places: Sequence[int]) -> list[dict[str, Any]]:
    """Some rows of a table as Python values."""
    return [dict(row) for row in table.take(pa.array(places, pa.int64())).to_pylist()]


def has_labels(file: pq.ParquetFile, group: int) -> list[bool]:
    """Whether each row of a row group has a label map.

    The file's statistics say so where all have one, or none; else the label maps are read.
    """
    about = file.metadata.row_group(group)
    columns = [about.column(n) for n in range(about.num_columns)]
    statistics = next(column.statistics for column in columns if column.path_in_schema == "label")
    if statistics is not None and statistics.has_null_count and statistics.null_count in (0, about.num_rows):
        return [statistics.null_count == 0] * about.num_rows
    valid: list[bool] = file.read_row_group(group, columns=["label"])["label"].is_valid().to_pylist()
    return valid
