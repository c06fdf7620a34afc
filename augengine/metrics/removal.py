"""An image before and after its tumour was removed in, what is left of the tumour and what else changed out.

All measures are of one row; a measure that does not apply to a row (no lesion in it) is NaN, which
`intervals.per_subject` leaves out. Images are (C, *spatial) on the normalised scale, masks bool (*spatial).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter

from augengine.errors import DataError
from augengine.metrics.overlap import check_masks, dice, iou

VOID_BELOW = 0.05
THRESHOLDS = np.linspace(0.01, 1.0, 100)


class Edited(NamedTuple):
    """A row before and after its edit, with the true lesion of the row before."""

    before: np.ndarray
    after: np.ndarray
    lesion: np.ndarray


def tumor_residual(segmentation_after: np.ndarray, lesion: np.ndarray, void: np.ndarray | None = None) -> float:
    """Share of the lesion's voxels, 0…1, that are still abnormal after the removal; lower is better.

    Mohan et al. §5.4 penalise remaining tumour and voids alike but print no formula, and their ratio reaches 1.62:
    it counts abnormal voxels from outside the lesion, or tumour and void separately, over the lesion's size. Here
    only voxels of the lesion count, each once. Low values alone prove little (their unconditional model has
    .026): read it beside `residual_floor` and the error outside the lesion.

    Args:
        segmentation_after: where a referee sees tumour in the edited image.
        lesion: the true lesion before the edit.
        void: voxels without signal (`voids`), which then count as abnormal, too.
    """
    abnormal = segmentation_after if void is None else segmentation_after | void
    check_masks(abnormal, lesion)
    return _share(abnormal, lesion)


def residual_floor(
    segmentation: np.ndarray, region: np.ndarray, void: np.ndarray | None = None, *, lesion: np.ndarray | None = None
) -> float:
    """`tumor_residual` of truly healthy tissue: the referee's own false alarms, which no removal can undercut.

    Args:
        segmentation: where the referee sees tumour in an image that was not edited.
        region: where that image is healthy: the lesion's place in the rendered truth, or on real data the
            lesion's mirror image or its place in another subject.
        void: as in `tumor_residual`.
        lesion: true lesion of that image, which is cut from `region`; None where there is none.
    """
    return tumor_residual(segmentation, region if lesion is None else region & ~lesion, void)


def voids(image: np.ndarray, brain: np.ndarray, below: float = VOID_BELOW) -> np.ndarray:
    """bool (*spatial): brain voxels with next to no signal in any channel (air is 0 on the normalised scale)."""
    return np.asarray((image < below).all(axis=0) & brain)


def void_fraction(image: np.ndarray, lesion: np.ndarray, below: float = VOID_BELOW) -> float:
    """Share of the lesion's voxels that the removal left without signal."""
    return _share(voids(image, lesion, below), lesion)


def local_variance_ratio(image: np.ndarray, region: np.ndarray, reference: np.ndarray) -> float:
    """Mean variance of 3-voxel windows in `region`, relative to that in `reference`; below 1 the fill is blurred.

    Args:
        image: the edited image.
        region: what was filled.
        reference: healthy tissue to compare with, such as the region's mirror image.
    """
    size = (1,) + (3,) * (image.ndim - 1)
    wide = image.astype(np.float64)
    variance = (uniform_filter(wide**2, size) - uniform_filter(wide, size) ** 2).clip(min=0)
    if not region.any() or not variance[:, reference].any():
        return math.nan
    return float(variance[:, region].mean() / variance[:, reference].mean())


def difference_map(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """|before − after|, mean over channels: float (*spatial)."""
    return np.asarray(np.abs(before - after).mean(axis=0))


def diffmap_iou(before: np.ndarray, after: np.ndarray, lesion: np.ndarray, threshold: float) -> float:
    """IoU of what changed by `threshold` or more with the true lesion (Mohan et al. §5.4); NaN without a lesion.

    Args:
        before, after: (C, *spatial).
        lesion: bool (*spatial).
        threshold: `IouCurve.best` of validation rows.
    """
    return iou(difference_map(before, after) >= threshold, lesion) if lesion.any() else math.nan


@dataclass(frozen=True)
class IouCurve:
    """IoU of what changed with the lesion at every candidate threshold, summed over rows that have a lesion.

    Attributes:
        total: float64 (candidates,).
        rows: how many rows.
        candidates: thresholds on the normalised scale, rising.
    """

    total: np.ndarray
    rows: int
    candidates: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[Edited], candidates: np.ndarray = THRESHOLDS) -> IouCurve:
        """The curve of some rows."""
        total, count = np.zeros(len(candidates)), 0
        for before, after, lesion in rows:
            if lesion.any():
                change = difference_map(before, after)
                inside, outside = (
                    np.count_nonzero(mask) - np.searchsorted(np.sort(change[mask]), candidates)
                    for mask in (lesion, ~lesion)
                )
                total += inside / (np.count_nonzero(lesion) + outside)
                count += 1
        return cls(total, count, candidates)

    def merge(self, other: IouCurve) -> IouCurve:
        """Both."""
        return IouCurve(self.total + other.total, self.rows + other.rows, self.candidates)

    @property
    def best(self) -> float:
        """The threshold with the highest mean IoU, the lowest of equals; a `DataError` if no row has a lesion."""
        if not self.rows:
            raise DataError(
                "a threshold is chosen on rows with a lesion", next_step="add validation rows with a tumour"
            )
        return float(self.candidates[np.argmax(self.total)])


def rmse(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square difference of (C, *spatial) arrays within `mask`; NaN where the mask is empty."""
    return float(np.sqrt(np.mean((a.astype(np.float64) - b)[:, mask] ** 2))) if mask.any() else math.nan


def psnr(a: np.ndarray, b: np.ndarray, mask: np.ndarray, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB within `mask`; the peak is the 99th percentile. Infinite for equal images."""
    error = rmse(a, b, mask)
    return math.inf if error == 0 else 20 * math.log10(peak / error)


def gen_dice(seen: np.ndarray, requested: np.ndarray) -> float:
    """GenDice (Mohan et al. §6.2): did the image become what the mask asked for?

    Args:
        seen: bool (R, *spatial), where a referee finds each region in the generated image.
        requested: bool (R, *spatial), the regions that the image was generated from.

    Returns:
        Mean Dice over the regions that occur in either; NaN where none does.
    """
    found = [dice(a, b) for a, b in zip(seen, requested, strict=True) if a.any() or b.any()]
    return float(np.mean(found)) if found else math.nan


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    size = np.count_nonzero(whole)
    return float(np.count_nonzero(part & whole) / size) if size else math.nan
