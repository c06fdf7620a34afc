"""Rows of a set in, a summary of their features out that merges with others: nothing in it grows with the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from augengine.errors import DataError
from augengine.metrics.extractor import Extractor, same_extractor
from augengine.metrics.frechet import SHAPE, Gaussian
from augengine.metrics.partial import Pair
from augengine.records import Sample
from augengine.rng import derive

GROUPS = 10


@dataclass(frozen=True)
class FeatureSet:
    """What is known of a set's features: enough for Fréchet, kernel and mean distances, and too little to hold rows.

    Sums cover every row, in groups of subjects so that an interval can leave out one group at a time. Beside them
    stand the features of a bounded sample of rows: those whose ids have the smallest hashes, whichever process saw
    them and in whatever order.

    Attributes:
        extractor: its id.
        groups: group of subjects → Gaussian summary of its rows.
        subjects: whose rows they are.
        keep: at most so many rows are kept.
        keys, kept_subjects, kept: hash, subject and features (k, F) of the kept rows, by rising hash.
    """

    extractor: str
    groups: dict[int, Gaussian]
    subjects: frozenset[str]
    keep: int
    keys: tuple[int, ...]
    kept_subjects: tuple[str, ...]
    kept: np.ndarray

    @classmethod
    def of(
        cls, extractor: str, features: np.ndarray, row_ids: Sequence[str], subjects: Sequence[str], keep: int = 2048
    ) -> FeatureSet:
        """Summarise (N, F) features of rows with ids that are unique within the whole set."""
        codes = np.array([group_of(s) for s in subjects])
        groups = {int(g): Gaussian.of(features[codes == g]) for g in np.unique(codes)}
        keys = [derive("kept row", row_id) for row_id in row_ids]
        everything = cls(extractor, groups, frozenset(subjects), keep, tuple(keys), tuple(subjects), features)
        return everything._smallest()

    @property
    def rows(self) -> int:
        """Rows that the sums cover."""
        return sum(group.rows for group in self.groups.values())

    def gaussian(self, without: int | None = None) -> Gaussian:
        """All rows, or those outside one group of subjects."""
        chosen = [self.groups[g] for g in sorted(self.groups) if g != without]
        if not chosen:
            raise DataError("a distance needs rows", found=0)
        return reduce(Gaussian.merge, chosen)

    def merge(self, other: FeatureSet) -> FeatureSet:
        """Both sets; their rows are disjoint.

        Raises:
            DataError: features of different extractors.
        """
        same_extractor(self.extractor, other.extractor)
        groups = dict(self.groups)
        for g, more in other.groups.items():
            groups[g] = groups[g].merge(more) if g in groups else more
        return FeatureSet(
            self.extractor,
            groups,
            self.subjects | other.subjects,
            min(self.keep, other.keep),
            self.keys + other.keys,
            self.kept_subjects + other.kept_subjects,
            np.concatenate([self.kept, other.kept]),
        )._smallest()

    def _smallest(self) -> FeatureSet:
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)[: self.keep]
        return FeatureSet(
            self.extractor,
            self.groups,
            self.subjects,
            self.keep,
            tuple(self.keys[n] for n in order),
            tuple(self.kept_subjects[n] for n in order),
            self.kept[order],
        )


class FeatureMeasure:
    """Rows in, their `FeatureSet` out; `make` and its arguments are what a worker builds the extractor from."""

    def __init__(self, make: Callable[..., Extractor], keep: int = 2048, **arguments: Any) -> None:
        self.extractor, self.keep = make(**arguments), keep

    def __call__(self, pairs: Sequence[Pair]) -> FeatureSet:
        """Parents are not looked at."""
        samples = [pair.sample for pair in pairs]
        features = self.extractor.of(samples)
        ids, subjects = [s.sample_id for s in samples], [s.subject_id for s in samples]
        return FeatureSet.of(self.extractor.id, features, ids, subjects, self.keep)


class LabelMeasure:
    """Rows in, the `FeatureSet` of the shapes of their labels out; rows that show none of the `labels` are left out."""

    def __init__(self, labels: Sequence[str], keep: int = 2048) -> None:
        self.labels, self.keep = tuple(labels), keep
        self.id = f"{SHAPE.name} of {', '.join(self.labels)}"

    def __call__(self, pairs: Sequence[Pair]) -> FeatureSet | None:
        """None if no row shows one of the labels."""
        maps = [(pair.sample, planes) for pair in pairs if (planes := self._planes(pair.sample)) is not None]
        if not maps:
            return None
        features = np.concatenate([SHAPE.features(planes[None]) for _, planes in maps])
        ids, subjects = [s.sample_id for s, _ in maps], [s.subject_id for s, _ in maps]
        return FeatureSet.of(self.id, features, ids, subjects, self.keep)

    def _planes(self, sample: Sample) -> np.ndarray | None:
        if sample.label is None:
            return None
        planes = np.stack([sample.label == sample.labels.get(name, -1) for name in self.labels])
        return planes if planes.any() else None


def group_of(subject: str) -> int:
    """The group, 0…9, that a subject is left out with: the same in every set and process."""
    return derive("subject group", subject) % GROUPS
