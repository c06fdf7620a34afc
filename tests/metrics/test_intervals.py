"""The patient is the unit: intervals against the normal theory and by construction."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.errors import DataError
from augengine.metrics.intervals import bootstrap_interval, paired_interval, per_subject
from augengine.rng import generator


def test_subject_means_weigh_subjects_not_slices() -> None:
    means = per_subject([1.0, 1.0, 1.0, 0.0, np.nan, np.nan], ["a", "a", "a", "b", "b", "c"])
    assert means == {"a": 1.0, "b": 0.0}


def test_bootstrap_of_the_mean_agrees_with_normal_theory() -> None:
    values = generator("interval").normal(3.0, 2.0, 400)
    interval = bootstrap_interval(values, rng=generator("draws"), draws=4000)
    half = 1.96 * values.std() / 20
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)
    assert (interval.subjects, interval.draws) == (400, 4000)


def test_statistic_is_applied_to_every_resample() -> None:
    interval = bootstrap_interval(
        {"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0, "e": 9.0}, np.median, rng=generator("median")
    )
    assert (interval.estimate, interval.low, interval.high) == (0, 0, 9)


def test_pairs_are_resampled_together() -> None:
    base = generator("pairs").uniform(0.2, 0.8, 30)
    better = {str(i): v + 0.1 for i, v in enumerate(base)}
    worse = {str(i): base[i] for i in reversed(range(30))}
    difference = paired_interval(better, worse, rng=generator("p"))
    assert difference.low == pytest.approx(0.1)
    assert difference.high == pytest.approx(0.1)
    ratio = paired_interval({k: 2 * v for k, v in worse.items()}, worse, "ratio", rng=generator("p"))
    assert (ratio.low, ratio.high) == (pytest.approx(2), pytest.approx(2))


def test_ratio_is_one_of_means() -> None:
    assert paired_interval([1.0, 1.0], [0.1, 1.9], "ratio", rng=generator("r")).estimate == pytest.approx(1)


def test_what_cannot_be_compared_is_refused() -> None:
    rng = generator("refused")
    with pytest.raises(DataError, match="same subjects"):
        paired_interval({"a": 1.0}, {"b": 1.0}, rng=rng)
    with pytest.raises(DataError, match="same subjects"):
        paired_interval([1.0, 2.0], [1.0], rng=rng)
    with pytest.raises(DataError, match="other than 0"):
        paired_interval([1.0, 1.0], [0.0, 1.0], "ratio", rng=rng)
    for bad in ([], [1.0, np.nan]):
        with pytest.raises(DataError, match="per subject"):
            bootstrap_interval(bad, rng=rng)
