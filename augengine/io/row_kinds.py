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

OWN = ("slice_index", "provenance", "parent_id", "policy", "replicate", "site")
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
    rows = table.take(pa.array(first)).to_pylist()
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
    named = pc.fill_null(pc.not_equal(ids, ""), False).to_numpy(zero_copy_only=False)
    own = np.arange(1, len(table) + 1)
    if affine.null_count or affine.values.null_count or (affine.value_lengths().to_numpy() != 16).any():
        return own
    matrices = affine.flatten().to_numpy().reshape(-1, 4, 4)
    spacing = np.linalg.norm(matrices[:, :3, :3], axis=1)
    low, high = SPACING_MM
    sound = np.isfinite(matrices).all((1, 2)) & (spacing > low * _MARGIN).all(1) & (spacing < high / _MARGIN).all(1)
    return np.where(named & sound, 0, own)


def _codes(column: pa.Array) -> Iterator[np.ndarray]:
    """Columns of integers, equal in two rows if, and only if, the values are; NaN equals NaN."""
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    if pa.types.is_struct(column.type):
        yield column.is_null().to_numpy(zero_copy_only=False).astype(np.int64)
        for child in column.flatten():
            yield from _codes(child)
    elif pa.types.is_list(column.type):
        lengths = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
        yield lengths.astype(np.int64)
        longest = max(int(lengths.max()), 0)
        there = np.arange(longest) < lengths[:, None]
        for code in _codes(column.flatten()):
            spread = np.full(there.shape, -1, np.int64)
            spread[there] = code
            yield from spread.T
    else:
        encoded = column.dictionary_encode(null_encoding="encode")
        yield encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
