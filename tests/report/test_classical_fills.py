"""Fills and pastes: exact on images that each of them must continue, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.report.classical_fills import FILLS, mean_fill, mirror_fill, paste, poisson_paste

X, Y = np.meshgrid(np.arange(24.0), np.arange(20.0), indexing="ij")
BRAIN = np.ones((24, 20), bool)
MASK = (X - 8) ** 2 + (Y - 9) ** 2 < 16


@pytest.mark.parametrize("name", FILLS)
def test_outside_the_mask_every_bit_stays_and_inside_the_lesion_is_gone(name: str) -> None:
    image = np.stack([np.ones_like(X), 0.1 * X]).astype(np.float32)
    ill = np.where(MASK, np.float32(9), image)
    filled = FILLS[name](ill, BRAIN, MASK)
    assert (filled[:, ~MASK] == ill[:, ~MASK]).all()
    assert filled.dtype == np.float32
    assert np.abs(filled[0][MASK] - 1).max() < 1e-3  # a constant is continued by all of them
    assert filled[1].max() < 3


def test_smooth_fills_follow_a_slope_and_the_mean_does_not() -> None:
    image = np.stack([0.1 * X]).astype(np.float32)
    ill = np.where(MASK, np.float32(9), image)
    error = {name: float(np.abs(fill(ill, BRAIN, MASK) - image)[:, MASK].max()) for name, fill in FILLS.items()}
    assert error["biharmonic"] < 0.01
    assert error["marching (Telea)"] < 0.25
    assert error["mean fill"] > 0.5


def test_the_mean_is_of_the_brain_and_the_mirror_of_the_other_side() -> None:
    image = np.stack([np.where(X < 12, 1, 3)]).astype(np.float32)
    half = X < 12
    assert np.allclose(mean_fill(image, half, MASK)[0][MASK], 1)
    assert np.allclose(mirror_fill(image, BRAIN, MASK & half)[0][MASK & half], 3)


def test_a_blended_paste_keeps_gradients_and_meets_its_surroundings() -> None:
    image = np.stack([np.full_like(X, 5)]).astype(np.float32)
    lesion = np.stack([np.exp(-((X - 8) ** 2 + (Y - 9) ** 2) / 4)]).astype(np.float32) + 1
    blended = poisson_paste(image, MASK, lesion)
    assert (blended[:, ~MASK] == 5).all()
    assert (paste(image, MASK, lesion)[:, MASK] == lesion[:, MASK]).all()
    # The lesion stands on 1, the image on 5: blending lifts it by 4 and leaves its shape.
    assert np.abs(blended - lesion - 4)[:, MASK].max() < 0.05
    assert np.array_equal(poisson_paste(image, MASK & False, lesion), image)


def test_blending_solves_the_same_equation_at_the_frame_and_in_volumes() -> None:
    rng = np.random.default_rng(0)
    image, source = rng.normal(size=(2, 1, 7, 6, 5)).astype(np.float32)
    mask = np.zeros((7, 6, 5), bool)
    mask[:3, 2:4, 1:4] = True
    shifted = poisson_paste(image, mask, image + 7)
    assert np.allclose(shifted, image, atol=1e-4)  # the image's own gradients give the image
    blended = poisson_paste(image, mask, source)
    place = (0, 1, 2, 2)  # inside, all neighbours exist
    around = [(0, 0, 2, 2), (0, 2, 2, 2), (0, 1, 1, 2), (0, 1, 3, 2), (0, 1, 2, 1), (0, 1, 2, 3)]
    ours, wanted = (6 * x[place] - sum(x[other] for other in around) for x in (blended, source))
    assert ours == pytest.approx(wanted, abs=1e-4)
