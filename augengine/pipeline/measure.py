"""A folder of shards and a measure in, the merged state of all its rows out: on Ray Data actors or in this process.

Row groups are the units of work. Every one gives a partial state, and states are merged in the order of the units, so
that the result is bit for bit the same for any number of actors. The driver sees states, never rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from augengine.errors import AugengineError, DataError
from augengine.io.dataset import dataset_files
from augengine.io.shards import check_schema, from_row, read_group
from augengine.io.store import Place, Store
from augengine.metrics.partial import Measure, Pair, Partial
from augengine.pipeline.units import Actors, Progress, on_actors
from augengine.records import Sample


@dataclass(frozen=True)
class RowGroup:
    """A part of a shard and the range of its sample ids, by which a parent is found; None where it is not stated."""

    shard: str
    number: int
    first_id: str | None
    last_id: str | None

    def may_hold(self, sample_id: str) -> bool:
        """False if the row cannot be here."""
        return self.first_id is None or self.last_id is None or self.first_id <= sample_id <= self.last_id


def measure(
    data: Place,
    make: Callable[..., Measure],
    arguments: Mapping[str, Any] | None = None,
    *,
    parents: Place | None = None,
    split: str | None = None,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
) -> Any:
    """Stream a folder through a measure.

    Args:
        data: ingested or augmented data set.
        make, arguments: build the measure, once in every actor.
        parents: folder that an augmented one was made from; every row then comes with the row that its provenance
            names as parent.
        split: only rows of this split.
        actors: how the work is spread; never changes the result.
        progress: told of every row group.

    Returns:
        The merged `Partial`.

    Raises:
        DataError: no rows, a row without its parent, or whatever the measure refuses.
        RunError: the cluster cannot hold the actors.
    """
    store, above = Store.at(data), None if parents is None else Store.at(parents)
    groups = _row_groups(store)
    job = _Job(store, make, dict(arguments or {}), above, _row_groups(above) if above else (), split)
    merged: Partial | None = None
    for done, partial in enumerate(_inline(groups, job) if actors.inline else _on_ray(groups, job, actors), 1):
        if progress:
            progress(done, len(groups), {})
        if partial is not None:
            merged = partial if merged is None else merged.merge(partial)
    if merged is None:
        found = "none" if split is None else f"none of split {split}"
        raise DataError("a measure needs rows", found=found, where=store.uri)
    return merged


@dataclass(frozen=True)
class _Job:
    """What an actor needs to make its measure and to read."""

    data: Store
    make: Callable[..., Measure]
    arguments: Mapping[str, Any]
    parents: Store | None
    parent_groups: Sequence[RowGroup]
    split: str | None


class _Meter:
    """Reads row groups and measures them."""

    def __init__(self, job: _Job) -> None:
        self.job, self.store = job, job.data

    @cached_property
    def measure(self) -> Measure:
        """Made with the first row group, so that what it refuses is known for what it is."""
        return self.job.make(**self.job.arguments)

    def do(self, group: RowGroup) -> Partial | None:
        """The partial state of one row group; None if no row of it is asked for."""
        file = self.store.parquet(group.shard)
        splits = read_group(file, group.number, ["split"])["split"].to_pylist()
        wanted = [n for n, split in enumerate(splits) if self.job.split in (None, split)]
        if not wanted:
            return None
        rows = read_group(file, group.number).take(wanted).to_pylist()
        partial: Partial | None = self.measure(self._pairs([from_row(row) for row in rows]))
        return partial

    def _pairs(self, samples: Sequence[Sample]) -> list[Pair]:
        if self.job.parents is None:
            return [Pair(sample) for sample in samples]
        names = [self._parent_id(sample) for sample in samples]
        found = self._read_parents(self.job.parents, set(names))
        for sample, name in zip(samples, names, strict=True):
            if name not in found:
                raise DataError(
                    f"the parent of every row stands in {self.job.parents}",
                    found=f"no {name}",
                    where=sample.sample_id,
                    next_step="give the folder that was augmented",
                )
        return [Pair(sample, found[name]) for sample, name in zip(samples, names, strict=True)]

    def _parent_id(self, sample: Sample) -> str:
        if sample.provenance is None:
            raise DataError(
                "only augmented rows have parents",
                where=sample.sample_id,
                next_step="give the folder that jobs/augment.py wrote",
            )
        return sample.provenance.parent_id

    def _read_parents(self, store: Store, names: set[str]) -> dict[str, Sample]:
        found: dict[str, Sample] = {}
        for group in self.job.parent_groups:
            missing = names - found.keys()
            if not missing:
                break
            if not any(group.may_hold(name) for name in missing):
                continue
            file = store.parquet(group.shard)
            ids = read_group(file, group.number, ["sample_id"])["sample_id"].to_pylist()
            hits = [n for n, sample_id in enumerate(ids) if sample_id in missing]
            if hits:
                for row in read_group(file, group.number).take(hits).to_pylist():
                    found[row["sample_id"]] = from_row(row)
        return found

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Ray Data's calling convention; what a measure refuses is handed to the driver, which raises it."""
        results = np.empty(len(batch["number"]), dtype=object)
        for n, group in enumerate(batch["group"]):
            try:
                results[n] = self.do(group)
            except AugengineError as error:
                results[n] = error
        return {"number": batch["number"], "result": results}


def _row_groups(store: Store) -> list[RowGroup]:
    groups = []
    for name in dataset_files(store):
        file = store.parquet(name)
        check_schema(file, store.path(name))
        for number in range(file.num_row_groups):
            part = file.metadata.row_group(number)
            columns = (part.column(c) for c in range(part.num_columns))
            ids = next((c.statistics for c in columns if c.path_in_schema == "sample_id"), None)
            least, most = (ids.min, ids.max) if ids is not None and ids.has_min_max else (None, None)
            groups.append(RowGroup(name, number, least, most))
    return groups


def _inline(groups: Sequence[RowGroup], job: _Job) -> Iterator[Partial | None]:
    meter = _Meter(job)
    for group in groups:
        yield meter.do(group)


def _on_ray(groups: Sequence[RowGroup], job: _Job, actors: Actors) -> Iterator[Partial | None]:
    """Partial states in the order of the groups; those that come too early wait."""
    items = [{"number": n, "group": group} for n, group in enumerate(groups)]
    early: dict[int, Partial | None] = {}
    following = 0
    for row in on_actors(items, _Meter, job, actors):
        if isinstance(row["result"], AugengineError):
            raise row["result"]
        early[row["number"]] = row["result"]
        while following in early:
            yield early.pop(following)
            following += 1
