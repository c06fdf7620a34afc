"""A table of rows in; groups of rows that differ in nothing but id, place in the volume and file out.

The slices of a volume say the same of themselves, tens to hundreds of times. Whoever asks what rows are, and not which,
looks at one of each kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augengine.io.row_problems import SPACING_MM
from augengine.io.shards import METADATA_COLUMNS

OWN = ("slice_index", "slab_end_mm", "provenance", "parent_id", "policy", "replicate", "site")
"""Columns that are not looked at: of the row alone, or of where it came from."""
KIND_COLUMNS = [name for name in METADATA_COLUMNS if name not in OWN]
_MARGIN = 1.01


@dataclass(frozen=True)
class Kind:
    """Rows of a table that are alike.

    Attributes:
        row: values of the first of them, without `OWN`, and `labelled`.
        places: int (N,), which rows of the table they are, rising.
    """

    row: dict[str, Any]
    places: np.ndarray


def kinds(table: pa.Table, labelled: np.ndarray) -> list[Kind]:
    """The kinds of a table's rows, in the order of their last rows.

    Rows whose id or geometry may break a rule (`augengine.io.row_problems`) are each of a kind of their own.

    Args:
        table: with `KIND_COLUMNS`.
        labelled: bool (N,), which rows have a label map.
    """
    if not len(table):
        return []
    table = table.combine_chunks()
    codes = [labelled.astype(np.int64), _suspect(table)]
    for name in KIND_COLUMNS:
        if name not in ("sample_id", "affine"):
            codes += _codes(table[name].chunk(0))
    _, first, kind = np.unique(_joined(codes), return_index=True, return_inverse=True)
    rows = table.take(_indices(first)).to_pylist()
    order = np.argsort(kind, kind="stable")
    places = np.split(order, np.cumsum(np.bincount(kind))[:-1])
    found = [Kind({**row, "labelled": bool(labelled[n])}, of) for row, n, of in zip(rows, first, places, strict=True)]
    return sorted(found, key=lambda one: int(one.places[-1]))


def _joined(codes: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) integers that are equal where all the codes are."""
    joined = np.zeros(len(codes[0]), np.int64)
    for code in codes:
        low, high = int(code.min()), int(code.max())
        if low == high:
            continue
        if (int(joined.max()) + 1) * (high - low + 1) >= 2**62:
            joined = np.unique(joined, return_inverse=True)[1].astype(np.int64)
        joined = joined * (high - low + 1) + (code - low)
    return joined


def _suspect(table: pa.Table) -> np.ndarray:
    """(N,) 0 for rows with an id and a sound geometry, else a number of the row's own."""
    ids, affine = table["sample_id"].chunk(0), table["affine"].chunk(0)
    named = _lengths(pc.binary_length(ids)) > 0
    own = np.arange(1, len(table) + 1)
    if affine.null_count or affine.values.null_count or (_lengths(affine.value_lengths()) != 16).any():
        return own
    matrices = _numbers(affine.flatten()).reshape(-1, 4, 4)
    spacing = np.sqrt(sum(matrices[:, n, :3] ** 2 for n in range(3)))
    low, high = SPACING_MM
    sound = np.isfinite(matrices).all((1, 2)) & (spacing > low * _MARGIN).all(1) & (spacing < high / _MARGIN).all(1)
    return np.where(named & sound, 0, own)


# `pa.array`, `to_numpy` and whatever takes a Python value import pandas where it is installed: a third of a second.


def _indices(numbers: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers.astype(np.int64))])


def _numbers(array: pa.Array) -> np.ndarray:
    """Numbers; anything where there is null."""
    plain = pa.Array.from_buffers(array.type, len(array), [None, array.buffers()[1]], offset=array.offset)
    return np.from_dlpack(plain)


def _null(array: pa.Array) -> np.ndarray:
    """bool (N,): where there is null."""
    return np.from_dlpack(array.is_null().cast(pa.uint8())).astype(bool)


def _lengths(lengths: pa.Array) -> np.ndarray:
    """(N,) integers; -1 for null."""
    return np.where(_null(lengths), -1, _numbers(lengths)).astype(np.int64)


def _codes(column: pa.Array) -> Iterator[np.ndarray]:
    """Columns of integers, equal in two rows if, and only if, the values are; NaN equals NaN."""
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    if pa.types.is_struct(column.type):
        yield _null(column).astype(np.int64)
        for child in column.flatten():
            yield from _codes(child)
    elif pa.types.is_list(column.type):
        lengths = _lengths(column.value_lengths())
        yield lengths
        longest = max(int(lengths.max()), 0)
        there = np.arange(longest) < lengths[:, None]
        for code in _codes(column.flatten()):
            spread = np.full(there.shape, -1, np.int64)
            spread[there] = code
            yield from spread.T
    else:
        encoded = column.dictionary_encode(null_encoding="encode")
        yield _numbers(encoded.indices).astype(np.int64)
