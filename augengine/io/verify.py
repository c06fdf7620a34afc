"""Files with the sizes and sha256 that were recorded of them in; those that are no longer so, with the reason, out."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from augengine.io.content import file_sha256
from augengine.io.parts import Part
from augengine.io.store import Store

_READERS = 4


def damaged(store: Store, parts: Iterable[Part], deep: bool = True) -> dict[str, str]:
    """Name → what is wrong, of each part that is missing or not as it was written.

    Args:
        deep: read every byte and compare the sha256, where one was recorded; else sizes alone.
    """

    def look(part: Part) -> tuple[str, str | None]:
        return part.name, _problem(store, part, deep)

    with ThreadPoolExecutor(_READERS) as pool:  # hashing lets go of Python's lock
        return {name: problem for name, problem in pool.map(look, parts) if problem is not None}


def _problem(store: Store, part: Part, deep: bool) -> str | None:
    size = store.size(part.name)
    if size is None:
        return "missing"
    if size != part.bytes:
        return f"{size} bytes instead of {part.bytes}"
    if deep and part.sha256 is not None and file_sha256(store, part.name) != part.sha256:
        return "another content (sha256)"
    return None
