"""Structure without brightness, contrast or sign."""

from __future__ import annotations

import numpy as np
import pytest
from builders import slice_sample
from scipy.ndimage import shift

from augengine import gates
from augengine.body import body_mask
from augengine.metrics import structure
from augengine.metrics.structure import structure_term


def test_contrast_is_no_structure_and_place_is() -> None:
    image = slice_sample(0).image
    mask = body_mask(image)
    assert structure_term(image, 5 - 0.3 * image, mask) == pytest.approx(1, abs=1e-4)
    assert structure_term(image, shift(image, (0, 4, 0)), mask) < 0.7
    assert np.isnan(structure_term(image, image, np.zeros_like(mask)))


def test_the_body_of_z_scores_leaves_out_their_air() -> None:
    image = np.full((2, 24, 24), -1.5, np.float32)
    image[:, 6:18, 6:18] = np.random.default_rng(0).normal(0, 0.3, (2, 12, 12))
    shifted = body_mask(image)
    assert np.array_equal(shifted, body_mask(image + 1.5))
    assert shifted.mean() < 0.45


def test_gates_judge_by_this_very_function() -> None:
    assert gates.structure_term is structure.structure_term
    assert gates.body_mask is body_mask
