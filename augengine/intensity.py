"""Intensities on the scale of a volume's own percentiles, channel by channel, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augengine.errors import DataError
from augengine.records import Sample

Ranges = tuple[tuple[float, float], ...]
_QUANTILES = np.linspace(0, 1, 257)


def normalise(sample: Sample) -> np.ndarray:
    """Image `(C, *)` with each channel's range at 0 and 1, not clipped (paper 004, A.1).

    By default 0 is the 10th percentile of the channel in the whole source volume and 1 its 99th.
    """
    return scaled(sample.image, sample.channels, sample.intensity_range, sample.sample_id)


def scaled(
    image: np.ndarray, channels: Sequence[str], ranges: Ranges | None, where: str, out: np.ndarray | None = None
) -> np.ndarray:
    """As `normalise`, of an image (C, *) float32 with its channels' ranges; into `out`, which may be `image` itself.

    Raises:
        DataError: no ranges, or one that does not rise; `where` says in which row.
    """
    low, span = _scales(image.ndim, channels, ranges, where)
    # The scales are rounded to the image's own precision, as numpy rounds a Python number.
    found: np.ndarray = np.subtract(image, low.astype(np.float32), out=out)
    found /= span.astype(np.float32)
    return found


def denormalise(x: np.ndarray, like: Sample) -> np.ndarray:
    """Inverse of `normalise` on the scale of `like`.

    Magnitude images have no negative values and scanners deliver whole numbers: where a channel of `like` keeps either
    rule, so does that channel of the result.
    """
    low, span = _scales(like.image.ndim, like.channels, like.intensity_range, like.sample_id)
    image = x.astype(np.float64) * span + low
    for found, channel in zip(image, like.image, strict=True):
        if channel.min() >= 0:
            found.clip(min=0, out=found)
        if (channel == np.round(channel)).all():
            found.round(out=found)
    return np.asarray(image + 0.0, np.float32)


def _scales(ndim: int, channels: Sequence[str], ranges: Ranges | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    """float64 `(C, 1, …)`: low, and high less low, of every channel; what cannot be divided by is a `DataError`."""
    if ranges is None:
        raise DataError("normalisation needs an intensity range", where=where, next_step="ingest the data")
    for name, (low, high) in zip(channels, ranges, strict=True):
        if not high > low:
            raise DataError(f"the intensity range of channel '{name}' must rise", found=(low, high), where=where)
    lows, highs = np.asarray(ranges, np.float64).T.reshape(2, -1, *[1] * (ndim - 1))
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
