"""A row, or slices of a scan, in; slice by slice what a network that changes contrast sees of each voxel out.

Legend: C channels, N voxels of the body in C order, F features, `*` spatial axes, H, W of a slice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from augengine.diffusion.local_features import (
    APART_MM,
    NEIGHBOURS,
    at_full_scale,
    blurred,
    body,
    local_features,
    neighbour_features,
)


@dataclass(frozen=True)
class View:
    """What the network sees of one slice.

    Attributes:
        where: bool (H, W), the body.
        features: (N, F) of each channel.
        slab_mm: (N,) distance of each voxel to the nearer end of what was acquired, NaN where nobody says.
    """

    where: np.ndarray
    features: tuple[np.ndarray, ...]
    slab_mm: np.ndarray


@dataclass(frozen=True)
class Slices:
    """Slices of one scan: a row of one slice, all those of a volume, or some of either.

    Attributes:
        planes: normalised (C, H, W) each.
        spacing_mm: within a slice.
        slab_mm: of each slice, how far it lies from the nearer end of what was acquired; NaN where nobody says.
        step: the neighbours of slice n are n - step and n + step; 0 if these are no neighbours.
    """

    planes: Sequence[np.ndarray]
    spacing_mm: tuple[float, ...]
    slab_mm: Sequence[float]
    step: int

    @classmethod
    def of(cls, image: np.ndarray, spacing_mm: Sequence[float], slab_end_mm: float | None = None) -> Slices:
        """Of a normalised row (C, *), whose outermost slices lie so far from the ends of what was acquired."""
        end_mm = math.nan if slab_end_mm is None else slab_end_mm
        if image.ndim == 3:
            return cls([image], tuple(spacing_mm)[:2], [end_mm], 0)
        count, thick = image.shape[3], spacing_mm[2]
        slab_mm = [end_mm + min(k, count - 1 - k) * thick for k in range(count)]
        planes = [np.ascontiguousarray(image[..., k]) for k in range(count)]
        return cls(planes, tuple(spacing_mm)[:2], slab_mm, max(1, round(APART_MM / thick)))

    def thinned(self) -> Slices:
        """Every `step`-th of a volume's: each then lies beside its neighbours."""
        if self.step < 2:
            return self
        return Slices(self.planes[:: self.step], self.spacing_mm, self.slab_mm[:: self.step], 1)

    def bodies(self) -> list[np.ndarray]:
        """bool (H, W) of each."""
        return [body(plane, self.spacing_mm) for plane in self.planes]

    def views(self, bodies: Sequence[np.ndarray], of_bands: bool = False) -> Iterator[View]:
        """Of one slice after the other, given the body in each; for `of_bands` see `local_features`."""
        known: dict[int, list[np.ndarray]] = {}
        for k, (plane, where) in enumerate(zip(self.planes, bodies, strict=True)):
            features = [local_features(channel, where, self.spacing_mm, of_bands) for channel in plane]
            near = [n for n in (k - self.step, k + self.step) if n != k and 0 <= n < len(bodies)]
            if of_bands or not near:
                beside = [np.zeros((len(f), NEIGHBOURS), np.float32) for f in features]
            else:
                for n in (k, *near):
                    if n not in known:
                        known[n] = [blurred(channel, bodies[n], self.spacing_mm) for channel in self.planes[n]]
                beside = [neighbour_features(where, own, [known[n][c] for n in near]) for c, own in enumerate(known[k])]
            yield View(
                where,
                tuple(np.concatenate(both, axis=1) for both in zip(features, beside, strict=True)),
                np.full(np.count_nonzero(where), self.slab_mm[k], np.float32),
            )
            known.pop(k - self.step, None)

    def clipped(self, bodies: Sequence[np.ndarray]) -> tuple[bool, ...]:
        """Of each channel, whether it reaches its full scale."""
        inside = [plane[:, where] for plane, where in zip(self.planes, bodies, strict=True)]
        return tuple(at_full_scale(channel) for channel in np.concatenate(inside, axis=1))
