"""Which files of an output folder count: those whose work unit has a commit record.

Layout of an output folder:
    <folder>/part-<unit>.parquet   rows, one folder per kind of outcome (samples, accepted, rejected, failed, …)
    _commits/<unit>.json           written last: the unit is done, with its row counts
    _attempts/<unit>.<n>           the n-th start of a unit; what a crash leaves behind (`augengine.pipeline.attempts`)
    _lock.json                     the job that works here now (`augengine.pipeline.run_lock`)
    _run.json                      fingerprint of what makes this folder's rows; another one is refused
    manifest.json, _SUCCESS.json   written when every unit is committed
    v2/, v3/, …                    the same again for another fingerprint, where that was asked for
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from augengine.errors import RunError
from augengine.io.shards import shard_names
from augengine.io.store import Store
from augengine.rng import canonical_json

COMMITS = "_commits"
PART, TEMPORARY = "part-", ".tmp-"
# A file without commit record may belong to an attempt that still runs; no attempt takes so long from file to record.
ORPHAN_AGE_S = 600.0


def commit_name(unit_id: str) -> str:
    """The commit record of a unit."""
    return f"{COMMITS}/{unit_id}.json"


def part_name(folder: str, unit_id: str) -> str:
    """The file of a unit in one outcome folder."""
    return f"{folder}/{PART}{unit_id}.parquet"


def committed_units(store: Store) -> set[str]:
    """Ids of the units that are done."""
    return {name.removeprefix(f"{COMMITS}/").removesuffix(".json") for name in store.names(COMMITS, ".json")}


def committed_files(store: Store, folder: str) -> list[str]:
    """Files of one outcome folder that belong to committed units, sorted; what a crash left is not listed."""
    done = {part_name(folder, unit_id) for unit_id in committed_units(store)}
    return [name for name in store.names(folder, ".parquet") if name in done]


def sample_files(store: Store) -> list[str]:
    """Shards of an ingested data set (`samples/`), of an augmented one (`accepted/`), or of a plain folder.

    Raises:
        DataError: there are none.
    """
    for folder in ("samples", "accepted"):
        if store.exists(folder):
            return committed_files(store, folder) or shard_names(store, folder)
    return shard_names(store, "")


def claim(store: Store, fingerprint: Mapping[str, Any]) -> None:
    """Mark a folder as holding the rows of `fingerprint`; refuse one that holds others."""
    if not store.exists("_run.json"):
        store.write_json("_run.json", dict(fingerprint))
        return
    key, held = _difference(store, fingerprint)
    if key is not None:
        raise RunError(
            f"this output folder holds a run with another {key}", found=str(held), where=store.uri,
            next_step=f"choose another --out (this run has {fingerprint.get(key)})",
        )  # fmt: skip


def version(store: Store, fingerprint: Mapping[str, Any], new: bool = False) -> Store:
    """The folder in which the rows of `fingerprint` stand: `store` itself or its `v2`, `v3`, …

    Args:
        new: where none of them holds this fingerprint, take the next free one.

    Raises:
        RunError: all that are there hold other runs, and no new one was asked for.
    """
    first: tuple[str, Any] | None = None
    for n in itertools.count(1):
        found = store if n == 1 else Store(f"{store.uri}/v{n}")
        if not found.exists("_run.json"):
            break
        key, held = _difference(found, fingerprint)
        if key is None:
            return found
        first = first or (key, held)
    if first is None or new:
        return found
    raise RunError(
        f"this output folder holds a run with another {first[0]}", found=str(first[1]), where=store.uri,
        next_step=f"choose another --out, or keep both with --new-version (this run has {fingerprint.get(first[0])})",
    )  # fmt: skip


def _difference(store: Store, fingerprint: Mapping[str, Any]) -> tuple[str | None, Any]:
    """The first key in which the folder's fingerprint differs, with the folder's value."""
    held = store.read_json("_run.json")
    for key in sorted(held.keys() | fingerprint.keys()):
        if canonical_json(held.get(key)) != canonical_json(fingerprint.get(key)):
            return key, held.get(key)
    return None, None


def finish(store: Store, manifest: Mapping[str, Any]) -> None:
    """Write the manifest and, last, the success mark."""
    store.write_json("manifest.json", dict(manifest))
    store.write_json("_SUCCESS.json", {"counts": manifest["counts"]})


def create(store: Store, name: str, content: bytes = b"") -> bool:
    """Write a file that is not there yet; False where it is. Of several callers at most one gets True.

    An exclusive open on local disks, a conditional PUT on object stores.
    """
    path = store.path(name)
    with writing(store, name):
        if store.local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            if not store.local:
                store.fs.pipe_file(path, content, mode="create")
            else:
                with open(path, "xb") as file:
                    file.write(content)
        except FileExistsError:
            return False
    return True


@contextmanager
def writing(store: Store, name: str) -> Iterator[None]:
    """Turn what a disk or an object store says on writing `name` into a `RunError` with what to do about it."""
    try:
        yield
    except (OSError, RunError) as error:
        found = error.strerror or str(error) if isinstance(error, OSError) else error.found
        raise RunError(
            "cannot write the output", found=found, where=store.path(name),
            next_step="make room or make it writable and run the same command again; what is committed is kept",
        ) from None  # fmt: skip


def sweep(store: Store, age_s: float = ORPHAN_AGE_S) -> int:
    """Delete files of crashed attempts that are older than `age_s` seconds; returns how many.

    These are `part-*` without commit record and temporary files. They are never read, but take room.
    """
    done, removed = committed_units(store), 0
    store.fs.invalidate_cache()
    for folder in _folders(store):
        # The root holds small files that the driver itself writes, the lock's heartbeat among them.
        limit_s = max(age_s, ORPHAN_AGE_S) if folder == store.root else age_s
        for path in store.fs.ls(folder, detail=False):
            base = PurePosixPath(path).name
            unit_id = base.removeprefix(PART).removesuffix(".parquet")
            orphan = base.startswith(TEMPORARY) or (base.startswith(PART) and unit_id not in done)
            if orphan and _age_s(store, path) >= limit_s:
                with suppress(FileNotFoundError):  # its writer may just have renamed it
                    store.fs.rm_file(path)
                    removed += 1
    return removed


def _folders(store: Store) -> list[str]:
    """The root and its folders, but for versions, which may belong to a job of their own."""
    folders = (entry["name"] for entry in store.fs.ls(store.root, detail=True) if entry["type"] == "directory")
    return [store.root, *(f for f in folders if not re.fullmatch(r"v\d+", PurePosixPath(f).name))]


def _age_s(store: Store, path: str) -> float:
    """Seconds since a file was written; 0 where it has just gone, or where the file system does not say."""
    try:
        modified = store.fs.modified(path)
    except (FileNotFoundError, NotImplementedError):
        return 0.0
    modified = modified if modified.tzinfo else modified.replace(tzinfo=UTC)
    return float((datetime.now(UTC) - modified).total_seconds())
