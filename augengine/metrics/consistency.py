"""The slices of a volume in; how much neighbours differ, alone and relative to the source volume, out."""

from __future__ import annotations

import numpy as np

from augengine.errors import DataError


def z_adjacent_difference(slices: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean absolute difference between neighbouring slices, in the unit of the image.

    Args:
        slices: (K, C, I, J), in order along the through-plane axis.
        mask: bool (K, I, J). A pair of neighbouring pixels counts if either is inside, so that the step from the last
            masked slice to its untouched neighbour counts, too.

    Raises:
        DataError: fewer than two slices, a mask of another shape, or an empty one.
    """
    if len(slices) < 2:
        raise DataError("a difference between slices needs two of them", found=len(slices))
    step = np.abs(np.diff(slices.astype(np.float64), axis=0))
    if mask is None:
        return float(step.mean())
    if mask.shape != (len(slices), *slices.shape[2:]):
        raise DataError("the mask must be (K, I, J) of the slices", found=f"{mask.shape} for {slices.shape}")
    inside = mask.astype(bool)
    if not inside.any():
        raise DataError("the mask must not be empty", next_step="leave out the mask, or this volume")
    return float(step.mean(axis=1)[inside[1:] | inside[:-1]].mean())


def relative_z_difference(edited: np.ndarray, source: np.ndarray, mask: np.ndarray | None = None) -> float:
    """`z_adjacent_difference` of an edited volume as a multiple of the source's own, over the same pairs of pixels.

    1: neighbouring slices agree as well as the source's do. Above 1: they jump where the source does not, the flicker
    of slices edited one by one. Below 1: smoother than the source, blurred or copied along z. Where the edit removes
    a structure, the source's own difference holds that structure's ends; compare with the true or with other healthy
    tissue as `source` then.

    Args:
        edited, source: (K, C, I, J) on one intensity scale.
        mask: as for `z_adjacent_difference`; usually the edited region.

    Raises:
        DataError: as for `z_adjacent_difference`; other shapes; or a source that does not change along z.
    """
    if edited.shape != source.shape:
        raise DataError("edited and source must have one shape", found=f"{edited.shape} and {source.shape}")
    own = z_adjacent_difference(source, mask)
    if not own > 0:
        raise DataError(
            "the source must change between slices to compare with it", found=own, next_step="leave out this volume"
        )
    return z_adjacent_difference(edited, mask) / own
