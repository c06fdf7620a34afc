"""Subjects with their acquisition categories go in; train, val or test by subject, seeded and stratified, comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from augengine.errors import ConfigError
from augengine.records import Acquisition
from augengine.rng import derive, generator

SPLITS = ("train", "val", "test")
DEFAULT_FRACTIONS = (0.7, 0.1, 0.2)


def categories(acquisitions: Iterable[Acquisition], site: str | None = None) -> frozenset[str]:
    """What a subject is stratified by: vendor, model, scan options, field strength and site of its volumes."""
    found = {f"site={site}"}
    for a in acquisitions:
        strength = None if a.field_strength_t is None else round(a.field_strength_t, 1)  # 2.89 and 2.9 are one
        found |= {
            f"manufacturer={a.manufacturer}", f"model={a.model}", f"scan_options={a.scan_options}",
            f"field_strength={strength}",
        }  # fmt: skip
    return frozenset(found)


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
    if ratio.shape != (3,) or (ratio < 0).any() or abs(ratio.sum() - 1) > 1e-6 or ratio[0] <= 0:
        raise ConfigError(
            "split fractions are three numbers (train, val, test) that sum to 1, train above 0", found=list(fractions),
            where="--fractions", next_step="for example 0.7,0.1,0.2",
        )  # fmt: skip
    if not subjects:
        return {}
    order = sorted(subjects, key=lambda s: derive("split", seed, s))
    names = sorted({c for s in order for c in subjects[s]})
    table = np.array([[n in subjects[s] for n in names] for s in order], bool)
    fold = IterativeStratification(table, ratio, generator("split", seed))
    for wanted in (0, 2, 1):
        counts = np.bincount(fold, minlength=3)
        if ratio[wanted] > 0 and counts[wanted] == 0 and (counts.max() > 1):
            fold[np.flatnonzero(fold == counts.argmax())[-1]] = wanted
    if not (fold == 0).any():
        fold[0] = 0
    return {s: SPLITS[f] for s, f in zip(order, fold.tolist(), strict=True)}
