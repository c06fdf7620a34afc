"""Local features: they know no side and no place, keep to the body and to millimetres."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.diffusion.local_features import FEATURES, FLOOR, at_full_scale, body, brightened, local_features

SPACING = (0.8, 1.1, 5.0)


def head(dims: int, size: int = 40) -> np.ndarray:
    """A ball of several tissues with noise, well away from the edges."""
    shape = (size, size, 4)[:dims]
    rng = np.random.default_rng(dims)
    place = np.stack(np.meshgrid(*[np.arange(n) - n / 2 + 0.5 for n in shape], indexing="ij"))
    inner = np.sqrt((place[:2] ** 2).sum(0))
    image = 0.8 * (inner < 12) - 0.4 * (np.sqrt((place[0] - 3) ** 2 + (place[1] + 4) ** 2) < 4)
    return (image + 0.03 * rng.normal(size=shape)).astype(np.float32)


def planes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The body, and every feature at its place, 0 elsewhere."""
    where = body(image[None], SPACING)
    found = np.zeros((len(FEATURES), *image.shape), np.float32)
    found[:, where] = local_features(image, where, SPACING).T
    return where, found


@pytest.mark.parametrize("dims", [2, 3])
def test_a_mirrored_image_has_the_mirrored_features_to_the_bit(dims: int) -> None:
    image = head(dims)
    where, found = planes(image)
    assert 0.1 < where.mean() < 0.5
    assert np.isfinite(found).all()
    for axis in range(dims):
        turned, mirrored = planes(np.flip(image, axis))
        assert np.array_equal(turned, np.flip(where, axis))
        assert np.array_equal(mirrored, np.flip(found, axis + 1))


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
    smooth = [n for n, name in enumerate(FEATURES) if "imum" not in name]  # a window has whole voxels
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
    others = [n for n in range(len(FEATURES)) if n not in exact]
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
    image, where = rng.gamma(4, 0.2, (50, 50)).astype(np.float32), np.ones((50, 50), bool)
    assert not at_full_scale(image, where)
    assert at_full_scale(np.minimum(image, np.quantile(image, 0.98)), where)
    assert not at_full_scale(image, np.zeros_like(where))
