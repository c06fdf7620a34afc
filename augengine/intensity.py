"""Intensities on the scale of a volume's own percentiles, and back."""

from __future__ import annotations

import numpy as np

from augengine.errors import DataError
from augengine.records import Sample

_QUANTILES = np.linspace(0, 1, 257)


def normalise(sample: Sample) -> np.ndarray:
    """Image with the volume's 10th percentile at 0 and its 99th at 1, not clipped (paper 004, A.1); `(C, I, J)`."""
    if sample.intensity_range is None or not sample.intensity_range[1] > sample.intensity_range[0]:
        raise DataError(
            "normalisation needs intensity_range with low < high",
            found=str(sample.intensity_range),
            where=sample.sample_id,
        )
    low, high = sample.intensity_range
    return ((sample.image - low) / (high - low)).astype(np.float32)


def denormalise(x: np.ndarray, like: Sample) -> np.ndarray:
    """Inverse of `normalise` on the scale of `like`.

    Magnitude images have no negative values and scanners deliver whole numbers: where `like` keeps either
    rule, so does the result.
    """
    assert like.intensity_range is not None
    low, high = like.intensity_range
    image = x.astype(np.float64) * (high - low) + low
    if like.image.min() >= 0:
        image = image.clip(min=0)
    if (like.image == np.round(like.image)).all():
        image = np.round(image)
    return (image + 0.0).astype(np.float32)


def match_quantiles(plane: np.ndarray, reference: np.ndarray, where: np.ndarray) -> np.ndarray:
    """`plane` (*) mapped monotonically so that within `where` (*) it has the quantiles of `reference` (*).

    The map goes on with slope 1, so that what is brighter than all of `where` stays as much brighter. Without any
    voxel to go by, `plane` as it is.
    """
    if not where.any():
        return plane
    source, target = (np.quantile(x[where].astype(np.float64), _QUANTILES) for x in (plane, reference))
    beyond = plane - plane.clip(source[0], source[-1])
    return np.asarray(np.interp(plane, source, target) + beyond)
