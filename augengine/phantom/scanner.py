"""Manufacturer, model and field strength in, everything about a scanner that is not the signal equation out.

Vendors differ as a whole: coil layout, resolution, noise, receive gain and the evenness of fat saturation go
together. All numbers here are engineering estimates [E] chosen so that the two vendors of Duke are told apart
by their images, as the real ones are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from augengine.acquisition_terms import same
from augengine.phantom.protocols import SIEMENS, is_fat_saturated, options
from augengine.records import Acquisition

REFERENCE_VOXEL_MM3 = 0.9 * 0.9 * 2.0


@dataclass(frozen=True)
class Scanner:
    """What a scanner adds to the signal.

    Attributes:
        in_plane_mm: acquired voxel size in the plane.
        sharpness_mm: SD of the in-plane point spread.
        noise: SD of the noise at 1.5 T and the reference voxel, in units of the signal equation.
        full_scale: intensity that the brightest percent of the image is scaled to.
        coils: (x, y, reach) in mm of the receive elements, y from the front of the chest.
    """

    in_plane_mm: float
    sharpness_mm: float
    noise: float
    full_scale: float
    coils: tuple[tuple[float, float, float], ...]


_GE = Scanner(
    in_plane_mm=0.94,
    sharpness_mm=0.62,
    noise=0.0011,
    full_scale=2400.0,
    coils=((-165, 20, 75), (165, 20, 75), (-120, 100, 70), (120, 100, 70), (-50, 120, 70), (50, 120, 70)),
)
_SIEMENS = Scanner(
    in_plane_mm=0.74,
    sharpness_mm=0.95,
    noise=0.00075,
    full_scale=640.0,
    coils=((-60, 60, 120), (60, 60, 120), (0, 20, 110), (0, -210, 170)),
)
_AVANTO = Scanner(
    in_plane_mm=0.80,
    sharpness_mm=1.15,
    noise=0.0009,
    full_scale=420.0,
    coils=((-85, 20, 120), (85, 20, 120), (0, 40, 90)),
)


def scanner_of(acquisition: Acquisition) -> Scanner:
    """The scanner that a header describes; anything that is not Siemens counts as GE."""
    if not same("manufacturer", acquisition.manufacturer, SIEMENS):
        return _GE
    return _AVANTO if same("model", acquisition.model, "Avanto") else _SIEMENS


def noise_sigma(acquisition: Acquisition) -> float:
    """SD of the receiver noise in units of the signal equation, falling as 1 / (B0 * voxel volume)."""
    scanner = scanner_of(acquisition)
    thickness = acquisition.slice_thickness_mm or 2.0
    volume = scanner.in_plane_mm**2 * thickness
    return scanner.noise * (1.5 / (acquisition.field_strength_t or 1.5)) * (REFERENCE_VOXEL_MM3 / volume)


def receive_field(
    acquisition: Acquisition, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Coil sensitivity of mean about 1 at positions that broadcast to (I, J, K): root sum of squares of elements.

    At 3 T the transmit field adds its left-right shading of dielectric origin.
    """
    scanner = scanner_of(acquisition)
    sum_of_squares = np.zeros(np.broadcast_shapes(x_mm.shape, y_mm.shape, z_mm.shape), np.float32)
    shift = rng.normal(0, 6, (8, 3))
    strength = rng.normal(1, 0.08, 8)
    for (cx, cy, reach), (dx, dy, dz), gain in zip(scanner.coils, shift, strength, strict=False):
        r2 = (x_mm - cx - dx) ** 2 + (y_mm - cy - dy) ** 2 + (0.5 * (z_mm - dz)) ** 2
        sum_of_squares += (np.float32(gain) / (1 + r2 / np.float32(reach**2))) ** 2
    field = np.sqrt(sum_of_squares)
    high_field = (acquisition.field_strength_t or 1.5) > 2.0
    slope = rng.uniform(0.05, 0.25)
    if high_field:
        field = field * (1 + np.float32(slope) * np.tanh(x_mm / 120))
    return np.asarray(field / field.mean(), np.float32)


def fat_saturation_residual(acquisition: Acquisition, off_resonance_ppm: np.ndarray) -> np.ndarray:
    """eta(x): share of the fat signal left, 0.05 to 0.25 with fat saturation where B0 is good or bad; 1 without.

    "SFS" is the vendor's more even spectral saturation.
    """
    if not is_fat_saturated(acquisition):
        return np.ones_like(off_resonance_ppm)
    sensitivity = 0.7 if "SFS" in options(acquisition) else 1.0
    missed = np.clip(np.abs(off_resonance_ppm) * sensitivity / 1.2, 0, 1)
    return np.asarray(0.05 + 0.20 * missed * missed * (3 - 2 * missed), np.float32)


def slice_profile(thickness_mm: float, sub_spacing_mm: float, sub_slices: int) -> np.ndarray:
    """Weights (2 m + 1,) over sub-slices of a Gaussian profile whose full width at half maximum is the thickness."""
    sigma = thickness_mm / 2.3548 / sub_spacing_mm
    reach = sub_slices // 2 + 1
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum(), np.float32)
