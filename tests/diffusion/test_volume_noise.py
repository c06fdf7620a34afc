"""One noise field per volume: standard normal, white in-plane, Gaussian correlation through-plane, row by row."""

from __future__ import annotations

import math

import pytest
import torch

from augengine.diffusion.volume_noise import volume_noise
from augengine.errors import ConfigError

SHAPE = (2, 256, 256)
TOLERANCE = 5 / math.sqrt(math.prod(SHAPE))  # five standard errors of a correlation


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize("start_mm", [0.0, 0.9, -1237.43])
def test_correlation_is_gaussian_wherever_the_slices_lie(start_mm: float) -> None:
    length, distances = 4.0, (0.0, 1.0, 4.0, 8.0, 12.0, 30.0)
    slices = volume_noise(3, [start_mm + d for d in distances], SHAPE, length)
    for d, other in zip(distances, slices, strict=True):
        assert correlation(slices[0], other) == pytest.approx(math.exp(-(d**2) / (2 * length**2)), abs=TOLERANCE)


@pytest.mark.parametrize("correlation_mm", [0.0, 0.5, 6.0])
def test_every_slice_is_standard_normal_and_white_in_plane(correlation_mm: float) -> None:
    for noise in volume_noise(5, [0, 0.7, 1.5, 40.3], SHAPE, correlation_mm):
        assert noise.dtype == torch.float32
        assert abs(float(noise.mean())) < TOLERANCE
        assert float(noise.var()) == pytest.approx(1, abs=1.5 * TOLERANCE)
        assert float((noise**4).mean()) == pytest.approx(3, abs=10 * TOLERANCE)
        for a, b in ((noise[0], noise[1]), (noise[:, 1:], noise[:, :-1]), (noise[:, :, 1:], noise[:, :, :-1])):
            assert abs(correlation(a, b)) < 1.5 * TOLERANCE


@pytest.mark.parametrize("correlation_mm", [0.0, 3.0])
def test_a_slice_does_not_depend_on_its_batch(correlation_mm: float) -> None:
    positions = [12.5, -3.0, 90.0, 13.5, 0.0]
    batch = volume_noise(8, positions, (1, 9, 7), correlation_mm)
    for position, noise in zip(positions, batch, strict=True):
        assert torch.equal(volume_noise(8, [position], (1, 9, 7), correlation_mm)[0], noise)


def test_volumes_and_independent_slices_share_nothing() -> None:
    a, b = (volume_noise(seed, [1.0, 2.0], SHAPE, 5.0) for seed in (1, 2))
    assert correlation(a, b) == pytest.approx(0, abs=TOLERANCE)
    near, again, far = volume_noise(1, [1.0, 1.0, 1.01], SHAPE, 0.0)
    assert torch.equal(near, again)
    assert correlation(near, far) == pytest.approx(0, abs=TOLERANCE)


@pytest.mark.parametrize("correlation_mm", [-1.0, math.nan, math.inf])
def test_impossible_lengths_are_refused(correlation_mm: float) -> None:
    with pytest.raises(ConfigError, match="correlation_mm must be 0"):
        volume_noise(1, [0.0], (1, 4, 4), correlation_mm)
