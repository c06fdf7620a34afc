"""Shape features of rectangles and cuboids, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.metrics.label_features import label_features


def test_rectangles_by_hand() -> None:
    planes = np.zeros((2, 2, 8, 10), bool)
    planes[0, 0, 0:2, 0:5] = True
    planes[0, 1, 2, 0:5] = True  # touches the first from below
    planes[0, 1, 7, 9] = True  # and a piece far away
    first, second, contact = np.split(label_features(planes)[0], [8, 16])
    assert first == pytest.approx(
        [
            10 / 80,
            1 / 8 - 0.5,
            2.5 / 10 - 0.5,
            0.25 / 64,
            0,
            2 / 100,
            1,
            14 / (4 * np.sqrt(10)),
        ]
    )
    assert second[[0, 6, 7]] == pytest.approx([6 / 80, 2, 16 / (4 * np.sqrt(6))])
    assert contact == pytest.approx([5 / 10, 5 / 6])
    assert not label_features(planes)[1].any()


def test_a_cube_has_compactness_1_and_nesting_is_contact_1() -> None:
    planes = np.zeros((1, 2, 6, 6, 6), bool)
    planes[0, 0, 1:5, 1:5, 1:5] = True
    planes[0, 1, 2:4, 2:4, 2:4] = True
    features = label_features(planes)
    assert features.shape == (1, 2 * (3 + 3 + 6) + 2)
    assert features[0, [11, 23, 25]] == pytest.approx([1, 1, 1])
    assert features[0, 24] == pytest.approx((8 + 6 * 4) / 64)
