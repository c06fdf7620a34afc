"""Differences along z in closed form: ramps, single steps at the mask's edge, correlated noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augengine.diffusion.volume_noise import volume_noise
from augengine.errors import DataError
from augengine.metrics.consistency import relative_z_difference, z_adjacent_difference


def ramp(slope: float, count: int = 5) -> np.ndarray:
    z = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1)
    return np.broadcast_to(slope * z, (count, 2, 6, 4)).copy()


def test_a_ramp_differs_by_its_slope() -> None:
    assert z_adjacent_difference(ramp(-0.25)) == pytest.approx(0.25)
    assert relative_z_difference(ramp(0.5), ramp(-0.25)) == pytest.approx(2)
    falling = (200 + ramp(-30)).astype(np.uint8)  # whole numbers without a sign must not wrap
    assert z_adjacent_difference(falling) == pytest.approx(30)


def test_a_mask_counts_its_steps_to_the_neighbours_and_nothing_else() -> None:
    slices, mask = ramp(0.0), np.zeros((5, 6, 4), bool)
    mask[2, 1, 1] = True
    slices[2, :, 1, 1] = 3.0  # the steps in and out
    slices[:, :, 5, 3] = np.arange(5).reshape(-1, 1) * 100  # elsewhere
    assert z_adjacent_difference(slices, mask) == pytest.approx(3)
    mask[1, 1, 1] = True  # and one pair more, of no difference
    assert z_adjacent_difference(slices, mask) == pytest.approx(2)
    source = ramp(1.0)
    assert relative_z_difference(slices, source, mask) == pytest.approx(2)
    assert relative_z_difference(source, source, mask) == 1


def test_independent_noise_against_one_field() -> None:
    # Two N(0, 1) of correlation r differ by 2 sqrt((1 - r) / pi) in the mean.
    positions, length = [2.0 * k for k in range(6)], 4.0
    field, independent = (volume_noise(1, positions, (1, 128, 128), mm).numpy() for mm in (length, 0.0))
    r = math.exp(-(2.0**2) / (2 * length**2))
    assert z_adjacent_difference(independent) == pytest.approx(2 / math.sqrt(math.pi), rel=0.02)
    assert z_adjacent_difference(field) == pytest.approx(2 * math.sqrt((1 - r) / math.pi), rel=0.02)
    assert relative_z_difference(independent, field) == pytest.approx(1 / math.sqrt(1 - r), rel=0.03)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(DataError, match="needs two"):
        z_adjacent_difference(ramp(1, count=1))
    with pytest.raises(DataError, match=r"mask must be \(K, I, J\)"):
        z_adjacent_difference(ramp(1), np.ones((6, 4), bool))
    with pytest.raises(DataError, match="must not be empty"):
        z_adjacent_difference(ramp(1), np.zeros((5, 6, 4), bool))
    with pytest.raises(DataError, match="one shape"):
        relative_z_difference(ramp(1), ramp(1, count=4))
    with pytest.raises(DataError, match="must change between slices"):
        relative_z_difference(ramp(1), ramp(0))
