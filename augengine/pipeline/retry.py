"""Units with failed rows in; the same units, of which only those rows are to be made, and one record of both out.

`--retry-failed` sets the record of such a unit aside: `_commits/<unit>.json` goes, `_retried/<unit>.json` stands in its
place until the unit has a new record. That one lists the files of the old one, but for its failed rows, and those of
the rows that were tried again. So no row that was made is made again, and a retry that dies is gone on with by the same
command, with the flag or without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from augengine.io.commits import ATTEMPTS, RETRIED, ROWS, Record, find_record, put_aside, record_name
from augengine.io.parts import owner
from augengine.io.store import Store
from augengine.io.verify import damaged

FAILED = "failed"


@runtime_checkable
class Retries(Protocol):
    """A worker that can make single rows of a unit again; its failed rows have a `sample_id`."""

    def again(self, spec: dict[str, Any], sample_ids: frozenset[str]) -> dict[str, Any]:
        """The spec of the same unit with these rows alone."""


def set_failed_aside(store: Store, done: Mapping[str, Record]) -> dict[str, Record]:
    """Open the units that have failed rows; returns the records of the others."""
    failed = {unit_id: record for unit_id, record in done.items() if record.counts.get(FAILED)}
    for name in (name for folder in (ROWS, ATTEMPTS) for name in store.sizes(folder)):
        if owner(name.rpartition("/")[2].rpartition(".")[0], failed):
            store.remove(name)  # what single rows came to, which would stand for them, and how often they were begun
    for record in failed.values():
        put_aside(store, record)
        store.remove(record_name(record.unit_id))
    return {unit_id: record for unit_id, record in done.items() if unit_id not in failed}


def set_aside(store: Store) -> frozenset[str]:
    """Ids of the units that were opened, now or by a job that died."""
    return frozenset(name.rpartition("/")[2].removesuffix(".json") for name in store.names(RETRIED, ".json"))


def earlier_record(store: Store, unit_id: str) -> Record | None:
    """The record that was set aside; None where a file of it is damaged, so that the unit is to be made as a whole."""
    record = find_record(store, unit_id, RETRIED)
    parts = [part for parts in record.files.values() for part in parts] if record else []
    return None if damaged(store, parts, store.local) else record


def failed_samples(store: Store, record: Record) -> frozenset[str]:
    """The `sample_id` of every failed row."""
    tables = [store.parquet(part.name).read(columns=["sample_id"]) for part in record.files.get(FAILED, ())]
    return frozenset(sample_id for table in tables for sample_id in table["sample_id"].to_pylist())


def joined(earlier: Record, now: Record) -> Record:
    """One record of a unit from the earlier one, whose failed rows do not count, and from that of those rows."""
    counts, files = Counter(earlier.counts), {k: list(parts) for k, parts in earlier.files.items() if k != FAILED}
    reasons = {folder: Counter(found) for folder, found in earlier.reasons.items() if folder != FAILED}
    counts[FAILED] = 0
    counts.update(now.counts)
    for folder, parts in now.files.items():
        files.setdefault(folder, []).extend(parts)
    for folder, found in now.reasons.items():
        reasons.setdefault(folder, Counter()).update(found)
    retried = Counter(earlier.retried)
    retried[FAILED] = 0  # they are among those that were tried now
    retried.update(now.counts)
    return replace(
        now,
        counts=dict(counts),
        files=files,
        reasons=reasons,
        retried={k: n for k, n in retried.items() if n},
        seconds=round(earlier.seconds + now.seconds, 3),
    )
