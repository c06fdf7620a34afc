"""A request in; the places of its rows, checked against each other and for leakage, out. No pixels are read.

What is kept grows by eight bytes a row, and by subjects and row groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from augengine.io.shards import read_group
from augengine.io.store import Store
from augengine.records import IntensityRule
from augengine.selection.agreement import common_channels, common_labels
from augengine.selection.balance import left_out
from augengine.selection.group import Group
from augengine.selection.guard import check_lineage
from augengine.selection.reading import open_shard, rows_of
from augengine.selection.request import Request
from augengine.selection.scan import Scan


@dataclass(frozen=True)
class Selected:
    """The rows of a request.

    Attributes:
        request: what was asked for.
        sources: the data sets; the augmented ones from number `len(request.real)` on.
        groups: row groups with wanted rows, in the order of the data sets and their files.
        subjects: ids of those with rows here.
        held_out: real subjects of splits that are not trained on, and excluded ones.
        channels: of every item, in order.
        label_names: code n + 1 is that of the n-th.
        shapes: of the images that there are, sorted.
        intensity: rules by which the rows' intensity ranges were measured, each with the id of a row.
        real: how many real rows.
        augmented: how many augmented ones.
        left_out: how many rows of the data sets are not here, by reason.
        ids: digest of the rows' ids, in order.
    """

    request: Request
    sources: tuple[Store, ...]
    groups: tuple[Group, ...]
    subjects: tuple[str, ...]
    held_out: frozenset[str]
    channels: tuple[str, ...]
    label_names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    intensity: Mapping[IntensityRule, str]
    real: int
    augmented: int
    left_out: Mapping[str, int]
    ids: str

    def __len__(self) -> int:
        return self.real + self.augmented

    def read(self, group: Group, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The wanted rows of a group as the shards hold them; None reads every column."""
        file = open_shard(self.sources[group.source], group.name)
        return rows_of(read_group(file, group.group, columns), group.rows.tolist())

    def once(self) -> Selected:
        """The rows of one epoch, for what holds every row once; the same where no labels are balanced."""
        counts = [len(group) for group in self.groups]
        if not self.request.balance:
            return self
        kinds = np.concatenate([group.kinds for group in self.groups if group.kinds is not None])
        taken = np.ones(len(kinds), bool)
        taken[left_out(kinds, self.request.augmented_per_real or 0, seed=0, epoch=0)] = False
        masks = np.split(taken, np.cumsum(counts)[:-1])
        groups = [group.take(mask) for group, mask in zip(self.groups, masks, strict=True) if mask.any()]
        real = sum(len(group) for group in groups if not group.augmented)
        augmented = sum(map(len, groups)) - real
        gone = {"replaced by augmented rows": self.real - real, "augmented_per_real": self.augmented - augmented}
        return replace(
            self,
            groups=tuple(groups),
            real=real,
            augmented=augmented,
            left_out=dict(Counter(self.left_out) + Counter(gone)),
        )

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """All rows, group by group; memory stays at one row group."""
        for group in self.groups:
            yield from self.read(group, columns)


def select(request: Request) -> Selected:
    """Find the rows of a request.

    Raises:
        DataError: no data, no rows, rows of the wrong kind, too few augmented ones, or rows that differ in channels
            or labels.
        LeakageError: a held-out subject had a part in an augmented row, or that cannot be known.
    """
    scan = Scan(request)
    for n, store in enumerate(request.real):
        for _ in scan.rows(n, store, augmented=False):
            pass
    if request.augmented:
        made = (
            row
            for n, store in enumerate(request.augmented, len(request.real))
            for row in scan.rows(n, store, augmented=True)
        )
        check_lineage(scan.held_out, made, request.augmented, request.checkpoints)
    groups = scan.chosen()
    real = sum(len(group) for group in groups if not group.augmented)
    return Selected(
        request=request,
        sources=(*request.real, *request.augmented),
        groups=tuple(groups),
        subjects=tuple(scan.subjects),
        held_out=frozenset(scan.held_out),
        channels=common_channels(request.channels, scan.channels),
        label_names=common_labels(request.labels, scan.schemes),
        shapes=tuple(sorted(scan.shapes)),
        intensity=scan.rules,
        real=real,
        augmented=sum(map(len, groups)) - real,
        left_out=dict(scan.left_out),
        ids=scan.ids.hexdigest(),
    )
