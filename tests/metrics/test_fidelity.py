"""RMSE, PSNR and SSIM within masks, and how fine a texture is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from augengine.metrics.fidelity import fidelity, ssim_map, texture_ratio


def pair(*size: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image and a mask of its first half."""
    truth = np.random.default_rng(0).normal(0.5, 0.2, (2, *size)).astype(np.float32)
    mask = np.zeros(size, bool)
    mask[: size[0] // 2] = True
    return truth, mask


@pytest.mark.parametrize("size", [(24, 20), (16, 14, 12)])
def test_an_error_counts_where_it_is(size: tuple[int, ...]) -> None:
    truth, mask = pair(*size)
    found = fidelity(truth + 0.1 * mask.astype(np.float32), truth, {"in": mask, "out": ~mask, "none": mask & False})
    assert found["rmse_in"] == pytest.approx(0.1, abs=1e-5)
    assert found["psnr_db_in"] == pytest.approx(20, abs=1e-3)
    assert found["rmse_out"] == 0
    assert found["psnr_db_out"] == math.inf
    assert found["ssim_in"] < found["ssim_out"] <= 1
    assert all(math.isnan(found[f"{m}_none"]) for m in ("rmse", "psnr_db", "ssim"))


def test_ssim_of_a_shifted_mean_is_the_luminance_term_alone() -> None:
    truth, _ = pair(32, 32)
    x, y = truth.astype(np.float64), truth.astype(np.float64) + 0.3
    middle = (0, slice(8, 15), slice(8, 15))
    a, b, c1 = x[middle].mean(), y[middle].mean(), 0.01**2
    assert ssim_map(y, x)[0, 11, 11] == pytest.approx((2 * a * b + c1) / (a**2 + b**2 + c1), rel=1e-6)


def test_a_volume_thinner_than_the_window_is_taken_slice_by_slice() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0.5, 0.2, (2, 12, 14, 6))
    image = truth + rng.normal(0, 0.1, truth.shape)
    found = ssim_map(image, truth)
    for k in range(6):
        np.testing.assert_array_equal(found[..., k], ssim_map(image[..., k], truth[..., k]))
    whole = ssim_map(np.repeat(image, 2, axis=3), np.repeat(truth, 2, axis=3))
    assert whole.shape == (2, 12, 14, 12)


def test_texture_knows_blur_from_noise() -> None:
    truth, mask = pair(32, 32)
    assert texture_ratio(truth + 0.5, truth, mask) == pytest.approx(1, abs=1e-5)
    assert texture_ratio(gaussian_filter(truth, (0, 1, 1)), truth, mask) < 0.5
    assert texture_ratio(truth * 3, truth, mask) == pytest.approx(3, abs=1e-4)
    assert math.isnan(texture_ratio(truth, np.zeros_like(truth), mask))
