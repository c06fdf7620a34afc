"""Sample shards and policies in; what is to be made of each row group, and the facts of the whole data set out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from augengine.edits.base import Donor
from augengine.io.content import content_digest
from augengine.io.dataset import dataset_files
from augengine.io.row_kinds import KIND_COLUMNS, Kind, kinds
from augengine.io.row_problems import SeenIds, row_problem
from augengine.io.shards import check_schema, has_labels, read_groups
from augengine.io.store import Store
from augengine.load import Mixture
from augengine.records import Acquisition, IntensityRule

GROUPS_READ = 256
"""Row groups, of one file or of several, whose metadata are looked at together."""


class Scale(NamedTuple):
    """What models and gates must fit of a row: channels in order, rule of the intensity ranges, and voxels (*)."""

    channels: tuple[str, ...]
    rule: IntensityRule
    shape: tuple[int, ...]

    @property
    def axes(self) -> int:
        """2 of slices, 3 of volumes."""
        return len(self.shape)


@dataclass(frozen=True)
class Group:
    """A row group of a shard: rows that the policy selects, and what is to be made of them by policy and replicate."""

    name: str
    group: int
    selected: int
    requested: Mapping[tuple[str, int], int]


@dataclass(frozen=True)
class Survey:
    """What one pass over the metadata of a data set tells.

    Attributes:
        scales: policy name → what models must fit of the rows that it takes.
        taken: policy name → who stands in the rows that it takes, and how they were scanned.
        left_out: rows that no policy's `select` takes, by reason.
        mean_voxels: values of the image of a selected row, on average; 0 where none is sound.
    """

    groups: tuple[Group, ...]
    donors: tuple[Donor, ...]
    scales: Mapping[str, tuple[Scale, ...]]
    digest: str
    rows: int
    left_out: Mapping[str, int]
    taken: Mapping[str, frozenset[Donor]] = field(default_factory=dict)
    mean_voxels: float = 0.0

    @property
    def selected(self) -> int:
        """Rows that the `select` of any policy takes."""
        return sum(group.selected for group in self.groups)

    def requested(self, policy: str) -> int:
        """Rows that a policy is to make."""
        return sum(n for group in self.groups for (name, _), n in group.requested.items() if name == policy)


def survey(store: Store, mixture: Mixture) -> Survey:
    """Stream the metadata once; memory grows with subjects and row groups, not with rows."""
    found = _Findings(mixture)
    names = dataset_files(store)
    for portion in _portions(store, names):
        found.add(portion)
    found.seen.check(store.uri)
    return Survey(
        tuple(found.groups),
        tuple(donor for _, donor in sorted(found.donors.items())),
        {member: tuple(sorted(scales, key=str)) for member, scales in found.scales.items()},
        content_digest(store, names),
        found.seen.count,
        found.left_out,
        {member: frozenset(taken) for member, taken in found.taken.items()},
        found.voxels / found.sized if found.sized else 0.0,
    )


class _Portion(NamedTuple):
    """Some row groups: file and place of each, their rows without pixels, and which rows of each have a label map."""

    places: Sequence[tuple[str, int]]
    rows: pa.Table
    labelled: Sequence[Sequence[bool]]


def _portions(store: Store, names: Sequence[str]) -> Iterator[_Portion]:
    """The row groups of all files in their order, `GROUPS_READ` together; small files share a portion."""
    places: list[tuple[str, int]] = []
    tables: list[pa.Table] = []
    labelled: list[Sequence[bool]] = []
    for name in names:
        file = store.parquet(name)
        check_schema(file, store.path(name))
        start, end = 0, file.num_row_groups
        while start < end:
            groups = range(start, min(start + GROUPS_READ - len(places), end))
            places += [(name, group) for group in groups]
            tables.append(read_groups(file, groups, KIND_COLUMNS))
            labelled += [has_labels(file, group) for group in groups]
            start = groups.stop
            if len(places) == GROUPS_READ:
                yield _Portion(places, pa.concat_tables(tables), labelled)
                places, tables, labelled = [], [], []
    if places:
        yield _Portion(places, pa.concat_tables(tables), labelled)


class _Findings:
    """What the rows looked at so far tell; rows that are alike are looked at once per portion."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture
        self.groups: list[Group] = []
        self.donors: dict[str, Donor] = {}
        self.scales: dict[str, set[Scale]] = {m.name: set() for m in mixture.members}
        self.taken: dict[str, set[Donor]] = {m.name: set() for m in mixture.members}
        self.left_out = Counter[str]()
        self.splits = {m.policy.select.split for m in mixture.members}
        self.seen = SeenIds()
        self.voxels, self.sized = 0, 0

    def add(self, portion: _Portion) -> None:
        """Look at the rows of some row groups."""
        places, table, labels = portion
        group_of = np.repeat(np.arange(len(places)), [len(there) for there in labels])
        ids = table["sample_id"].to_pylist()
        self.seen.add(ids)
        selected = np.zeros(len(places), int)
        requested = [Counter[tuple[str, int]]() for _ in places]
        for kind in kinds(table, np.concatenate([np.array(there, bool) for there in labels])):
            row, problem = kind.row, row_problem(kind.row)
            if row["acquisition"] is None:
                self.left_out[f"damaged row ({problem})"] += len(kind.places)
                continue
            if self.mixture.takes(row):
                within = np.bincount(group_of[kind.places], minlength=len(places))
                selected += within
                makers = self._count(kind, within, group_of, ids, requested)
                if problem is None:  # else its worker says so in failed/
                    self._take(row, makers)
                    self.voxels += len(kind.places) * math.prod(row["image_shape"])
                    self.sized += len(kind.places)
            else:
                other = None not in self.splits and row["split"] not in self.splits
                why = f"split is {row['split']}" if other else _why(row, self.mixture)
                self.left_out[why] += len(kind.places)
            if row["split"] == "train" and not row["synthetic"] and problem is None:
                name = row["subject_id"]
                labelled = row["labelled"] or (name in self.donors and self.donors[name].labelled)
                self.donors[name] = Donor(name, Acquisition(**row["acquisition"]), labelled)
        for (shard, group), n, of in zip(places, selected, requested, strict=True):
            self.groups.append(Group(shard, group, int(n), dict(of)))

    def _count(
        self,
        kind: Kind,
        within: np.ndarray,
        group_of: np.ndarray,
        ids: Sequence[str],
        requested: Sequence[Counter[tuple[str, int]]],
    ) -> set[str]:
        """Count what is to be made of the rows of a kind, by row group; returns the policies that make it."""
        if self.mixture.mix is None:  # its only policy makes every row
            for group in np.flatnonzero(within).tolist():
                for replicate in range(self.mixture.per_input):
                    requested[group][self.mixture.name, replicate] += int(within[group])
            return {self.mixture.name}
        makers = set()
        for place in kind.places:
            for replicate in range(self.mixture.per_input):
                member = self.mixture.drawn({**kind.row, "sample_id": ids[place]}, replicate)
                assert member is not None  # one of those that take it
                requested[group_of[place]][member.name, replicate] += 1
                makers.add(member.name)
        return makers

    def _take(self, row: Mapping[str, Any], makers: Iterable[str]) -> None:
        rule = IntensityRule.from_dict(row["intensity_rule"])
        scale = Scale(tuple(row["channels"]), rule, tuple(row["image_shape"][1:]))
        donor = Donor(row["subject_id"], Acquisition(**row["acquisition"]))
        for maker in makers:
            self.scales[maker].add(scale)
            self.taken[maker].add(donor)


def _why(row: Mapping[str, Any], mixture: Mixture) -> str:
    """The key of `select` that leaves out a row of a split that some policy takes."""
    otherwise = {**row, "labelled": not row["labelled"]}
    return "select.labelled" if mixture.takes(otherwise) else "select.where"
