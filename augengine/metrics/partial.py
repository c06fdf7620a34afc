"""What a metric over many rows is made of: some rows in, a partial state out, and states merge in any grouping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from augengine.records import Sample


class Pair(NamedTuple):
    """A row, and the row that it was made from where that was asked for."""

    sample: Sample
    parent: Sample | None = None


class Partial(Protocol):
    """What some rows contribute; its size does not grow with their number."""

    def merge(self, other: Self) -> Self:
        """The contribution of both, whose rows are disjoint."""


class Measure(Protocol):
    """Made once per worker from plain arguments."""

    def __call__(self, pairs: Sequence[Pair]) -> Any:
        """The contribution of at least one row, a `Partial`; None where none of them says anything."""


@dataclass(frozen=True)
class Parts:
    """Contributions to several measures, by name; a measure that no row has said anything to is missing."""

    found: Mapping[str, Any]

    def merge(self, other: Parts) -> Parts:
        """Both, measure by measure."""
        found = dict(self.found)
        for name, more in other.found.items():
            found[name] = found[name].merge(more) if name in found else more
        return Parts(found)


class Together:
    """Several measures in one pass over the rows.

    Args:
        measures: name to what makes the measure, and the arguments of that.
    """

    def __init__(self, measures: Mapping[str, tuple[Callable[..., Measure], Mapping[str, Any]]]) -> None:
        self.measures = {name: make(**arguments) for name, (make, arguments) in measures.items()}

    def __call__(self, pairs: Sequence[Pair]) -> Parts:
        """The contributions to each."""
        found = {name: measure(pairs) for name, measure in self.measures.items()}
        return Parts({name: part for name, part in found.items() if part is not None})


@dataclass(frozen=True)
class SubjectMeans:
    """Sums and counts by measure and subject, which is all that a patient-level mean needs."""

    sums: Mapping[str, Mapping[str, tuple[float, int]]]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, Mapping[str, float]]]) -> SubjectMeans:
        """Add up rows (subject, values by measure); NaN marks a measure that does not apply to the row."""
        sums: dict[str, dict[str, tuple[float, int]]] = {}
        for subject, values in rows:
            for measure, value in values.items():
                by_subject = sums.setdefault(measure, {})
                if not np.isnan(value):
                    total, count = by_subject.get(subject, (0.0, 0))
                    by_subject[subject] = (total + float(value), count + 1)
        return cls(sums)

    def merge(self, other: SubjectMeans) -> SubjectMeans:
        """Both."""
        sums = {measure: dict(subjects) for measure, subjects in self.sums.items()}
        for measure, subjects in other.sums.items():
            mine = sums.setdefault(measure, {})
            for subject, (total, count) in subjects.items():
                before, rows = mine.get(subject, (0.0, 0))
                mine[subject] = (before + total, rows + count)
        return SubjectMeans(sums)

    @property
    def measures(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(sorted(self.sums))

    def means(self, measure: str) -> dict[str, float]:
        """Mean of every subject's rows; subjects that the measure does not apply to are left out."""
        return {subject: total / count for subject, (total, count) in sorted(self.sums[measure].items())}
