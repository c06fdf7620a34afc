"""Local features: they know no side and no place, keep to the body and to millimetres."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.diffusion.band_transport import BandTable, transport
from augengine.diffusion.local_features import (
    FEATURES,
    FLOOR,
    NEIGHBOURS,
    at_full_scale,
    blurred,
    body,
    brightened,
    local_features,
    neighbour_features,
)

SPACING = (0.8, 1.1)


def head(seed: int, size: int = 40) -> np.ndarray:
    """A ball of several tissues with noise, well away from the edges."""
    rng = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(*[np.arange(size) - size / 2 + 0.5] * 2, indexing="ij"))
    inner = np.sqrt((place**2).sum(0))
    image = 0.8 * (inner < 12) - 0.4 * (np.sqrt((place[0] - 3) ** 2 + (place[1] + 4) ** 2) < 4)
    return (image + 0.03 * rng.normal(size=(size, size))).astype(np.float32)


def nowhere(features: np.ndarray) -> BandTable:
    """Of voxels that do not know where in a slab they lie."""
    return BandTable.of(features, np.full(len(features), np.nan))


def planes(image: np.ndarray, *beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The body, and every feature at its place, 0 elsewhere."""
    where = body(image[None], SPACING)
    found = np.zeros((len(FEATURES), *image.shape), np.float32)
    others = [blurred(other, body(other[None], SPACING), SPACING) for other in beside]
    found[:-NEIGHBOURS, where] = local_features(image, where, SPACING).T
    if beside:
        found[-NEIGHBOURS:, where] = neighbour_features(where, blurred(image, where, SPACING), others).T
    return where, found


@pytest.mark.parametrize("neighbours", [0, 2])
def test_a_mirrored_image_has_the_mirrored_features_to_the_bit(neighbours: int) -> None:
    image, *beside = (head(n) for n in range(1 + neighbours))
    where, found = planes(image, *beside)
    assert 0.1 < where.mean() < 0.5
    assert np.isfinite(found).all()
    assert found[-NEIGHBOURS:].any() == bool(neighbours)
    for axis in range(2):
        turned, mirrored = planes(*(np.flip(x, axis) for x in (image, *beside)))
        assert np.array_equal(turned, np.flip(where, axis))
        assert np.array_equal(mirrored, np.flip(found, axis + 1))


def test_neighbours_are_compared_with_the_slice_and_either_side_is_alike() -> None:
    image = np.maximum(head(0), 0)
    ratios = slice(-NEIGHBOURS, -1)
    where, same = planes(image, image)
    assert np.abs(same[ratios]).max() < 1e-4
    assert (same[-1][where] == 1).all()
    deep = slice(15, 25), slice(15, 25)
    bright = planes(image, 2 * image)[1][ratios]
    assert np.abs(bright[:, *deep] - np.log((1.6 + FLOOR) / (0.8 + FLOOR))).max() < 0.1
    assert np.array_equal(planes(image, 2 * image, image)[1], planes(image, image, 2 * image)[1])
    assert np.abs(planes(image, 2 * image, 2 * image)[1][ratios] - bright).max() < 1e-5


def test_where_no_neighbour_shows_a_body_nothing_is_known_of_it() -> None:
    image = head(0)
    half = image.copy()
    half[:20] = 0  # of the neighbour, one half is air
    where, found = planes(image, half)
    assert not found[-1, :15].any()
    assert not found[-NEIGHBOURS, :15].any()
    assert found[-2, 10:15].any()  # the broadest Gaussian reaches furthest
    assert (found[-1, 25:][where[25:]] == 1).all()
    assert not planes(image, 0 * image)[1][-NEIGHBOURS:].any()


def test_a_moved_image_has_the_moved_features_to_the_bit() -> None:
    image = head(2)
    image[body(image[None], SPACING) == 0] = 0
    where, found = planes(image)
    moved, there = planes(np.roll(image, (5, -6), (0, 1)))
    assert np.array_equal(moved, np.roll(where, (5, -6), (0, 1)))
    assert np.array_equal(there, np.roll(found, (5, -6), (1, 2)))


