"""Distances between feature sets, against torchmetrics, MONAI and chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import MMDMetric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from augengine.errors import DataError
from augengine.metrics.features import FeatureSet
from augengine.metrics.realism import fid, kid, mmd, small_set_distance
from augengine.rng import generator


def features(seed: object, n: int, shift: float = 0.0, d: int = 6) -> np.ndarray:
    return (generator("realism", seed).normal(size=(n, d)) + shift).astype(np.float32)


def summary(values: np.ndarray, prefix: str = "", extractor: str = "x", keep: int = 2048) -> FeatureSet:
    names = [f"{prefix}{n}" for n in range(len(values))]
    return FeatureSet.of(extractor, values, names, names, keep)


class Identity(torch.nn.Module):
    num_features = 6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_values_are_those_of_torchmetrics_and_monai() -> None:
    a, b = features("a", 120, 0.4), features("b", 120)
    made, real = summary(a, "made"), summary(b, "real")
    reference = FrechetInceptionDistance(Identity(), normalize=True)
    reference.update(torch.from_numpy(a), real=False)
    reference.update(torch.from_numpy(b), real=True)
    assert fid(made, real).value == pytest.approx(float(reference.compute()), rel=1e-4)
    one, other = torch.from_numpy(a).double(), torch.from_numpy(b).double()
    assert kid(made, real).value == pytest.approx(float(poly_mmd(other, one)), rel=1e-9)
    assert mmd(made, real).value == pytest.approx(float(MMDMetric()(other, one)), rel=1e-6)


def test_intervals_hold_chance_and_exclude_a_shift() -> None:
    real = summary(features("real", 300), "real")
    same, other = summary(features("alike", 200), "alike"), summary(features("other", 200, 0.5), "other")
    for distance in (kid, mmd):
        by_chance, apart = distance(same, real).interval, distance(other, real).interval
        assert by_chance is not None
        assert apart is not None
        assert by_chance.low < 0 < by_chance.high
        assert apart.low > 0
        assert apart.subjects == 500


def test_the_interval_covers_at_its_level() -> None:
    """The mean distance of a shift by 0.5 in 6 features is 1.5; about 38 of 40 intervals hold it."""
    held = 0
    for n in range(40):
        found = mmd(summary(features((n, "a"), 100, 0.5), f"{n}a"), summary(features((n, "b"), 100), f"{n}b")).interval
        assert found is not None
        held += found.low <= 1.5 <= found.high
    assert held >= 34


def test_rows_of_one_subject_are_left_out_together() -> None:
    """20 copies of every row: the interval is that of the subjects, not of 20 times as many."""
    a, b = features("few", 60, 0.3), features("few too", 60)
    single = mmd(summary(a, "a"), summary(b, "b")).interval
    names = [str(n) for n in range(60)]
    copies = [
        FeatureSet.of(
            "x",
            np.repeat(v, 20, axis=0),
            [f"{p}{n}#{k}" for n in names for k in range(20)],
            [p + n for n in names for _ in range(20)],
        )
        for v, p in ((a, "a"), (b, "b"))
    ]
    repeated = mmd(*copies).interval
    assert single is not None
    assert repeated is not None
    assert repeated.high - repeated.low == pytest.approx(single.high - single.low, rel=0.1)


def test_few_subjects_have_a_value_but_no_interval() -> None:
    lone = FeatureSet.of("x", features("a", 8), [str(n) for n in range(8)], ["one"] * 8)
    assert fid(lone, lone).interval is None
    assert fid(lone, lone).value == pytest.approx(0, abs=1e-9)
    with pytest.raises(DataError, match="≥ 2 rows"):
        kid(summary(features("a", 1)), summary(features("a", 5)))


def test_numbers_of_two_extractors_never_meet() -> None:
    one, other = summary(features("a", 9)), summary(features("b", 9), extractor="y")
    for distance in (fid, kid, mmd):
        with pytest.raises(DataError, match="one extractor"):
            distance(one, other)


def test_small_sets_are_read_beside_the_real_real_distance() -> None:
    real, same = summary(features("real", 80)), summary(features("same", 60))
    other = summary(features("other", 60, 1.5))
    kwargs = {"n": 30, "draws": 40}
    assert small_set_distance(same, real, rng=generator("d"), **kwargs).ratio < 1.2
    assert small_set_distance(other, real, rng=generator("d"), **kwargs).ratio > 2
