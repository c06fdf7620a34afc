"""Training batches from shards: which rows stand in batch n depends on the seed and n alone.

So a resumed run sees the rows that an undisturbed one would have seen, and any number of workers shares the same
global batches. A worker decodes every row group once an epoch and holds at most `cache_mb` of them, or one window where
that is more; the driver reads no pixels at all. Several data sets, real and augmented, are read as one.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from augengine import rng
from augengine.acquisition_terms import manufacturer
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.tissue import tissue_index
from augengine.diffusion.volume_context import neighbour_index
from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.labellers import labellers
from augengine.io.shards import check_schema, from_row, read_group
from augengine.io.store import Place, Store
from augengine.policy.spec import Where, matches
from augengine.records import Acquisition, IntensityRule, Provenance, Sample
from augengine.selection.balance import AUGMENTED, REAL, check_share, left_out, shows
from augengine.selection.folds import fold_of
from augengine.selection.ratio import rank, rank_limit
from augengine.yaml_config import unknown_name

Uris = Place | Sequence[Place]
EVERY_RANK = 2**63

_SURVEY_COLUMNS = [
    "sample_id",
    "subject_id",
    "split",
    "channels",
    "image_shape",
    "label_names",
    "spacing_mm",
    "acquisition",
    "intensity_rule",
    "synthetic",
    "provenance",
]


@dataclass(frozen=True)
class DatasetFacts:
    """What the metadata of one split say: enough to build the network and the vocabulary, and to know what memory a
    reader takes.

    `subjects` are sorted ids; `labels` are the names that any row's mask knows, sorted; `image_size` is the spatial
    shape; `spacing_mm` the median voxel size; `intensity` how their ranges were measured; `ids` a digest of the rows'
    ids. `manufacturers` are None if some row states none; `donors` lent to augmented rows; `teachers` are the models
    (sha256) that made, judged or labelled rows; `group_rows` is how many rows each row group holds.
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
    manufacturers: tuple[str, ...] | None = None
    donors: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    group_rows: tuple[int, ...] = field(default=(), compare=False)

    def window_bytes(self, groups: int, context: int) -> int:
        """Memory of the largest window of so many row groups, decoded, with `context` neighbouring slices per row."""
        return window_bytes(self.group_rows, row_bytes((len(self.channels), *self.image_size), context), groups)


@dataclass(frozen=True)
class Batch:
    """Rows as training sees them.

    Attributes:
        images: normalised, (B, C, *) float32.
        tissue: (B, *) int8, see `tissue_index`.
        context: neighbouring slices of the same volume, (B, offsets * C, *) float32; no channels without offsets.
        acquisitions, subjects, spacings_mm: one of each row.
    """

    images: np.ndarray
    tissue: np.ndarray
    context: np.ndarray
    acquisitions: list[Acquisition]
    subjects: list[str]
    spacings_mm: list[tuple[float, ...]]

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
        )

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.images.nbytes + self.tissue.nbytes + self.context.nbytes


@dataclass(frozen=True)
class VolumeRows:
    """One volume: references of its rows, and of each a text that is equal for rows on one voxel grid of the world."""

    subject: str
    references: tuple[tuple[int, int], ...]
    grids: tuple[str, ...]


