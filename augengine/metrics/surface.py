"""Two masks of one row in, distances between their surfaces in mm out, by MONAI.

In 3D a surface is a set of patches with an area, in 2D a contour of pieces with a length, so that every number
weighs by how much surface there is and not by how finely voxels cut it (Nikolov et al. 2021). Conventions: two empty
masks agree perfectly; one empty mask is infinitely far away. Spacing is one length per axis of the masks.

The last axis of a 3D mask is the one that slices are stacked along, and its ends are open: where the scan ends, the
organ does not, so no surface is drawn there. MONAI, medpy and DeepMind's package close both ends with a lid, on which
any two masks agree: the fewer slices, the better their figures. A stack of one slice is measured as that slice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics.utils import get_mask_edges, get_surface_distance

from augengine.denormals import denormals
from augengine.errors import DataError
from augengine.masks import bounding_box
from augengine.metrics.overlap import check_masks

Side = tuple[np.ndarray, np.ndarray]


def hd95_mm(a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float], percent: float = 95.0) -> float:
    """The larger of the two directed distances within which `percent` of a surface lies from the other.

    The definition that the BraTS 2023 challenge ranks by (DeepMind's robust Hausdorff distance), but for the open ends.

    Args:
        a, b: bool (I, J) or (I, J, K).
        spacing_mm: voxel size.
        percent: 100 is the Hausdorff distance.

    Returns:
        0 where both masks are empty, infinity where one is.
    """
    return hd95_of_stacks_mm([(a, b)], spacing_mm, percent)


def hd95_of_stacks_mm(
    stacks: Sequence[tuple[np.ndarray, np.ndarray]], spacing_mm: Sequence[float], percent: float = 95.0
) -> float:
    """`hd95_mm` of one organ in several stacks between which slices are missing; the surfaces of all weigh together.

    A surface in a stack where the other mask is empty is infinitely far from it.
    """
    sides = [pair for a, b in stacks if (pair := _sides(a, b, spacing_mm))]
    if not sides:
        return 0.0
    of_a, of_b = (_joined([pair[n] for pair in sides]) for n in (0, 1))
    return max(_percentile(side, percent) for side in (of_a, of_b) if len(side[0]))


def assd_mm(a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Average symmetric surface distance; 0 where both masks are empty, infinity where one is."""
    sides = _sides(a, b, spacing_mm)
    if sides is None:
        return 0.0
    return float(sum((d * area).sum() for d, area in sides) / sum(area.sum() for _, area in sides))


def surface_dice(a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float) -> float:
    """Share of both surfaces within `tolerance_mm` of the other; 1 where both masks are empty, 0 where one is."""
    sides = _sides(a, b, spacing_mm)
    if sides is None:
        return 1.0
    return float(sum(area[d <= tolerance_mm].sum() for d, area in sides) / sum(area.sum() for _, area in sides))


@denormals(flushed=False)  # the trees of distances need them
def _sides(a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float]) -> tuple[Side, Side] | None:
    """Of either surface the distances (n,) of its pieces to the other one and their areas; None if both are empty."""
    check_masks(a, b)
    if len(spacing_mm) != a.ndim or a.ndim not in (2, 3) or min(spacing_mm) <= 0:
        raise DataError(
            "spacing is one length above 0 per axis of a 2D or 3D mask", found=f"{tuple(spacing_mm)} for {a.shape}"
        )
    if not (a.any() or b.any()):
        return None
    if a.shape[2:] == (1,):
        a, b, spacing_mm = a[..., 0], b[..., 0], spacing_mm[:2]
    slices = a.shape[2] if a.ndim == 3 else None
    a, b = _framed(a), _framed(b)
    box = bounding_box(a | b, (1,) * a.ndim)  # distances do not depend on what lies around
    one, other, *areas = get_mask_edges(
        *(torch.from_numpy(np.ascontiguousarray(mask[box])) for mask in (a, b)), crop=False, spacing=tuple(spacing_mm)
    )
    if slices is not None:  # the pieces between the last slice and its copy are half outside of the stack
        planes = torch.arange(slices + 1)[box[2].start : box[2].stop - 1]
        ends = (planes == 0) | (planes == slices)
        areas = [torch.where(ends, area / 2, area) for area in areas]
    return _side(one, other, areas[0], spacing_mm), _side(other, one, areas[1], spacing_mm)


def _framed(mask: np.ndarray) -> np.ndarray:
    """Surrounded by one voxel: of background in the slice's plane, of the last slices' copies above and below."""
    mask = np.pad(mask, [(1, 1), (1, 1), *[(0, 0)] * (mask.ndim - 2)])
    return np.pad(mask, [(0, 0), (0, 0), (1, 1)], mode="edge") if mask.ndim == 3 else mask


def _side(edge: torch.Tensor, other: torch.Tensor, area: torch.Tensor, spacing_mm: Sequence[float]) -> Side:
    if not edge.any():
        return np.zeros(0), np.zeros(0)
    areas = area[edge].numpy().astype(np.float64)
    if not other.any():
        return np.full(len(areas), np.inf), areas
    return get_surface_distance(edge, other, spacing=tuple(spacing_mm)).numpy().astype(np.float64), areas


def _joined(sides: Sequence[Side]) -> Side:
    return np.concatenate([d for d, _ in sides]), np.concatenate([area for _, area in sides])


def _percentile(side: Side, percent: float) -> float:
    distances, areas = side
    order = np.argsort(distances)
    share = np.cumsum(areas[order]) / areas.sum()
    first = int(np.searchsorted(share, percent / 100))
    # Rounding may leave the last share just below 1.
    return float(distances[order][min(first, len(order) - 1)])
