"""Neighbour rows for 2.5D context, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.diffusion.volume_context import neighbour_index
from augengine.errors import DataError


def test_neighbours_come_from_the_same_volume_in_any_order() -> None:
    #        row:  0    1    2    3    4    5    6
    volumes = ["a", "b", "a", "a", "b", "a", "a"]
    slices = [3, 4, 1, 2, 5, 7, 4]
    found = neighbour_index(volumes, slices, (-2, -1, 0, 1, 2))
    assert found.dtype == np.int64
    assert found.tolist() == [
        [2, 3, 0, 6, 6],  # a3: 1, 2, itself, 4, and 4 for the missing 5
        [1, 1, 1, 4, 4],  # b4: nothing below; 5, and 5 for the missing 6
        [2, 2, 2, 3, 0],
        [2, 2, 3, 0, 6],
        [1, 1, 4, 4, 4],
        [5, 5, 5, 5, 5],  # a7: alone, its neighbours within reach are missing
        [3, 0, 6, 6, 6],
    ]


def test_a_gap_is_not_jumped_towards_the_far_side() -> None:
    assert neighbour_index(["v", "v"], [0, 3], (1, 2, 3, 4)).tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]


def test_no_rows_no_offsets_and_doubles() -> None:
    assert neighbour_index([], [], (-1, 1)).shape == (0, 2)
    assert neighbour_index(["a", "a"], [0, 1], ()).shape == (2, 0)
    with pytest.raises(DataError, match="slice 2 of a twice"):
        neighbour_index(["a", "b", "a"], [2, 2, 2], (1,))
