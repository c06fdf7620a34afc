"""Subjects with their acquisition categories go in; train, val or test by subject, seeded and stratified, comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from augengine import acquisition_terms
from augengine.errors import ConfigError
from augengine.records import ACQUISITION_CATEGORICAL, Acquisition
from augengine.rng import derive, generator

SPLITS = ("train", "val", "test")
DEFAULT_FRACTIONS = (0.7, 0.1, 0.2)


def categories(
    acquisitions: Iterable[Acquisition], site: str | None = None, labelled: bool | None = None
) -> frozenset[str]:
    """What a subject is stratified by: vendor, model, scan options, field strength and site of its volumes.

    And whether it has a label map, where some subjects have one and others have not (`labelled`).
    """
    found = {f"site={site}"} if labelled is None else {f"site={site}", f"labelled={labelled}"}
    for a in acquisitions:
        strength = a.field_strength_t and acquisition_terms.field_strength_t(a.field_strength_t)
        found |= {f"{name}={a.to_dict()[name]}" for name in ACQUISITION_CATEGORICAL} | {f"field_strength={strength}"}
    return frozenset(found)


def _normal(category: str) -> str:
    """The same for all spellings of a vendor, a model or scan options."""
    name, _, value = category.partition("=")
    stated = name in ACQUISITION_CATEGORICAL and value != "None"
    return f"{name}={acquisition_terms.normal(name, value)}" if stated else category


def assign_splits(
    subjects: Mapping[str, frozenset[str]], seed: int, fractions: Sequence[float] = DEFAULT_FRACTIONS
) -> dict[str, str]:
    """A split for every subject: disjoint, independent of the order of the input, and of no global state.

    Iterative stratification (Sechidis et al. 2011) over the categories. A cohort too small for its fractions
    still gets one subject per wanted split, in the order train, test, val.

    Args:
        subjects: subject id to its categories.
        fractions: of train, val and test; 0 leaves a split out.

    Raises:
        ConfigError: fractions that are negative, do not sum to 1, or leave no training data.
    """
    from iterstrat.ml_stratifiers import IterativeStratification  # takes longer to import than many readers' work

    ratio = np.asarray(fractions, float)
    if ratio.shape != (3,) or not (ratio >= 0).all() or abs(ratio.sum() - 1) > 1e-6 or ratio[0] <= 0:
        raise ConfigError(
            "split fractions are three numbers (train, val, test) that sum to 1, train above 0",
            found=list(fractions),
            where="--fractions",
            next_step="for example 0.7,0.1,0.2",
        )
    if not subjects:
        return {}
    order = sorted(subjects, key=lambda s: derive("split", seed, s))
    spellings: dict[str, set[str]] = {}  # what differs in spelling alone is one category
    for category in {c for s in order for c in subjects[s]}:
        spellings.setdefault(_normal(category), set()).add(category)
    names = sorted(spellings.values(), key=min)
    table = np.array([[not n.isdisjoint(subjects[s]) for n in names] for s in order], bool)
    fold = IterativeStratification(table, ratio, generator("split", seed))
    for wanted in (0, 2, 1):
        counts = np.bincount(fold, minlength=3)
        if ratio[wanted] > 0 and counts[wanted] == 0 and (counts.max() > 1):
            fold[np.flatnonzero(fold == counts.argmax())[-1]] = wanted
    if not (fold == 0).any():
        fold[0] = 0
    return {s: SPLITS[f] for s, f in zip(order, fold.tolist(), strict=True)}