@dataclass(frozen=True)
class SplitRows:
    """Which rows of a data set: those of `split`, less the subjects of fold `fold[0]` of `fold[1]`.

    Where `showing` names labels, only rows whose label map shows one of them; `labelled` takes rows with a label map
    (true) or without (false), None both; `where` those that state these acquisition parameters. `augmented_per_real`
    takes so many augmented rows (those with provenance) for every real one, in order of a rank that follows from their
    ids: those of a smaller ratio are among those of a larger. None takes all of them.

    `balance` names labels whose share of the rows stays as it is among the real ones. There are two kinds of rows,
    those that show one of the labels and those that show none. The ratio then is a share of the real rows of each kind
    that there are augmented rows of: so many augmented ones take their place, in each epoch others in the place of
    others.
    """

    split: str
    fold: tuple[int, int] | None = None
    showing: tuple[str, ...] = ()
    labelled: bool | None = None
    augmented_per_real: float | None = None
    where: Where = field(default_factory=dict)
    balance: tuple[str, ...] = ()
    rank_below: tuple[int, int] | None = None  # what the ratio comes to in a data set, by kind: see `within`

    @property
    def columns(self) -> list[str]:
        """What `holds` asks of a row."""
        asked = self.showing or self.balance or self.labelled is not None
        of_label = ["label", "label_names", "label_codes"] if asked else []
        return ["split", "subject_id", "sample_id", "synthetic", *of_label, *(["acquisition"] if self.where else [])]

    def holds(self, row: Mapping[str, Any]) -> bool:
        """True if a shard's row belongs to it."""
        if row["split"] != self.split or (self.fold and fold_of(row["subject_id"], self.fold[1]) == self.fold[0]):
            return False
        if self.labelled is not None and self.labelled != (row["label"] is not None):
            return False
        if self.showing and not shows(row, self.showing):
            return False
        if self.where and not matches(self.where, Acquisition(**row["acquisition"])):
            return False
        if self.rank_below is None or not row["synthetic"]:
            return True
        return rank(row["sample_id"]) < self.rank_below[self.kind(row)]

    def kind(self, row: Mapping[str, Any]) -> int:
        """1 of a row that shows a label of `balance`, else 0."""
        return int(bool(self.balance) and shows(row, self.balance))

    def within(self, stores: Sequence[Store]) -> SplitRows:
        """The same with the ratio settled by what the folders hold; `DataError` if that is too little."""
        if self.rank_below is not None or (self.augmented_per_real is None and not self.balance):
            return self
        ranks: tuple[list[int], list[int]] = ([], [])
        real, names = [0, 0], set[str]()
        for _, rows in _row_groups(stores, self.columns):
            for row in filter(self.holds, rows):
                kind = self.kind(row)
                names.update(row["label_names"] if self.balance else ())
                if row["synthetic"]:
                    ranks[kind].append(rank(row["sample_id"]))
                else:
                    real[kind] += 1
        where = ", ".join(store.uri for store in stores)
        if not self.balance:
            return replace(self, rank_below=(self._limit(ranks[0], real[0], where),) * 2)
        self._check_balance(names, sum(real), where)
        for kind in (0, 1):
            if ranks[kind]:  # all of them may be drawn in some epoch
                self._limit(ranks[kind], real[kind], where)
        return replace(self, rank_below=(EVERY_RANK, EVERY_RANK))

    def _check_balance(self, names: Collection[str], real: int, where: str) -> None:
        """Refuse labels of which no row knows one, and augmented rows without any whose place they could take."""
        if names and not set(self.balance) & set(names):
            raise unknown_name("label", self.balance[0], sorted(names), "data.balance")
        if not real:
            raise DataError(
                "augmented rows take the place of real ones (data.balance)",
                found="no real rows",
                where=where,
                next_step="give the real data set by --data, too, or leave data.balance out",
            )

    def _limit(self, ranks: Sequence[int], real: int, where: str) -> int:
        ratio = self.augmented_per_real
        if self.balance or ratio is None:
            ratio = check_share(ratio, where)
        return rank_limit(ranks, real, ratio, self.split, where)


def dataset_facts(uris: Uris, rows: SplitRows) -> DatasetFacts:
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
    donors: set[str] = set()
    teachers = {sha256 for store in stores for sha256 in labellers(store).values()}
    group_rows: list[int] = []
    for _, found in _row_groups(stores, columns):
        before = len(ids)
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
            if row["synthetic"]:
                made = Provenance.from_json(row["provenance"])
                donors.update(made.plan.get("donors", ()))
                teachers.update(sha256 for role, sha256 in made.models.items() if not role.endswith(".reference"))
        if len(ids) > before:
            group_rows.append(len(ids) - before)
    if first is None:
        where = ", ".join(store.uri for store in stores)
        kind = {None: "rows", True: "labelled rows", False: "rows without labels"}[rows.labelled]
        stated = f" that say {rows.where}" if rows.where else ""
        raise DataError(
            f"no {kind} of split '{rows.split}'{stated} here",
            where=where,
            next_step="ingest data with a split, or mend the recipe's data section",
        )
    return DatasetFacts(
        rows=len(ids),
        channels=tuple(first["channels"]),
        labels=tuple(sorted(labels)),
        image_size=tuple(first["image_shape"][1:]),
        spacing_mm=tuple(float(v) for v in np.median(sorted(spacings), axis=0)),
        vocabulary=Vocabulary.fit(acquisitions),
        subjects=tuple(sorted(subjects)),
        intensity=IntensityRule.from_dict(first["intensity_rule"]),
        ids=rng.digest(sorted(ids)),
        manufacturers=_manufacturers(acquisitions),
        donors=tuple(sorted(donors)),
        teachers=tuple(sorted(teachers)),
        group_rows=tuple(group_rows),
    )


