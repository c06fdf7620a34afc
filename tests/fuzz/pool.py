"""Numbered cases of hostile input in; what became of each, in child processes with limits of time and memory, out.

A reader is a function of a random generator and an empty folder. It makes one input, reads it, and returns where it was
accepted and a stated oracle agrees. It raises `Silent` where it was accepted and the oracle does not agree; what the
code under test raises is let through. A case is known by its reader and number, and is the same on every machine.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from augengine.errors import AugengineError

RIGHT, REFUSED = "accepted and right", "refused in one line"
TRACEBACK, HANG, ENDED, SILENT = "traceback", "hang", "process ended", "silent acceptance"
MEMORY, OUTSIDE = "memory", "file outside of the folder"
GOOD = (RIGHT, REFUSED)
OUTCOMES = (*GOOD, TRACEBACK, HANG, ENDED, SILENT, MEMORY, OUTSIDE)
CPU_LIMIT_S = 5.0
WALL_LIMIT_S = 60.0
"""A machine that many share gives a process little of each second: a hang is told by processor time, or by this."""
MEMORY_BYTES = 2**30
"""Address space above what a process held when it began its first case."""
LONGEST_LINE = 1200

Reader = Callable[[np.random.Generator, Path], None]


class Silent(Exception):  # noqa: N818  (it is an outcome)
    """Wrong input was accepted; says what the oracle expected."""


@dataclass(frozen=True)
class Result:
    """What became of a case; `detail` is a message, or the end of a traceback."""

    reader: str
    number: int
    outcome: str
    detail: str = ""


def run_case(reader: Reader, name: str, number: int, scratch: Path) -> Result:
    """One case in this process, with `scratch/case` as its folder."""
    folder = scratch / "case"
    folder.mkdir()
    before = sorted(os.listdir(scratch))
    try:
        reader(np.random.default_rng([*name.encode(), number]), folder)
        outcome, detail = RIGHT, ""
    except Silent as error:
        outcome, detail = SILENT, str(error)[:LONGEST_LINE]
    except AugengineError as error:
        detail = str(error)
        outcome = REFUSED
        if "\n" in detail or len(detail) > LONGEST_LINE:
            outcome, detail = TRACEBACK, f"not one short line: {detail[:LONGEST_LINE]!r}"
        elif "MemoryError" in detail:
            outcome = MEMORY
    except MemoryError:
        outcome, detail = MEMORY, _end(traceback.format_exc())
    except (Exception, SystemExit) as error:
        outcome, detail = TRACEBACK, f"{type(error).__name__}: {str(error)[:200]}\n{_end(traceback.format_exc())}"
    if sorted(os.listdir(scratch)) != before:
        strange = set(os.listdir(scratch)) - set(before)
        outcome, detail = OUTSIDE, str(strange)
        for entry in strange:
            place = scratch / entry
            shutil.rmtree(place) if place.is_dir() else place.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    return Result(name, number, outcome, detail)


def _end(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "File" in line)[-900:]


def run(
    readers: Mapping[str, Reader], cases: Iterable[tuple[str, int]], scratch: Path, processes: int = 2
) -> Iterator[Result]:
    """Every case once; in no certain order.

    Child processes are forked from this one, which must hold no threads; one that exceeds a limit is replaced.
    """
    waiting = iter(cases)
    children = [_Child(readers, scratch / f"{n}") for n in range(processes)]
    try:
        busy = {child for child in children if child.start(next(waiting, None))}
        while busy:
            ready = wait([child.here for child in busy], timeout=0.25)
            for child in list(busy):
                result = child.result() if child.here in ready else child.overdue()
                if result is None:
                    continue
                yield result
                if not child.start(next(waiting, None)):
                    busy.discard(child)
    finally:
        for child in children:
            child.end()


class _Child:
    """One process that does a case at a time."""

    def __init__(self, readers: Mapping[str, Reader], scratch: Path) -> None:
        self.readers, self.scratch = readers, scratch
        self._fork()

    def _fork(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        context = multiprocessing.get_context("fork")
        self.here, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.readers, self.scratch, there), daemon=True)
        self.process.start()
        there.close()

    def start(self, case: tuple[str, int] | None) -> bool:
        """Give it a case; False if there is none left."""
        if case is None:
            return False
        self.case, self.began, self.cpu = case, time.monotonic(), self._cpu_s()
        self.here.send(case)
        return True

    def result(self) -> Result:
        """What it says of its case; where it says nothing, its process has ended."""
        try:
            found: Result = self.here.recv()
            return found
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            self._fork()
            return Result(*self.case, ENDED, f"exit code {code}")

    def overdue(self) -> Result | None:
        """That its case hangs; None while it has time left."""
        spent = self._cpu_s() - self.cpu
        if spent < CPU_LIMIT_S and time.monotonic() - self.began < WALL_LIMIT_S:
            return None
        self.end()
        self._fork()
        return Result(*self.case, HANG, f"{spent:.1f} s of processor time")

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.here.close()

    def _cpu_s(self) -> float:
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(readers: Mapping[str, Reader], scratch: Path, pipe: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # native code prints as it dies
    os.chdir(scratch)
    limited = False
    for count in range(10**9):
        name, number = pipe.recv()
        if not limited:
            held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, held + MEMORY_BYTES))
            limited = True
        pipe.send(run_case(readers[name], name, number, scratch))
        if count % 200 == 0:
            gc.collect()


def counted(results: Sequence[Result]) -> dict[str, Any]:
    """Counts by reader and outcome, and of every bad outcome some examples, the commonest first."""
    by_reader: dict[str, dict[str, int]] = {}
    examples: dict[str, dict[str, Any]] = {}
    for result in sorted(results, key=lambda r: (r.reader, r.number)):
        row = by_reader.setdefault(result.reader, dict.fromkeys(OUTCOMES, 0))
        row[result.outcome] += 1
        if result.outcome not in GOOD:
            key = f"{result.reader}: {result.outcome}: {_kind(result.detail)}"
            found = examples.setdefault(key, {"cases": 0, "first": result.number, "detail": result.detail})
            found["cases"] += 1
    total = {outcome: sum(row[outcome] for row in by_reader.values()) for outcome in OUTCOMES}
    common = dict(sorted(examples.items(), key=lambda item: -item[1]["cases"]))
    return {"cases": len(results), "total": total, "by_reader": by_reader, "bad": common}


def _kind(detail: str) -> str:
    """What cases of one cause share: the class of an error and the line that raised it."""
    lines = detail.splitlines()
    return " @ ".join([lines[0].split(":")[0], lines[-1].strip()]) if len(lines) > 1 else detail[:60]
