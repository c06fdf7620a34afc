"""One value per patient in, an estimate with its bootstrap interval out: the patient is the unit, never the slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from augengine.errors import DataError

Values = Mapping[str, float] | Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Interval:
    """An estimate, the ends of its percentile interval, and how many subjects and draws stand behind it."""

    estimate: float
    low: float
    high: float
    level: float
    subjects: int
    draws: int

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def per_subject(values: Sequence[float] | np.ndarray, subjects: Sequence[str]) -> dict[str, float]:
    """Mean of every subject's rows, in the order of first occurrence.

    Rows that a measure does not apply to (NaN) are left out, and so is a subject that has no other.
    """
    rows: dict[str, list[float]] = {}
    for subject, value in zip(subjects, values, strict=True):
        if not np.isnan(value):
            rows.setdefault(subject, []).append(float(value))
    return {subject: float(np.mean(found)) for subject, found in rows.items()}


def bootstrap_interval(
    values: Values,
    statistic: Callable[..., Any] = np.mean,
    *,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap over subjects (Efron and Tibshirani 1993, §13.3).

    Args:
        values: one finite number per subject; see `per_subject`.
        statistic: as numpy's reductions, taking `axis`.
        rng: draws the resamples.
        draws: number of resamples.
        level: coverage.

    Raises:
        DataError: no subject, or a value that is not finite.
    """
    array = _array(values)
    resampled = array[rng.integers(array.size, size=(draws, array.size))]
    return percentile_interval(
        float(statistic(array, axis=0)), statistic(resampled, axis=1), subjects=array.size, level=level
    )


def paired_interval(
    a: Values,
    b: Values,
    kind: Literal["difference", "ratio"] = "difference",
    *,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Interval of mean(a) − mean(b) or mean(a) / mean(b); a resample takes both values of a subject.

    The ratio is one of means, not a mean of ratios: a single subject with a small b would outweigh all others.

    Args:
        a, b: the same subjects, as mappings in any order or as arrays in the same order.
        kind: which comparison.
        rng, draws, level: as in `bootstrap_interval`.

    Raises:
        DataError: other subjects in `a` than in `b`, values that are not finite, or a ratio to 0.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            odd = sorted(a.keys() ^ b.keys())
            raise DataError("a pair holds the same subjects", found=odd[:5], next_step="measure both on all subjects")
        b = {subject: b[subject] for subject in a}
    first, second = _array(a), _array(b)
    if first.size != second.size:
        raise DataError("a pair holds the same subjects", found=f"{first.size} and {second.size} values")
    picks = rng.integers(first.size, size=(draws, first.size))
    of_a, of_b = first[picks].mean(axis=1), second[picks].mean(axis=1)
    if kind == "difference":
        estimate, resampled = first.mean() - second.mean(), of_a - of_b
    elif not of_b.all() or second.mean() == 0:
        raise DataError("a ratio needs a second mean other than 0 in every resample", next_step="use the difference")
    else:
        estimate, resampled = first.mean() / second.mean(), of_a / of_b
    return percentile_interval(float(estimate), resampled, subjects=first.size, level=level)


def percentile_interval(estimate: float, drawn: np.ndarray, *, subjects: int, level: float) -> Interval:
    """The central `level` of drawn values (draws,), around an estimate."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, subjects, len(drawn))


def _array(values: Values) -> np.ndarray:
    array = np.asarray(list(values.values()) if isinstance(values, Mapping) else values, np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise DataError(
            "an interval needs one finite value per subject",
            found=f"shape {array.shape}, {int((~np.isfinite(array)).sum())} not finite",
            next_step="aggregate the rows with per_subject",
        )
    return array
