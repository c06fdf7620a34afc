"""What a target is: cases go in, files of another tool's layout come out; units of work decide nothing about them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar, Protocol, TypeAlias

from augengine.export.case import Case
from augengine.export.item import Item
from augengine.rng import digest
from augengine.splits import SPLITS

Unit: TypeAlias = tuple[str, Sequence[Case]]
"""A name for the unit, by which files may be called, and its cases."""
_PART_BYTES = 64 * 2**20


@dataclass(frozen=True)
class File:
    """A file of the export: its name relative to the folder, what it holds, and the cases in it."""

    name: str
    content: bytes
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class About:
    """What holds of a whole export.

    Attributes:
        channels: of every image, in order.
        labels: code n + 1 is that of the n-th.
        licence: of the source data, or None where nobody said.
        folder: base name of the output folder.
    """

    channels: tuple[str, ...]
    labels: tuple[str, ...]
    licence: str | None
    folder: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"channels": list(self.channels), "labels": list(self.labels), "licence": self.licence}


class Target(Protocol):
    """A layout of another tool, with its options."""

    name: ClassVar[str]

    def check(self, cases: Sequence[Case], about: About) -> None:
        """Refuse, before anything is written, what this tool cannot take."""

    def units(self, cases: Sequence[Case], about: About) -> Iterable[Unit]:
        """Pieces of work, always the same for the same cases."""

    def files(self, items: Iterator[Item], unit: str, about: About) -> Iterator[File]:
        """The files of a unit; equal items give equal bytes."""

    def finish(self, cases: Sequence[Case], about: About, listed: Mapping[str, Sequence[str]]) -> Iterator[File]:
        """The files about the whole, once all units are written; `listed` has the files of every case."""

    def identity(self) -> dict[str, Any]:
        """Options that decide what is written; plain JSON."""


def by_row_group(cases: Sequence[Case]) -> Iterator[Unit]:
    """Cases whose first rows stand in one row group, so that each group is read once."""
    groups = groupby(cases, key=lambda case: (case.rows[0].source, case.rows[0].name, case.rows[0].group))
    for n, (_, found) in enumerate(groups):
        yield f"{n:06d}", list(found)


def in_parts(cases: Sequence[Case], about: About, voxel_bytes: int, readers: int) -> Iterator[Unit]:
    """Cases in files of many, each of one split and at most about 64 MiB; `train-000000`, `train-000001`, …

    Cases are mixed by a digest of their names, real and augmented ones alike, since files are read in order.

    Args:
        voxel_bytes: of one voxel of one channel.
        readers: so many files of a split at least, if it has as many cases.
    """
    for split in (*SPLITS, None):
        found = sorted((case for case in cases if case.split == split), key=lambda case: digest("part", case.name))
        if not found:
            continue
        size = max(math.prod(case.shape) for case in found) * (len(about.channels) * voxel_bytes + 1)
        parts = min(len(found), max(readers, -(-len(found) * size // _PART_BYTES)))
        for n in range(parts):
            yield f"{split or 'all'}-{n:06d}", found[len(found) * n // parts : len(found) * (n + 1) // parts]
