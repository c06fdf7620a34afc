"""Surface distances by hand, in mm, in 2D and 3D."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

from augengine.errors import DataError
from augengine.metrics.surface import assd_mm, hd95_mm, hd95_of_stacks_mm, surface_dice


def block(shape: tuple[int, ...], start: tuple[int, ...], side: int = 1) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(s, s + side) for s in start)] = True
    return mask


def test_two_pixels_by_hand() -> None:
    """Each has four contour pieces of one length, at its corners: two are 2 pixels from the other pixel, two are 3."""
    a, b = block((12, 8), (2, 3)), block((12, 8), (5, 3))
    assert hd95_mm(a, b, (1, 1)) == 3
    assert assd_mm(a, b, (1, 1)) == pytest.approx(2.5)
    assert surface_dice(a, b, (1, 1), 2) == pytest.approx(0.5)
    assert (surface_dice(a, b, (1, 1), 1.9), surface_dice(a, b, (1, 1), 3)) == (0, 1)


@pytest.mark.parametrize("axes", [2, 3])
def test_lengths_are_millimetres_of_the_shifted_axis(axes: int) -> None:
    a, b = block((24,) * axes, (5,) * axes, 6), block((24,) * axes, (8,) + (5,) * (axes - 1), 6)
    spacing = (2.5, 1.0, 0.5)[:axes]
    assert hd95_mm(a, b, spacing) == hd95_mm(b, a, spacing) == pytest.approx(7.5)
    assert hd95_mm(np.swapaxes(a, 0, 1), np.swapaxes(b, 0, 1), spacing) == pytest.approx(3)
    assert surface_dice(a, b, spacing, 7.5) == 1 > surface_dice(a, b, spacing, 7.4)


def test_the_percentile_forgives_a_thin_thread() -> None:
    """One voxel 20 mm away is less than 5% of the surface of a cube of side 10, so only the maximum sees it."""
    cube = block((48, 16, 16), (3, 3, 3), 10)
    flawed = cube | block((48, 16, 16), (32, 5, 5))
    assert hd95_mm(cube, flawed, (1, 1, 1)) == 0
    assert hd95_mm(cube, flawed, (1, 1, 1), percent=100) == pytest.approx(20)


def with_bump(slices: int) -> tuple[np.ndarray, np.ndarray]:
    """A square of side 20 in every slice, and the same with a bump 8 pixels high."""
    square = np.zeros((40, 40, slices), bool)
    square[10:30, 10:30] = True
    bumpy = square.copy()
    bumpy[30:38, 18:22] = True
    return square, bumpy


@pytest.mark.parametrize("slices", [1, 2, 16])
@pytest.mark.parametrize("apart_mm", [3.0, 5.0])
def test_a_stack_whose_organ_goes_on_beyond_its_ends_is_measured_as_each_slice_is(slices: int, apart_mm: float) -> None:
    """With a lid above and below, one slice of 3 mm had 4 mm, by MONAI's own metric 3 mm, and two slices 5 mm."""
    (a, b), (one, other) = with_bump(slices), (mask[..., 0] for mask in with_bump(1))
    spacing = (1.0, 1.0, apart_mm)
    assert hd95_mm(a, b, spacing) == hd95_mm(one, other, (1, 1)) == 7
    assert assd_mm(a, b, spacing) == pytest.approx(assd_mm(one, other, (1, 1)), abs=1e-6)
    assert surface_dice(a, b, spacing, 1) == pytest.approx(surface_dice(one, other, (1, 1), 1), abs=1e-6)


def test_the_end_of_an_organ_within_the_stack_is_a_surface() -> None:
    """Two bars of 10 · 10 pixels, of which one goes on to the stack's end: its piece of 6 slices is as far away as it
    is long. Where both go on, nothing differs."""
    whole = np.zeros((20, 20, 12), bool)
    whole[5:15, 5:15] = True
    short = whole.copy()
    short[..., 6:] = False
    assert hd95_mm(whole, short, (1, 1, 2), percent=100) == pytest.approx(12, abs=1)
    assert hd95_mm(whole, whole, (1, 1, 2), percent=100) == 0


def test_surfaces_of_several_stacks_weigh_together() -> None:
    a, b = with_bump(4)
    same = [(a, a)] * 20
    assert hd95_of_stacks_mm([(a, b)], (1, 1, 3)) == 7
    assert hd95_of_stacks_mm([(a, b), *same], (1, 1, 3)) == 0  # the bump is less than 5 % of all
    assert hd95_of_stacks_mm([(a, a), (a, a & False)], (1, 1, 3)) == math.inf
    assert hd95_of_stacks_mm([(a, a), (a & False, a & False)], (1, 1, 3)) == 0


def test_agrees_with_monais_distances_between_edge_voxels() -> None:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"))
    a, b = (((grid - rng.uniform(18, 22, (3, 1, 1, 1))) ** 2).sum(0) < r**2 for r in (10, 12))
    one, other = (torch.from_numpy(m[None, None]) for m in (a, b))
    theirs = compute_hausdorff_distance(one, other, include_background=True, percentile=95)
    average = compute_average_surface_distance(one, other, include_background=True, symmetric=True)
    assert hd95_mm(a, b, (1, 1, 1)) == pytest.approx(float(theirs), abs=0.5)
    assert assd_mm(a, b, (1, 1, 1)) == pytest.approx(float(average), abs=0.4)  # edge voxels weigh alike


def test_empty_masks_have_stated_values() -> None:
    full, empty = block((6, 6), (2, 2)), np.zeros((6, 6), bool)
    assert (hd95_mm(empty, empty, (1, 1)), assd_mm(empty, empty, (1, 1))) == (0, 0)
    assert (hd95_mm(full, empty, (1, 1)), assd_mm(empty, full, (1, 1))) == (math.inf, math.inf)
    assert (surface_dice(empty, empty, (1, 1), 1), surface_dice(full, empty, (1, 1), 1)) == (1, 0)


def test_spacing_is_one_length_per_axis() -> None:
    with pytest.raises(DataError, match="per axis"):
        hd95_mm(np.ones((4, 4), bool), np.ones((4, 4), bool), (1, 1, 1))
