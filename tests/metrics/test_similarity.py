"""SSIM and its kin on pairs of rows."""

from __future__ import annotations

import numpy as np
import pytest
from builders import slice_sample

from augengine.errors import DataError
from augengine.metrics.partial import Pair
from augengine.metrics.similarity import SimilarityMeasure, ms_ssim, ssim


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 48, 48), (2, 24, 24, 4)])
def test_equal_images_score_1_and_a_constant_shift_costs_luminance_only(shape: tuple[int, ...]) -> None:
    """Flat images a and b: (2ab + c) / (a² + b² + c) with c = 0.01²."""
    x = noise(*shape)
    assert ssim(x, x) == pytest.approx(1)
    assert ms_ssim(x, x)[1] == pytest.approx(1)
    flat = np.full(shape, 0.5, np.float32)
    assert ssim(flat, flat + 0.5) == pytest.approx((2 * 0.5 + 1e-4) / (0.25 + 1 + 1e-4), rel=1e-4)
    assert ssim(x, noise(*shape, seed=1)) < 0.3


def test_a_volume_is_the_mean_of_its_slices() -> None:
    x, y = noise(1, 24, 24, 3), noise(1, 24, 24, 3)
    y[..., 1] = noise(1, 24, 24, seed=1)
    for measure in (ssim, lambda a, b: ms_ssim(a, b)[1]):
        slices = [measure(x[..., k], y[..., k]) for k in range(3)]
        assert measure(x, y) == pytest.approx(np.mean(slices))
        assert slices[1] < 0.5 < slices[0]


@pytest.mark.parametrize(("size", "scales"), [(16, 1), (24, 2), (48, 3), (100, 4), (192, 5)])
def test_the_name_tells_how_many_scales_fit(size: int, scales: int) -> None:
    x = noise(1, size, size)
    name, value = ms_ssim(x, x)
    assert (name, value) == (f"ms_ssim_{scales}", pytest.approx(1))


def test_both_images_are_on_the_scale_of_the_source() -> None:
    source = slice_sample(0)
    brighter = source.replace(image=source.image + 67, intensity_range=((97.0, 767.0),))
    found = SimilarityMeasure()([Pair(brighter, source)])
    assert found.means("structure_ssim")["S000"] == pytest.approx(1, abs=1e-4)
    assert found.means("ssim")["S000"] < 0.999  # each on a scale of its own, they would be equal
    assert "ms_ssim_2" in found.measures


def test_refusals() -> None:
    with pytest.raises(DataError, match="source"):
        SimilarityMeasure()([Pair(slice_sample(0))])
    with pytest.raises(DataError, match="11 x 11"):
        ssim(noise(1, 8, 8), noise(1, 8, 8))
