"""Summaries of features: merging is as good as having had all rows at once."""

from __future__ import annotations

import numpy as np
import pytest
from builders import slice_sample

from augengine.errors import DataError
from augengine.metrics.extractor import Extractor, same_extractor
from augengine.metrics.features import FeatureMeasure, FeatureSet, group_of
from augengine.metrics.frechet import Gaussian, frechet_distance
from augengine.metrics.partial import Pair, SubjectMeans

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(1000, 1, (90, 5)).astype(np.float32)
IDS = [f"row{n}" for n in range(90)]
SUBJECTS = [f"S{n // 3}" for n in range(90)]


def summary(rows: slice | np.ndarray, keep: int = 16, extractor: str = "x") -> FeatureSet:
    numbers = np.arange(90)[rows]
    return FeatureSet.of(extractor, FEATURES[numbers], [IDS[n] for n in numbers], [SUBJECTS[n] for n in numbers], keep)


def test_any_cut_and_order_give_one_summary() -> None:
    whole = summary(slice(None))
    parts = [summary(slice(start, start + 7)) for start in range(0, 90, 7)]
    merged = parts[5]
    for n in (0, 12, 3, 4, 1, 2, 6, 11, 7, 8, 9, 10):
        merged = merged.merge(parts[n])
    assert merged.rows == whole.rows == 90
    assert merged.subjects == frozenset(SUBJECTS)
    assert merged.keys == whole.keys
    assert merged.kept_subjects == whole.kept_subjects
    assert (merged.kept == whole.kept).all()
    assert merged.kept.shape == (16, 5)
    exact = FEATURES.astype(np.float64)
    for found in (merged.gaussian(), whole.gaussian()):
        assert found.factor.shape[0] <= 10
        assert found.mean == pytest.approx(exact.mean(0), abs=1e-9)
        # Sums of squares around 1e6 would leave nothing of a variance of 1 in float32, and little in float64.
        assert found.deviations.T @ found.deviations == pytest.approx(np.cov(exact.T), abs=1e-9)


def test_a_group_of_subjects_can_be_left_out() -> None:
    group = group_of("S4")
    others = np.array([group_of(s) != group for s in SUBJECTS])
    found = summary(slice(None)).gaussian(without=group)
    assert found.rows == others.sum() < 90
    assert found.mean == pytest.approx(FEATURES[others].mean(0, dtype=np.float64), abs=1e-9)


def test_the_kept_rows_are_a_fair_sample() -> None:
    ids = [f"a{n}" for n in range(4000)]
    values = np.arange(4000, dtype=np.float32)[:, None]
    kept = FeatureSet.of("x", values, ids, ids, 400).kept
    assert kept.mean() == pytest.approx(2000, abs=4 * 4000 / np.sqrt(12 * 400))


def test_extractors_do_not_mix() -> None:
    with pytest.raises(DataError, match="one extractor"):
        summary(slice(0, 9)).merge(summary(slice(9, 18), extractor="y"))
    assert same_extractor("x", "x") == "x"
    assert Extractor("net", np.asarray, "abcdef0123456789").id == "net:abcdef012345"


def test_wide_features_merge_as_well() -> None:
    """More features than rows: factors stay short and singular covariances stay exact."""
    a, b = RNG.normal(size=(20, 64)), RNG.normal(size=(30, 64)) + 0.1
    merged = Gaussian.of(a[:1]).merge(Gaussian.of(a[1:8])).merge(Gaussian.of(a[8:]))
    assert frechet_distance(merged, b) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_an_extractor_sees_normalised_rows_in_order_whatever_their_shapes() -> None:
    mean = Extractor("mean", lambda x: x.mean(axis=tuple(range(2, x.ndim))), channels=("t1",))
    samples = [slice_sample(0), slice_sample(1, size=40), slice_sample(2)]
    expected = [(s.image.mean() - 30) / 670 for s in samples]
    assert mean.of(samples)[:, 0] == pytest.approx(expected, rel=1e-5)
    found = FeatureMeasure(lambda: mean)([Pair(s) for s in samples])
    assert (found.extractor, found.rows, found.subjects) == ("mean", 3, {"S000", "S001", "S002"})
    with pytest.raises(DataError, match="channels t1"):
        mean.of([slice_sample(0, channels=("t2",))])
    broken = Extractor("broken", lambda x: np.where(x[:, :, 0, 0] < -0.03, np.nan, 1))
    with pytest.raises(DataError, match="finite"):
        broken.of([slice_sample(0, image=np.zeros((1, 32, 32), np.float32))])


def test_patient_means_leave_out_what_does_not_apply() -> None:
    one = SubjectMeans.of([("a", {"x": 1.0}), ("a", {"x": 2.0, "y": np.nan})])
    other = SubjectMeans.of([("a", {"x": 6.0}), ("b", {"x": np.nan, "y": 5.0})])
    both = one.merge(other)
    assert both.means("x") == {"a": 3.0}
    assert both.means("y") == {"b": 5.0}
    assert one.means("x") == {"a": 1.5}, "merging must not change what was merged"
