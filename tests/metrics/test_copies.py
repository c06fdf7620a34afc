"""Nearest places against the plain loop over images and shifts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from augengine.errors import DataError
from augengine.metrics.copies import LEAST_VOXELS, coarse, coarse_mask, coarsening, nearest_place
from augengine.rng import generator


def loop(image: np.ndarray, mask: np.ndarray, others: np.ndarray) -> tuple[float, int, tuple[int, ...]]:
    places = np.argwhere(mask)
    found = []
    for n, other in enumerate(others):
        for shift in itertools.product(*(range(-size, size) for size in mask.shape)):
            moved = places + shift
            if (moved < 0).any() or (moved >= mask.shape).any():
                continue
            pairs = [(image[c][tuple(places.T)], other[c][tuple(moved.T)]) for c in range(len(image))]
            found.append((1 - float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in pairs])), n, shift))
    return min(found)


@pytest.mark.parametrize("shape", [(9, 11), (6, 5, 7)])
def test_agrees_with_the_plain_loop(shape: tuple[int, ...]) -> None:
    rng = generator("copies", *shape)
    image, others = rng.random((2, *shape)), rng.random((4, 2, *shape)).astype(np.float32)
    mask = np.zeros(shape, bool)
    mask[(slice(2, 5), slice(1, 4), slice(3, 6))[: len(shape)]] = True
    mask[(2,) * len(shape)] = False  # no box
    expected = loop(image, mask, others)
    found = nearest_place(image, mask, others)
    assert (found.distance, found.index, found.shift) == (pytest.approx(expected[0], abs=1e-6), *expected[1:])
    again = nearest_place(image, mask, others[2:])
    assert again.distance == pytest.approx(loop(image, mask, others[2:])[0], abs=1e-6)


def test_a_moved_and_recoloured_copy_is_at_distance_0() -> None:
    rng = generator("copies")
    image, others = rng.random((1, 20, 20)), rng.random((5, 1, 20, 20)).astype(np.float32)
    mask = np.zeros((20, 20), bool)
    mask[4:10, 5:11] = True
    image[0][mask] = 3 * others[3, 0, 10:16, 1:7].ravel() - 0.7
    found = nearest_place(image, mask, others)
    assert (found.distance, found.index, found.shift) == (pytest.approx(0, abs=1e-6), 3, (6, -4))
    inverted = nearest_place(-image, mask, others)
    assert inverted.distance > 0.3


def test_flat_and_tiny_places_are_nobodys() -> None:
    rng = generator("copies")
    others = rng.random((2, 1, 12, 12)).astype(np.float32)
    mask = np.zeros((12, 12), bool)
    mask[3:6, 3:6] = True
    assert math.isnan(nearest_place(np.zeros((1, 12, 12)), mask, others).distance)
    image = rng.random((1, 12, 12))
    mask.ravel()[np.flatnonzero(mask)[LEAST_VOXELS - 1 :]] = False
    assert nearest_place(image, mask, others).index == -1
    assert nearest_place(image, ~mask, others[:0]).index == -1
    assert nearest_place(image, ~mask, np.ones((1, 1, 12, 12), np.float32)).distance == 1
    with pytest.raises(DataError, match="one shape"):
        nearest_place(image, mask, others[..., 1:])


def test_large_images_are_compared_on_a_coarser_grid() -> None:
    assert [coarsening(s) for s in ((64, 64), (65, 20), (240, 240), (32, 32, 20), (128, 128, 96))] == [1, 2, 4, 1, 4]
    ramp = np.indices((8, 8))[:1].astype(np.float32)
    np.testing.assert_array_equal(coarse(ramp, 1), ramp)
    assert coarse(ramp, 2).shape == (1, 4, 4)
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    assert coarse_mask(mask, 2).sum() == 4
    rng = generator("coarse")
    image, stranger = (gaussian_filter(rng.random((1, 128, 128)), (0, 1.5, 1.5)) * 10 for _ in range(2))
    region = np.zeros((128, 128), bool)
    region[40:80, 50:90] = True
    copy, other = (
        nearest_place(coarse(image, 2), coarse_mask(region, 2), coarse(there, 2)[None]).distance
        for there in (np.roll(image, (1, 1), (1, 2)), stranger)
    )
    assert copy < 0.2 < 0.6 < other, "half a voxel of the coarse grid hides no copy"
