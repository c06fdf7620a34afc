"""An image and the rendered truth in; RMSE, PSNR, SSIM and fineness within a mask out.

Images are (C, *spatial) on the normalised scale (1 is the volume's 99th percentile, the peak and data range of all
measures), masks bool (*spatial). What a mask leaves empty is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from augengine.metrics.removal import psnr, rmse

WINDOW = 7


def fidelity(image: np.ndarray, truth: np.ndarray, masks: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`rmse_<place>`, `psnr_db_<place>` and `ssim_<place>` for every named mask."""
    similar = ssim_map(image, truth)
    out = {}
    for place, mask in masks.items():
        some = mask.any()
        out[f"rmse_{place}"] = rmse(image, truth, mask)
        out[f"psnr_db_{place}"] = psnr(image, truth, mask) if some else math.nan
        out[f"ssim_{place}"] = float(similar[:, mask].mean()) if some else math.nan
    return out


def ssim_map(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(C, *spatial): SSIM of the window around every voxel (Wang et al. 2004, eq. 13).

    A volume that is thinner along its last axis than the window is taken slice by slice.
    """
    if truth.ndim == 4 and truth.shape[-1] < WINDOW:
        return np.stack([ssim_map(image[..., k], truth[..., k]) for k in range(truth.shape[-1])], axis=-1)
    maps = [
        structural_similarity(t, x, win_size=WINDOW, data_range=1.0, full=True)[1]
        for t, x in zip(truth.astype(np.float64), image.astype(np.float64), strict=True)
    ]
    return np.stack(maps)


def texture_ratio(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Deviation of what a Gaussian of 1 voxel takes away, relative to the truth's.

    1 is right, lower is blurred (RMSE and PSNR reward blur), higher is noisy.
    """
    fine, true = (v - gaussian_filter(v, (0, *[1] * mask.ndim)) for v in (image, truth))
    found = float(true[:, mask].std()) if mask.any() else 0.0
    return float(fine[:, mask].std()) / found if found else math.nan
