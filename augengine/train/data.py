"""Training batches from shards: which rows stand in batch n depends on the seed and n alone.

So a resumed run sees the rows that an undisturbed one would have seen, and any number of workers shares the same
global batches. A worker decodes every row group once an epoch and holds at most `cache_mb` of them, or one window where
that is more. Several data sets, real and augmented, are read as one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from augengine import rng
from augengine.diffusion.tissue import tissue_index
from augengine.diffusion.volume_context import neighbour_index
from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.io.shards import from_row, read_group
from augengine.records import Acquisition, IntensityRule, Sample
from augengine.selection.balance import AUGMENTED, REAL, left_out
from augengine.train.rows import SplitRows, Uris, row_bytes, row_groups, stores_of, window_bytes


@dataclass(frozen=True)
class Batch:
    """Rows as training sees them.

    Attributes:
        images: normalised, (B, C, *) float32; a list of (C, *) where rows differ in shape.
        tissue: (B, *) int8, see `tissue_index`; a list likewise.
        context: neighbouring slices of the same volume, (B, offsets * C, *) float32; no channels without offsets; a
            list likewise.
        acquisitions, subjects, spacings_mm, slab_ends_mm: one of each row, see `Sample`.
    """

    images: np.ndarray | list[np.ndarray]
    tissue: np.ndarray | list[np.ndarray]
    context: np.ndarray | list[np.ndarray]
    acquisitions: list[Acquisition]
    subjects: list[str]
    spacings_mm: list[tuple[float, ...]]
    slab_ends_mm: list[float | None]

    def __len__(self) -> int:
        return len(self.images)

    def part(self, rows: slice) -> Batch:
        """Some of the rows."""
        return Batch(
            self.images[rows],
            self.tissue[rows],
            self.context[rows],
            self.acquisitions[rows],
            self.subjects[rows],
            self.spacings_mm[rows],
            self.slab_ends_mm[rows],
        )

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return int(sum(plane.nbytes for plane in (*self.images, *self.tissue, *self.context)))


@dataclass(frozen=True)
class VolumeRows:
    """One volume: references of its rows, and of each a text that is equal for rows on one voxel grid of the world."""

    subject: str
    references: tuple[tuple[int, int], ...]
    grids: tuple[str, ...]


class BatchReader:
    """Random access to the endless stream of the batches of some `rows` of one or several folders.

    An epoch visits every row once: row groups in random order, rows shuffled within windows of `window_groups`. A cache
    that held less than a window would decode a whole row group for almost every row, so it holds one at the least.
    """

    def __init__(
        self,
        uris: Uris,
        rows: SplitRows,
        seed: int,
        batch_size: int,
        labels: Sequence[str] = (),
        *,
        context: Sequence[int] = (),
        window_groups: int = 8,
        cache_mb: int = 1024,
        rule: IntensityRule | None = None,
    ) -> None:
        self.rule = rule  # of the rows' intensity ranges; None takes any
        self.stores, self.seed, self.batch_size = stores_of(uris), seed, batch_size
        self.wanted = rows.within(self.stores)
        self.labels, self.context = tuple(labels), tuple(context)
        self.window_groups, self.cache_bytes = window_groups, cache_mb * 2**20
        self.groups: list[tuple[tuple[int, str, int], int]] = []  # row group, wanted rows in it
        kinds: list[np.ndarray] = []  # of each row, see `_epoch`
        largest = 0
        for place, found in row_groups(self.stores, [*self.wanted.columns, "image_shape"]):
            held = [row for row in found if self.wanted.holds(row)]
            if held:
                self.groups.append((place, len(held)))
                largest = max(largest, *(row_bytes(row["image_shape"], len(self.context)) for row in held))
                kinds.append(
                    np.array(
                        [(AUGMENTED if row["synthetic"] else REAL) + self.wanted.kind(row) for row in held], np.uint8
                    )
                )
        counts = [count for _, count in self.groups]
        self._kinds = np.concatenate(kinds) if self.wanted.balance and kinds else None
        self.rows = sum(counts) - len(self._left_out(0))
        self.cache_bytes = max(self.cache_bytes, window_bytes(counts, largest, window_groups))
        self._order: tuple[int, np.ndarray] = (-1, np.empty((0, 2), np.int64))
        self._cache: OrderedDict[int, Batch] = OrderedDict()
        self._cached_bytes = 0

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The share of worker `rank` of `world` in global batch `step`: rows rank, rank + world, …"""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[rank::world]
        return self.take([self._reference(int(place)) for place in places])

    def first(self, count: int) -> Batch:
        """The first `count` rows in shuffled order, for validation."""
        return self.take([tuple(ref) for ref in self._epoch(0)[:count].tolist()])

    def volumes(self) -> dict[str, VolumeRows]:
        """The rows of every volume, in the order of its slices; reads metadata alone."""
        found: dict[str, list[tuple[int, tuple[int, int], str]]] = {}
        subjects: dict[str, str] = {}
        columns = ["volume_id", "subject_id", "slice_index", "image_shape", "affine"]
        columns += [name for name in self.wanted.columns if name not in columns]
        for group, ((folder, name, part), _) in enumerate(self.groups):
            rows = read_group(self.stores[folder].parquet(name), part, columns).to_pylist()
            for place, row in enumerate(row for row in rows if self.wanted.holds(row)):
                volume, grid = row["volume_id"], rng.digest(row["image_shape"], np.round(row["affine"], 2).tolist())
                found.setdefault(volume, []).append((row["slice_index"] or 0, (group, place), grid))
                subjects[volume] = row["subject_id"]
        volumes = {}
        for volume, rows in found.items():
            _, references, grids = zip(*sorted(rows), strict=True)
            volumes[volume] = VolumeRows(subjects[volume], references, grids)
        return volumes

    def take(self, references: Sequence[tuple[int, int]]) -> Batch:
        """Rows given as (group, place among the group's wanted rows)."""
        parts = [(self._group(group), row) for group, row in references]
        return Batch(
            _stacked([rows.images[n] for rows, n in parts]),
            _stacked([rows.tissue[n] for rows, n in parts]),
            _stacked([rows.context[n] for rows, n in parts]),
            [rows.acquisitions[n] for rows, n in parts],
            [rows.subjects[n] for rows, n in parts],
            [rows.spacings_mm[n] for rows, n in parts],
            [rows.slab_ends_mm[n] for rows, n in parts],
        )

    def _reference(self, place: int) -> tuple[int, int]:
        group, row = self._epoch(place // self.rows)[place % self.rows]
        return int(group), int(row)

    def _epoch(self, epoch: int) -> np.ndarray:
        """(rows, 2) references in the order of one epoch; 16 bytes a row."""
        if self._order[0] != epoch:
            random = rng.generator("batches", self.seed, epoch)
            shuffled = random.permutation(len(self.groups))
            kept = np.ones(sum(count for _, count in self.groups), bool)
            kept[self._left_out(epoch)] = False
            ends = np.cumsum([count for _, count in self.groups])
            windows = []
            for start in range(0, len(shuffled), self.window_groups):
                chosen = shuffled[start : start + self.window_groups]
                window = np.concatenate(
                    [_references(int(g), kept[ends[g] - self.groups[g][1] : ends[g]]) for g in chosen]
                )
                windows.append(random.permutation(window, axis=0))
            self._order = (epoch, np.concatenate(windows))
        return self._order[1]

    def _left_out(self, epoch: int) -> np.ndarray:
        """Numbers of the rows that an epoch leaves out: real ones that are replaced, and augmented ones not drawn."""
        if self._kinds is None:
            return np.empty(0, np.int64)
        return left_out(self._kinds, self.wanted.augmented_per_real or 0, self.seed, epoch)

    def _group(self, index: int) -> Batch:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        loaded = self._decoded(*self.groups[index][0])
        self._cache[index] = loaded
        self._cached_bytes += loaded.nbytes
        while self._cached_bytes > self.cache_bytes and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.nbytes
        return loaded

    def _decoded(self, folder: int, name: str, group: int) -> Batch:
        """All wanted rows of a row group."""
        rows = read_group(self.stores[folder].parquet(name), group).to_pylist()
        samples = [self._fitting(from_row(row)) for row in rows if self.wanted.holds(row)]
        images = _stacked([normalise(s) for s in samples])
        return Batch(
            images,
            _stacked([tissue_index(s.label, s.labels, self.labels, s.image) for s in samples]),
            self._context(samples, images),
            [s.acquisition for s in samples],
            [s.subject_id for s in samples],
            [s.spacing_mm[: s.image.ndim - 1] for s in samples],
            [s.slab_end_mm for s in samples],
        )

    def _context(
        self, samples: Sequence[Sample], images: np.ndarray | list[np.ndarray]
    ) -> np.ndarray | list[np.ndarray]:
        """See `Batch`. Neighbours beyond the row group are not read: the nearest slice within it stands for them."""
        if isinstance(images, list) or not self.context:  # copies and augmented rows of a slice may stand side by side
            return _stacked([image[:0] for image in images])
        volumes, slices = [s.volume_id for s in samples], [s.slice_index or 0 for s in samples]
        neighbours = neighbour_index(volumes, slices, self.context)
        planes = images[neighbours].reshape(len(images), len(self.context) * images.shape[1], *images.shape[2:])
        return np.asarray(planes)

    def _fitting(self, sample: Sample) -> Sample:
        """The sample; one on another scale than the others, whichever split it is of, is a `DataError`."""
        if self.rule not in (None, sample.intensity_rule):
            raise DataError(
                f"rows must have {self.rule}",
                found=str(sample.intensity_rule),
                where=sample.sample_id,
                next_step="train on data that were ingested alike",
            )
        return sample


def _stacked(planes: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    return np.stack(planes) if len({plane.shape for plane in planes}) == 1 else planes


def _references(group: int, kept: np.ndarray) -> np.ndarray:
    places = np.flatnonzero(kept)
    return np.stack([np.full(len(places), group), places], axis=1)
