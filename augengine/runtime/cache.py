"""A name in; the folder out in which this user's machine keeps what it can always make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """A folder of `$AUGENGINE_CACHE`, else `$XDG_CACHE_HOME/augengine`, else `~/.cache/augengine`; made if new."""
    root = os.environ.get("AUGENGINE_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "augengine"
    folder = base / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
