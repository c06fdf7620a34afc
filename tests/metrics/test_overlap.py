"""Overlap of masks, by counting."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.errors import DataError
from augengine.metrics.overlap import dice, iou

A = np.array([[1, 1, 1], [0, 0, 0]], bool)
B = np.array([[0, 1, 1], [0, 0, 1]], bool)
EMPTY = np.zeros((2, 3), bool)


def test_overlap_by_hand() -> None:
    assert dice(A, B) == pytest.approx(4 / 6)
    assert iou(A, B) == pytest.approx(2 / 4)


def test_two_empty_masks_agree_and_one_does_not() -> None:
    assert dice(EMPTY, EMPTY) == iou(EMPTY, EMPTY) == 1
    assert dice(EMPTY, A) == iou(A, EMPTY) == 0


def test_codes_and_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="bool"):
        dice(A.astype(np.uint8), B)
    with pytest.raises(DataError, match="one shape"):
        iou(A, A[:1])  # would broadcast
