"""Lesion-wise scores against cases that were worked out by hand; lengths are voxels of 1 mm unless stated.

HD95 of a cube of side 4 and a shifted copy is the shift: the 5 x 5 surface points of the leading face hold about
18.4 of 81 mm² (9 points of 1, 12 of an edge's 0.71, 4 of a corner's 0.22), more than 5%, and no other is farther.
"""

from __future__ import annotations

import numpy as np
import pytest

from augengine.errors import DataError
from augengine.metrics.lesionwise import RULES, LesionWise, lesion_wise

GLI, MEN, MET = RULES["GLI"], RULES["MEN"], RULES["MET"]
UNIT = (1.0, 1.0, 1.0)


def boxes(*spans: tuple[int, ...], shape: tuple[int, ...] = (40, 16, 16)) -> np.ndarray:
    """A mask of boxes, each (first, past the last) per axis."""
    mask = np.zeros(shape, bool)
    for span in spans:
        mask[tuple(slice(*span[n : n + 2]) for n in range(0, len(span), 2))] = True
    return mask


def cube(i: int, side: int = 4, j: int = 6) -> tuple[int, ...]:
    return (i, i + side, j, j + side, j, j + side)


def check(found: LesionWise, dice: float, hd95_mm: float, false_positives: int = 0) -> None:
    assert found.dice == pytest.approx(dice)
    assert found.hd95_mm == pytest.approx(hd95_mm)
    assert found.false_positives == false_positives


def test_perfect_prediction() -> None:
    mask = boxes(cube(5))
    check(lesion_wise(mask, mask, UNIT, GLI), 1, 0)


def test_nothing_to_find_and_nothing_found() -> None:
    check(lesion_wise(boxes(), boxes(), UNIT, GLI), 1, 0)


def test_a_missed_lesion() -> None:
    check(lesion_wise(boxes(), boxes(cube(5)), UNIT, GLI), 0, 374)


def test_false_positives_of_any_size() -> None:
    check(lesion_wise(boxes(cube(5, 1), cube(30, 1)), boxes(), UNIT, GLI), 0, 374, 2)
    # One lesion right, one voxel wrong: (1 + 0) / 2 and (0 + 374) / 2.
    check(lesion_wise(boxes(cube(5), cube(30, 1)), boxes(cube(5)), UNIT, GLI), 0.5, 187, 1)


def test_pieces_that_merge_when_dilated_are_one_lesion() -> None:
    """6 voxels apart, 3 + 3 steps of dilation make them touch: 128 voxels, of which 64 are found.

    Dice 2 · 64 / (64 + 128). The far face of the other cube is 10 from the prediction and holds 18.4 of 2 · 81 mm².
    """
    truth = boxes(cube(5), cube(15))
    found = lesion_wise(boxes(cube(5)), truth, UNIT, GLI)
    check(found, 2 / 3, 10)
    assert [lesion.volume_mm3 for lesion in found.lesions] == [128]


def test_pieces_one_voxel_further_apart_are_two_lesions() -> None:
    """One is found, one is missed: (1 + 0) / 2 and (0 + 374) / 2."""
    found = lesion_wise(boxes(cube(5)), boxes(cube(5), cube(16)), UNIT, GLI)
    check(found, 0.5, 187)
    assert len(found.lesions) == 2


def test_one_prediction_on_two_lesions_counts_whole_for_either() -> None:
    """A bar of 15 · 16 = 240 voxels over lesions of 64: each has Dice 128 / 304; HD95 is 11, from the bar's far end.

    The bar's end face, 11 from the lesion, holds 18.4 of the bar's 81 + 11 · (4 · 3 + 4 · 0.71) = 244 mm²: 7.5%.
    """
    found = lesion_wise(boxes((5, 20, 6, 10, 6, 10)), boxes(cube(5), cube(16)), UNIT, GLI)
    check(found, 8 / 19, 11)
    assert [lesion.matched for lesion in found.lesions] == [1, 1]


def test_pieces_of_a_prediction_on_one_lesion_are_joined() -> None:
    """A lesion of 160 voxels, two pieces of 64 inside: 256 / 288. Piece by piece it would be 128 / 224 twice."""
    found = lesion_wise(boxes(cube(5), cube(11)), boxes((5, 15, 6, 10, 6, 10)), UNIT, GLI)
    assert found.dice == pytest.approx(8 / 9)
    assert found.lesions[0].matched == 2
    assert found.false_positives == 0


def test_lesions_up_to_the_threshold_do_not_count_whether_found_or_missed() -> None:
    small = boxes((5, 7, 5, 10, 5, 10))  # 2 · 5 · 5 = 50 mm³, the threshold itself
    check(lesion_wise(small, small, UNIT, GLI), 1, 0)
    found = lesion_wise(boxes(), small, UNIT, GLI)
    check(found, 1, 0)
    assert [lesion.volume_mm3 for lesion in found.dropped] == [50]
    larger = small | boxes((7, 8, 5, 6, 5, 6))  # 51 mm³
    check(lesion_wise(boxes(), larger, UNIT, GLI), 0, 374)


