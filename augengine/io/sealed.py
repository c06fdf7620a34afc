"""A JSON mapping in; the same with a checksum of itself out, so that one that was damaged is told from another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from augengine.errors import DataError

SEAL = "checksum"


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with their checksum under `SEAL`.

    >>> unsealed(sealed({"rows": 3}), "here")
    {'rows': 3}
    """
    content = {name: value for name, value in values.items() if name != SEAL}
    return {**content, SEAL: _sum(content)}


def unsealed(values: Any, where: str) -> dict[str, Any]:
    """The values without their checksum, which must be theirs; files of older versions have none, nor a name like it.

    Raises:
        DataError: they were changed since they were written, or are no mapping.
    """
    if not isinstance(values, dict):
        raise DataError("this file holds a mapping", found=type(values).__name__, where=where)
    content = {name: value for name, value in values.items() if name != SEAL}
    damaged_seal = SEAL not in values and get_close_matches(SEAL, map(str, values), n=1, cutoff=0.7)
    if damaged_seal or (SEAL in values and values[SEAL] != _sum(content)):
        raise DataError(
            "this file must be as it was written",
            found="another checksum",
            where=where,
            next_step="restore it, or run the command that wrote it again",
        )
    return content


def _sum(content: Mapping[str, Any]) -> str:
    """The same before writing and after reading: of the JSON, with its keys in order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
