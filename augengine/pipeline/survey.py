"""Sample shards and policies in; what is to be made of each row group, and the facts of the whole data set out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from augengine.edits.base import Donor
from augengine.io.content import content_digest
from augengine.io.dataset import dataset_files
from augengine.io.row_problems import SeenIds, row_problem
from augengine.io.shards import check_schema, read_metadata
from augengine.io.store import Store
from augengine.load import Mixture
from augengine.records import Acquisition, IntensityRule


class Scale(NamedTuple):
    """What a model must fit of a row: channels in order, rule of the intensity ranges, and 2 or 3 spatial axes."""

    channels: tuple[str, ...]
    rule: IntensityRule
    axes: int


@dataclass(frozen=True)
class Group:
    """A row group of a shard: rows that the policy selects, and what is to be made of them by policy and replicate."""

    name: str
    group: int
    selected: int
    requested: Mapping[tuple[str, int], int]


@dataclass(frozen=True)
class Source:
    """What one pass over the metadata of a data set tells.

    Attributes:
        scales: policy name → what models must fit of the rows that it takes.
        taken: policy name → who stands in the rows that it takes, and how they were scanned.
        left_out: rows that no policy's `select` takes, by reason.
    """

    groups: tuple[Group, ...]
    donors: tuple[Donor, ...]
    scales: Mapping[str, tuple[Scale, ...]]
    digest: str
    rows: int
    left_out: Mapping[str, int]
    taken: Mapping[str, frozenset[Donor]] = field(default_factory=dict)

    @property
    def selected(self) -> int:
        """Rows that the `select` of any policy takes."""
        return sum(group.selected for group in self.groups)

    def requested(self, policy: str) -> int:
        """Rows that a policy is to make."""
        return sum(n for group in self.groups for (name, _), n in group.requested.items() if name == policy)


def survey(store: Store, mixture: Mixture) -> Source:
    """Stream the metadata once; memory grows with subjects and row groups, not with rows."""
    groups: list[Group] = []
    donors: dict[str, Donor] = {}
    scales: dict[str, set[Scale]] = {m.name: set() for m in mixture.members}
    taken: dict[str, set[Donor]] = {m.name: set() for m in mixture.members}
    names, rows, left_out = dataset_files(store), 0, Counter[str]()
    splits = {m.policy.select.split for m in mixture.members}
    seen = SeenIds()
    for shard in names:
        file = store.parquet(shard)
        check_schema(file, store.path(shard))
        for group in range(file.num_row_groups):
            selected, requested = 0, Counter[tuple[str, int]]()
            for row in read_metadata(file, group):
                rows += 1
                seen.add(row["sample_id"])
                problem = row_problem(row)
                if row["acquisition"] is None:
                    left_out[f"damaged row ({problem})"] += 1
                    continue
                if mixture.takes(row):
                    selected += 1
                    for replicate in range(mixture.per_input):
                        member = mixture.drawn(row, replicate)
                        assert member is not None  # one of those that take it
                        requested[member.name, replicate] += 1
                        if problem is not None:
                            continue  # its worker says so in failed/
                        rule = IntensityRule.from_dict(row["intensity_rule"])
                        scales[member.name].add(Scale(tuple(row["channels"]), rule, len(row["image_shape"]) - 1))
                        taken[member.name].add(Donor(row["subject_id"], Acquisition(**row["acquisition"])))
                else:
                    other = None not in splits and row["split"] not in splits
                    left_out[f"split is {row['split']}" if other else _why(row, mixture)] += 1
                if row["split"] == "train" and not row["synthetic"] and problem is None:
                    name = row["subject_id"]
                    labelled = row["labelled"] or (name in donors and donors[name].labelled)
                    donors[name] = Donor(name, Acquisition(**row["acquisition"]), labelled)
            groups.append(Group(shard, group, selected, dict(requested)))
    seen.check(store.uri)
    return Source(
        tuple(groups),
        tuple(donor for _, donor in sorted(donors.items())),
        {member: tuple(sorted(found, key=str)) for member, found in scales.items()},
        content_digest(store, names),
        rows,
        left_out,
        {member: frozenset(found) for member, found in taken.items()},
    )


def _why(row: Mapping[str, Any], mixture: Mixture) -> str:
    """The key of `select` that leaves out a row of a split that some policy takes."""
    otherwise = {**row, "labelled": not row["labelled"]}
    return "select.labelled" if mixture.takes(otherwise) else "select.where"
