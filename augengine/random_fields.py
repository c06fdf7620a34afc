"""A shape in voxels and a length in millimetres in; a smooth random field out (float32)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=128)
def _bspline_weights(size: int, nodes: int, phase: float) -> np.ndarray:
    """(size, nodes + 3) weights of the uniform cubic B-spline over `nodes` intervals, shifted by `phase` nodes."""
    position = (np.arange(size) + 0.5) / size * (nodes - 1) + phase
    cell = np.floor(position).astype(int)
    t = position - cell
    weights = np.zeros((size, nodes + 3), np.float32)
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for offset, part in enumerate(parts):
        weights[np.arange(size), cell + offset] = part / 6
    return weights


def smooth_field(
    rng: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float], length_mm: float
) -> np.ndarray:
    """float32 (*): a random field of mean about 0 and SD about 1 that changes over about `length_mm`.

    White noise on a coarse grid, interpolated by cubic B-splines one axis after the other (fast, no FFT).
    """
    nodes = [max(2, int(np.ceil(n * s / length_mm)) + 1) for n, s in zip(shape, spacing_mm, strict=True)]
    field = rng.standard_normal([n + 3 for n in nodes]).astype(np.float32)
    for size, count in zip(shape, nodes, strict=True):
        weights = _bspline_weights(size, count, float(np.round(rng.random() * 8) / 8) * 0.99)
        field = np.tensordot(field, weights, axes=(0, 1))  # moves the done axis to the end: after all, in order
    # A B-spline keeps the share sum(w^2) of white noise: 0.479 per interpolated axis on average.
    return np.ascontiguousarray(field / np.float32(0.479 ** (len(nodes) / 2)))
