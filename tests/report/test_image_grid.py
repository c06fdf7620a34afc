"""The image grid: every image is found in the PNG where it belongs, in a window that no image changes."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest

from augengine.report.image_grid import GAP_PX, LEAST_WIDTH_PX, PANEL_PX, TITLE_PX, WINDOW, image_grid

ZOOM = PANEL_PX // 8
STRIDE = 8 * ZOOM + GAP_PX


def read(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG")
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def cell(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    """Panel of an 8 x 8 image, back as (I, J, 3)."""
    top, left = row * (STRIDE + TITLE_PX) + TITLE_PX, column * STRIDE
    shown = picture[top : top + 8 * ZOOM : ZOOM, left : left + 8 * ZOOM : ZOOM]
    return shown.transpose(1, 0, 2)[::-1, ::-1]


def grey(values: np.ndarray) -> np.ndarray:
    return np.clip((values - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1)


def test_panels_stand_in_order_with_one_window() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    two = np.stack([ramp, 0.1 * ramp])
    picture = read(image_grid([("first", [ramp, two]), ("second", [5 * ramp])]))
    assert picture.shape == (2 * (STRIDE + TITLE_PX), 3 * STRIDE, 3)
    for row, column, wanted in ((0, 0, ramp), (0, 1, ramp), (0, 2, 0.1 * ramp), (1, 0, 5 * ramp)):
        np.testing.assert_allclose(cell(picture, row, column), grey(wanted)[..., None].repeat(3, 2), atol=0.005)
    assert (cell(picture, 1, 1) == 1).all(), "a shorter row leaves white"
    assert picture[:TITLE_PX].min() < 0.5, "the title is missing"


def test_volumes_show_the_middle_slice() -> None:
    volume = np.zeros((1, 8, 8, 5), np.float32)
    volume[0, 1, 6, 2] = 1
    picture = read(image_grid([("", [volume])]))
    assert picture.shape[1] == LEAST_WIDTH_PX
    shown = cell(picture, 0, 0)[..., 0]
    assert np.unravel_index(shown.argmax(), shown.shape) == (1, 6)
    np.testing.assert_allclose(shown[0, 0], grey(np.array(0.0)), atol=0.005)


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_labels_keep_their_colours(kind: type) -> None:
    some, more = np.zeros((8, 8), kind), np.zeros((8, 8), kind)
    some[2], more[2], more[3] = 3, 3, 7
    picture = read(image_grid([("", [some, more, some > 0])]))
    left, right = cell(picture, 0, 0), cell(picture, 0, 1)
    assert (left[0] == 0).all()
    np.testing.assert_array_equal(left[2], right[2])
    assert np.ptp(left[2, 0]) > 0.1, "labels are in colour"
    assert not np.allclose(right[2], right[3])


def test_what_is_not_finite_is_red() -> None:
    broken = np.zeros((8, 8), np.float32)
    broken[0], broken[1] = np.nan, np.inf
    shown = cell(read(image_grid([("", [broken])])), 0, 0)
    assert (shown[:2] == [1, 0, 0]).all()
    assert (shown[2:, :, 0] == shown[2:, :, 1]).all()


def test_large_and_unequal_images_keep_their_pixels() -> None:
    large, small = np.zeros((200, 100), np.float32), np.ones((50, 50), np.float32)
    picture = read(image_grid([("", [large, small])]))
    assert picture.shape == (100 + GAP_PX + TITLE_PX, LEAST_WIDTH_PX, 3)
    assert np.isclose(picture[TITLE_PX : TITLE_PX + 50, 204:254], grey(np.array(1.0)), atol=0.005).all()
