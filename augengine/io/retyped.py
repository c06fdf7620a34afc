"""A table of shards that another tool rewrote in; the same rows in the shards' own types, out.

pandas, Polars, DuckDB and Ray Data keep the values, but drop the file's metadata and change types: large binaries
become binaries, fixed lists lists, lists large lists, whole numbers with gaps fractions, columns without values nulls.
"""

from __future__ import annotations

import pyarrow as pa

from augengine.errors import DataError


def retyped(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """`table` with the columns that `schema` names in its types; others stay as they are.

    Raises:
        DataError: a column does not hold what its type can.
    """
    for n, field in enumerate(table.schema):
        if field.name in schema.names and field.type != (wanted := schema.field(field.name).type):
            column = _cast(table[field.name], wanted, f"{field.name} of type {field.type}", where)
            table = table.set_column(n, schema.field(field.name), column)
    return table


def _cast(column: pa.ChunkedArray, wanted: pa.DataType, found: str, where: str) -> pa.ChunkedArray:
    try:
        return column.cast(wanted)
    except pa.ArrowException:  # not every nested type has a cast, and none fills fields that are missing
        pass
    try:
        return pa.chunked_array([pa.array(column.to_pylist(), wanted)])
    except (pa.ArrowException, ValueError, TypeError):
        raise DataError(
            f"a shard that another tool rewrote must hold {wanted}",
            found=found,
            where=where,
            next_step="write it anew without changing its values, or make the data set anew",
        ) from None
