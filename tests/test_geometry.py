"""Orientation, resampling and affines against nibabel and known world coordinates."""

import nibabel as nib
import numpy as np
import pytest

from augengine.errors import DataError
from augengine.geometry import (
    check_affine,
    grid_shift,
    inside,
    regrid,
    resample_labels,
    same_grid,
    spacing_mm,
    to_canonical,
)


def oblique(seed: int) -> np.ndarray:
    """A random rotation, spacing, handedness and origin."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * rng.uniform(0.5, 6, 3)
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    return affine


@pytest.mark.parametrize("seed", range(12))
def test_canonical_is_nibabels_and_exact(seed: int) -> None:
    data = np.random.default_rng(seed).normal(size=(5, 6, 7)).astype(np.float32)
    affine = oblique(seed)
    expected = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    image, moved = to_canonical(data[None], affine)
    np.testing.assert_array_equal(image[0], expected.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(moved, expected.affine, atol=1e-9)
    # Exact to the last bit in the directions: no interpolation, no re-orthogonalisation.
    assert sorted(np.abs(moved[:3, :3]).ravel()) == sorted(np.abs(affine[:3, :3]).ravel())


@pytest.mark.parametrize(("shape", "spacing"), [((16, 16, 9), 2.0), ((40, 33, 9), 0.7), ((64, 20, 9), 1.0)])
def test_landmark_keeps_its_place_through_regrid(shape: tuple[int, int, int], spacing: float) -> None:
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[:3, 3] = -20, 5, 7
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (32, 30, 9)], indexing="ij"), -1)
    blob = np.exp(-((grid - [17, 13, 4]) ** 2).sum(-1) / 12).astype(np.float32)
    image, label, moved = regrid(blob[None], (blob > 0.3).astype(np.uint8), affine, shape, (spacing, spacing, 3.0))
    assert image.shape[1:] == shape
    np.testing.assert_allclose(spacing_mm(moved), (spacing, spacing, 3), atol=1e-9)
    assert label is not None
    for array in (image[0], label):
        voxels = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1).reshape(-1, 3)
        centre = (voxels * array.reshape(-1, 1)).sum(0) / array.sum()
        world = moved[:3, :3] @ centre + moved[:3, 3]
        np.testing.assert_allclose(world, affine[:3, :3] @ [17, 13, 4] + affine[:3, 3], atol=0.3 * spacing)


def test_crop_and_pad_copy_voxels_bit_for_bit() -> None:
    image = np.random.default_rng(0).normal(size=(2, 7, 10, 3)).astype(np.float32)
    affine = oblique(3)
    out, _, moved = regrid(image, None, affine, (10, 7, 3), tuple(spacing_mm(affine)))
    # The same voxel at the same world position, found by the affines alone.
    index = np.rint(np.linalg.inv(affine) @ moved @ [2, 0, 0, 1]).astype(int)
    np.testing.assert_array_equal(out[:, 2, 0, 0], image[:, index[0], index[1], index[2]])
    assert (out[:, 0] == 0).all()


def test_shrinking_is_anti_aliased_and_keeps_the_mean() -> None:
    stripes = np.zeros((1, 64, 64, 2), np.float32)
    stripes[:, ::2] = 2
    out, _, _ = regrid(stripes, None, np.eye(4), (16, 16, 2), (4, 4, 1))
    np.testing.assert_allclose(out, 1, atol=0.13)  # picking every fourth voxel would give 0 or 2
    assert abs(out.mean() - 1) < 0.02


def test_label_codes_are_never_mixed() -> None:
    label = np.zeros((40, 40, 2), np.uint8)
    label[:20], label[20:] = 1, 4
    _, out, _ = regrid(np.zeros((1, 40, 40, 2), np.float32), label, np.eye(4), (13, 13, 2), (40 / 13, 40 / 13, 1))
    assert out is not None
    assert set(np.unique(out)) == {1, 4}  # averaging codes would make 2 or 3


def test_resample_labels_follows_world_coordinates() -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 3, (9, 8, 7)).astype(np.uint8)
    affine = oblique(5)
    turned, turned_affine = to_canonical(label, affine)
    np.testing.assert_array_equal(resample_labels(turned, turned_affine, label.shape, affine), label)
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, 0] * 2
    np.testing.assert_array_equal(resample_labels(label, affine, (9, 8, 7), shifted)[:7], label[2:])
    assert (resample_labels(label, affine, (9, 8, 7), shifted)[7:] == 0).all()


def test_voxels_inside_of_another_grid() -> None:
    affine, other = oblique(4), oblique(4)
    other[:3, 3] += other[:3, 0] * 2 + other[:3, 2] * 0.4  # it begins two voxels later, and ends one before
    expected = np.zeros((6, 5, 4), bool)
    expected[2:5] = True
    np.testing.assert_array_equal(inside((6, 5, 4), affine, (3, 5, 4), other), expected)
    turned = other[:, [1, 0, 2, 3]]  # the same voxels, axes exchanged
    np.testing.assert_array_equal(inside((6, 5, 4), affine, (5, 3, 4), turned), expected)


def test_same_grid_and_bad_affines() -> None:
    affine = oblique(2)
    nudged = affine + np.diag([1e-5, 0, 0, 0])
    assert same_grid((9, 9, 9), affine, (9, 9, 9), nudged)
    for voxels, same in ((0.09, True), (0.11, False)):
        moved = affine.copy()
        moved[:3, 3] += affine[:3, 1] * voxels
        assert same_grid((9, 9, 9), affine, (9, 9, 9), moved) is same
        np.testing.assert_allclose(grid_shift((9, 9, 9), affine, moved), voxels, atol=1e-9)
    assert not same_grid((9, 9, 9), affine, (9, 9, 8), affine)
    for bad in (np.diag([1.0, 1, 0, 1]), np.full((4, 4), np.nan), np.eye(3)):
        with pytest.raises(DataError, match="affine"):
            check_affine(bad)
