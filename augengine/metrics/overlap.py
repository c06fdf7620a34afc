"""Two masks or label maps of one row in, their overlap out."""

from __future__ import annotations

import numpy as np

from augengine.errors import DataError


def check_masks(*masks: np.ndarray) -> None:
    """Raise a `DataError` unless all masks are bool and of one shape: numpy would broadcast and count codes."""
    for mask in masks:
        if mask.dtype != bool:
            raise DataError("a mask is bool", found=str(mask.dtype), next_step="compare with a label code or threshold")
    shapes = {mask.shape for mask in masks}
    if len(shapes) > 1:
        raise DataError("masks that are compared have one shape", found=sorted(shapes), next_step="resample one")


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """2|a∩b| / (|a| + |b|) of bool arrays of one shape; 1 where both are empty, since nothing is missed.

    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    check_masks(a, b)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return float(2 * np.count_nonzero(a & b) / total) if total else 1.0


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """|a∩b| / |a∪b| of bool arrays of one shape; 1 where both are empty."""
    check_masks(a, b)
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0
