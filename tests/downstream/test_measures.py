"""Scores of class maps against values worked out by hand, and class maps of probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augengine.downstream.classes import class_maps
from augengine.downstream.measures import _stacks, scores
from augengine.downstream.protocols import protocol

TISSUES, TUMOUR = protocol("phantom_strict"), protocol("phantom_brats")
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


def test_untested_slices_part_a_volume() -> None:
    """A lesion of slices 0 and 1 and one of slice 7 are two, though their rows stand beside each other."""
    truth = np.zeros((30, 30, 3), np.uint8)
    truth[2:12, 2:12] = 0b100
    found = truth.copy()
    found[12:14, 6, 2] = 0b100
    whole = scores(found, truth, (1, 1, 3), TUMOUR)
    apart = scores(found, truth, (1, 1, 3), TUMOUR, _stacks([0, 1, 7]))
    assert whole["lesion_dice", "WT"] == pytest.approx(2 * 300 / 602)
    assert apart["lesion_dice", "WT"] == pytest.approx((1 + 2 * 100 / 202) / 2)
    truth[..., 2], found[..., 2] = 0, 0b100  # a false positive of a slice of its own
    assert scores(found, truth, (1, 1, 3), TUMOUR)["false_positive_lesions", "WT"] == 0
    assert scores(found, truth, (1, 1, 3), TUMOUR, _stacks([0, 1, 7]))["false_positive_lesions", "WT"] == 1


def test_a_class_of_one_slice_has_the_distance_of_its_contours() -> None:
    truth = np.zeros((40, 40, 1), np.uint8)
    truth[10:30, 10:30] = 1
    found = truth.copy()
    found[30:38, 18:22] = 1
    assert scores(found, truth, (1, 1, 3), TISSUES)["hd95_mm", "fat"] == 7


def test_bits_of_exclusive_and_nested_classes() -> None:
    p = np.array([[[0.2, 0.4, 0.1, 0.6], [0.7, 0.35, 0.1, 0.6]]])
    tissues, nested = {"a": ["x"], "b": ["y"]}, {"a": ["x"], "b": ["x", "y"]}
    assert class_maps(p[..., :3], tissues, tissues).tolist() == [[2, 1, 0]]  # 0.4 beats 0.35 and a background of 0.25
    assert class_maps(p, nested, nested).tolist() == [[2, 0, 0, 3]]
    assert class_maps(p, nested, dict(reversed(nested.items()))).tolist() == [[1, 0, 0, 3]]
