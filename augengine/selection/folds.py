"""Subjects in; the fold of each, out: what trains a generator on a fold and what reads it go by one rule."""

from __future__ import annotations

from collections.abc import Collection

from augengine import rng
from augengine.errors import DataError


def fold_of(subject_id: str, folds: int) -> int:
    """The fold (from 0) of a subject; follows from its id alone."""
    return rng.derive("fold", subject_id) % folds


def folds_of(subjects: Collection[str], folds: int) -> list[frozenset[str]]:
    """The subjects of every fold, as `data.fold` of a training recipe divides them.

    Raises:
        DataError: fewer than two folds, or one without subjects.
    """
    if folds < 2:
        raise DataError("there must be two folds at least", found=folds)
    found = [frozenset(s for s in subjects if fold_of(s, folds) == n) for n in range(folds)]
    for n, fold in enumerate(found):
        if not fold:
            raise DataError(
                "every fold must have a subject",
                found=f"none in fold {n} of {folds}, of {len(subjects)} subjects",
                next_step="ask for fewer folds",
            )
    return found
