"""Scans of two acquisitions, never of one anatomy, in; a first guess of what one would look like as the other out.

The logarithm of an image is the sum of bands, from shading to fine detail. Each band of a source is moved, quantile by
quantile, onto that of the target's pool, among voxels equally deep below the skin: where the order of tissues changes
with the acquisition no single curve can follow it, and detail of one size at one depth is mostly of the same tissues.
Legend: N voxels, F features of `local_features`, K bands, Q quantiles, L layers of depth, E distances from an
end of the slab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from augengine.diffusion.local_features import FEATURES, FLOOR

LAYERS = 8
RANKS = (np.arange(201) + 0.5) / 201
# Closer together where images are bright: the share of voxels at full scale must survive.
LEVELS = np.linspace(0, 1, 1001) ** 0.7
# Distances from the ends of a slab about which intensities are looked at apart, closer together where pulses fall off.
ENDS_MM = np.array([2.5, 12.5, 22.5, 37.5, 55.0])
_PLACE = {name: n for n, name in enumerate(FEATURES)}
_DETAIL = ("log_over_mean_1.5mm", *(f"log_mean_{s}mm_over_next" for s in ("1.5", "3", "6", "12")))
_CENTRES = (np.arange(LAYERS) + 0.5) / LAYERS
_REACH = 1 / LAYERS
_NEAR = 0.25  # weight from which on a voxel counts for a distance's quantiles
# Share of a scan's departure in brightness that stays with another setting; of that in its bands all does. Of one
# volunteer on 11 scanners at two flip angles the slopes were .6 and .8 (correlation .69), of bands about 1 (.8 to .95).
_KEPT = 0.7


@dataclass(frozen=True)
class BandTable:
    """What a scan, or a pool of scans, looks like without where anything is.

    Attributes:
        depth: (Q,) quantiles of the depth below the skin, mm.
        bands: (K, 1 + L, Q) quantiles of every band, of all voxels and of each layer of depth.
        intensity: (1 + E, levels) quantiles of the intensity at `LEVELS`, of all voxels and about each of `ENDS_MM`.
    """

    depth: np.ndarray
    bands: np.ndarray
    intensity: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, slab_mm: np.ndarray) -> BandTable:
        """From (N, F) features and (N,) distances (see `levels`) of a scan's voxels; `ValueError` without any."""
        if not len(features):
            raise ValueError("a table needs voxels")
        depth = np.quantile(features[:, _PLACE["depth_mm"]], RANKS)
        rank = _rank(features, depth)
        tables = []
        for band in _bands(features):
            layers = [band[np.abs(rank - centre) < _REACH] for centre in _CENTRES]
            tables.append([np.quantile(part if len(part) else band, RANKS) for part in (band, *layers)])
        return cls(depth, np.array(tables), levels(features[:, _PLACE["intensity"]], slab_mm))

    @classmethod
    def mean(cls, tables: Sequence[BandTable]) -> BandTable:
        """Of several scans, each of the same weight: their quantiles' mean keeps the shape that they share."""
        return cls(
            np.mean([t.depth for t in tables], axis=0),
            np.mean([t.bands for t in tables], axis=0),
            np.mean([t.intensity for t in tables], axis=0),
        )

    def as_one(self, own: BandTable, usual: BandTable) -> BandTable:
        """Of that scan of this pool which its own setting shows like `own`, where others of it show `usual`.

        What sets a scan apart from others of its setting, such as its sharpness and its coil's shading, belongs to the
        scanner and the patient, and is the same under another setting.
        """
        departure = np.log((own.intensity + FLOOR) / (usual.intensity + FLOOR))
        intensity = (self.intensity + FLOOR) * np.exp(_KEPT * departure) - FLOOR
        bands = self.bands + own.bands - usual.bands
        return BandTable(
            self.depth,
            np.maximum.accumulate(bands, axis=-1),
            np.maximum.accumulate(np.maximum(intensity, 0), axis=-1),
        )


def transport(features: np.ndarray, source: BandTable, target: BandTable) -> np.ndarray:
    """Intensity (N,) of voxels with features (N, F) of a scan like `source`, as one like `target` shows them."""
    rank = _rank(features, source.depth)
    weights = np.maximum(1 - np.abs(rank[:, None] - _CENTRES) / _REACH, 0)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    shading, *detail = _bands(features)
    total = _moved(shading, source.bands[0, 0], target.bands[0, 0])  # by layers it would copy where the fat lies
    for band, mine, theirs in zip(detail, source.bands[1:], target.bands[1:], strict=True):
        for n in range(LAYERS):
            there = weights[:, n] > 0
            total[there] += weights[there, n] * _moved(band[there], mine[n + 1], theirs[n + 1])
    return np.asarray(np.maximum(np.exp(np.clip(total, -4, 1.5)) - FLOOR, 0), np.float32)


def levels(intensity: np.ndarray, slab_mm: np.ndarray) -> np.ndarray:
    """(1 + E, levels) quantiles of (N,) intensities: of all voxels, and of those about each of `ENDS_MM`.

    Args:
        slab_mm: (N,) distance of each voxel to the nearer end of what was acquired; where one is NaN, none is known.
    """
    whole = np.quantile(intensity, LEVELS)
    if np.isnan(slab_mm).any():
        return np.tile(whole, (1 + len(ENDS_MM), 1))
    found = [whole]
    for weight, end in zip(_about_ends(slab_mm).T, ENDS_MM, strict=True):
        near = weight > _NEAR
        if not near.any():  # a thin slab has no such depth: its middle stands for it
            apart = np.abs(slab_mm - end)
            near = apart <= apart.min() + 1e-3
        found.append(np.quantile(intensity[near], LEVELS))
    return np.array(found)


def matched(intensity: np.ndarray, slab_mm: np.ndarray, own: np.ndarray, target: BandTable) -> np.ndarray:
    """Values (N,) of a scan whose `levels` are `own`, with those of the target; by distance from the end if known.

    Over all slices at once, what is darker in the middle of a slab than at its ends would be matched away.
    """
    if np.isnan(slab_mm).any():
        return np.asarray(_moved(intensity, own[0], target.intensity[0]), np.float32)
    total = np.zeros(len(intensity))
    for weight, mine, theirs in zip(_about_ends(slab_mm).T, own[1:], target.intensity[1:], strict=True):
        there = weight > 0
        total[there] += weight[there] * _moved(intensity[there], mine, theirs)
    return np.asarray(total, np.float32)


def _about_ends(slab_mm: np.ndarray) -> np.ndarray:
    """(N, E) weights of each of `ENDS_MM`, linear between them, that add up to 1."""
    identity = np.eye(len(ENDS_MM))
    return np.stack([np.interp(slab_mm, ENDS_MM, row) for row in identity], axis=-1)


def _bands(features: np.ndarray) -> list[np.ndarray]:
    """The logarithm of the intensity as a sum: shading first, then detail from fine to coarse."""
    shading = features[:, _PLACE["log_intensity"]] - features[:, _PLACE["log_over_mean_25mm"]]
    return [shading, *(features[:, _PLACE[name]] for name in _DETAIL)]


def _rank(features: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Share of a scan's voxels that lie less deep."""
    return np.asarray(np.interp(features[:, _PLACE["depth_mm"]], _rising(depth), RANKS))


def _moved(values: np.ndarray, mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.asarray(np.interp(values, _rising(mine), theirs))


def _rising(quantiles: np.ndarray) -> np.ndarray:
    """Strictly rising: at full scale many voxels have one value."""
    return np.asarray(quantiles + np.arange(len(quantiles)) * 1e-7)
