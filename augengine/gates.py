"""Quality gates: a source row and its edit in, a measured value with pass or fail out. They fail closed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter

from augengine.policy.spec import GateSpec
from augengine.records import Sample

Measure = Callable[[Sample, Sample], float]


@dataclass(frozen=True)
class GateResult:
    """The value of one gate on one row, beside the bounds it had to keep."""

    name: str
    value: float
    min: float | None
    max: float | None
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON values; a value that is no number becomes None."""
        return {**asdict(self), "value": self.value if math.isfinite(self.value) else None}

    def __str__(self) -> str:
        bound = " and ".join(f"{s} {b:g}" for s, b in (("≥", self.min), ("≤", self.max)) if b is not None)
        return f"{self.name} = {self.value:.4g}, must be {bound}"


def run_gates(specs: Sequence[GateSpec], before: Sample, after: Sample) -> list[GateResult]:
    """Measure every gate. A value that is NaN or infinite fails."""
    results = []
    for spec in specs:
        value = float(MEASURES[spec.name](before, after)) if np.isfinite(after.image).all() else math.nan
        passed = (
            math.isfinite(value) and (spec.min is None or value >= spec.min) and (spec.max is None or value <= spec.max)
        )
        results.append(GateResult(spec.name, value, spec.min, spec.max, passed))
    return results


def body_mask(image: np.ndarray) -> np.ndarray:
    """Boolean mask `(*spatial)` of what is not air: above 5% of the robust maximum after light smoothing."""
    smooth = uniform_filter(np.abs(image).max(axis=0), 3)
    return np.asarray(smooth > 0.05 * np.percentile(smooth, 99.5))


def structure_ssim(before: Sample, after: Sample) -> float:
    """Mean |structure| term of SSIM inside the body, 0…1: are the edges where they were?

    The luminance and contrast terms are left out and the sign is dropped, because another acquisition may
    brighten, darken or invert a tissue without moving it. Windows of 7 voxels; Wang et al. 2004, eq. 10.
    """
    return structure_term(before.image, after.image, body_mask(before.image))


def structure_term(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> float:
    """|covariance| / (deviation · deviation) of 7-voxel windows of `(C, *spatial)` arrays, mean over `mask`.

    Windows in which the first image is flat (below 2% of its range) hold noise only and are left out.
    """
    size = (1,) + (7,) * (x.ndim - 1)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = uniform_filter(x64, size), uniform_filter(y64, size)
    var_x = (uniform_filter(x64**2, size) - mean_x**2).clip(min=0)
    var_y = (uniform_filter(y64**2, size) - mean_y**2).clip(min=0)
    covariance = uniform_filter(x64 * y64, size) - mean_x * mean_y
    textured = mask & (np.sqrt(var_x) > 0.02 * np.ptp(x64)).any(axis=0)
    if not textured.any():
        return math.nan
    eps = 1e-6 * np.ptp(y64) ** 2 + 1e-12
    structure = (np.abs(covariance) + eps) / (np.sqrt(var_x * var_y) + eps)
    return float(structure[:, textured].mean())


def out_of_range(before: Sample, after: Sample) -> float:
    """Fraction of voxels outside −0.5…3 on the normalised scale (10th percentile 0, 99th 1 of the source volume)."""
    if before.intensity_range is None:
        return math.nan
    low, high = before.intensity_range
    normalised = (after.image - low) / (high - low)
    return float(((normalised < -0.5) | (normalised > 3)).mean())


def changed(before: Sample, after: Sample) -> float:
    """Mean absolute difference in the body, in units of the source's intensity range: did the edit do anything?"""
    if before.intensity_range is None:
        return math.nan
    low, high = before.intensity_range
    mask = body_mask(before.image)
    return float(np.abs(after.image - before.image)[:, mask].mean() / (high - low)) if mask.any() else math.nan


def void_fraction(before: Sample, after: Sample) -> float:
    """Fraction of the source's body that shows no signal after the edit."""
    mask = body_mask(before.image)
    return float((~body_mask(after.image))[mask].mean()) if mask.any() else math.nan


MEASURES: dict[str, Measure] = {
    measure.__name__: measure for measure in (structure_ssim, out_of_range, changed, void_fraction)
}
