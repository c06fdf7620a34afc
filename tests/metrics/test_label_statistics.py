"""Kolmogorov–Smirnov distances of label maps, and nesting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augengine.metrics.label_statistics import label_distances, nested_share


def squares(sides: list[int], at: int = 2, pieces: int = 1) -> np.ndarray:
    """Maps (N, 2, 24, 24): squares with an inner region of half the side; further pieces are single pixels."""
    maps = np.zeros((len(sides), 2, 24, 24), bool)
    for n, side in enumerate(sides):
        maps[n, 0, at : at + side, at : at + side] = True
        maps[n, 1, at : at + side // 2, at : at + side // 2] = True
        for piece in range(1, pieces):
            maps[n, 0, -1, 2 * piece] = True
    return maps


def test_each_quantity_answers_to_its_own_change() -> None:
    sides = [4, 5, 6, 7, 8] * 4
    real = squares(sides)
    assert all(d.statistic == 0 for d in label_distances(real, real, ["a", "b"])["a"].values())
    bigger = label_distances(squares([s + 5 for s in sides]), real, ["a", "b"])["a"]
    assert bigger["volume"].statistic == 1
    assert bigger["volume"].p < 1e-6
    assert bigger["components"].statistic == 0
    split = label_distances(squares(sides, pieces=3), real, ["a", "b"])
    assert split["a"]["components"].statistic == 1
    assert split["b"]["components"].statistic == 0
    moved = label_distances(np.roll(real, 9, axis=2), real, ["a", "b"])["a"]
    assert moved["centre_i"].statistic == 1
    assert (moved["centre_j"].statistic, moved["volume"].statistic) == (0, 0)


def test_half_of_the_maps_empty_shows_in_volume_and_leaves_place_alone() -> None:
    real = squares([4, 5, 6, 7])
    maps = np.concatenate([real, np.zeros_like(real)])
    found = label_distances(maps, real, ["a", "b"])["a"]
    assert found["volume"].statistic == pytest.approx(0.5)
    assert found["centre_i"].statistic == 0
    assert found["centre_i"].maps == (4, 4)
    assert math.isnan(label_distances(np.zeros_like(real), real, ["a", "b"])["b"]["centre_j"].statistic)


def test_nesting_counts_maps() -> None:
    maps = squares([6, 6, 6, 6])
    assert nested_share(maps) == 1
    maps[0, 1, 20, 20] = True
    assert nested_share(maps) == 0.75
    assert nested_share(maps[:, :1]) == 1
