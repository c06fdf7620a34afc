"""Smooth random fields deviate by one and change over the length that was asked for, in any number of axes."""

from __future__ import annotations

import numpy as np
import pytest

from augengine.random_fields import smooth_field


@pytest.mark.parametrize(("shape", "spacing_mm"), [((96, 80), (0.5, 0.5)), ((64, 48, 20), (1.0, 1.0, 5.0))])
@pytest.mark.parametrize("length_mm", [1.0, 8.0])
def test_a_field_has_deviation_one_and_its_length(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], length_mm: float
) -> None:
    fields = [smooth_field(np.random.default_rng(seed), shape, spacing_mm, length_mm) for seed in range(12)]
    assert fields[0].shape == shape
    assert fields[0].dtype == np.float32
    assert np.mean([f.std() for f in fields]) == pytest.approx(1, rel=0.15)
    assert abs(np.mean(fields)) < 0.15
    near, far = (alike(fields, round(mm / spacing_mm[0])) for mm in (length_mm / 2, 3 * length_mm))
    assert near > 0.4, near
    assert abs(far) < 0.3, far


def alike(fields: list[np.ndarray], voxels: int) -> float:
    """Correlation of voxels so far apart along the first axis."""
    voxels = max(1, voxels)
    pairs = [(f[:-voxels].ravel(), f[voxels:].ravel()) for f in fields]
    return float(np.corrcoef(*(np.concatenate(side) for side in zip(*pairs, strict=True)))[0, 1])
