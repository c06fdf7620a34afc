"""How bright a lesion is beside its surroundings, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augengine.errors import DataError
from augengine.metrics.lesion_contrast import Contrast, lesion_to_ring_ratio, ring_around


def block(shape: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[(slice(start, stop),) * len(shape)] = True
    return mask


@pytest.mark.parametrize("axes", [2, 3])
def test_the_ring_lies_three_to_six_steps_away(axes: int) -> None:
    shape = (31,) * axes
    lesion = block(shape, 15, 16)
    ring = ring_around(lesion, np.ones(shape, bool))
    steps = np.abs(np.indices(shape) - 15).sum(axis=0)
    assert np.array_equal(ring, (steps > 2) & (steps <= 6))


@pytest.mark.parametrize("axes", [2, 3])
def test_medians_of_lesion_and_ring_alone_count(axes: int) -> None:
    """A bright border beside the lesion, air within the ring's reach and outliers change nothing."""
    shape = (32,) * axes
    lesion, foreground = block(shape, 12, 18), np.ones(shape, bool)
    image = np.full(shape, 80.0)
    image[lesion] = 120
    border = ring_around(lesion, foreground, (0, 2))
    image[border] = 1000
    foreground[20:] = False
    image[20:] = 0
    image[(12,) * axes] = 9000
    assert lesion_to_ring_ratio(image, lesion, foreground) == pytest.approx(1.5)
    assert lesion_to_ring_ratio(image * 7, lesion, foreground) == pytest.approx(1.5)


def test_what_has_no_lesion_or_ring_has_no_ratio() -> None:
    image, everywhere = np.ones((16, 16)), np.ones((16, 16), bool)
    lesion = block((16, 16), 6, 9)
    assert math.isnan(lesion_to_ring_ratio(image, ~everywhere, everywhere))
    assert math.isnan(lesion_to_ring_ratio(image, everywhere, everywhere))
    assert math.isnan(lesion_to_ring_ratio(image, lesion, lesion))
    assert math.isnan(lesion_to_ring_ratio(np.zeros((16, 16)), lesion, everywhere))


def test_codes_and_shapes_that_do_not_fit_are_refused() -> None:
    mask = np.ones((8, 8), bool)
    with pytest.raises(DataError, match="a mask is bool"):
        lesion_to_ring_ratio(np.ones((8, 8)), mask.astype(np.uint8), mask)
    with pytest.raises(DataError, match="one shape"):
        lesion_to_ring_ratio(np.ones((2, 8, 8)), mask, mask)


def test_rows_add_up_in_any_order_weighed_by_lesion_voxels() -> None:
    everywhere, small, large = np.ones((24, 24), bool), block((24, 24), 10, 14), block((24, 24), 6, 18)
    rows = []
    for lesion, ratios in ((small, (1.4, 0.5)), (large, (1.8, 1.0)), (np.zeros((24, 24), bool), (1.0, 1.0))):
        image = np.full((2, 24, 24), 100.0)
        for channel, ratio in zip(image, ratios, strict=True):
            channel[lesion] = 100 * ratio
        rows.append(Contrast.of(image, lesion, everywhere))
    expected = [math.exp((16 * math.log(a) + 144 * math.log(b)) / 160) for a, b in ((1.4, 1.8), (0.5, 1.0))]
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        first, second, third = (rows[n] for n in order)
        assert first.merge(second).merge(third).ratios == pytest.approx(expected)
    assert rows[2].voxels == 0
    assert all(map(math.isnan, rows[2].ratios))


def test_a_row_whose_lesion_has_no_ring_in_a_channel_says_nothing() -> None:
    image, lesion = np.ones((2, 24, 24)), block((24, 24), 10, 14)
    assert Contrast.of(image, lesion, lesion).voxels == 0
    image[1] = 0
    assert Contrast.of(image, lesion, np.ones((24, 24), bool)).voxels == 0
