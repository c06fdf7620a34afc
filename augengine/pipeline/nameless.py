"""Errors that name files of a patient's folder in; the same without these names, for a cluster's log, out."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from augengine.errors import AugengineError
from augengine.io.walk import walk
from augengine.pipeline.cluster import in_ray_job

HIDDEN = "a name that is not shown in a cluster's log (the same command outside of a Ray job shows it)"
_SHORT = 3
"""Names of up to so many letters are words."""


@contextlib.contextmanager
def nameless(root: Path) -> Iterator[None]:
    """Inside a Ray job raise errors without the names of files and folders below `root`, which may name a patient."""
    try:
        yield
    except AugengineError as error:
        if not in_ray_job():
            raise
        names = _names(root.expanduser().resolve())
        odd = {name for name in names if not name.isalpha()}  # a rule is made of words
        found = error.found if isinstance(error.found, str) or error.found is None else repr(error.found)
        where = _without(error.where, names)
        raise type(error)(
            _without(error.rule, odd) or "",
            found=_without(found, names),
            next_step=_without(error.next_step, names),
            where=error.where if where == error.where else HIDDEN,
        ) from None


def _names(root: Path) -> set[str]:
    """Paths below a folder, their parts, and what these are without an ending or the last parts of a name."""
    names: set[str] = set()
    for file in walk(root) if root.is_dir() else ():
        for part in file.path.split("/"):
            stem = part.split(".")[0]
            names |= {part, stem, *(stem[: match.start()] for match in re.finditer(r"[_-]", stem))}
    return {name for name in names if len(name) > _SHORT}


def _without(text: str | None, names: set[str]) -> str | None:
    """A text in which "…" stands for every path that has one of these names, such a name, and a pattern of one."""
    if text is None:
        return None

    def shown(match: re.Match[str]) -> str:
        for part in match.group().split("/"):
            if not names.isdisjoint((part, part.split(".")[0], re.split(r"[*?\\\[]", part)[0].rstrip("_-."))):
                return "…"
        return match.group()

    return re.sub(r"[^\s,;:'\"()=]+", shown, text)
