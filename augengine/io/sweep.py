"""The records of a run whose units are all committed in; what its crashed attempts left is deleted.

A record never changes once it stands (`--retry-failed` changes some, before every unit has one). So where every unit
has one, a file named after one of these units that none of them lists will never be listed, whoever wrote it and
whoever is still writing. Nothing else is touched: no file of a unit of another run, whatever its age. A temporary file
that goes under its writer's hands is written again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from augengine.errors import RunError
from augengine.io.commits import ATTEMPTS, COMMITS, RETRIED, ROWS, Record, record_name
from augengine.io.parts import owner, unit_of
from augengine.io.store import Store

_TEMPORARY = re.compile(r"\.tmp-(?P<base>.+)-\d+-[0-9a-f]{8}")
_VERSION = re.compile(r"v\d+")


def sweep(store: Store, records: Mapping[str, Record]) -> int:
    """Check that all that is listed is there, then delete the orphans of these units; returns how many.

    Args:
        records: of every unit of the run.

    Raises:
        RunError: a listed file is missing or has another size; nothing is deleted then.
    """
    folders = [f for f in store.folders() if not f.startswith((".", "_")) and not _VERSION.fullmatch(f)]
    there = {name: size for folder in folders for name, size in store.sizes(folder).items()}
    listed = set()
    for unit_id, record in records.items():
        for part in (part for parts in record.files.values() for part in parts):
            listed.add(part.name)
            if part.bytes not in (there.get(part.name), store.size(part.name)):
                raise RunError(
                    "a committed file is missing or damaged",
                    where=store.path(part.name),
                    next_step=f"delete {store.path(record_name(unit_id))} and run the same command again",
                )
    orphans = [*_orphans(there, records, listed), *_bookkeeping(store, records)]
    for name in orphans:
        store.remove(name)
    return len(orphans)


def _orphans(there: Mapping[str, int], records: Mapping[str, Record], listed: set[str]) -> Iterator[str]:
    """Files of the folders of rows."""
    for name in there:
        base, temporary = _base(name)
        if unit_of(base, records) and (temporary or name not in listed):
            yield name


def _bookkeeping(store: Store, records: Mapping[str, Record]) -> Iterator[str]:
    """What a committed unit needs no more: other records of it or its rows, marks of its starts, temporary files.

    Beside the lock, in the root, every temporary file goes: only jobs that hold the lock or ask for it write there.
    """
    for folder in (COMMITS, ROWS, RETRIED, ATTEMPTS):
        for name in store.sizes(folder):
            base, temporary = _base(name)
            unit_id = base.rpartition(".")[0]  # of <unit>.json and <unit>.<n>
            if owner(unit_id, records) and (temporary or folder != COMMITS):
                yield name
    yield from (name for name in store.sizes("") if _base(name)[1])


def _base(name: str) -> tuple[str, bool]:
    """The base name of a file, or of what a temporary file was to become, and whether it is one."""
    base = PurePosixPath(name).name
    found = _TEMPORARY.fullmatch(base)
    return (found["base"], True) if found else (base, False)
