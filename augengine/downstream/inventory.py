"""Sample shards in; who was scanned where, in which split, with or without labels, and in which row group, out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from augengine.downstream.protocols import Protocol
from augengine.errors import DataError
from augengine.io.content import content_digest
from augengine.io.dataset import dataset_files
from augengine.io.row_problems import check_row
from augengine.io.shards import check_schema, label_map, read_group
from augengine.io.store import Store

Scanned = tuple[str, str]
"""A subject and the domain value of its rows."""

_COLUMNS = ["sample_id", "subject_id", "split", "site", "synthetic", "acquisition", "label_names", "label_codes"]
CODES = ["label", "label_names", "label_codes"]
"""Columns that `class_bits` needs."""


@dataclass(frozen=True)
class Group:
    """A row group, and whose rows stand in it."""

    name: str
    group: int
    scanned: frozenset[Scanned]

    @property
    def place(self) -> tuple[str, int]:
        """Shard and number within it."""
        return self.name, self.group


@dataclass(frozen=True)
class Inventory:
    """What one pass over the rows of a data set tells; grows with subjects and row groups, not with rows.

    Attributes:
        uri: the data set.
        groups: those that hold rows.
        split: of each subject in each domain.
        labelled: who has labels.
        digest: identity of all that the rows are (`augengine.io.content`).
    """

    uri: str
    groups: tuple[Group, ...]
    split: Mapping[Scanned, str]
    labelled: frozenset[Scanned]
    digest: str

    def scanned(self, values: Collection[str], splits: Collection[str]) -> frozenset[Scanned]:
        """Who was scanned in some domains and stands in some splits."""
        return frozenset(key for key, split in self.split.items() if key[1] in values and split in splits)

    def holding(self, wanted: Collection[Scanned]) -> list[Group]:
        """Row groups that hold rows of these."""
        chosen = set(wanted)
        return [group for group in self.groups if group.scanned & chosen]


def take_inventory(uri: str, protocol: Protocol) -> Inventory:
    """Read metadata and labels, row group by row group; images stay unread.

    Raises:
        DataError: no shards; a subject that stands in two splits; or labelled rows of the protocol's domains that lack
            a label of a class.
    """
    compared = {value for domain in protocol.domains for value in protocol.values(domain)}
    store = Store(uri)
    names = dataset_files(store)
    groups: list[Group] = []
    split: dict[Scanned, str] = {}
    labelled: set[Scanned] = set()
    columns = list(dict.fromkeys((*_COLUMNS, *([protocol.column] if protocol.column else []))))
    for name in names:
        file = store.parquet(name)
        check_schema(file, store.path(name))
        for n in range(file.num_row_groups):
            table = read_group(file, n, [*columns, "label"])
            labels, found = table["label"], set()
            for place, row in enumerate(table.drop_columns("label").to_pylist()):
                if row["synthetic"]:  # augmented rows come from folders of their own
                    continue
                check_row(row)
                key = (row["subject_id"], protocol.value(row))
                found.add(key)
                if labels[place].is_valid:
                    labelled.add(key)
                    if key[1] in compared:
                        class_codes(row, protocol)
                if split.setdefault(key, row["split"]) != row["split"]:
                    raise DataError(
                        "a subject stands in one split",
                        found=f"{split[key]} and {row['split']}",
                        where=row["sample_id"],
                        next_step="split by subject (jobs/ingest.py does)",
                    )
            groups.append(Group(name, n, frozenset(found)))
    return Inventory(store.uri, tuple(groups), split, frozenset(labelled), content_digest(store, names))


def class_codes(row: Mapping[str, Any], protocol: Protocol) -> list[list[int]]:
    """The codes of each class in a row's label map, in the order of the protocol.

    Raises:
        DataError: the row's labels lack one of a class.
    """
    codes = dict(zip(row["label_names"], row["label_codes"], strict=True))
    for name, labels in protocol.classes.items():
        for label in labels:
            if label not in codes:
                raise DataError(
                    f"the class '{name}' of protocol {protocol.name} needs the label '{label}'",
                    found=", ".join(codes) or "no labels",
                    where=row["sample_id"],
                    next_step="choose a protocol whose classes the data have",
                )
    return [[codes[label] for label in labels] for labels in protocol.classes.values()]


def class_bits(row: Mapping[str, Any], protocol: Protocol) -> np.ndarray:
    """Label map of a row as uint8 (*): bit n is set where class n of the protocol is; raises as `class_codes` does."""
    lookup = np.zeros(256, np.uint8)
    for n, codes in enumerate(class_codes(row, protocol)):
        lookup[codes] |= 1 << n
    label = label_map(row)
    assert label is not None  # only such rows come here
    return np.asarray(lookup[label])
