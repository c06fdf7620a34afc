"""Mask geometry is in millimetres of the voxel grid, in slices and in volumes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augengine import masks
from augengine.masks import Motion, place


def ball(size: int, axes: int, radius: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(size) - size // 2] * axes, indexing="ij"))
    return np.linalg.norm(grid, axis=0) <= radius


def corner_mark(axes: int) -> np.ndarray:
    """A shape without symmetry: an L of two labels."""
    label = np.zeros((15,) * axes, np.uint8)
    label[(slice(4, 11), 7, *[7] * (axes - 2))] = 1
    label[(10, slice(7, 12), *[7] * (axes - 2))] = 2
    return label


def test_dilation_reaches_as_far_as_asked_along_every_axis() -> None:
    mask = np.zeros((21, 21), bool)
    mask[10, 10] = True
    grown = masks.dilate(mask, 6.0, (1.0, 3.0))
    assert grown[:, 10].sum() == 13
    assert grown[10].sum() == 5
    assert not grown[10 + 6, 10 + 1]  # sqrt(36 + 9) mm away
    assert mask.sum() == 1, "the caller's array was changed"
    assert np.array_equal(masks.dilate(mask, 0.0, (1.0, 3.0)), mask)


def test_the_edge_of_the_image_is_no_edge_to_erode() -> None:
    mask = np.ones((9, 9), bool)
    mask[8] = False
    eroded = masks.erode(mask, 2.0, (1.0, 1.0))
    assert np.array_equal(np.flatnonzero(eroded.all(axis=1)), np.arange(6))


def test_components_are_ranked_by_size_and_diagonals_connect() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = mask[1, 1] = True
    mask[4:7, 4:7] = True
    ranks = masks.components(mask)
    assert ranks[0, 0] == ranks[1, 1] == 2
    assert (ranks[4:7, 4:7] == 1).all()
    assert ranks.max() == 2


def test_foreground_is_any_channel_with_holes_filled() -> None:
    image = np.zeros((2, 9, 9))
    image[0, 1:5, 1:8] = image[1, 4:8, 1:8] = 1
    image[:, 4, 4] = 0
    assert masks.foreground(image).sum() == 7 * 7


def test_foreground_of_z_scores_is_what_differs_from_the_rim() -> None:
    """Air is below 0 there, and interpolation rounds it; a little ringing around 0 is no other background."""
    image = np.full((2, 12, 12, 4), -1.5, np.float32)
    image[0, 3:9, 3:9] = 0.0
    image[0, 0, 0] += 1e-6
    image[1, 3:9, 3:9] = 0.7
    assert masks.foreground(image).sum() == 6 * 6 * 4
    ringing = np.zeros((1, 12, 12), np.float32)
    ringing[0, 3:9, 3:9] = 80
    ringing[0, 2, 4] = -3
    assert masks.foreground(ringing).sum() == 6 * 6 + 1


def test_gaps_take_the_nearest_label_in_mm() -> None:
    label = np.zeros((9, 9), np.uint8)
    label[:, :2], label[7:], label[4, 4] = 5, 6, 1
    filled = masks.fill_nearest(label, label == 1, (5, 6), (1.0, 4.0))  # 3 voxels of 1 mm, 3 voxels of 4 mm
    assert filled[4, 4] == 6
    assert masks.fill_nearest(label, label == 1, (5, 6), (4.0, 1.0))[4, 4] == 5
    assert masks.fill_nearest(label, label == 1, (), (1.0, 1.0))[4, 4] == 0


def test_left_and_right_follow_the_affine() -> None:
    assert masks.left_right_axis(np.diag([2.0, 2.0, 4.0, 1.0]), 2) == 0
    assert masks.left_right_axis(np.diag([-2.0, 2.0, 4.0, 1.0])[[1, 0, 2, 3]], 2) == 1
    sagittal = np.array([[0, 0, 2, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    assert masks.left_right_axis(sagittal, 2) is None
    assert masks.left_right_axis(sagittal, 3) == 2


@pytest.mark.parametrize("axes", [2, 3])
def test_ellipsoids_have_the_volume_and_shares_asked_for(axes: int) -> None:
    spacing = (0.5, 0.5, 1.0)[:axes]
    label = masks.ellipsoid(20.0, 1.6, {3: 0.5, 1: 0.3, 2: 0.2}, spacing)
    volume = np.count_nonzero(label) * np.prod(spacing)
    assert volume == pytest.approx(math.pi * 100 if axes == 2 else math.pi * 4000 / 3, rel=0.03)
    shares = np.bincount(label.ravel())[1:] / np.count_nonzero(label)
    assert np.allclose(shares, [0.3, 0.2, 0.5], atol=0.02)
    spread_mm = np.argwhere(label).std(axis=0) * spacing
    assert spread_mm[0] / spread_mm[-1] == pytest.approx(1.6, rel=0.05)


@pytest.mark.parametrize("axes", [2, 3])
def test_a_shift_in_mm_copies_every_voxel(axes: int) -> None:
    label = corner_mark(axes)
    spacing = (1.0, 2.0, 3.0)[:axes]
    motion = Motion((2.0, -4.0, 3.0)[:axes], (0.0,) * (1 if axes == 2 else 3))
    moved, voxels = place(label, [7] * axes, [7] * axes, label.shape, motion, spacing)
    assert voxels == np.count_nonzero(label)
    assert np.array_equal(moved, np.roll(label, (2, -2, 1)[:axes], tuple(range(axes))))


def test_rotation_and_reflection_are_those_of_the_grid() -> None:
    label = corner_mark(2)
    turned, _ = place(label, [7, 7], [7, 7], label.shape, Motion((0.0, 0.0), (90.0,)), (1.0, 1.0))
    assert np.array_equal(turned, np.rot90(label)) or np.array_equal(turned, np.rot90(label, -1))
    mirrored, _ = place(label, [7, 7], [7, 7], label.shape, Motion((0.0, 0.0), (0.0,), mirrored_axis=0), (1.0, 1.0))
    assert np.array_equal(mirrored, label[::-1])


@pytest.mark.parametrize("axes", [2, 3])
def test_scale_multiplies_the_volume_and_keeps_nesting(axes: int) -> None:
    size = 41
    label = (ball(size, axes, 8) + ball(size, axes, 5).astype(np.uint8)).astype(np.uint8)
    middle, still = [size // 2] * axes, Motion((0.0,) * axes, (0.0,) * (3 if axes == 3 else 1), scale=1.5)
    grown, voxels = place(label, middle, middle, label.shape, still, (1.0,) * axes)
    assert voxels / np.count_nonzero(label) == pytest.approx(1.5**axes, rel=0.05)
    assert not (masks.dilate(grown == 2, 1.0, (1.0,) * axes) & (grown == 0)).any()


def test_elastic_deformation_is_seeded_smooth_and_stays_in_place() -> None:
    label = ball(61, 2, 12).astype(np.uint8)
    motion = Motion((0.0, 0.0), (0.0,), elastic_mm=2.0, elastic_length_mm=8.0, elastic_seed=3)
    once, again = (place(label, [30, 30], [30, 30], label.shape, motion, (1.0, 1.0))[0] for _ in range(2))
    other = place(
        label, [30, 30], [30, 30], label.shape, Motion((0.0, 0.0), (0.0,), None, 1.0, 2.0, 8.0, 4), (1.0, 1.0)
    )
    assert np.array_equal(once, again)
    assert not np.array_equal(once, label)
    assert not np.array_equal(once, other[0])
    assert masks.components(once > 0).max() == 1
    assert np.abs(np.argwhere(once).mean(axis=0) - 30).max() < 3
    field = motion.displacement_mm((61, 61), (1.0, 1.0))
    assert np.allclose(field.mean(axis=(1, 2)), 0)
    assert np.allclose(field.std(axis=(1, 2)), 2)
    assert np.abs(np.diff(field, axis=1)).max() < 1, "a steeper field folds"


def test_what_lies_beyond_the_edge_is_counted_and_cut() -> None:
    label = ball(21, 2, 4).astype(np.uint8)
    moved, voxels = place(label, [10, 10], [10, 10], label.shape, Motion((10.0, 0.0), (0.0,)), (1.0, 1.0))
    assert voxels == np.count_nonzero(label)
    assert np.array_equal(moved[16:], label[6:11])
    gone, voxels = place(label, [10, 10], [10, 10], label.shape, Motion((400.0, 0.0), (0.0,)), (1.0, 1.0))
    assert not gone.any()
    assert voxels == np.count_nonzero(label)