def test_a_prediction_on_a_dropped_lesion_is_no_false_positive() -> None:
    """Dropping before matching would make it one: 1 / 2 and 187."""
    truth = boxes(cube(5), cube(30, 2))
    check(lesion_wise(truth, truth, UNIT, GLI), 1, 0)


def test_the_threshold_of_metastases_is_2_mm3() -> None:
    check(lesion_wise(boxes(), boxes((5, 7, 5, 6, 5, 6)), UNIT, MET), 1, 0)
    check(lesion_wise(boxes(), boxes((5, 8, 5, 6, 5, 6)), UNIT, MET), 0, 374)


def test_voxels_that_share_a_corner_are_one_piece() -> None:
    """One lesion right and one false positive: 1 / 2. Connected through faces only there were two: 1 / 3."""
    prediction = boxes(cube(5), (30, 31, 6, 7, 6, 7), (31, 32, 7, 8, 7, 8))
    check(lesion_wise(prediction, boxes(cube(5)), UNIT, GLI), 0.5, 187, 1)


def test_touching_the_dilation_is_enough() -> None:
    """2 voxels beside the lesion, within 3 steps: Dice 0 but the true distance, a shift of 6."""
    check(lesion_wise(boxes(cube(11)), boxes(cube(5)), UNIT, GLI), 0, 6)


def test_beyond_the_dilation_is_a_miss_and_a_false_positive() -> None:
    check(lesion_wise(boxes(cube(12)), boxes(cube(5)), UNIT, GLI), 0, 374, 1)


def test_dilation_does_not_pass_corners_in_space_but_does_in_a_slice() -> None:
    """One step over faces and edges misses (9, 10, 10), the corner neighbour of the cube that ends at (8, 9, 9)."""
    truth, corner = boxes(cube(5)), boxes((9, 10, 10, 11, 10, 11))
    check(lesion_wise(corner, truth, UNIT, MEN), 0, 374, 1)
    edge = boxes((9, 10, 10, 11, 9, 10))
    assert lesion_wise(edge, truth, UNIT, MEN).false_positives == 0
    # In a slice, edges of the grid are corners: a square of 8 · 8 mm² and the pixel at its corner.
    square, pixel = boxes((2, 10, 2, 10), shape=(16, 16)), boxes((10, 11, 10, 11), shape=(16, 16))
    assert lesion_wise(pixel, square, UNIT, MEN).false_positives == 0


def test_spacing_scales_distances_and_volumes() -> None:
    """Slices 3 mm apart, shifted by one: 48 of 64 voxels overlap, so Dice 96 / 128 and HD95 3 mm."""
    truth, moved = boxes((5, 9, 5, 9, 5, 9)), boxes((5, 9, 5, 9, 6, 10))
    check(lesion_wise(moved, truth, (1, 1, 3), GLI), 0.75, 3)
    small = boxes((5, 8, 5, 8, 5, 7))  # 18 voxels: 54 mm³, but 18 mm³ of 1 mm voxels
    check(lesion_wise(boxes(), small, (1, 1, 3), GLI), 0, 374)
    check(lesion_wise(boxes(), small, UNIT, GLI), 1, 0)


def test_a_slice_is_a_volume_of_one_slice() -> None:
    """30 pixels are 60 mm³ where slices are 2 mm apart, 30 mm³ where they are 1 mm apart."""
    truth = boxes((2, 7, 2, 8), shape=(16, 16))
    check(lesion_wise(boxes(shape=(16, 16)), truth, (1, 1, 2), GLI), 0, 374)
    check(lesion_wise(boxes(shape=(16, 16)), truth, UNIT, GLI), 1, 0)
    # Shifted by one row of 2 mm: 24 of 30 pixels overlap; the leading edge of 6 mm is more than 5% of the contour.
    moved = boxes((3, 8, 2, 8), shape=(16, 16))
    check(lesion_wise(moved, truth, (2, 1, 2), GLI), 0.8, 2)


def test_a_lesion_may_hang_together_only_across_slices() -> None:
    """Two bars of 9 pixels, joined by 33 in the next slice: one lesion of 51, of which 9 are found, or two of a slice.

    In space 2 · 9 / (9 + 51); in the slice one bar is right and one is missed.
    """
    truth = boxes((2, 5, 5, 8, 5, 6), (10, 13, 5, 8, 5, 6), (2, 13, 5, 8, 6, 7), shape=(16, 16, 16))
    prediction = boxes((2, 5, 5, 8, 5, 6), shape=(16, 16, 16))
    found = lesion_wise(prediction, truth, UNIT, MET)
    assert (len(found.lesions), found.dice) == (1, pytest.approx(0.3))
    check(lesion_wise(prediction[:, :, 5], truth[:, :, 5], UNIT, MET), 0.5, 187)


def test_a_slice_needs_the_distance_between_slices() -> None:
    with pytest.raises(DataError, match="distance between slices"):
        lesion_wise(np.zeros((4, 4), bool), np.zeros((4, 4), bool), (1, 1), GLI)
    with pytest.raises(DataError, match="bool"):
        lesion_wise(np.zeros((4, 4)), np.zeros((4, 4), bool), UNIT, GLI)
