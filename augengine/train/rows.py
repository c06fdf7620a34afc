"""Data sets and what a recipe asks of them in; which of their rows it takes, and what the metadata say of these, out.

No pixels are read. Several data sets, real and augmented, are taken as one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from augengine import rng
from augengine.acquisition_terms import manufacturer
from augengine.diffusion.conditions import Vocabulary
from augengine.errors import DataError
from augengine.io.dataset import dataset_files
from augengine.io.labellers import labellers
from augengine.io.row_problems import check_row
from augengine.io.shards import check_schema, read_group
from augengine.io.store import Place, Store
from augengine.policy.spec import Where, matches
from augengine.records import Acquisition, IntensityRule, Provenance
from augengine.selection.balance import check_share, kind_told, shows
from augengine.selection.folds import fold_of
from augengine.selection.ratio import rank, rank_limit
from augengine.yaml_config import unknown_name

Uris = Place | Sequence[Place]
EVERY_RANK = 2**63

_FACT_COLUMNS = [
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
    shape, the largest along each axis where rows differ; `spacing_mm` the median voxel size; `intensity` how their
    ranges were measured; `ids` a digest of the rows' ids. `manufacturers` are None if some row states none; `donors`
    lent to augmented rows; `teachers` are the models (sha256) that made, judged or labelled rows; `group_rows` is how
    many rows each row group holds.
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
        """True if a shard's row belongs to it.

        Raises:
            DataError: a row of its split that states what no row can.
        """
        if row["split"] != self.split:
            return False
        check_row(row)
        if self.fold and fold_of(row["subject_id"], self.fold[1]) == self.fold[0]:
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
        for _, rows in row_groups(stores, self.columns):
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
                self._limit(ranks[kind], real[kind], where, kind_told(kind, self.balance))
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

    def _limit(self, ranks: Sequence[int], real: int, where: str, kind: str = "") -> int:
        ratio = self.augmented_per_real
        if self.balance or ratio is None:
            ratio = check_share(ratio, where)
        return rank_limit(ranks, real, ratio, self.split, where, kind)


def dataset_facts(uris: Uris, rows: SplitRows, any_shape: bool = False) -> DatasetFacts:
    """Read the metadata of `rows` of one or several folders, row group by row group.

    Args:
        any_shape: rows may differ in shape, slices from slices and volumes from volumes.

    Raises:
        DataError: no shards, no rows of the split, too few augmented ones, or rows that differ in channels or shape.
    """
    stores = stores_of(uris)
    rows = rows.within(stores)
    columns = [*_FACT_COLUMNS, *(name for name in rows.columns if name not in _FACT_COLUMNS)]
    first: dict[str, Any] | None = None
    acquisitions: set[Acquisition] = set()
    subjects: set[str] = set()
    labels: set[str] = set()
    spacings: set[tuple[float, ...]] = set()
    ids: list[str] = []
    donors: set[str] = set()
    teachers = {sha256 for store in stores for sha256 in labellers(store).values()}
    group_rows: list[int] = []
    sizes: np.ndarray | int = 0
    for _, found in row_groups(stores, columns):
        before = len(ids)
        for row in filter(rows.holds, found):
            first = first or row
            for key in ("channels", "image_shape", "intensity_rule"):
                same = row[key] == first[key]
                if key == "image_shape" and any_shape:
                    same = len(row[key]) == len(first[key])
                if not same:
                    raise DataError(
                        f"training rows must share one {key}; {first['sample_id']} has {first[key]}",
                        found=str(row[key]),
                        where=row["sample_id"],
                        next_step="ingest with --size, or train on one data set at a time",
                    )
            sizes = np.maximum(sizes, row["image_shape"][1:])
            ids.append(row["sample_id"])
            subjects.add(row["subject_id"])
            labels.update(row["label_names"])
            acquisitions.add(Acquisition(**row["acquisition"]))
            spacings.add(tuple(round(v, 4) for v in row["spacing_mm"]))
            if row["synthetic"]:
                made = _provenance(row)
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
        image_size=tuple(int(n) for n in np.atleast_1d(sizes)),
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


def _provenance(row: Mapping[str, Any]) -> Provenance:
    try:
        return Provenance.from_json(row["provenance"])
    except (TypeError, ValueError):
        raise DataError(
            "an augmented row says how it was made (provenance)", found="damaged text or none", where=row["sample_id"]
        ) from None


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


def stores_of(uris: Uris) -> list[Store]:
    """The same, opened."""
    return [Store.at(place) for place in places_of(uris)]


def row_groups(
    stores: Sequence[Store], columns: list[str]
) -> Iterator[tuple[tuple[int, str, int], list[dict[str, Any]]]]:
    """Row groups as (folder, shard, group) and their rows."""
    for n, store in enumerate(stores):
        for name in dataset_files(store):
            file = store.parquet(name)
            check_schema(file, store.path(name))
            for group in range(file.num_row_groups):
                yield (n, name, group), read_group(file, group, columns).to_pylist()
