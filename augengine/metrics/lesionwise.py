"""A predicted and a true mask of one row in, Dice and HD95 lesion by lesion out, as BraTS 2023 ranks.

The rule (Saluja et al., BraTS-2023-Metrics), for one region such as the enhancing tumour:
1. Pieces of truth and prediction are connected through faces, edges and corners.
2. Truth pieces that merge when the truth is dilated are one lesion, of their undilated voxels.
3. A lesion is compared, undilated, with the union of all whole predicted pieces that touch its dilation.
4. A lesion that nothing touches scores Dice 0 and HD95 374 mm; so does every predicted piece, of any size, that
   touches no lesion.
5. Only then are lesions up to a volume dropped; what was predicted there is no false positive.
6. Both scores are sums over kept lesions and false positives, divided by their number; Dice 1 and HD95 0 where there
   is neither.

The rule is made for volumes: lesions are pieces in space, the threshold is a volume, and 374 mm is the diagonal of
its 240 x 240 x 155 mm frame, whose borders no lesion touches; one that does has no surface at the ends of the stack
(`surface`), where the challenge's tool puts a lid. A slice is taken for a volume of one slice: pieces connect within it
through edges and corners, dilation stays in it, a lesion's volume is its area times the distance between slices, and
HD95 is between contours. One lesion of a volume may then be several of a slice, so figures of slices and of volumes do
not compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from augengine.errors import DataError
from augengine.masks import bounding_box
from augengine.metrics.overlap import check_masks, dice
from augengine.metrics.surface import hd95_mm

PENALTY_MM = 374.0


@dataclass(frozen=True)
class Rule:
    """How far truth is dilated (steps of one voxel), and up to which volume a lesion is dropped."""

    dilation: int
    dropped_mm3: float


RULES = {"GLI": Rule(3, 50), "SSA": Rule(3, 50), "PED": Rule(3, 50), "MEN": Rule(1, 50), "MET": Rule(1, 2)}


@dataclass(frozen=True)
class Lesion:
    """One true lesion: its volume, how many predicted pieces touch it, and its scores."""

    volume_mm3: float
    matched: int
    dice: float
    hd95_mm: float


@dataclass(frozen=True)
class LesionWise:
    """Scores of one row.

    Attributes:
        dice, hd95_mm: means over kept lesions and false positives.
        lesions: those that were kept, in the order of their first voxel.
        dropped: those too small to count.
        false_positives: predicted pieces that touch no lesion, kept or dropped.
    """

    dice: float
    hd95_mm: float
    lesions: tuple[Lesion, ...]
    dropped: tuple[Lesion, ...]
    false_positives: int


def lesion_wise(prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], rule: Rule) -> LesionWise:
    """Score one region of one row.

    Args:
        prediction, truth: bool (I, J, K), or (I, J) of a slice.
        spacing_mm: three lengths; of a slice, the third is the distance between slices.
        rule: one of `RULES`, by the challenge's name.

    Raises:
        DataError: masks that are not bool, or of other shapes; or not three lengths above 0.
    """
    check_masks(prediction, truth)
    if truth.ndim not in (2, 3) or len(spacing_mm) != 3 or min(spacing_mm) <= 0:
        raise DataError(
            "lesions are counted in 2D or 3D masks with three lengths above 0",
            found=f"{tuple(spacing_mm)} for {truth.shape}",
            next_step="of a slice, give the distance between slices as the third",
        )
    if (either := prediction | truth).any():  # nothing depends on what lies farther away
        frame = bounding_box(either, [rule.dilation] * truth.ndim)
        prediction, truth = prediction[frame], truth[frame]
    voxel_mm3, in_mask_mm = float(np.prod(spacing_mm)), tuple(spacing_mm)[: truth.ndim]
    pieces, count = _pieces(prediction)
    numbers, lesion_count = _lesions(truth, rule.dilation)
    lesions, touched = [], set[int]()
    for n in range(1, lesion_count + 1):
        lesion = numbers == n
        box = bounding_box(lesion, [rule.dilation] * truth.ndim)
        near = np.unique(pieces[box][_dilated(lesion[box], rule.dilation)])
        near = near[near > 0]
        touched.update(near.tolist())
        volume_mm3 = float(np.count_nonzero(lesion) * voxel_mm3)
        if near.size:
            found = np.isin(pieces, near)
            lesions.append(Lesion(volume_mm3, len(near), dice(found, lesion), hd95_mm(found, lesion, in_mask_mm)))
        else:
            lesions.append(Lesion(volume_mm3, 0, 0.0, PENALTY_MM))
    kept = tuple(lesion for lesion in lesions if lesion.volume_mm3 > rule.dropped_mm3)
    dropped = tuple(lesion for lesion in lesions if lesion.volume_mm3 <= rule.dropped_mm3)
    return _scored(kept, dropped, count - len(touched))


def together(parts: Sequence[LesionWise]) -> LesionWise:
    """Scores of one row whose slices stand in several stacks, from those of each stack."""
    kept = tuple(lesion for part in parts for lesion in part.lesions)
    dropped = tuple(lesion for part in parts for lesion in part.dropped)
    return _scored(kept, dropped, sum(part.false_positives for part in parts))


def _scored(kept: tuple[Lesion, ...], dropped: tuple[Lesion, ...], wrong: int) -> LesionWise:
    if not kept and not wrong:
        return LesionWise(1.0, 0.0, kept, dropped, 0)
    terms = len(kept) + wrong
    hd95 = (sum(lesion.hd95_mm for lesion in kept) + PENALTY_MM * wrong) / terms
    return LesionWise(sum(lesion.dice for lesion in kept) / terms, hd95, kept, dropped, wrong)


def _lesions(truth: np.ndarray, dilation: int) -> tuple[np.ndarray, int]:
    """The truth with every lesion's voxels numbered from 1, and how many there are."""
    blobs, count = _pieces(_dilated(truth, dilation))
    return np.where(truth, blobs, 0), count


def _pieces(mask: np.ndarray) -> tuple[np.ndarray, int]:
    numbers, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return numbers, int(count)


def _dilated(mask: np.ndarray, steps: int) -> np.ndarray:
    """Grown `steps` times over faces and edges, in 2D over edges and corners: the same structure within its slice."""
    return np.asarray(ndimage.binary_dilation(mask, ndimage.generate_binary_structure(mask.ndim, 2), steps))
