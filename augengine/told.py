"""What a command has to say to a program, value by value, in; one JSON object (`--json`), out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

_values: dict[str, Any] = {}


def tell(**values: Any) -> None:
    """Keep what `--json` prints under these names; a later value of a name takes the place of an earlier one.

    Args:
        values: what JSON holds, data classes, or mappings of such. Numbers that are not finite become null.
    """
    _values.update(values)


def forget() -> None:
    """Begin anew: nothing has been told."""
    _values.clear()


def told(**more: Any) -> str:
    """All that was told, and more, as one JSON object."""
    return json.dumps(plain({**more, **_values}), indent=1)


def plain(value: Any) -> Any:
    """A value as JSON has it.

    >>> plain({"a": float("nan"), 1: (2, 3)})
    {'a': None, '1': [2, 3]}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return plain(value.item()) if hasattr(value, "item") else str(value)
