"""Files of a data set in; one digest of all that they hold, by which it is told whether two data sets are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from augengine.io.sealed import unsealed
from augengine.io.store import Store
from augengine.rng import digest

_MANIFEST = "manifest.json"
_BLOCK_BYTES = 2**22


def content_digest(store: Store, names: Sequence[str]) -> str:
    """What the rows of some shards are: their ids, splits, acquisitions, labels and pixels, in their order.

    Where the manifest lists a file with its sha256 no byte of it is read. Equal rows in other files (another grouping
    of rows, another writer) are another digest: it never calls two things the same that are not.
    """
    listed = listed_sha256(store)
    return digest([listed.get(name) or file_sha256(store, name) for name in names])


def listed_sha256(store: Store) -> dict[str, str]:
    """Name → sha256 of the files that the folder's manifest lists with one; older ones list names alone, or nothing."""
    try:
        manifest = unsealed(store.read_json(_MANIFEST), store.path(_MANIFEST))
    except FileNotFoundError:
        return {}
    parts = [part for of_kind in manifest.get("files", {}).values() for part in of_kind if isinstance(part, Mapping)]
    return {part["name"]: part["sha256"] for part in parts if part.get("sha256")}


def file_sha256(store: Store, name: str) -> str:
    """Of the bytes of one file, read block by block."""
    running = hashlib.sha256()
    with store.fs.open(store.path(name), "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            running.update(block)
    return running.hexdigest()
