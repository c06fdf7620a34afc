"""A folder goes in; every file below it comes out, links followed, hidden ones marked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Folders that archives packed on a Mac carry beside the data: they hold resource forks under the data's own names.
HIDDEN_FOLDERS = ("__MACOSX",)
NOT_UTF8 = "its name, or that of a folder above it, is not UTF-8"


@dataclass(frozen=True)
class File:
    """A file below a folder.

    Attributes:
        path: relative to the folder, with `/` between its parts; of a name that is not UTF-8, with its other bytes as
            escapes.
        problem: why it can be no input of any layout (hidden, a link that leads nowhere, …), or None.
    """

    path: str
    problem: str | None = None


def walk(root: Path, folder: str = "") -> Iterator[File]:
    """Every file below `root/folder`, sorted by name within each folder; paths are relative to `root`.

    Folders that are symbolic links are entered, but for one that leads back to a folder above it.
    """
    start = os.path.join(root, folder) if folder not in ("", ".") else os.fspath(root)
    yield from _walk(start, "" if folder in ("", ".") else PurePosixPath(folder).as_posix(), frozenset())


def visible_files(root: Path, folder: str = "", suffixes: tuple[str, ...] = ("",)) -> list[str]:
    """Paths relative to `root` of the files below `root/folder` that may be input and have one of the suffixes."""
    return [f.path for f in walk(root, folder) if f.problem is None and f.path.lower().endswith(suffixes)]


def visible_folders(root: Path) -> list[Path]:
    """Folders right below `root` that may hold input, sorted; links to folders among them."""
    return sorted(p for p in root.iterdir() if p.is_dir() and not is_hidden(p.name) and is_utf8(p.name))


def is_hidden(name: str) -> bool:
    """True for the name of a file or folder that is never input: `.DS_Store`, `._scan.nii.gz`, `__MACOSX`."""
    return name.startswith(".") or name in HIDDEN_FOLDERS


def is_utf8(name: str) -> bool:
    """False for a name of other bytes, which no output can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(folder: str, path: str, above: frozenset[str], hidden: bool = False) -> Iterator[File]:
    real = os.path.realpath(folder)
    if real in above:
        yield File(path, "a link back to a folder above it")
        return
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda e: e.name)
    except OSError as error:
        yield File(path or ".", f"this folder cannot be read: {error.strerror}")
        return
    for entry in found:
        below = f"{path}/{entry.name}" if path else entry.name
        out = hidden or is_hidden(entry.name)
        if entry.is_dir():
            yield from _walk(entry.path, below, above | {real}, out)
        elif is_utf8(below):
            yield File(below, "hidden" if out else _problem(entry))
        else:
            yield File(below.encode(errors="backslashreplace").decode(), NOT_UTF8)


def _problem(entry: os.DirEntry[str]) -> str | None:
    if not entry.is_file():
        return "a link that leads nowhere" if entry.is_symlink() else "no regular file"
    return None
