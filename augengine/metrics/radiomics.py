"""Normalised images in, first-order and texture features of the body out: a Fréchet distance for small sets.

A few dozen interpretable numbers per row, no weights: where n is far below the width of a network's features, a
Gaussian fit of these still means something. 2D and 3D; textures of a volume are counted within its slices.
"""

from __future__ import annotations

import numpy as np
from scipy import stats
from skimage.feature import graycomatrix, graycoprops

from augengine.body import body_mask
from augengine.metrics.extractor import Extractor

LEVELS = 32
RANGE = (-0.25, 1.75)
DISTANCES = (1, 2, 4)
ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
TEXTURES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")
FIRST_ORDER = (
    "mean",
    "sd",
    "skewness",
    "kurtosis",
    "p10",
    "median",
    "p90",
    "interquartile_range",
    "mean_absolute_deviation",
    "root_mean_square",
    "entropy",
    "uniformity",
)


def radiomics_features(images: np.ndarray) -> np.ndarray:
    """First-order and co-occurrence features (IBSI names; Haralick et al. 1973) of every channel's body.

    Grey levels are 32 fixed bins of the normalised scale, −0.25 to 1.75, so that every row is cut alike. Textures
    are means over four directions at distances of 1, 2 and 4 pixels (of a diagonal, to the nearest pixel), counted
    between pairs of body pixels only.

    Args:
        images: float32 (B, C, *spatial), normalised.

    Returns:
        float64 (B, C · 27); 0 throughout for a channel without a body.
    """
    return np.stack([np.concatenate([_channel(channel, body_mask(image)) for channel in image]) for image in images])


RADIOMICS = Extractor("radiomics-1", radiomics_features)


def _channel(channel: np.ndarray, body: np.ndarray) -> np.ndarray:
    values = channel[body].astype(np.float64)
    if values.size < 2 or np.ptp(values) == 0:
        return np.zeros(len(FIRST_ORDER) + len(TEXTURES) * len(DISTANCES))
    low, high = RANGE
    bins = np.clip((channel - low) / (high - low) * LEVELS, 0, LEVELS - 1).astype(np.uint8) + 1
    share = np.bincount(bins[body], minlength=LEVELS + 1) / values.size
    p10, p25, median, p75, p90 = np.percentile(values, (10, 25, 50, 75, 90))
    first = [
        values.mean(),
        values.std(),
        stats.skew(values),
        stats.kurtosis(values),
        p10,
        median,
        p90,
        p75 - p25,
        np.abs(values - values.mean()).mean(),
        np.sqrt((values**2).mean()),
        -(share[share > 0] * np.log2(share[share > 0])).sum(),
        (share**2).sum(),
    ]
    return np.concatenate([first, _textures(np.where(body, bins, 0).astype(np.uint8))])


def _textures(bins: np.ndarray) -> np.ndarray:
    """(textures · distances,) of grey levels from 1; 0 is outside the body."""
    slices = bins[..., None] if bins.ndim == 2 else bins
    counts = sum(
        graycomatrix(slices[..., k], DISTANCES, ANGLES, LEVELS + 1, symmetric=True).astype(np.float64)
        for k in range(slices.shape[-1])
    )
    inside = np.asarray(counts)[1:, 1:]
    return np.concatenate([graycoprops(inside, name).mean(axis=1) for name in TEXTURES])
