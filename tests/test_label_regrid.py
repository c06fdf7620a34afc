"""Resampled label maps: volumes kept for every code, slice by slice and in volumes; no slice loses a code."""

import numpy as np
import pytest

from augengine.geometry import regrid


def resampled(label: np.ndarray, spacing: tuple[float, float, float], step: float, slices: bool) -> np.ndarray:
    affine = np.diag([*spacing, 1.0])
    steps = (step, step, spacing[2] if slices else step)
    shape = [int(np.ceil(n * s / t)) for n, s, t in zip(label.shape, spacing, steps, strict=True)]
    _, out, _ = regrid(np.zeros((1, *label.shape), np.float32), label, affine, shape, steps)
    assert out is not None
    return out


def lesions(seed: int, shape: tuple[int, int, int] = (60, 50, 12)) -> np.ndarray:
    """A few nested ellipsoids: a core (2) in a rim (1)."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    label = np.zeros(shape, np.uint8)
    for _ in range(6):
        centre = rng.uniform(8, np.array(shape) - 8 * (np.array(shape) > 20)).reshape(3, 1, 1, 1)
        radius = rng.uniform(1.5, 7)
        depth = np.linalg.norm((grid - centre) * np.array([1, 1, 3]).reshape(3, 1, 1, 1), axis=0)
        label[depth < radius] = 1
        label[depth < radius / 2] = 2
    return label


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("slices", [True, False])
@pytest.mark.parametrize("step", [0.7, 1.9, 3.0])
def test_every_code_keeps_its_volume(seed: int, slices: bool, step: float) -> None:
    label = lesions(seed)
    out = resampled(label, (1.0, 1.0, 3.0), step, slices)
    voxel_mm3 = step * step * (3.0 if slices else step)
    for code in (1, 2):
        before, after = 3.0 * np.count_nonzero(label == code), voxel_mm3 * np.count_nonzero(out == code)
        # One voxel for rounding, and one per slice that holds less of a code than a voxel.
        slivers = (np.count_nonzero(label == code, axis=(0, 1)) < step * step).sum() if slices else 0
        assert abs(after - before) <= (1 + slivers) * voxel_mm3


def test_the_largest_share_alone_would_lose_a_small_square() -> None:
    label = np.zeros((40, 40, 3), np.uint8)
    label[10:30, 10:30, 1] = 1  # 400 mm2; voxels of 16 mm2 at its edge hold half of it
    out = resampled(label, (1.0, 1.0, 3.0), 4.0, slices=True)
    assert np.count_nonzero(out) == 25
    assert not out[..., (0, 2)].any()


@pytest.mark.parametrize("around", [0, 1])
def test_no_slice_loses_a_code(around: int) -> None:
    label = np.full((40, 40, 5), around, np.uint8)
    label[21, 18, 2] = 2
    out = resampled(label, (1.0, 1.0, 3.0), 4.0, slices=True)
    assert [int((out[..., k] == 2).sum()) for k in range(5)] == [0, 0, 1, 0, 0]
    places = np.argwhere(out[..., 2] == 2)[0]
    np.testing.assert_array_equal(places, (21 // 4, 18 // 4))
    if around:
        assert np.count_nonzero(out == 1) == 5 * 100 - 1


def test_what_rounding_leaves_over_passes_to_the_next_slice() -> None:
    label = np.zeros((64, 64, 10), np.uint8)
    label[16:22, 16:20, :] = 3  # 24 voxels, 1.5 of 16 mm2 in every slice
    out = resampled(label, (1.0, 1.0, 2.0), 4.0, slices=True)
    assert np.count_nonzero(out) == 15
    assert {int((out[..., k] == 3).sum()) for k in range(10)} == {1, 2}


def test_a_grid_that_does_not_change_copies_labels() -> None:
    label = lesions(3)
    np.testing.assert_array_equal(resampled(label, (1.0, 1.0, 3.0), 1.0, slices=True), label)


def test_thin_sheets_survive() -> None:
    label = np.zeros((48, 48, 4), np.uint8)
    label[20:22] = 1  # half a voxel thick on the new grid
    out = resampled(label, (1.0, 1.0, 1.0), 4.0, slices=True)
    assert np.count_nonzero(out) * 16 == pytest.approx(np.count_nonzero(label), rel=0.1)


def test_what_lies_outside_of_the_new_field_of_view_counts_for_nothing() -> None:
    label = np.zeros((40, 40, 2), np.uint8)
    label[0:20, 10:30] = 1
    _, out, _ = regrid(np.zeros((1, 40, 40, 2), np.float32), label, np.diag([1, 1, 3, 1.0]), (10, 10, 2), (2, 2, 3))
    assert out is not None
    np.testing.assert_array_equal(out[..., 0], np.repeat([1, 0], 5)[:, None] * np.ones(10, int))  # rows 10 to 29


@pytest.mark.parametrize("slices", [True, False])
def test_empty_label(slices: bool) -> None:
    assert not resampled(np.zeros((12, 12, 4), np.uint8), (1.0, 1.0, 3.0), 2.0, slices).any()
