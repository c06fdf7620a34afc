"""What every reader of a layout must keep: it travels to workers, finds nothing in nothing, and names every file."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

from augengine.contracts.base import Checks, must, own_code
from augengine.errors import DataError
from augengine.io.sources import Reader, SourceOptions

Open = Callable[[Path, SourceOptions], Reader]
STRAY = ("notes.txt", "a/table.csv", "a/b/photo.jpg")


def lists_nothing(make: Open) -> None:
    """An empty folder has no entries, or is refused."""
    with tempfile.TemporaryDirectory() as folder, own_code("the listing of an empty folder"):
        try:
            entries = make(Path(folder), SourceOptions()).listing().entries
        except DataError:
            return
        must(not entries, "an empty folder has no entries", found=entries, mend="list what is there")


def names_every_file(make: Open) -> None:
    """Files that are no images belong to an entry, are shared or are named as unused, or the folder is refused."""
    with tempfile.TemporaryDirectory() as folder, own_code("the listing of a folder without images"):
        for name in STRAY:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("no image\n")
        reader = make(Path(folder), SourceOptions())
        try:
            listing = reader.listing()
        except DataError:
            return
        told = {*listing.unused, *listing.shared, *(file for e in listing.entries for file in reader.files(e))}
        must(
            told >= set(STRAY),
            "every file belongs to an entry, is shared, or is named as unused with a reason",
            found=f"nothing of {sorted(set(STRAY) - told)}",
            mend="name it in Listing.unused",
        )


def travels(make: Open) -> None:
    """Ray sends a reader to its workers."""
    with tempfile.TemporaryDirectory() as folder, own_code("sending the reader to a worker"):
        reader = copy.deepcopy(make(Path(folder), SourceOptions()))  # as Ray does, this asks every part for its state
        must(
            reader.root == Path(folder),
            "a reader arrives at a worker as it was",
            found=reader.root,
            mend="keep root and options as attributes",
        )


CHECKS: Checks[Open] = {
    "an empty folder has no entries, or is refused": lists_nothing,
    "every file is used or named": names_every_file,
    "it travels to workers": travels,
}
