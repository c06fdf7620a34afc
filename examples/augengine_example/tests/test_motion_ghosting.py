"""The edit is what it says: a modulation of k-space, bounded in every voxel; and the gate measures it."""

from __future__ import annotations

import numpy as np
import pytest
from augengine_example.ghost_level import GhostLevel
from augengine_example.motion_ghosting import MotionGhosting, MotionParams, ghosted

from augengine.contracts.samples import SAMPLES
from augengine.edits.base import Context, Skip
from augengine.gates import Case, Tools

IMAGE = SAMPLES[0].image


@pytest.mark.parametrize("axis", [0, 1])
def test_it_is_a_modulation_of_the_lines_of_k_space(axis: int) -> None:
    lines = np.arange(IMAGE.shape[1 + axis]).reshape([-1 if a == axis else 1 for a in range(2)])
    factor = 1 + 0.2 * np.cos(2 * np.pi * 7 * lines / lines.size + 0.4)
    signal = np.fft.fft(IMAGE, axis=1 + axis) * factor
    expected = np.abs(np.fft.ifft(signal, axis=1 + axis))
    np.testing.assert_allclose(ghosted(IMAGE, axis, 0.2, 7, -0.4), expected, atol=1e-3)


def test_no_voxel_changes_by_more_than_the_depth_of_its_line() -> None:
    found = ghosted(IMAGE, 1, 0.2, 9, 1.0)
    bound = 0.2 * IMAGE.max(axis=2, keepdims=True)
    assert (np.abs(found - IMAGE) <= bound + 1e-3).all()
    assert (np.abs(found - IMAGE) > bound / 4).any()


def test_the_gate_rises_with_the_depth_and_says_nothing_without_air() -> None:
    gate, sample = GhostLevel(), SAMPLES[0]
    levels = [
        gate.value(Case(sample, sample.replace(image=ghosted(IMAGE, 0, depth, 10, 0.0))), Tools())
        for depth in (0.0, 0.1, 0.3)
    ]
    assert levels[0] == 0
    assert levels == sorted(levels)
    assert levels[2] > 0.005
    body = sample.replace(image=np.full_like(IMAGE, 300.0))
    assert np.isnan(gate.value(Case(body, body), Tools()))


def test_an_image_with_negative_values_is_skipped() -> None:
    rng = np.random.default_rng(0)
    found = MotionGhosting().plan(SAMPLES[0].replace(image=IMAGE - 1), MotionParams(), rng, Context())
    assert isinstance(found, Skip)
