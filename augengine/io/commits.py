"""Which files of an output folder count: those that the commit record of a work unit lists, and nothing else.

Layout of an output folder:
    <folder>/part-<unit>-<content>.parquet   rows, one folder per kind of outcome (samples, accepted, failed, …)
    _commits/<unit>.json           created once, last, never changed: the unit is done, and these are its files
    _rows/<unit>-row<n>.json       the same of one row of a unit that is done row by row; superseded by the unit's own
    _retried/<unit>.json           the record of a unit whose failed rows are tried again, until it has a new one
    _attempts/<unit>.<n>           the n-th start of a unit; what a crash leaves behind (`augengine.pipeline.attempts`)
    _lock.json                     the job that works here now (`augengine.io.run_lock`)
    _run.json                      fingerprint of what makes this folder's rows; another one is refused
    manifest.json, _SUCCESS.json   written when every unit is committed (`augengine.io.dataset`)
    v2/, v3/, …                    the same again for another fingerprint, where that was asked for
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from augengine.errors import AugengineError, DataError, RunError
from augengine.io.changes import told_changes
from augengine.io.parts import Part
from augengine.io.sealed import sealed, unsealed
from augengine.io.store import Store
from augengine.rng import canonical_json
from augengine.yaml_config import Document

COMMITS, ROWS, RETRIED, ATTEMPTS = "_commits", "_rows", "_retried", "_attempts"
RUN = "_run.json"
_NOTHING: Mapping[str, tuple[str, Any]] = {}


@dataclass(frozen=True)
class Record:
    """What became of a unit.

    Attributes:
        counts: rows by folder; of folders that got none, too.
        files: by folder.
        seconds, pid, peak_rss_mib: how long it took whom, and the largest resident memory of that process so far.
        reasons: by folder, the commonest reasons for which rows are there, with their number.
        retried: rows that had failed and were tried again, by folder in which they are now.
    """

    unit_id: str
    counts: Mapping[str, int]
    files: Mapping[str, Sequence[Part]]
    seconds: float
    pid: int
    peak_rss_mib: float
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    retried: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        files = {folder: [part.to_json() for part in parts] for folder, parts in self.files.items()}
        retried = {"retried": dict(self.retried)} if self.retried else {}
        return {
            **retried,
            "unit_id": self.unit_id,
            "counts": dict(self.counts),
            "files": files,
            "seconds": self.seconds,
            "pid": self.pid,
            "peak_rss_mib": self.peak_rss_mib,
            "reasons": {folder: dict(reasons) for folder, reasons in self.reasons.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """Inverse of `to_json`."""
        files = {folder: tuple(Part(**part) for part in parts) for folder, parts in values["files"].items()}
        made = {key: values[key] for key in ("unit_id", "counts", "seconds", "pid", "peak_rss_mib")}
        return cls(files=files, reasons=values.get("reasons", {}), retried=values.get("retried", {}), **made)


def record_name(unit_id: str, folder: str = COMMITS) -> str:
    """Where the record of a unit stands."""
    return f"{folder}/{unit_id}.json"


def commit(store: Store, record: Record, folder: str = COMMITS) -> Record:
    """Make a unit's files count, unless another attempt's do; returns the record that stands."""
    content = (canonical_json(sealed(record.to_json())) + "\n").encode()
    while not store.create(record_name(record.unit_id, folder), content):
        if (first := find_record(store, record.unit_id, folder)) is not None:
            return first
    return record


def put_aside(store: Store, record: Record) -> None:
    """Keep the record of a unit whose failed rows are to be tried again."""
    store.write(record_name(record.unit_id, RETRIED), (canonical_json(sealed(record.to_json())) + "\n").encode())


def find_record(store: Store, unit_id: str, folder: str = COMMITS) -> Record | None:
    """The record of a unit; None if it is not done."""
    name = record_name(unit_id, folder)
    try:
        return _parsed(store, name, store.read(name))
    except FileNotFoundError:
        return None


def read_records(store: Store, units: Collection[str] | None = None) -> dict[str, Record]:
    """The records of all units that are done, or of some, by unit; one listing, then many reads at a time.

    Raises:
        RunError: a record that is damaged, or that an older version wrote.
    """
    done = committed_units(store)
    wanted = sorted(done if units is None else done.intersection(units))
    found = store.read_many(record_name(unit_id) for unit_id in wanted)
    return {record.unit_id: record for name, content in found.items() for record in [_parsed(store, name, content)]}


def committed_units(store: Store) -> set[str]:
    """Ids of the units that are done."""
    return {name.removeprefix(f"{COMMITS}/").removesuffix(".json") for name in store.names(COMMITS, ".json")}


def committed_files(store: Store, folder: str) -> list[str]:
    """Files of one outcome folder that records list, sorted; of a run that may not be finished."""
    return sorted(part.name for record in read_records(store).values() for part in record.files.get(folder, ()))


def _parsed(store: Store, name: str, content: bytes) -> Record:
    try:
        values = store.parsed(name, content)
        if isinstance(values, dict) and "counts" in values and "files" not in values:
            raise RunError(
                "an older version began this run, and its records do not list their files",
                where=store.path(name),
                next_step="choose another --out, or finish it with that version",
            )
        return Record.from_json(unsealed(values, store.path(name)))
    except (DataError, KeyError, TypeError, AttributeError, ValueError):
        raise RunError(
            "this is no commit record, or a damaged one",
            where=store.path(name),
            next_step="delete the file and run the same command again: its work is done anew",
        ) from None


def claim(store: Store, fingerprint: Mapping[str, Any]) -> None:
    """Mark a folder as holding the rows of `fingerprint`; refuse one that holds others."""
    content = canonical_json(dict(fingerprint))
    if store.create(RUN, (content + "\n").encode()):
        return
    key, held = _difference(store, fingerprint)
    if key is not None:
        there, asked = told_changes(held, fingerprint.get(key))
        raise RunError(
            f"this output folder holds a run with another {key}",
            found=there,
            where=store.uri,
            next_step=f"choose another --out (this run has {asked})",
        )


def version(
    store: Store, fingerprint: Mapping[str, Any], new: bool = False, digested: Mapping[str, tuple[str, Any]] = _NOTHING
) -> Store:
    """The folder in which the rows of `fingerprint` stand: `store` itself or its `v2`, `v3`, …

    Args:
        new: where none of them holds this fingerprint, take the next free one.
        digested: of keys that are digests, the YAML file of the folder in which what was digested stands, and what was
            digested now; a refusal tells where these differ.

    Raises:
        RunError: all that are there hold other runs, and no new one was asked for.
    """
    first: tuple[str, Any] | None = None
    for n in itertools.count(1):
        found = store if n == 1 else store.folder(f"v{n}")
        if not found.exists(RUN):
            break
        key, held = _difference(found, fingerprint)
        if key is None:
            return found
        first = first or (key, held)
    if first is None or new:
        return found
    key, held = first
    there, asked = told_changes(held, fingerprint.get(key))
    if key in digested:
        there, asked = _told_by_file(store, *digested[key]) or (there, asked)
    raise RunError(
        f"this output folder holds a run with another {key}",
        found=there,
        where=store.uri,
        next_step=f"choose another --out, or keep both with --new-version (this run has {asked})",
    )


def _told_by_file(store: Store, name: str, asked: Any) -> tuple[str, str] | None:
    """Where a YAML file of a folder differs from a value; None where it does not, or cannot be read."""
    try:
        held = Document(store.read(name).decode(), name).data
    except (FileNotFoundError, UnicodeDecodeError, AugengineError):
        return None
    found = told_changes(held, asked)
    return found if any(found) else None


def _difference(store: Store, fingerprint: Mapping[str, Any]) -> tuple[str | None, Any]:
    """The first key in which the folder's fingerprint differs, with the folder's value."""
    held = store.read_mapping(RUN)
    for key in sorted(held.keys() | fingerprint.keys()):
        try:
            same = canonical_json(held.get(key)) == canonical_json(fingerprint.get(key))
        except ValueError:  # NaN, which no fingerprint holds
            return key, None
        if not same:
            return key, held.get(key)
    return None, None
