"""Training scans in; what a network without pairs of scans learns from: their bodies, contrast and settings, out.

Scans of alike settings are seen as one pool. Legend: N voxels, D inputs, C channels, `*` spatial axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from augengine.diffusion import settings
from augengine.diffusion.band_transport import BandTable
from augengine.diffusion.local_contrast import View
from augengine.diffusion.local_features import at_full_scale
from augengine.records import Acquisition
from augengine.train.data import Batch, BatchReader, VolumeRows

# Scans within so much of the nearest one (see `settings.distance`) make one pool, and one setting.
ALIKE = 0.6
POOL = 16
# A setting nearer than this is the scan's own.
_OWN = 0.3
_TABLE_VOXELS = 40_000


@dataclass(frozen=True)
class Partner:
    """The same subject on the same voxel grid under another setting: normalised rows (C, *), in the scan's order."""

    acquisition: Acquisition
    images: list[np.ndarray]
    clipped: tuple[bool, ...]


@dataclass(frozen=True)
class Scan:
    """A training scan, or the sample of it that is looked at.

    Attributes:
        images: normalised rows (C, *).
        views: of the rows.
        tables: of each channel.
        clipped: of each channel, whether it reaches its full scale.
    """

    volume: str
    subject: str
    acquisition: Acquisition
    spacing_mm: tuple[float, ...]
    images: list[np.ndarray]
    views: list[View]
    tables: tuple[BandTable, ...]
    clipped: tuple[bool, ...]
    partners: tuple[Partner, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Scans of one setting, seen as one."""

    acquisition: Acquisition
    tables: tuple[BandTable, ...]
    clipped: tuple[bool, ...]


def spread(rows: int, count: int) -> list[int]:
    """`count` of so many rows, from the first to the last: at the ends of a slab the flip angle falls off."""
    return sorted(set(np.linspace(0, rows - 1, count).round().astype(int).tolist())) if count > 1 else [(rows - 1) // 2]


def scan_of(volume: str, rows: Batch, slab: bool) -> Scan | None:
    """Of rows of one volume; None if none of them shows a body.

    Args:
        slab: take note of how far voxels lie from the ends of what was acquired.
    """
    ends = rows.slab_ends_mm if slab else [None] * len(rows)
    views = [View.of(*row) for row in zip(rows.images, rows.spacings_mm, ends, strict=True)]
    kept = [n for n, view in enumerate(views) if view.where.any()]
    if not kept:
        return None
    views = [views[n] for n in kept]
    clipped = tuple(any(flags) for flags in zip(*(view.clipped for view in views), strict=True))
    return Scan(
        volume,
        rows.subjects[0],
        rows.acquisitions[0],
        rows.spacings_mm[0],
        [rows.images[n] for n in kept],
        views,
        tables_of([view.features for view in views], [view.slab_mm for view in views]),
        clipped,
    )


def partners_of(
    reader: BatchReader, volumes: Mapping[str, VolumeRows], volume: str, places: Sequence[int], scan: Scan
) -> tuple[Partner, ...]:
    """Other volumes of the subject that have all of these rows' grids."""
    own, found = volumes[volume], []
    for name, other in sorted(volumes.items()):
        if name == volume or other.subject != own.subject:
            continue
        by_grid = dict(zip(other.grids, other.references, strict=True))
        references = [by_grid.get(own.grids[n]) for n in places]
        if not all(references):
            continue
        rows = reader.take([reference for reference in references if reference])
        if settings.distance(rows.acquisitions[0], scan.acquisition) > _OWN and len(scan.images) == len(rows):
            flags = [
                [at_full_scale(channel, view.where) for channel in image]
                for image, view in zip(rows.images, scan.views, strict=True)
            ]
            clipped = tuple(any(channel) for channel in zip(*flags, strict=True))
            found.append(Partner(rows.acquisitions[0], list(rows.images), clipped))
    return tuple(found)


def tables_of(rows: Sequence[tuple[np.ndarray, ...]], slab_mm: Sequence[np.ndarray]) -> tuple[BandTable, ...]:
    """Of each channel, from the features of all rows of a scan and the distances (N,) of their voxels (`View`)."""
    found, distances = [], np.concatenate(slab_mm)
    for features in zip(*rows, strict=True):
        voxels = np.concatenate(features)
        some = slice(None, None, max(1, len(voxels) // _TABLE_VOXELS))
        found.append(BandTable.of(voxels[some], distances[some]))
    return tuple(found)


def targets_of(scan: Scan, scans: Sequence[Scan]) -> list[Pool]:
    """Settings that differ from the scan's, one for each of `scans` that is of another subject."""
    others = [s for s in scans if s.subject != scan.subject]
    found: dict[Acquisition, Pool] = {}
    for other in others:
        if settings.distance(scan.acquisition, other.acquisition) > _OWN and other.acquisition not in found:
            found[other.acquisition] = _pool(other.acquisition, scan, others)
    return [found[other.acquisition] for other in others if other.acquisition in found]


def _pool(target: Acquisition, source: Scan, others: Sequence[Scan]) -> Pool:
    """Those of `others` made most like `target`.

    Of the source's own vendor, those count first that reach full scale if the source does: its scanner would.
    """
    if settings.same_vendor(source.acquisition, target):
        near = [s for s in others if settings.distance(s.acquisition, target) < 1 + ALIKE]
        others = [s for s in near if s.clipped == source.clipped] or others
    ranked = sorted(others, key=lambda s: (settings.distance(s.acquisition, target), s.volume))
    nearest = settings.distance(ranked[0].acquisition, target)
    chosen = [s for s in ranked if settings.distance(s.acquisition, target) <= nearest + ALIKE][:POOL]
    channels = range(len(source.tables))
    return Pool(
        target,
        tuple(BandTable.mean([s.tables[c] for s in chosen]) for c in channels),
        tuple(sum(s.clipped[c] for s in chosen) * 2 > len(chosen) for c in channels),
    )