def places_of(uris: Uris) -> list[Place]:
    """One folder, or several, as a list."""
    return [uris] if isinstance(uris, str | os.PathLike | Store) else list(uris)


def row_bytes(image_shape: Sequence[int], context: int) -> int:
    """Memory of one decoded row: image and context float32, tissue one byte a voxel; `Batch.nbytes` of it."""
    channels, voxels = image_shape[0], math.prod(image_shape[1:])
    return voxels * (4 * channels * (1 + context) + 1)


def window_bytes(group_rows: Sequence[int], bytes_per_row: int, groups: int) -> int:
    """Memory of any window of so many row groups, at most."""
    return sum(sorted(group_rows)[-groups:]) * bytes_per_row


def _manufacturers(acquisitions: Iterable[Acquisition]) -> tuple[str, ...] | None:
    stated = {acquisition.manufacturer for acquisition in acquisitions}
    return tuple(sorted({manufacturer(name) for name in stated if name})) if None not in stated else None


def _stores(uris: Uris) -> list[Store]:
    return [Store.at(place) for place in places_of(uris)]


def _row_groups(
    stores: Sequence[Store], columns: list[str]
) -> Iterator[tuple[tuple[int, str, int], list[dict[str, Any]]]]:
    """Row groups as (folder, shard, group) and their rows."""
    for n, store in enumerate(stores):
        for name in dataset_files(store):
            file = store.parquet(name)
            check_schema(file, store.path(name))
            for group in range(file.num_row_groups):
                yield (n, name, group), read_group(file, group, columns).to_pylist()


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
        self.stores, self.seed, self.batch_size = _stores(uris), seed, batch_size
        self.wanted = rows.within(self.stores)
        self.labels, self.context = tuple(labels), tuple(context)
        self.window_groups, self.cache_bytes = window_groups, cache_mb * 2**20
        self.groups: list[tuple[tuple[int, str, int], int]] = []  # row group, wanted rows in it
        kinds: list[np.ndarray] = []  # of each row, see `_epoch`
        largest = 0
        for place, found in _row_groups(self.stores, [*self.wanted.columns, "image_shape"]):
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
            np.stack([rows.images[n] for rows, n in parts]),
            np.stack([rows.tissue[n] for rows, n in parts]),
            np.stack([rows.context[n] for rows, n in parts]),
            [rows.acquisitions[n] for rows, n in parts],
            [rows.subjects[n] for rows, n in parts],
            [rows.spacings_mm[n] for rows, n in parts],
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
        images = np.stack([normalise(s) for s in samples])
        volumes, slices = [s.volume_id for s in samples], [s.slice_index or 0 for s in samples]
        neighbours = np.empty((len(samples), 0), np.int64)
        if self.context:  # without it, copies and augmented rows of one slice may stand side by side
            # Neighbours beyond the row group are not read: the nearest slice within it stands for them.
            neighbours = neighbour_index(volumes, slices, self.context)
        return Batch(
            images,
            np.stack([tissue_index(s.label, s.labels, self.labels, s.image) for s in samples]),
            images[neighbours].reshape(len(images), len(self.context) * images.shape[1], *images.shape[2:]),
            [s.acquisition for s in samples],
            [s.subject_id for s in samples],
            [s.spacing_mm[: s.image.ndim - 1] for s in samples],
        )

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


def _references(group: int, kept: np.ndarray) -> np.ndarray:
    places = np.flatnonzero(kept)
    return np.stack([np.full(len(places), group), places], axis=1)
