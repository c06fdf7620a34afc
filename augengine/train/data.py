"""Training batches from shards: which rows stand in batch n depends on the seed and n alone.

So a resumed run sees the rows that an undisturbed one would have seen, and any number of workers shares the same
global batches. A worker holds at most `cache_mb` of decoded row groups; the driver reads no pixels at all. Several
folders of shards, real and augmented, are read as one data set.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from augengine import rng
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.tissue import tissue_index
from augengine.diffusion.volume_context import neighbour_index
from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.shards import check_schema, from_row, read_group
from augengine.io.store import Place, Store
from augengine.records import Acquisition, IntensityRule, Sample
from augengine.selection.folds import fold_of
from augengine.selection.ratio import rank, rank_limit

Uris = Place | Sequence[Place]

_SURVEY_COLUMNS = [
    "sample_id", "subject_id", "split", "channels", "image_shape", "label_names", "spacing_mm", "acquisition",
    "intensity_rule",
]  # fmt: skip


@dataclass(frozen=True)
class Survey:
    """What the metadata of one split say: enough to build the network and the vocabulary.

    `subjects` are sorted ids; `labels` are the names that any row's mask knows, sorted; `image_size` is the spatial
    shape; `spacing_mm` the median voxel size; `intensity` how their ranges were measured; `ids` a digest of the rows'
    ids.
    """

    rows: int
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    image_size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    vocabulary: Vocabulary
    subjects: tuple[str, ...]
    intensity: IntensityRule = field(default_factory=IntensityRule)
    ids: str = field(default="", compare=False)


@dataclass(frozen=True)
class Batch:
    """Rows as training sees them.

    Attributes:
        images: normalised, (B, C, *) float32.
        tissue: (B, *) int8, see `tissue_index`.
        context: neighbouring slices of the same volume, (B, offsets * C, *) float32; no channels without offsets.
        acquisitions, subjects: one of each row.
    """

    images: np.ndarray
    tissue: np.ndarray
    context: np.ndarray
    acquisitions: list[Acquisition]
    subjects: list[str]

    def part(self, rows: slice) -> Batch:
        """Some of the rows."""
        return Batch(
            self.images[rows], self.tissue[rows], self.context[rows], self.acquisitions[rows], self.subjects[rows]
        )

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.images.nbytes + self.tissue.nbytes + self.context.nbytes


@dataclass(frozen=True)
class Rows:
    """Which rows of a data set: those of `split`, less the subjects of fold `fold[0]` of `fold[1]`.

    Where `showing` names labels, only rows whose label map shows one of them; if `labelled`, only rows with a label
    map. `augmented_per_real` takes so many augmented rows (those with provenance) for every real one, in order of a
    rank that follows from their ids: those of a smaller ratio are among those of a larger. None takes all of them.
    """

    split: str
    fold: tuple[int, int] | None = None
    showing: tuple[str, ...] = ()
    labelled: bool = False
    augmented_per_real: float | None = None
    rank_below: int | None = None  # what the ratio comes to in a data set: see `within`

    @property
    def columns(self) -> list[str]:
        """What `holds` asks of a row."""
        of_label = ["label", "label_names", "label_codes"] if self.showing or self.labelled else []
        return ["split", "subject_id", "sample_id", "synthetic", *of_label]

    def holds(self, row: Mapping[str, Any]) -> bool:
        """True if a shard's row belongs to it."""
        if row["split"] != self.split or (self.fold and fold_of(row["subject_id"], self.fold[1]) == self.fold[0]):
            return False
        if (self.labelled and row["label"] is None) or (self.showing and not _shows(row, self.showing)):
            return False
        return self.rank_below is None or not row["synthetic"] or rank(row["sample_id"]) < self.rank_below

    def within(self, stores: Sequence[Store]) -> Rows:
        """The same with the ratio settled by what the folders hold; `DataError` if that is too little."""
        if self.augmented_per_real is None or self.rank_below is not None:
            return self
        ranks, real = [], 0
        for _, rows in _row_groups(stores, self.columns):
            held = [row for row in rows if self.holds(row)]
            ranks += [rank(row["sample_id"]) for row in held if row["synthetic"]]
            real += sum(not row["synthetic"] for row in held)
        where = ", ".join(store.uri for store in stores)
        return replace(self, rank_below=rank_limit(ranks, real, self.augmented_per_real, self.split, where))


def _shows(row: Mapping[str, Any], names: Sequence[str]) -> bool:
    codes = [code for name, code in zip(row["label_names"], row["label_codes"], strict=True) if name in names]
    return row["label"] is not None and bool(np.isin(np.frombuffer(row["label"], np.uint8), codes).any())


