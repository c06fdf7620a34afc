"""Two masks of one row in, distances between their surfaces in mm out, by MONAI.

In 3D a surface is a set of patches with an area, in 2D a contour of pieces with a length, so that every number
weighs by how much surface there is and not by how finely voxels cut it (Nikolov et al. 2021). Conventions: two empty
masks agree perfectly; one empty mask is infinitely far away. Spacing is one length per axis of the masks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics.utils import get_edge_surface_distance

from augengine.errors import DataError
from augengine.masks import bounding_box
from augengine.metrics.overlap import check_masks

Side = tuple[np.ndarray, np.ndarray]


def hd95_mm(a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float], percent: float = 95.0) -> float:
    """The larger of the two directed distances within which `percent` of a surface lies from the other.

    The definition that the BraTS 2023 challenge ranks by (DeepMind's robust Hausdorff distance).

    Args:
        a, b: bool (*).
        spacing_mm: voxel size.
        percent: 100 is the Hausdorff distance.

    Returns:
        0 where both masks are empty, infinity where one is.
    """
    sides = _sides(a, b, spacing_mm)
    return max(_percentile(side, percent) for side in sides) if sides else _empty(a, b, 0.0, math.inf)


def assd_mm(a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Average symmetric surface distance; 0 where both masks are empty, infinity where one is."""
    sides = _sides(a, b, spacing_mm)
    if not sides:
        return _empty(a, b, 0.0, math.inf)
    return float(sum((d * area).sum() for d, area in sides) / sum(area.sum() for _, area in sides))


def surface_dice(a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float) -> float:
    """Share of both surfaces within `tolerance_mm` of the other; 1 where both masks are empty, 0 where one is."""
    sides = _sides(a, b, spacing_mm)
    if not sides:
        return _empty(a, b, 1.0, 0.0)
    return float(sum(area[d <= tolerance_mm].sum() for d, area in sides) / sum(area.sum() for _, area in sides))


def _sides(a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float]) -> tuple[Side, Side] | None:
    """Of either surface the distances (n,) of its pieces to the other one and their areas; None if one is empty."""
    check_masks(a, b)
    if len(spacing_mm) != a.ndim or a.ndim not in (2, 3) or min(spacing_mm) <= 0:
        raise DataError("spacing is one length above 0 per axis of a 2D or 3D mask",
                        found=f"{tuple(spacing_mm)} for {a.shape}")  # fmt: skip
    if not (a.any() and b.any()):
        return None
    box = bounding_box(a | b, (0,) * a.ndim)  # distances do not depend on what lies around
    pair = (torch.from_numpy(np.ascontiguousarray(mask[box])) for mask in (a, b))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's, about how it calls itself
        edges, distances, areas = get_edge_surface_distance(
            *pair, spacing=tuple(spacing_mm), use_subvoxels=True, symmetric=True
        )
    one, other = (
        (d.numpy().astype(np.float64), area[edge].numpy().astype(np.float64))
        for edge, d, area in zip(edges, distances, areas, strict=True)
    )
    return one, other


def _percentile(side: Side, percent: float) -> float:
    distances, areas = side
    order = np.argsort(distances)
    share = np.cumsum(areas[order]) / areas.sum()
    first = int(np.searchsorted(share, percent / 100))
    # Rounding may leave the last share just below 1.
    return float(distances[order][min(first, len(order) - 1)])


def _empty(a: np.ndarray, b: np.ndarray, both: float, one: float) -> float:
    return one if a.any() or b.any() else both
