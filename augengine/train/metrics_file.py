"""What a training run measured, a line of JSON at a time, in a file that grows; and the lines back.

On a local disk lines are appended to `metrics.jsonl`. Object stores cannot append: there a chunk of bounded size is
written anew with every flush until it is full, and the next one begins (`metrics-00001.jsonl`, …). Either way the bytes
that are written grow with the lines, and not with their square. A process that is killed may leave half a last line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from augengine.errors import DataError, RunError
from augengine.io.store import Store

METRICS = "metrics.jsonl"
CHUNK_BYTES = 2**14
_TAIL_BYTES = 2**14


class MetricsFile:
    """Writes lines to the metrics of a run that goes on after step `resumed_step`.

    Lines of later steps, which a restart will repeat, and half a line that a crash left are cut off first.
    """

    def __init__(self, store: Store, resumed_step: int) -> None:
        self.store, self.number, self.chunk = store, 0, b""
        found = list(_chunks(store))
        for self.number, content in enumerate(found):
            lines = _parsed(content, store.path(_name(self.number)), last=self.number == len(found) - 1)
            self.chunk = _text(line for line in lines if line["step"] <= resumed_step)
            if self.chunk != content:
                self._cut(len(found))
                break

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write some lines: they survive this process, and a reader sees them at once."""
        if not lines:
            return
        if self.store.local:
            _append(self.store.path(_name(self.number)), _text(lines))
            return
        if len(self.chunk) >= CHUNK_BYTES:
            self.number, self.chunk = self.number + 1, b""
        self.chunk += _text(lines)
        self.store.write(_name(self.number), self.chunk)

    def _cut(self, chunks: int) -> None:
        """Drop what stands after the kept lines; the last chunk first, so that a crash leaves no gap."""
        for number in range(chunks - 1, self.number, -1):
            self.store.remove(_name(number))
        self.store.write(_name(self.number), self.chunk)


def read_metrics(store: Store) -> list[dict[str, Any]]:
    """Lines written so far, in order; none if there are none.

    Raises:
        DataError: a line that is no JSON, unless it is the last one, which may be on its way.
    """
    found = list(_chunks(store))
    return [
        line
        for number, content in enumerate(found)
        for line in _parsed(content, store.path(_name(number)), last=number == len(found) - 1)
    ]


class MetricsTail:
    """The latest lines, however long the file is: reads a bounded number of bytes each time."""

    def __init__(self, store: Store) -> None:
        self.store, self.number = store, 0

    def lines(self) -> list[dict[str, Any]]:
        """Complete lines of the end of the newest chunk, and of the one before where that has just begun."""
        contents: list[bytes] = []
        while (content := self._end_of(self.number + len(contents))) is not None:
            contents.append(content)
        if not contents:  # a restart cut it off
            if not self.number:
                return []
            self.number = 0
            return self.lines()
        self.number += max(0, len(contents) - 2)
        return [line for content in contents[-2:] for line in _complete(content)]

    def _end_of(self, number: int) -> bytes | None:
        try:
            content: bytes = self.store.fs.cat_file(self.store.path(_name(number)), start=-_TAIL_BYTES)
        except FileNotFoundError:
            return None
        return content


def _append(path: str, content: bytes) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "ab") as file:
            file.write(content)
    except OSError as error:
        raise RunError(
            "cannot write the metrics of the run",
            found=error.strerror or str(error),
            where=path,
            next_step="make room and run the same command again: it goes on from the last checkpoint",
        ) from None


def _name(number: int) -> str:
    return METRICS if number == 0 else f"metrics-{number:05d}.jsonl"


def _chunks(store: Store) -> Iterator[bytes]:
    number = 0
    while True:
        try:
            yield store.read(_name(number))
        except FileNotFoundError:
            return
        number += 1


def _text(lines: Iterator[Mapping[str, Any]] | Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _parsed(content: bytes, where: str, *, last: bool) -> list[dict[str, Any]]:
    found, rows = [], content.splitlines()
    for number, row in enumerate(rows, 1):
        try:
            found.append(json.loads(row))
        except ValueError:  # broken JSON, or half a letter
            if last and number == len(rows) and not content.endswith(b"\n"):
                break
            raise DataError(
                "a line of metrics must be JSON",
                found=repr(row[:40]),
                where=f"{where}:{number}",
                next_step="delete the line",
            ) from None
    return found


def _complete(content: bytes) -> list[dict[str, Any]]:
    """Lines that are whole; the first may be cut by the start of what was read, the last be on its way."""
    found = []
    for row in content.splitlines():
        try:
            line = json.loads(row)
        except ValueError:
            continue
        if isinstance(line, dict):  # the end of a line may be a number
            found.append(line)
    return found
