"""Shared by the readers' tests: every volume of a folder, with the promise that no file is passed over."""

from __future__ import annotations

from augengine.io.sources import Reader, Source, Volume
from augengine.io.walk import walk


def scanned(reader: Reader) -> list[Source]:
    """All sources; every file below the root must be used, or named with a reason."""
    listing = reader.listing()
    sources: list[Source] = []
    accounted, named = {*listing.shared, *listing.unused}, 0
    for entry in listing.entries:
        found = reader.scan(entry)
        sources += found.sources
        used = {file for source in found.sources for file in source.files}
        left = sum(item.files for item in found.unused)
        assert len(set(reader.files(entry)) - used) == left, (entry, found)
        assert all(item.reason for item in found.unused)
        accounted |= used
        named += left
    assert len({file.path for file in walk(reader.root)} - accounted) == named
    return sources


def read_all(reader: Reader) -> list[Volume]:
    """Every volume with pixels; none may have an error."""
    found = scanned(reader)
    assert [s.error for s in found] == [None] * len(found)
    return [reader.read(source) for source in found]
