"""Scores of class maps against values worked out by hand, and class maps of probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from downstream.measures import scores
from downstream.predictions import bits
from downstream.protocols import PROTOCOLS

TISSUES, TUMOUR = PROTOCOLS["phantom_strict"], PROTOCOLS["phantom_brats"]
SPACING = (1.0, 2.0, 3.0)


def test_scores_of_tissues_by_hand() -> None:
    truth, found = np.zeros((2, 4, 4, 2), np.uint8)
    truth[0], truth[1] = 1, 2  # fat, fibroglandular: 8 voxels each; 16 of background
    found[0], found[1, :3], found[2, 0] = 1, 2, 2  # 6 of 8 fibroglandular, and 2 in the background
    got = scores(found, truth, SPACING, TISSUES)
    assert got["dice", "fat"] == 1
    assert got["dice", "fibroglandular"] == pytest.approx(2 * 6 / (8 + 8))
    assert got["accuracy", "fibroglandular"] == pytest.approx(6 / 8)
    assert got["accuracy", "background"] == pytest.approx(14 / 16)
    assert got["hd95_mm", "fat"] == 0
    assert 0 < got["hd95_mm", "fibroglandular"] <= math.hypot(1, 2)


def test_absent_and_missed_classes() -> None:
    truth, found = np.zeros((2, 4, 4, 2), np.uint8)
    truth[0], found[0] = 1, 2
    got = scores(found, truth, SPACING, TISSUES)
    assert all(math.isnan(got[metric, "fibroglandular"]) for metric in ("dice", "hd95_mm", "accuracy"))
    assert got["dice", "fat"] == got["accuracy", "fat"] == 0
    assert got["hd95_mm", "fat"] == pytest.approx(math.hypot(4, 8, 6))  # the diagonal of the field of view


def test_nested_regions_have_lesion_wise_scores() -> None:
    truth, found = np.zeros((2, 20, 20, 4), np.uint8)
    truth[2:8, 2:8] = 0b100  # whole tumour alone
    truth[4:6, 4:6] = 0b111
    found[2:8, 2:8] = 0b100
    found[15:17, 15:17] = 0b100
    got = scores(found, truth, SPACING, TUMOUR)
    assert got["false_positive_lesions", "WT"] == 1
    assert got["lesion_dice", "WT"] == pytest.approx(1 / 2)
    assert got["lesion_hd95_mm", "WT"] == pytest.approx(374 / 2)
    assert got["lesion_dice", "ET"] == 0
    assert ("accuracy", "WT") not in got


def test_bits_of_exclusive_and_nested_classes() -> None:
    p = np.array([[[0.2, 0.4, 0.1, 0.6], [0.7, 0.35, 0.1, 0.6]]])
    assert bits(p[..., :3], exclusive=True).tolist() == [[2, 1, 0]]  # 0.4 beats 0.35 and a background of 0.25
    assert bits(p, exclusive=False).tolist() == [[2, 0, 0, 3]]
