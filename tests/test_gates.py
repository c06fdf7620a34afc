"""Gates: planted defects fail, honest contrast changes pass, and what cannot be measured fails."""

from __future__ import annotations

import numpy as np
import pytest
from builders import slice_sample
from scipy.ndimage import shift

from augengine.gates import MEASURES, run_gates
from augengine.policy.spec import GateSpec


def test_structure_ssim_allows_inverted_contrast_but_not_moved_edges() -> None:
    before = slice_sample(1, size=64)
    measure = MEASURES["structure_ssim"]
    inverted = before.replace(image=(800 - before.image) * 2.0)
    moved = before.replace(image=shift(before.image, (0, 9, 9), order=1))
    noise = before.replace(image=np.random.default_rng(0).normal(300, 90, before.image.shape).astype(np.float32))
    assert measure(before, before) == pytest.approx(1, abs=1e-6)
    assert measure(before, inverted.replace(image=inverted.image.astype(np.float32))) > 0.999
    assert measure(before, moved) < 0.7
    assert measure(before, noise) < 0.4


def test_changed_and_void_and_range() -> None:
    before = slice_sample(1, size=64)
    hole = before.image.copy()
    hole[:, 24:40, 24:40] = 0
    assert MEASURES["changed"](before, before) == 0
    assert (
        MEASURES["void_fraction"](before, before.replace(image=hole)) > 0.01 > MEASURES["void_fraction"](before, before)
    )
    assert MEASURES["out_of_range"](before, before.replace(image=before.image + 5000)) == 1
    assert MEASURES["out_of_range"](before, before) == 0


def test_what_cannot_be_measured_fails() -> None:
    before = slice_sample(1)
    broken = before.image.copy()
    broken[0, 0, 0] = np.nan
    (result,) = run_gates([GateSpec(name="changed", max=9.0)], before, before.replace(image=broken))
    assert not result.passed
    assert result.to_dict()["value"] is None
    (result,) = run_gates([GateSpec(name="changed", max=9.0)], before.replace(intensity_range=None), before)
    assert not result.passed


def test_bounds_are_kept_on_both_sides_and_named() -> None:
    before = slice_sample(1)
    after = before.replace(image=before.image + 67)  # a tenth of the intensity range
    value = MEASURES["changed"](before, after)
    assert value == pytest.approx(0.1)
    for spec, passes in (
        (GateSpec(name="changed", min=0.09, max=0.11), True),
        (GateSpec(name="changed", min=0.2), False),
    ):
        (result,) = run_gates([spec], before, after)
        assert result.passed is passes
    assert str(result) == "changed = 0.1, must be ≥ 0.2"
