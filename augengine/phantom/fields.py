"""Textures and soft masks: the building blocks of every phantom anatomy (float32 throughout)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def noise_cube(rng: np.random.Generator, size: int = 64, wavelength: float = 8.0) -> np.ndarray:
    """A periodic (size, size, size) Gaussian field of SD 1 around one wavelength (in cells): a texture to look up."""
    frequency = np.sqrt(sum(np.meshgrid(*(np.fft.fftfreq(size) ** 2,) * 2, np.fft.rfftfreq(size) ** 2, indexing="ij")))
    band = np.exp(-0.5 * ((frequency * wavelength - 1) / 0.35) ** 2).astype(np.float32)
    white = np.fft.rfftn(rng.standard_normal((size,) * 3, np.float32))
    cube = np.fft.irfftn(white * band, s=(size,) * 3, axes=(0, 1, 2)).astype(np.float32)
    return np.asarray(cube / cube.std(), np.float32)


def look_up(cube: np.ndarray, *cells: np.ndarray) -> np.ndarray:
    """The periodic texture at fractional cell positions (each of the same shape), linearly interpolated."""
    return np.asarray(ndimage.map_coordinates(cube, np.stack(cells), order=1, mode="grid-wrap", prefilter=False))


def coverage(depth_mm: np.ndarray, edge_mm: float) -> np.ndarray:
    """Share of a voxel inside a surface, from the depth below it (negative outside): a linear ramp of `edge_mm`."""
    return np.asarray(np.clip(depth_mm * np.float32(1 / edge_mm) + np.float32(0.5), 0, 1), np.float32)


def smooth_union(first: np.ndarray, second: np.ndarray, blend_mm: float) -> np.ndarray:
    """Depth below the union of two bodies with a fillet of `blend_mm` where they meet."""
    mix = np.clip(0.5 + (first - second) / np.float32(2 * blend_mm), 0, 1)
    return np.asarray(second + (first - second) * mix + np.float32(blend_mm) * mix * (1 - mix))


def true_depth(implicit: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """An implicit function divided by its own slope: close to the Euclidean depth near the surface."""
    squared = np.zeros_like(implicit)
    for axis, spacing in enumerate(spacing_mm):
        slope = np.gradient(implicit, np.float32(spacing), axis=axis)
        squared += slope * slope
    return np.asarray(implicit / np.sqrt(np.maximum(squared, np.float32(0.05))))


class Canvas:
    """Tissue fractions that never sum to more than one: each painted tissue covers what lies under it."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.fractions: dict[str, np.ndarray] = {}

    def paint(self, name: str, cover: np.ndarray) -> None:
        """Lay `cover` (0 to 1) of one tissue over the canvas."""
        for fraction in self.fractions.values():
            fraction *= 1 - cover
        if name not in self.fractions:
            self.fractions[name] = np.zeros(self.shape, np.float32)
        self.fractions[name] += cover