def test_what_lies_outside_the_body_counts_for_nothing() -> None:
    image = head(2)
    where = body(image[None], SPACING)
    other = np.where(where, image, 7.0).astype(np.float32)
    assert np.array_equal(local_features(image, where, SPACING), local_features(other, where, SPACING))


def test_bands_see_what_they_would_see_of_all_features() -> None:
    image = head(2)
    where = body(image[None], SPACING)
    whole, few = (local_features(image, where, SPACING, of_bands) for of_bands in (False, True))
    assert np.array_equal(transport(few, *[nowhere(few)] * 2), transport(whole, *[nowhere(whole)] * 2))
    assert (few == 0).all(axis=0).sum() == 13
    assert np.array_equal(whole[:, few.any(axis=0)], few[:, few.any(axis=0)])


def test_features_are_of_millimetres() -> None:
    """Twice the voxels of half the size: what lies in the middle of the image looks the same."""
    x = np.linspace(-32, 32, 64, endpoint=False) + 0.5
    fine = np.linspace(-32, 32, 128, endpoint=False) + 0.25

    def picture(axis: np.ndarray) -> np.ndarray:
        i, j = np.meshgrid(axis, axis, indexing="ij")
        return np.asarray(0.6 + 0.3 * np.sin(i / 6) * np.cos(j / 8), np.float32)

    coarse, whole = picture(x), picture(fine)
    a = local_features(coarse, np.ones_like(coarse, bool), (1.0, 1.0)).reshape(64, 64, -1)[20:44, 20:44]
    b = local_features(whole, np.ones_like(whole, bool), (0.5, 0.5)).reshape(128, 128, -1)
    b = b.reshape(64, 2, 64, 2, -1).mean((1, 3))[20:44, 20:44]
    smooth = [n for n, name in enumerate(FEATURES[:-NEIGHBOURS]) if "imum" not in name]  # a window has whole voxels
    assert np.abs(a - b)[..., smooth].max() < 0.06
    assert np.abs(a - b).max() < 0.2


def test_depth_is_measured_from_the_skin_and_not_from_the_edge_of_the_image() -> None:
    place = FEATURES.index("depth_mm")
    image = np.zeros((30, 30), np.float32)
    image[:, 10:] = 1.0  # the body goes on beyond three edges
    found = np.full((30, 30), np.nan)
    where = image > 0
    found[where] = local_features(image, where, (2.0, 1.0))[:, place]
    assert np.array_equal(found[:, 10:], np.tile(np.arange(1.0, 21.0), (30, 1)))
    assert local_features(image, np.ones_like(where), (2.0, 1.0))[:, place].min() == 60  # no skin in sight


def test_brightened_features_are_those_of_the_brighter_image() -> None:
    image = np.maximum(head(2), 0.05)
    where = body(image[None], SPACING)
    once, twice = (local_features(image * g, where, SPACING) for g in (1.0, 1.3))
    changed = brightened(once, 1.3)
    exact = [FEATURES.index(n) for n in ("intensity", "log_intensity", "log_mean_3mm", "log_mean_12mm")]
    assert np.allclose(changed[:, exact], twice[:, exact], atol=1e-4)
    others = [n for n in range(once.shape[1]) if n not in exact]
    assert np.array_equal(changed[:, others], once[:, others])
    # The floor alone tells the others apart.
    assert np.abs(once[:, others] - twice[:, others]).max() < 6 * FLOOR


def test_the_body_has_its_holes_filled_and_no_noise() -> None:
    rng = np.random.default_rng(0)
    image = np.abs(0.04 * rng.normal(size=(1, 60, 60))).astype(np.float32)
    image[0, 15:45, 15:45] += 0.5
    image[0, 28:32, 20:40] = 0.0  # an airway
    where = body(image, (1.0, 1.0))
    assert where[20:40, 20:40].all()
    assert where.sum() < 33**2
    assert not body(np.zeros((1, 8, 8), np.float32), (1.0, 1.0)).any()


def test_full_scale_is_seen_where_many_voxels_have_the_largest_value() -> None:
    rng = np.random.default_rng(0)
    image = rng.gamma(4, 0.2, 2500).astype(np.float32)
    assert not at_full_scale(image)
    assert at_full_scale(np.minimum(image, np.quantile(image, 0.98)))
    assert not at_full_scale(image[:0])
