"""Training scans in; what a network without pairs of scans learns from: their bodies, contrast and settings, out.

Scans of alike settings are seen as one pool. Legend: N voxels, F features, C channels, H, W of a slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from augengine.diffusion import settings
from augengine.diffusion.band_transport import BandTable
from augengine.diffusion.slices import Slices, View
from augengine.records import Acquisition
from augengine.train.data import Batch, BatchReader, VolumeRows

# Scans within so much of the nearest one (see `settings.distance`) make one pool, and one setting.
ALIKE = 0.6
POOL = 16
# Others within so much are of the scan's vendor and setting: they say what is usual there.
_COMPARABLE = 1.0
# A setting nearer than this is the scan's own.
_OWN = 0.3
_TABLE_VOXELS = 40_000
_SOME = 2_000  # voxels of a scan that say what inputs are like


@dataclass(frozen=True)
class Partner:
    """The same subject on the same voxel grid under another setting: the slices of the scan, in its order."""

    acquisition: Acquisition
    planes: Sequence[np.ndarray]
    clipped: tuple[bool, ...]


@dataclass(frozen=True)
class Scan:
    """A training scan, or the sample of it that is looked at. What its voxels look like is not held, for its size.

    Attributes:
        bodies: bool (H, W) of each slice.
        some: what the network sees of a few voxels, drawn from all.
        tables: of each channel.
        clipped: of each channel, whether it reaches its full scale.
    """

    volume: str
    subject: str
    acquisition: Acquisition
    slices: Slices
    bodies: list[np.ndarray]
    some: View
    tables: tuple[BandTable, ...]
    clipped: tuple[bool, ...]
    partners: tuple[Partner, ...] = ()

    def views(self) -> list[View]:
        """Of each slice."""
        return list(self.slices.views(self.bodies))


@dataclass(frozen=True)
class Pool:
    """Scans of one setting, seen as one."""

    acquisition: Acquisition
    tables: tuple[BandTable, ...]
    clipped: tuple[bool, ...]

    def as_one(self, own: Sequence[BandTable], usual: Sequence[BandTable]) -> Pool:
        """As that one of its scans which another setting shows like `own`; see `BandTable.as_one`."""
        tables = (table.as_one(*both) for table, *both in zip(self.tables, own, usual, strict=True))
        return replace(self, tables=tuple(tables))


def spread(rows: int, count: int) -> list[int]:
    """`count` of so many rows, from the first to the last: at the ends of a slab the flip angle falls off."""
    return sorted(set(np.linspace(0, rows - 1, count).round().astype(int).tolist())) if count > 1 else [(rows - 1) // 2]


def scan_of(volume: str, rows: Batch, slab: bool, random: np.random.Generator) -> Scan | None:
    """Of rows of one volume, slices or itself as a whole; None if none of them shows a body.

    Args:
        slab: take note of how far voxels lie from the ends of what was acquired.
        random: draws the voxels of `Scan.some`.
    """
    slices = _slices(rows, slab)
    bodies = slices.bodies()
    if not any(where.any() for where in bodies):
        return None
    views = list(slices.views(bodies))
    tables = tables_of(views)
    return Scan(
        volume,
        rows.subjects[0],
        rows.acquisitions[0],
        slices,
        bodies,
        _some(views, random),
        tables,
        slices.clipped(bodies),
    )


def _slices(rows: Batch, slab: bool) -> Slices:
    """Rows of slices as they are, which need not be neighbours; of a volume some, each beside its neighbours."""
    ends = rows.slab_ends_mm if slab else [None] * len(rows)
    found = [Slices.of(*row).thinned() for row in zip(rows.images, rows.spacings_mm, ends, strict=True)]
    if len(found) == 1:
        return found[0]
    planes, slab_mm = [p for s in found for p in s.planes], [mm for s in found for mm in s.slab_mm]
    return Slices(planes, found[0].spacing_mm, slab_mm, 0)


def _some(views: Sequence[View], random: np.random.Generator) -> View:
    """Of voxels of all slices; `where` is their number."""
    counts = np.array([len(view.slab_mm) for view in views])
    drawn = random.choice(len(views), _SOME, p=counts / counts.sum())
    places = [(n, int(random.integers(counts[n]))) for n in drawn]
    features = [np.stack([views[n].features[c][i] for n, i in places]) for c in range(len(views[0].features))]
    slab_mm = np.array([views[n].slab_mm[i] for n, i in places])
    return View(np.ones((_SOME, 1), bool), tuple(features), slab_mm)


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
        if settings.distance(rows.acquisitions[0], scan.acquisition) > _OWN:
            slices = _slices(rows, slab=False)
            found.append(Partner(rows.acquisitions[0], slices.planes, slices.clipped(scan.bodies)))
    return tuple(found)


def tables_of(views: Sequence[View]) -> tuple[BandTable, ...]:
    """Of each channel, from all slices of a scan."""
    step = max(1, sum(len(view.slab_mm) for view in views) // _TABLE_VOXELS)
    slab_mm = np.concatenate([view.slab_mm[::step] for view in views])
    channels = range(len(views[0].features))
    return tuple(BandTable.of(np.concatenate([v.features[c][::step] for v in views]), slab_mm) for c in channels)


def targets_of(scan: Scan, scans: Sequence[Scan]) -> list[Pool]:
    """Settings that differ from the scan's, one for each of `scans` that is of another subject."""
    others = [s for s in scans if s.subject != scan.subject]
    found: dict[Acquisition, Pool] = {}
    for other in others:
        if settings.distance(scan.acquisition, other.acquisition) > _OWN and other.acquisition not in found:
            found[other.acquisition] = _pool(other.acquisition, scan, others)
    return [found[other.acquisition] for other in others if other.acquisition in found]


def usual_of(scan: Scan, scans: Sequence[Scan]) -> tuple[BandTable, ...]:
    """Tables of each channel of other subjects' scans of about the same setting; the scan's own if there are none."""
    others = [s for s in scans if s.subject != scan.subject]
    if not any(settings.distance(s.acquisition, scan.acquisition) < _COMPARABLE for s in others):
        return scan.tables
    return _pool(scan.acquisition, scan, others).tables


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
