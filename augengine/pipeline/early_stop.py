"""Outcomes of the units so far in; an error for a run that cannot succeed any more, with the commonest reasons, out.

A unit's share of rejected (or failed) rows is one observation: its rows come from one place of the data and err
together. Against "the mean share is at most the policy's limit m" stands the mean over several stakes c of
prod(1 + c (x - m) / m), a test martingale that may be looked at after every unit (Waudby-Smith and Ramdas 2024,
section 4.1): it reaches 20 with a probability of 5 % at most where that holds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from augengine.errors import RunError
from augengine.io.commits import Record

LEAST_UNITS, LEAST_SHARE = 5, 0.05
EVIDENCE = 20.0
_STAKES = (0.25, 0.5, 0.75, 0.95)
_TOP = 3


class UnacceptableRunError(RunError):
    """A run that rejected or lost more rows than its policy allows; it is made, and stays."""


class EarlyStopError(UnacceptableRunError):
    """A run whose first units show that it cannot succeed; what they committed stays."""


@dataclass
class Rate:
    """The share of rows that met one outcome, unit by unit, against the largest that a policy allows."""

    limit: float
    counted: int = 0
    met: int = 0
    rows: int = 0
    _log_wealth: list[float] = field(default_factory=lambda: [0.0] * len(_STAKES))

    def add(self, met: int, rows: int) -> None:
        """One unit: `met` of `rows` rows met the outcome; a unit without rows says nothing."""
        if not rows:
            return
        self.counted, self.met, self.rows = self.counted + 1, self.met + met, self.rows + rows
        limit = max(self.limit, 0.01)
        for n, stake in enumerate(_STAKES):
            self._log_wealth[n] += math.log1p(stake * (met / rows - limit) / limit)

    @property
    def share(self) -> float:
        """Of all rows so far."""
        return self.met / self.rows if self.rows else 0.0

    @property
    def evidence(self) -> float:
        """That the share exceeds the limit: large is much, below 1 is none."""
        top = max(self._log_wealth)
        return math.exp(min(top, 700.0)) * sum(math.exp(w - top) for w in self._log_wealth) / len(_STAKES)

    def hopeless(self, units: int) -> bool:
        """True if, of `units` in all, enough were seen, and their share lies far above the limit.

        Far is half of the way from the limit to all rows: a run that misses narrowly is made to its end, since the same
        command with a higher limit accepts it.
        """
        enough = self.counted >= max(LEAST_UNITS, math.ceil(LEAST_SHARE * units))
        return enough and self.share >= (1 + self.limit) / 2 and self.evidence >= EVIDENCE


class Watch:
    """Looks at every unit's record as it comes.

    Args:
        limits: policy name → largest share of rows that may be rejected, and that may fail.
        members: unit id → policy name.
        where: the output folder.
    """

    def __init__(self, limits: Mapping[str, tuple[float, float]], members: Mapping[str, str], where: str) -> None:
        self.members, self.where = members, where
        self.units = Counter(members.values())
        self.rejected = {name: Rate(limit) for name, (limit, _) in limits.items()}
        self.failed = {name: Rate(limit) for name, (_, limit) in limits.items()}
        self.records: dict[str, list[Record]] = {name: [] for name in limits}

    def __call__(self, record: Record) -> None:
        """Count a unit; `EarlyStopError` if its policy cannot succeed any more."""
        name, counts = self.members[record.unit_id], record.counts
        self.records[name].append(record)
        judged = counts.get("accepted", 0) + counts.get("rejected", 0)
        self.rejected[name].add(counts.get("rejected", 0), judged)
        self.failed[name].add(counts.get("failed", 0), judged + counts.get("failed", 0))
        for outcome, rate in (("rejected", self.rejected[name]), ("failed", self.failed[name])):
            if rate.hopeless(self.units[name]):
                top = top_reasons(self.records[name], outcome)
                raise EarlyStopError(
                    f"policy {name}: {rate.share:.0%} of the rows of the first {rate.counted} of {self.units[name]} "
                    f"units are {outcome}, at most {rate.limit:.0%} may be",
                    found=", ".join(f"{reason} ({rows} rows)" for reason, rows in top),
                    where=self.where,
                    next_step="mend the model, the policy or its gates (`augengine calibrate`), or make the other rows "
                    "anyway with --keep-going; what is committed stays",
                )


def top_reasons(records: Iterable[Record], outcome: str, count: int = _TOP) -> list[tuple[str, int]]:
    """The commonest reasons of an outcome, gates by name, with the number of rows."""
    found: Counter[str] = Counter()
    for record in records:
        found.update(record.reasons.get(outcome, {}))
    return found.most_common(count)
