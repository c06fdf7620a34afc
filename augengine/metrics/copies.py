"""A patch of an image and other images in, how far the patch is from the most similar place of any of them out.

Legend: N images, C channels, * spatial axes (two or three).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter

from augengine.errors import DataError

MOST_SIDE = {2: 64, 3: 32}
"""Voxels along the longest side of what is compared, by the number of axes; larger images are made coarser."""
LEAST_VOXELS = 8
FLAT = 0.01
"""A place whose deviation is smaller, on the normalised scale, has no structure to compare."""


@dataclass(frozen=True)
class Nearest:
    """The most similar place: distance 0 (the same up to brightness and contrast) … 1 (nothing alike) … 2 (inverted).

    Attributes:
        distance: 1 − correlation, the mean of the channels; NaN if no place can be compared.
        index: of the image, −1 without any.
        shift: voxels of the coarse grid from where the patch lies to where the image is most like it.
    """

    distance: float
    index: int
    shift: tuple[int, ...]


NOTHING = Nearest(np.nan, -1, ())


def coarsening(shape: tuple[int, ...]) -> int:
    """Voxels (*) to one of the grid that is compared on."""
    return -(-max(shape) // MOST_SIDE[len(shape)])


def coarse(image: np.ndarray, factor: int) -> np.ndarray:
    """(C, *) on a grid `factor` times coarser, float32; smoothed first, so that half a voxel matters little."""
    if factor == 1:
        return np.asarray(image, np.float32)
    smooth = np.stack([gaussian_filter(channel.astype(np.float32), factor / 2) for channel in image])
    return np.stack([_every(channel, factor) for channel in smooth])


def coarse_mask(mask: np.ndarray, factor: int) -> np.ndarray:
    """bool (*) on the same grid."""
    return _every(mask, factor)


def _every(values: np.ndarray, factor: int) -> np.ndarray:
    return np.ascontiguousarray(values[(slice((factor - 1) // 2, None, factor),) * values.ndim])


def nearest_place(image: np.ndarray, mask: np.ndarray, others: np.ndarray) -> Nearest:
    """Where other images are most like an image inside a mask, at any shift of whole voxels within the frame.

    Compared is Pearson's correlation over the mask, channel by channel and then averaged, so that neither brightness
    nor contrast counts. Nothing is turned, mirrored or scaled. A channel that is flat inside the mask is left out.

    Args:
        image: float (C, *), normalised.
        mask: bool (*).
        others: float32 (N, C, *), normalised.

    Raises:
        DataError: other channels or another shape.
    """
    if others.shape[1:] != image.shape:
        raise DataError(
            "images that are compared have one shape",
            found=f"{image.shape} beside {others.shape[1:]}",
            next_step="prepare both alike",
        )
    count = np.count_nonzero(mask)
    kept = [c for c, channel in enumerate(image) if count and channel[mask].std() >= FLAT]
    if count < LEAST_VOXELS or not kept or not len(others):
        return NOTHING
    box = tuple(slice(int(n.min()), int(n.max()) + 1) for n in np.nonzero(mask))
    inside = mask[box]
    shape, axes = mask.shape, tuple(range(1, mask.ndim + 1))
    places = tuple(slice(0, size - side + 1) for size, side in zip(shape, inside.shape, strict=True))
    window = np.conj(fft.rfftn(_filled(inside.astype(np.float32), shape)))[None]
    total = np.zeros((len(others), *(place.stop for place in places)))
    for c in kept:
        # Around the patch's mean, where the variance of a place like it loses no digits.
        there = others[:, c] - np.float32(image[c][mask].mean())
        patch = np.where(inside, _standard(image[c][box], inside), 0)
        template = np.conj(fft.rfftn(_filled(patch.astype(np.float32), shape)))[None]
        spectrum, squares = fft.rfftn(there, axes=axes), fft.rfftn(there**2, axes=axes)
        along, mean, square = (
            fft.irfftn(product, s=shape, axes=axes)[(slice(None), *places)] / count
            for product in (spectrum * template, spectrum * window, squares * window)
        )
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        # A copy of a patch that is nearly flat is nearly flat, too.
        total += np.where(deviation >= FLAT / 2, along / np.maximum(deviation, FLAT / 2), 0)
    best = np.unravel_index(int(total.argmax()), total.shape)
    at = tuple(slice(int(n), int(n) + side) for n, side in zip(best[1:], inside.shape, strict=True))
    # The transforms find the place; what is told of it is computed there, in double precision.
    found = [_correlation(image[c][box], others[best[0], c][at], inside) for c in kept]
    shift = tuple(int(n) - side.start for n, side in zip(best[1:], box, strict=True))
    return Nearest(1 - float(np.mean(found)), int(best[0]), shift)


def _filled(patch: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The patch at the origin of zeros (*)."""
    filled = np.zeros(shape, np.float32)
    filled[tuple(map(slice, patch.shape))] = patch
    return filled


def _standard(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Of mean 0 and deviation 1 inside the mask."""
    kept = values[inside].astype(np.float64)
    return np.asarray((values - kept.mean()) / kept.std())


def _correlation(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> float:
    if b[inside].std() < FLAT / 2:
        return 0.0
    return float(np.mean(_standard(a, inside)[inside] * _standard(b, inside)[inside]))
