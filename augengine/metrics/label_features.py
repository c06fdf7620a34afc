"""Label maps in, vectors of shape features out: size, place, extent, pieces, surface and contact of every region."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage


def label_features(planes: np.ndarray) -> np.ndarray:
    """Describe label maps without reference to any anatomy, in 2D and 3D.

    Per region: share of the frame; centroid from the frame's centre and covariance of its voxels, in units of the
    frame's sides; number of connected pieces; surface relative to that of a cube (square) of its volume. Per
    ordered pair of regions: share of the first within one voxel of the second, which tells nesting and contact.
    An empty region is 0 throughout.

    Args:
        planes: bool (B, R, *spatial), regions that may overlap.

    Returns:
        float64 (B, F), F = R · (3 + D + D(D+1)/2) + R(R−1) for D spatial axes.
    """
    return np.stack([np.concatenate([*map(_region, row), _contacts(row)]) for row in planes])


def _region(mask: np.ndarray) -> np.ndarray:
    """(3 + D + D(D+1)/2,): share, centroid, covariance, pieces, compactness."""
    ndim = mask.ndim
    upper = np.triu_indices(ndim)
    volume = np.count_nonzero(mask)
    if not volume:
        return np.zeros(3 + ndim + len(upper[0]))
    places = (np.argwhere(mask) + 0.5) / mask.shape - 0.5
    covariance = np.cov(places.T, bias=True).reshape(ndim, ndim)
    pieces = ndimage.label(mask, np.ones((3,) * ndim))[1]
    padded = np.pad(mask, 1)
    faces = sum(np.count_nonzero(np.diff(padded, axis=axis)) for axis in range(ndim))
    surface = faces / (2 * ndim * volume ** ((ndim - 1) / ndim))
    return np.concatenate([[volume / mask.size], places.mean(axis=0), covariance[upper], [pieces, surface]])


def _contacts(masks: np.ndarray) -> np.ndarray:
    """(R(R−1),): share of region r within one voxel of region s, for every r ≠ s."""
    grown = [ndimage.binary_dilation(mask) for mask in masks]
    sizes = masks.reshape(len(masks), -1).sum(axis=1).clip(min=1)
    pairs = itertools.permutations(range(len(masks)), 2)
    return np.array([np.count_nonzero(masks[r] & grown[s]) / sizes[r] for r, s in pairs])
