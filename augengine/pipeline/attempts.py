"""Starts of a unit that never came to an end: a unit that kills its process is recognised by what it leaves on disk.

`_attempts/<unit>.<n>` is created before the n-th start and deleted when the process lives to say how it went. What is
left was killed: by the unit itself (a decoder's segmentation fault, the kernel's out-of-memory killer), or with its
actor, node or driver. A unit that was killed twice is next done row by row, and a row that was killed three times is
quarantined.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from augengine.errors import AugengineError
from augengine.io.commits import ATTEMPTS
from augengine.io.store import Store

WHOLE_STARTS = 2
"""Starts of a unit as a whole; the next one takes its rows one by one."""
ROW_STARTS = 3
"""Starts of a single row, or of a unit that cannot be divided; the next one quarantines it."""


def _name(unit_id: str, n: int) -> str:
    return f"{ATTEMPTS}/{unit_id}.{n}"


@contextmanager
def attempt(store: Store, unit_id: str, run: str) -> Iterator[int]:
    """Mark a start and yield its number (1 for the first); all marks of the unit go where the block succeeds.

    Args:
        run: id of the job that starts it, for `forgive`.
    """
    n, mark = 1, f"{run} {uuid.uuid4().hex}".encode()  # no other start writes the same: see `Store.create`
    while not store.create(_name(unit_id, n), mark):
        n += 1
    try:
        yield n
    except BaseException:
        # It raised, so it did not kill its process, and this start does not count. On a lost disk it stays.
        with suppress(AugengineError):
            store.remove(_name(unit_id, n))
        raise
    for k in range(n, 0, -1):
        store.remove(_name(unit_id, k))


def forgive(store: Store, run: str) -> None:
    """Delete the marks of a job that ends by itself or by its user, and takes its actors with it in mid-unit."""
    for name, mark in store.read_many(store.names(ATTEMPTS)).items():
        if mark.split(b" ")[0] == run.encode():
            store.remove(name)