def survey(uris: Uris, rows: Rows) -> Survey:
    """Read the metadata of `rows` of one or several folders, row group by row group.

    Raises:
        DataError: no shards, no rows of the split, too few augmented ones, or rows that differ in channels or shape.
    """
    stores = _stores(uris)
    rows = rows.within(stores)
    columns = [*_SURVEY_COLUMNS, *(name for name in rows.columns if name not in _SURVEY_COLUMNS)]
    first: dict[str, Any] | None = None
    acquisitions: set[Acquisition] = set()
    subjects: set[str] = set()
    labels: set[str] = set()
    spacings: set[tuple[float, ...]] = set()
    ids: list[str] = []
    for _, found in _row_groups(stores, columns):
        for row in filter(rows.holds, found):
            first = first or row
            for key in ("channels", "image_shape", "intensity_rule"):
                if row[key] != first[key]:
                    raise DataError(
                        f"training rows must share one {key}; {first['sample_id']} has {first[key]}",
                        found=str(row[key]),
                        where=row["sample_id"],
                        next_step="ingest with --size, or train on one data set at a time",
                    )
            ids.append(row["sample_id"])
            subjects.add(row["subject_id"])
            labels.update(row["label_names"])
            acquisitions.add(Acquisition(**row["acquisition"]))
            spacings.add(tuple(round(v, 4) for v in row["spacing_mm"]))
    if first is None:
        where = ", ".join(store.uri for store in stores)
        kind = "labelled rows" if rows.labelled else "rows"
        raise DataError(f"no {kind} of split '{rows.split}' here", where=where, next_step="ingest data with a split")
    return Survey(
        rows=len(ids),
        channels=tuple(first["channels"]),
        labels=tuple(sorted(labels)),
        image_size=tuple(first["image_shape"][1:]),
        spacing_mm=tuple(float(v) for v in np.median(sorted(spacings), axis=0)),
        vocabulary=Vocabulary.fit(acquisitions),
        subjects=tuple(sorted(subjects)),
        intensity=IntensityRule.from_dict(first["intensity_rule"]),
        ids=rng.digest(sorted(ids)),
    )


def places_of(uris: Uris) -> list[Place]:
    """One folder, or several, as a list."""
    return [uris] if isinstance(uris, str | os.PathLike | Store) else list(uris)


def _stores(uris: Uris) -> list[Store]:
    return [Store.at(place) for place in places_of(uris)]


def _row_groups(
    stores: Sequence[Store], columns: list[str]
) -> Iterator[tuple[tuple[int, str, int], list[dict[str, Any]]]]:  # fmt: skip
    """Row groups as (folder, shard, group) and their rows."""
    for n, store in enumerate(stores):
        for name in dataset_files(store):
            file = store.parquet(name)
            check_schema(file, store.path(name))
            for group in range(file.num_row_groups):
                yield (n, name, group), read_group(file, group, columns).to_pylist()


class BatchReader:
    """Random access to the endless stream of the batches of some `rows` of one or several folders.

    An epoch visits every row once: row groups in random order, rows shuffled within windows of `window_groups`.
    """

    def __init__(
        self,
        uris: Uris,
        rows: Rows,
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
        self.stores, self.seed, self.batch_size = _stores(uris), seed, batch_size
        self.wanted = rows.within(self.stores)
        self.labels, self.context = tuple(labels), tuple(context)
        self.window_groups, self.cache_bytes = window_groups, cache_mb * 2**20
        self.groups: list[tuple[tuple[int, str, int], int]] = []  # row group, wanted rows in it
        for place, found in _row_groups(self.stores, self.wanted.columns):
            if count := sum(map(self.wanted.holds, found)):
                self.groups.append((place, count))
        self.rows = sum(count for _, count in self.groups)
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

    def take(self, references: Sequence[tuple[int, int]]) -> Batch:
        """Rows given as (group, place among the group's wanted rows)."""
        parts = [(self._group(group), row) for group, row in references]
        return Batch(
            np.stack([rows.images[n] for rows, n in parts]),
            np.stack([rows.tissue[n] for rows, n in parts]),
            np.stack([rows.context[n] for rows, n in parts]),
            [rows.acquisitions[n] for rows, n in parts],
            [rows.subjects[n] for rows, n in parts],
        )

    def _reference(self, place: int) -> tuple[int, int]:
        group, row = self._epoch(place // self.rows)[place % self.rows]
        return int(group), int(row)

    def _epoch(self, epoch: int) -> np.ndarray:
        """(rows, 2) references in the order of one epoch; 16 bytes a row."""
        if self._order[0] != epoch:
            random = rng.generator("batches", self.seed, epoch)
            shuffled = random.permutation(len(self.groups))
            windows = []
            for start in range(0, len(shuffled), self.window_groups):
                chosen = shuffled[start : start + self.window_groups]
                window = np.concatenate([_references(int(g), self.groups[g][1]) for g in chosen])
                windows.append(random.permutation(window, axis=0))
            self._order = (epoch, np.concatenate(windows))
        return self._order[1]

    def _group(self, index: int) -> Batch:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        (folder, name, group), _ = self.groups[index]
        rows = read_group(self.stores[folder].parquet(name), group).to_pylist()
        samples = [self._fitting(from_row(row)) for row in rows if self.wanted.holds(row)]
        images = np.stack([normalise(s) for s in samples])
        volumes, slices = [s.volume_id for s in samples], [s.slice_index or 0 for s in samples]
        neighbours = np.empty((len(samples), 0), np.int64)
        if self.context:  # without it, copies and augmented rows of one slice may stand side by side
            # Neighbours beyond the row group are not read: the nearest slice within it stands for them.
            neighbours = neighbour_index(volumes, slices, self.context)
        loaded = Batch(
            images,
            np.stack([tissue_index(s.label, s.labels, self.labels, s.image) for s in samples]),
            images[neighbours].reshape(len(images), len(self.context) * images.shape[1], *images.shape[2:]),
            [s.acquisition for s in samples],
            [s.subject_id for s in samples],
        )
        self._cache[index] = loaded
        self._cached_bytes += loaded.nbytes
        while self._cached_bytes > self.cache_bytes and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.nbytes
        return loaded

    def _fitting(self, sample: Sample) -> Sample:
        """The sample; one on another scale than the others, whichever split it is of, is a `DataError`."""
        if self.rule not in (None, sample.intensity_rule):
            raise DataError(
                f"rows must have {self.rule}", found=str(sample.intensity_rule), where=sample.sample_id,
                next_step="train on data that were ingested alike",
            )  # fmt: skip
        return sample


def _references(group: int, rows: int) -> np.ndarray:
    return np.stack([np.full(rows, group), np.arange(rows)], axis=1)
