"""Tests and corrections by hand, and intervals that know patients from seeds."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.errors import DataError
from augengine.metrics.statistics import hierarchical_interval, holm, paired_tests, seed_means, wilcoxon
from augengine.rng import generator


def patients(values: object) -> dict[str, float]:
    return {f"P{n}": float(v) for n, v in enumerate(values)}  # type: ignore[arg-type]


def test_signed_ranks_by_hand() -> None:
    """Of 32 sign patterns 1 has the rank sum 0 of five gains, and 7 have the 4 of 1, 2, 3, −4, 5 or less; two sides."""
    zero = patients([0] * 5)
    assert wilcoxon(patients([1, 2, 3, 4, 5]), zero) == pytest.approx(2 / 32)
    assert wilcoxon(patients([1, 2, 3, -4, 5]), zero) == pytest.approx(2 * 7 / 32)
    assert wilcoxon(zero, zero) == 1


def test_pairs_are_by_name_not_by_order() -> None:
    a = patients([1, 2, 3, 4, 5])
    assert wilcoxon(a, dict(reversed(list(a.items())))) == 1
    with pytest.raises(DataError, match="same subjects"):
        wilcoxon(a, patients([1, 2, 3, 4]))


def test_holm_by_hand() -> None:
    """Sorted .01 · 4, .02 · 3, .03 · 2 = .06 (not below its forerunner), .04 · 1 → .06."""
    found = holm({"c": 0.03, "a": 0.01, "d": 0.04, "b": 0.02})
    assert list(found) == ["c", "a", "d", "b"]
    assert found == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def arms(seeds: int = 5, count: int = 30, seed_sd: float = 0.0) -> tuple[dict, dict]:
    rng = np.random.default_rng(1)
    base, gain = rng.normal(0.7, 0.1, count), rng.normal(0.05, 0.02, count)
    of_seed = rng.normal(0, seed_sd, seeds)
    a = {s: patients(base + gain + of_seed[s] + rng.normal(0, 0.01, count)) for s in range(seeds)}
    return a, {s: patients(base + rng.normal(0, 0.01, count)) for s in range(seeds)}


def test_seeds_are_averaged_and_do_not_count_as_patients() -> None:
    a, b = arms()
    assert seed_means(a)["P3"] == pytest.approx(np.mean([a[s]["P3"] for s in a]))
    found = hierarchical_interval(a, b, rng=generator("h"))
    assert found.subjects == 30
    assert found.estimate == pytest.approx(np.mean([[a[s][p] - b[s][p] for p in a[s]] for s in a]))
    assert found.low < found.estimate < found.high
    copies = hierarchical_interval(
        {s: a[s % 5] for s in range(50)}, {s: b[s % 5] for s in range(50)}, rng=generator("h")
    )
    assert copies.high - copies.low == pytest.approx(found.high - found.low, rel=0.1)


def test_seeds_that_disagree_widen_the_interval_only_where_they_are_resampled() -> None:
    a, b = arms(seed_sd=0.05)
    fixed = hierarchical_interval(a, b, rng=generator("h"))
    drawn = hierarchical_interval(a, b, rng=generator("h"), resample_seeds=True)
    assert drawn.estimate == fixed.estimate
    assert drawn.high - drawn.low > 3 * (fixed.high - fixed.low)


def test_a_family_is_corrected_as_a_whole() -> None:
    a, b = arms()
    found = paired_tests({"gain": (a, b), "nothing": (b, {s: dict(v) for s, v in b.items()})}, rng=generator("c"))
    assert found["gain"].p_holm == pytest.approx(2 * found["gain"].p)
    assert found["gain"].difference.low > 0.03
    assert (found["nothing"].p_holm, found["nothing"].difference.estimate) == (1, 0)


def test_what_does_not_pair_is_refused() -> None:
    a, b = arms(seeds=2)
    with pytest.raises(DataError, match="same seeds"):
        hierarchical_interval(a, {0: b[0]}, rng=generator("h"))
    with pytest.raises(DataError, match="same patients"):
        seed_means({0: a[0], 1: {"P0": 1.0}})
    with pytest.raises(DataError, match="finite"):
        wilcoxon({"P0": float("nan")}, {"P0": 1.0})
