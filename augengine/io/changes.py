"""Two values as JSON holds them in; the places at which they differ, in words, out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from augengine.rng import canonical_json

MOST, LONGEST = 3, 60
"""Places that are named, and characters of a value there."""


def told_changes(held: Any, asked: Any) -> tuple[str, str]:
    """What one value has at the places at which another differs, and what that one has there.

    >>> told_changes({"size": 96, "split": {"seed": 1}}, {"size": 96, "split": {"seed": 2}})
    ('split.seed 1', 'split.seed 2')
    >>> told_changes("a", "b")
    ('a', 'b')
    """
    places = list(_changes(*(json.loads(canonical_json(value)) for value in (held, asked))))
    rest = f" and {len(places) - MOST} more" if len(places) > MOST else ""
    first, second = (
        ", ".join(f"{place} {_short(values[n])}".strip() for place, *values in places[:MOST]) + rest for n in (0, 1)
    )
    return first, second


def _changes(held: Any, asked: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(held, dict) and isinstance(asked, dict):
        for key in [*held, *(key for key in asked if key not in held)]:
            below = f"{place}.{key}" if place else str(key)
            yield from _changes(held.get(key), asked.get(key), below)
    elif isinstance(held, list) and isinstance(asked, list) and len(held) == len(asked):
        for n, pair in enumerate(zip(held, asked, strict=True)):
            yield from _changes(*pair, f"{place}[{n}]")
    elif held != asked or isinstance(held, bool) != isinstance(asked, bool):
        yield place, held, asked


def _short(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
