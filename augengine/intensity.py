"""Intensities on the scale of a volume's own percentiles, channel by channel, and back."""

from __future__ import annotations

import numpy as np

from augengine.errors import DataError
from augengine.records import Sample

_QUANTILES = np.linspace(0, 1, 257)


def normalise(sample: Sample) -> np.ndarray:
    """Image `(C, *)` with each channel's range at 0 and 1, not clipped (paper 004, A.1).

    By default 0 is the 10th percentile of the channel in the whole source volume and 1 its 99th.
    """
    low, span = _scales(sample)
    # The scales are rounded to the image's own precision, as numpy rounds a Python number.
    return ((sample.image - low.astype(np.float32)) / span.astype(np.float32)).astype(np.float32)


def denormalise(x: np.ndarray, like: Sample) -> np.ndarray:
    """Inverse of `normalise` on the scale of `like`.

    Magnitude images have no negative values and scanners deliver whole numbers: where a channel of `like` keeps either
    rule, so does that channel of the result.
    """
    low, span = _scales(like)
    image = x.astype(np.float64) * span + low
    for found, channel in zip(image, like.image, strict=True):
        if channel.min() >= 0:
            found.clip(min=0, out=found)
        if (channel == np.round(channel)).all():
            found.round(out=found)
    return np.asarray(image + 0.0, np.float32)


def _scales(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """float64 `(C, 1, …)`: low, and high less low, of every channel; what cannot be divided by is a `DataError`."""
    if sample.intensity_range is None:
        raise DataError("normalisation needs an intensity range", where=sample.sample_id, next_step="ingest the data")
    for name, (low, high) in zip(sample.channels, sample.intensity_range, strict=True):
        if not high > low:
            raise DataError(
                f"the intensity range of channel '{name}' must rise", found=(low, high), where=sample.sample_id
            )
    lows, highs = np.asarray(sample.intensity_range, np.float64).T.reshape(2, -1, *[1] * (sample.image.ndim - 1))
    return lows, highs - lows


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
