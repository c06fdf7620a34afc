"""Nearest training neighbours against the plain double loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augengine.errors import DataError
from augengine.metrics.memorisation import memorised_share, nearest_training_dice
from augengine.metrics.overlap import dice
from augengine.rng import generator


def mean_dice(a: np.ndarray, b: np.ndarray) -> float:
    found = [dice(x, y) for x, y in zip(a, b, strict=True) if x.any() or y.any()]
    return float(np.mean(found)) if found else 0.0


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_agrees_with_the_double_loop(chunk: int) -> None:
    rng = generator("memory")
    synthetic = rng.random((9, 3, 5, 5)) < 0.4
    training = rng.random((11, 3, 5, 5)) < 0.4
    synthetic[:, 2], training[::2, 2] = False, False  # a region that is empty in both, or in one
    synthetic[3] = training[7]
    synthetic[5] = False
    training[2] = False
    values, index = nearest_training_dice(synthetic, training, chunk)
    for n in range(9):
        expected = [mean_dice(synthetic[n], t) for t in training]
        if n == 5:
            assert math.isnan(values[n])
            assert index[n] == -1
        else:
            assert values[n] == pytest.approx(max(expected))
            assert index[n] == int(np.argmax(expected))
    assert values[3] == 1
    assert index[3] == 7


def test_share_counts_maps_that_hold_something() -> None:
    found = memorised_share(np.array([0.99, 0.98, 0.5, np.nan]))
    assert (found.share, found.memorised, found.maps, found.empty) == (pytest.approx(1 / 3), 1, 3, 1)
    assert math.isnan(memorised_share(np.array([np.nan])).share)


def test_other_grids_are_refused() -> None:
    with pytest.raises(DataError, match="grid"):
        nearest_training_dice(np.zeros((1, 2, 4, 4), bool), np.zeros((1, 2, 4, 5), bool))
    with pytest.raises(DataError, match="grid"):
        nearest_training_dice(np.zeros((1, 2, 4, 4), bool), np.zeros((0, 2, 4, 4), bool))
