"""Bytes, text or plain values in; the same, damaged or made absurd at a random place, out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Rng = np.random.Generator

NUMBERS = (
    0,
    -1,
    1,
    2,
    3,
    255,
    256,
    65536,
    2**31 - 1,
    2**31,
    2**40,
    2**63,
    2**64,
    10**30,
    -(2**63),
    0.5,
    -0.5,
    1e-300,
    1e300,
    1e9,
    float("inf"),
    float("-inf"),
    float("nan"),
    1.0,
    True,
    False,
)
TEXTS = (
    "",
    " ",
    "x",
    "null",
    "~",
    "yes",
    "1",
    "1e3",
    "0x10",
    "017",
    "1:30",
    "2024-01-01",
    "2024-99-99",
    ".inf",
    "\x00",
    "\x1b[31m",
    "ä",
    "\u202e",
    "../../x",
    "/etc/hostname",
    "a" * 300,
    "%s%n",
    "{}",
    "[]",
    "<<",
    "*",
    "&a",
    "!!python/none",
)
OTHERS: tuple[Any, ...] = (None, [], {}, [1], [[]], [None], {"a": 1}, {"": None}, [1, 2, 3], ["x", "y"], [0.0, 0.0])
YAML_PIECES = (
    "<<: *a\n",
    "&a ",
    "*a",
    "? [1, 2]\n: x\n",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "!!binary ",
    "!!set {a, b}",
    "!!timestamp x",
    "!!omap [1]",
    "!!python/object:os.system x",
    "2024-13-45",
    "\t",
    "\x00",
    "\x07",
    "\x85",
    "---\n",
    "...\n",
    "%YAML 9.9\n",
    "|",
    ">",
    '"\\ud800"',
    '"\\x"',
    "!!pairs [a]",
    "!!int x",
    "!!float x",
    "!!bool x",
    "!!null x",
    "!!map []",
    "!!seq {}",
    "!!str {}",
    "0b",
    "0x",
    "1_000",
    "190:20:30",
    "#",
    "'",
    '"',
    "!<tag:yaml.org,2002:int> 1",
    "a: &b [*b]\n",
    "&r {r: *r}",
)


def pick(rng: Rng, values: Sequence[Any]) -> Any:
    """One of some values, itself."""
    return values[int(rng.integers(len(values)))]


def hostile_value(rng: Rng) -> Any:
    """A number, a text or something that is neither."""
    return copy.deepcopy(pick(rng, pick(rng, (NUMBERS, NUMBERS, TEXTS, OTHERS))))


def flipped(rng: Rng, content: bytes, bits: int = 1) -> bytes:
    """Some bits turned over."""
    out = bytearray(content)
    for _ in range(bits):
        if out:
            out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def damaged(rng: Rng, content: bytes) -> bytes:
    """Bits flipped, bytes overwritten, a piece cut out, repeated, moved or lost, or nothing left."""
    n = len(content)
    a, b = sorted(int(v) for v in rng.integers(0, n + 1, 2))
    near = min(n, a + int(rng.integers(1, 16)))
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: flipped(rng, content),
        lambda: flipped(rng, content),
        lambda: flipped(rng, content, 8),
        lambda: content[:a],
        lambda: content[a:],
        lambda: content[:a] + content[b:],
        lambda: content[:a] + content[near:],
        lambda: content[:a] + rng.bytes(near - a) + content[near:],
        lambda: content[:a] + bytes(near - a) + content[near:],
        lambda: content[:a] + b"\xff" * (near - a) + content[near:],
        lambda: content[:b] + content[a:],
        lambda: content + rng.bytes(16),
        lambda: b"",
    )
    return pick(rng, kinds)()


def damaged_yaml(rng: Rng, text: str) -> str:
    """Characters and lines changed, doubled, lost, indented or mixed with pieces of YAML's grammar."""
    for _ in range(int(rng.integers(1, 4))):
        lines = text.split("\n")
        n = int(rng.integers(len(lines)))
        at = int(rng.integers(len(text) + 1))
        kind = int(rng.integers(8))
        if kind == 0:
            lines[n] = lines[n] + "\n" + lines[n]
        elif kind == 1:
            del lines[n]
        elif kind == 2:
            lines[n] = " " * int(rng.integers(1, 5)) + lines[n]
        elif kind == 3 and ":" in lines[n]:
            lines[n] = lines[n].split(":")[0] + ": " + pick(rng, (*TEXTS, *map(str, NUMBERS), *YAML_PIECES))
        if kind < 4:
            text = "\n".join(lines)
        elif kind == 4:
            text = text[:at] + pick(rng, YAML_PIECES) + text[at:]
        elif kind == 5:
            text = text[:at] + text[at + int(rng.integers(1, 4)) :]
        elif kind == 6:
            text = text[:at] + chr(int(rng.integers(1, 0x250))) + text[at + 1 :]
        else:
            text = text[:at]
    return text


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to every value of nested mappings and lists."""
    if path:
        yield path
    if isinstance(values, dict):
        for key, value in values.items():
            yield from places(value, (*path, key))
    elif isinstance(values, list):
        for n, value in enumerate(values):
            yield from places(value, (*path, n))


def at(values: Any, path: Sequence[Any]) -> Any:
    """The value at a path."""
    for part in path:
        values = values[part]
    return values


def absurd(rng: Rng, values: Any) -> tuple[Any, tuple[Any, ...]]:
    """A copy with one value replaced, removed, renamed or doubled, and where."""
    out = copy.deepcopy(values)
    path = pick(rng, list(places(out)))
    section, last = at(out, path[:-1]), path[-1]
    kind = int(rng.integers(10))
    if kind < 7:
        section[last] = hostile_value(rng)
    elif kind == 7:
        del section[last]
    elif kind == 8 and isinstance(section, dict):
        section[str(last) + "z"] = section.pop(last)
    elif isinstance(section, list):
        section.append(copy.deepcopy(section[last]))
    else:
        section[last] = [section[last]]
    return out, path
