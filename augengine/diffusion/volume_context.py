"""Which volume and slice each row is, in; for each row the numbers of its neighbours' rows out (2.5D context)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augengine.errors import DataError


def neighbour_index(volume_ids: Sequence[str], slice_indices: Sequence[int], offsets: Sequence[int]) -> np.ndarray:
    """Rows to gather as further condition planes: `planes[neighbour_index(...)]` is (rows, len(offsets), ...).

    Args:
        volume_ids, slice_indices: of each row, in any order.
        offsets: in slices, e.g. (-1, 1).

    Returns:
        int64 (rows, len(offsets)): the row of the slice at `slice_index + offset` of the same volume. Where there is
        none, the nearest one towards the row itself stands in; at the end of a volume, the row itself.

    Raises:
        DataError: two rows are the same slice.
    """
    slices = list(zip(volume_ids, slice_indices, strict=True))
    rows = {key: row for row, key in enumerate(slices)}
    if len(rows) < len(slices):
        double = next(key for row, key in enumerate(slices) if rows[key] != row)
        raise DataError(
            "each slice of a volume must stand in one row",
            found=f"slice {double[1]} of {double[0]} twice",
            next_step="read one data set, without copies or augmented rows of the same slice",
        )

    def row_at(volume: str, index: int, offset: int) -> int:
        toward = range(offset, 0, -1) if offset > 0 else range(offset, 1)
        return next(rows[volume, index + o] for o in (*toward, 0) if (volume, index + o) in rows)

    found = [[row_at(volume, index, offset) for offset in offsets] for volume, index in slices]
    return np.array(found, np.int64).reshape(len(slices), len(offsets))
