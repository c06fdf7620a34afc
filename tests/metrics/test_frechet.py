"""Fréchet distances against closed forms and scipy's matrix square root."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from augengine.errors import DataError
from augengine.metrics.frechet import (
    Extractor,
    _halves,
    frechet_distance,
    label_distance,
    real_real_interval,
    standardise,
)
from augengine.rng import generator


def test_agrees_with_the_matrix_square_root() -> None:
    rng = generator("frechet")
    a = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5))
    b = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)) + 1
    one, other = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one + other - 2 * np.real(sqrtm(one @ other)))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_singular_covariances_by_hand() -> None:
    """Two rows in 50 dimensions: covariances uuᵀ and vvᵀ, tr (uuᵀ vvᵀ)^½ = |u·v|."""
    u, v = np.zeros(50), np.zeros(50)
    u[0], v[0], v[1] = 3.0, 1.0, 2.0
    a, b = np.stack([-u, u]) / np.sqrt(2), np.stack([-v, v]) / np.sqrt(2)
    assert frechet_distance(a, b) == pytest.approx(9 + 5 - 2 * 3)
    assert frechet_distance(a, b + 1) == pytest.approx(8 + 50)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_features_are_checked() -> None:
    with pytest.raises(DataError, match="rows"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(DataError, match="finite"):
        frechet_distance(np.full((4, 3), np.nan), np.zeros((5, 3)))


def test_standardised_by_the_reference() -> None:
    reference = np.array([[0.0, 5.0], [2.0, 5.0]])
    assert standardise(np.array([[3.0, 5.5]]), reference) == pytest.approx(np.array([[2.0, 0.5]]))


def test_no_subject_is_in_both_halves() -> None:
    subjects = ["a"] * 5 + ["b"] * 2 + ["c"] * 3 + ["d"] * 4 + ["e"]
    for draw in range(20):
        one, other = _halves(subjects, 5, generator("halves", draw))
        assert len(set(one)) == len(set(other)) == 5
        assert not {subjects[i] for i in one} & {subjects[i] for i in other}
    with pytest.raises(DataError, match="n up to 5"):
        _halves(subjects, 6, generator("halves"))


def test_subjects_apart_lie_further_apart_than_their_rows() -> None:
    rng = generator("clusters")
    centres = rng.normal(size=(20, 3))
    features = np.repeat(centres, 10, axis=0) + 0.01 * rng.normal(size=(200, 3))
    by_subject = real_real_interval(features, [str(i // 10) for i in range(200)], 60, rng=generator("x"), draws=50)
    by_row = real_real_interval(features, [str(i) for i in range(200)], 60, rng=generator("x"), draws=50)
    assert by_subject.low < by_subject.estimate < by_subject.high
    assert by_subject.estimate > 3 * by_row.estimate
    assert (by_subject.subjects, by_subject.draws) == (20, 50)


def squares(name: str, count: int, largest: int) -> np.ndarray:
    rng = generator("squares", name)
    planes = np.zeros((count, 1, 24, 24), bool)
    for plane in planes:
        i, j, side = rng.integers(0, 12), rng.integers(0, 12), rng.integers(2, largest)
        plane[0, i : i + side, j : j + side] = True
    return planes


def test_maps_of_one_law_pass_for_real_and_others_do_not() -> None:
    real, subjects = squares("real", 80, 12), [str(i) for i in range(80)]
    kwargs = {"subjects": subjects, "n": 40, "draws": 40}
    same = label_distance(squares("same", 60, 12), real, rng=generator("d"), **kwargs)
    small = label_distance(squares("small", 60, 5), real, rng=generator("d"), **kwargs)
    assert same.ratio <= 1 < small.ratio
    assert same.real_real == small.real_real
    assert (same.extractor, same.n) == ("label-shape-1", 40)
    size = Extractor("size", lambda planes: planes.reshape(len(planes), -1).mean(axis=1, keepdims=True))
    assert label_distance(real[:50], real, rng=generator("d"), extractor=size, **kwargs).extractor == "size"
    with pytest.raises(DataError, match="synthetic"):
        label_distance(real[:30], real, rng=generator("d"), **kwargs)
