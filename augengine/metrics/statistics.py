"""One value per patient (and seed) of two arms in; differences with intervals, p-values and their Holm correction out.

The patient is the unit: seeds are repeated measures of the same patients, so they are averaged before anything is
tested, and never counted as more patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from augengine.errors import DataError
from augengine.metrics.intervals import Interval, paired_interval, percentile_interval

BySubject = Mapping[str, float]
BySeed = Mapping[int, BySubject]


@dataclass(frozen=True)
class PairedTest:
    """Arm a against arm b.

    Attributes:
        difference: mean over patients of a − b.
        p: of a two-sided Wilcoxon signed rank test.
        p_holm: the same, corrected for the family that it was tested in.
    """

    difference: Interval
    p: float
    p_holm: float


def wilcoxon(a: BySubject, b: BySubject) -> float:
    """Two-sided p-value of Wilcoxon's signed rank test; exact for up to 50 patients without ties; 1 if all are equal.

    Raises:
        DataError: other patients in `a` than in `b`.
    """
    differences = _differences(a, b)
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Step-down corrected p-values of a family of tests (Holm 1979), in the order of the input.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    corrected, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}


def seed_means(values: BySeed) -> dict[str, float]:
    """Mean over seeds of every patient.

    Raises:
        DataError: no seed, or seeds that hold different patients.
    """
    patients = {tuple(sorted(by_subject)) for by_subject in values.values()}
    if len(patients) != 1:
        raise DataError(
            "every seed is measured on the same patients",
            found=f"{len(patients)} sets of patients",
            next_step="predict all test patients with every seed",
        )
    return {patient: float(np.mean([v[patient] for v in values.values()])) for patient in next(iter(patients))}


def hierarchical_interval(
    a: BySeed,
    b: BySeed,
    *,
    rng: np.random.Generator,
    resample_seeds: bool = False,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Interval of the mean difference a − b over seeds × patients; a resample takes both arms of a patient.

    Resampling patients alone tells how it is for other patients with these very trainings; with seeds as well, how it
    is after another training, too. Seeds are paired: the n-th of either arm shares its data order and start.

    Args:
        a, b: seed → patient → value, of the same seeds and patients.
        rng, draws, level: as in `bootstrap_interval`.
        resample_seeds: draw seeds with replacement, too.

    Raises:
        DataError: other seeds or patients in `a` than in `b`, or values that are not finite.
    """
    if a.keys() != b.keys():
        raise DataError("a pair of arms holds the same seeds", found=sorted(a.keys() ^ b.keys()))
    _differences(seed_means(a), seed_means(b))  # refuses what does not pair
    patients = sorted(next(iter(a.values())))
    table = np.array([[a[seed][p] - b[seed][p] for p in patients] for seed in sorted(a)])
    seeds, count = table.shape
    picked = rng.integers(count, size=(draws, count))
    if resample_seeds:
        chosen = rng.integers(seeds, size=(draws, seeds))
        drawn = np.array([table[np.ix_(s, p)].mean() for s, p in zip(chosen, picked, strict=True)])
    else:
        drawn = table.mean(axis=0)[picked].mean(axis=1)
    return percentile_interval(float(table.mean()), drawn, subjects=count, level=level)


def paired_tests(family: Mapping[str, tuple[BySeed, BySeed]], *, rng: np.random.Generator) -> dict[str, PairedTest]:
    """Test every pair of arms of a family on patients' means over seeds.

    Args:
        family: name of the comparison → the two arms, seed → patient → value.
        rng: draws the resamples.
    """
    means = {name: (seed_means(a), seed_means(b)) for name, (a, b) in family.items()}
    p_values = {name: wilcoxon(a, b) for name, (a, b) in means.items()}
    corrected = holm(p_values)
    return {
        name: PairedTest(paired_interval(a, b, rng=rng), p_values[name], corrected[name])
        for name, (a, b) in means.items()
    }


def _differences(a: BySubject, b: BySubject) -> np.ndarray:
    if not a or a.keys() != b.keys():
        raise DataError("a pair holds the same subjects", found=sorted(a.keys() ^ b.keys())[:5])
    found = np.array([a[subject] - b[subject] for subject in a])
    if not np.isfinite(found).all():
        raise DataError(
            "a comparison needs finite values",
            found=[s for s, d in zip(a, found, strict=True) if not np.isfinite(d)][:5],
        )
    return found
