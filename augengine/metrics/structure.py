"""An image before and after an edit in, how far their structure, whatever its brightness and contrast, agrees out."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import uniform_filter


def structure_term(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> float:
    """|covariance| / (deviation · deviation) of 7-voxel windows of `(C, *spatial)` arrays, mean over `mask`.

    The structure term of SSIM (Wang et al. 2004, eq. 10) without its sign, because another acquisition may invert a
    tissue without moving it. Windows in which the first image is flat (below 2% of its range) hold noise only and are
    left out; NaN where there is no other.
    """
    size = (1,) + (7,) * (x.ndim - 1)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = uniform_filter(x64, size), uniform_filter(y64, size)
    var_x = (uniform_filter(x64**2, size) - mean_x**2).clip(min=0)
    var_y = (uniform_filter(y64**2, size) - mean_y**2).clip(min=0)
    covariance = uniform_filter(x64 * y64, size) - mean_x * mean_y
    textured = mask & (np.sqrt(var_x) > 0.02 * np.ptp(x64)).any(axis=0)
    if not textured.any():
        return math.nan
    eps = 1e-6 * np.ptp(y64) ** 2 + 1e-12
    structure = (np.abs(covariance) + eps) / (np.sqrt(var_x * var_y) + eps)
    return float(structure[:, textured].mean())
