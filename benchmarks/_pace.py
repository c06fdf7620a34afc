"""When how much of a chain of commands was done in; how fast it went on at any moment, and when it was back, out.

Work is counted in seconds of the undisturbed chain: the moment at which that one had done as much, its commands'
start-ups included. A speed of 1 is the undisturbed one.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

WINDOW_S = 10.0
HALF = 0.5


class Mark(NamedTuple):
    """So much of a stage was done at a time."""

    at: float
    chain: int
    stage: str
    amount: float


class Pace:
    """Notes what is done, from any thread.

    Args:
        stages: in their order.
    """

    def __init__(self, stages: Sequence[str]) -> None:
        self.stages = list(stages)
        self.marks: list[Mark] = []
        self.chain = -1
        self._done: dict[str, float] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        """A chain begins."""
        with self._lock:
            self.chain, self._done = self.chain + 1, {}
            self._note(self.stages[0], 0.0)

    def done(self, stage: str, amount: float) -> None:
        """So many units, steps or files of a stage stand there."""
        with self._lock:
            if amount != self._done.get(stage, 0.0):
                self._note(stage, amount)

    def finish(self, stage: str) -> None:
        """The command ended well."""
        with self._lock:
            self._note(stage, self._done.get(stage, 0.0) + 1)

    def _note(self, stage: str, amount: float) -> None:
        self._done[stage] = amount
        self.marks.append(Mark(time.monotonic(), self.chain, stage, amount))

    def work(self) -> tuple[np.ndarray, np.ndarray]:
        """Times, and the work done by then, of all chains after the first, which is the undisturbed one."""
        with self._lock:
            marks = list(self.marks)
        known = _known([mark for mark in marks if mark.chain == 0], self.stages)
        whole = max(times[-1] for _, times in known.values())
        later = [mark for mark in marks if mark.chain]
        done = [(mark.chain - 1) * whole + np.interp(mark.amount, *known[mark.stage]) for mark in later]
        return np.array([mark.at for mark in later]), np.array(done)

    def speed(self, start: float, end: float) -> float | None:
        """Work per second; None where nothing was noted at or after the end."""
        times, done = self.work()
        if not len(times) or times[-1] < end:
            return None
        before, after = np.interp([start, end], times, done)
        return float((after - before) / (end - start))

    def back(self, ended: float) -> float | None:
        """The first moment since `ended` from which on half the undisturbed speed holds for `WINDOW_S`; None: not yet.

        Not before the next mark; between marks work counts evenly, from the first of them on.
        """
        times, done = self.work()
        later = times[times >= ended] if len(times) else times
        if not len(later):
            return None
        starts = np.arange(later[0], times[-1] - WINDOW_S, 0.25)
        made = np.interp(starts + WINDOW_S, times, done) - np.interp(starts, times, done)
        fast = np.flatnonzero(made >= HALF * WINDOW_S)
        return float(starts[fast[0]]) if len(fast) else None


def _known(marks: Sequence[Mark], stages: Sequence[str]) -> Mapping[str, tuple[list[float], list[float]]]:
    """Of each stage of the undisturbed chain the amounts, and after how many seconds they were reached."""
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    start = last = marks[0].at
    for stage in stages:
        own = [mark for mark in marks if mark.stage == stage]
        amounts, times = found[stage]
        for amount, at in [(0.0, last), *((mark.amount, mark.at) for mark in own if mark.amount)]:
            amounts.append(amount)
            times.append(at - start)
        last = own[-1].at
    return found
