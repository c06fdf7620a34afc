"""A breast anatomy and an acquisition in, the volume that the scanner would deliver out.

The same anatomy rendered with two acquisitions is a true counterfactual pair; rendered with and without its
lesion it is a true removal pair. Noise and coil field have their own seeds, so a pair shares them or not.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from augengine.errors import DataError
from augengine.phantom import physics, scanner
from augengine.phantom.breast_anatomy import LABELS, LESION_LABELS, SUB_SLICES, BreastAnatomy
from augengine.records import Acquisition, Sample
from augengine.rng import generator

MAX_INTENSITY = 4095  # 12 bits, as MR scanners deliver
_NEEDED = ("field_strength_t", "flip_angle_deg", "slice_thickness_mm", "echo_time_ms", "repetition_time_ms")


def render(
    anatomy: BreastAnatomy,
    acquisition: Acquisition,
    *,
    noise_seed: int,
    bias_seed: int,
    subject_id: str,
    volume_id: str | None = None,
    noise: bool = True,
    lesion_label: bool = False,
) -> Sample:
    """Scan a subject.

    Args:
        anatomy: the subject.
        acquisition: all numeric fields but the inversion time must be set.
        noise_seed: seed of the receiver noise.
        bias_seed: seed of the coil position; the coil layout itself follows the scanner.
        subject_id: written to the sample.
        volume_id: written to the sample; the subject's id by default.
        noise: False gives the noiseless truth.
        lesion_label: give the lesion its own code instead of fibroglandular tissue.

    Returns:
        A volume (1, I, J, K) of whole numbers from 0 to 4095, channel "t1", in RAS+ orientation.

    Raises:
        DataError: a needed acquisition parameter is not set.
    """
    for name in _NEEDED:
        if getattr(acquisition, name) is None:
            raise DataError(
                f"rendering needs {name}", found=acquisition.to_dict(), next_step="set it", where=subject_id
            )
    signal = noiseless_signal(anatomy, acquisition)
    x, y, z = _positions(anatomy)
    signal = signal * scanner.receive_field(acquisition, x, y, z, generator("coil field", bias_seed))
    gain = scanner.scanner_of(acquisition).full_scale / float(np.percentile(signal[::2, ::2], 99.5))
    if noise:
        signal = physics.add_rician_noise(signal, scanner.noise_sigma(acquisition), generator("noise", noise_seed))
    image = np.clip(np.rint(signal * gain), 0, MAX_INTENSITY).astype(np.float32)
    return Sample(
        image=image[None],
        affine=anatomy.affine.copy(),
        channels=("t1",),
        subject_id=subject_id,
        volume_id=volume_id or subject_id,
        label=anatomy.label(lesion_label=lesion_label),
        labels=LESION_LABELS if lesion_label and anatomy.lesion is not None else LABELS,
        acquisition=acquisition,
    )


def noiseless_signal(anatomy: BreastAnatomy, acquisition: Acquisition) -> np.ndarray:
    """Magnitude (I, J, K) in units of the signal equation, before coil field, noise and receive gain."""
    field, echo = acquisition.field_strength_t or 0.0, acquisition.echo_time_ms or 0.0
    water = np.zeros_like(anatomy.fractions["fat"])
    for name, fraction in anatomy.fractions.items():
        if name != "fat":
            water += fraction * np.float32(_tissue_signal(name, acquisition, anatomy.t1_scale.get(name, 1.0)))
    fat = anatomy.fractions["fat"] * np.float32(_tissue_signal("fat", acquisition, anatomy.t1_scale["fat"]))
    if anatomy.lesion is not None and anatomy.lesion_kind is not None:
        kind = anatomy.lesion_kind
        water *= 1 - anatomy.lesion
        fat *= 1 - anatomy.lesion
        water += anatomy.lesion * np.float32(_tissue_signal(kind, acquisition, anatomy.t1_scale[kind]))
    water, fat = (_point_spread(v, anatomy, acquisition) for v in (water, fat))
    eta = scanner.fat_saturation_residual(acquisition, anatomy.off_resonance_ppm)
    return np.asarray(physics.fat_water_signal(water, fat, eta, echo, field), np.float32)


def _tissue_signal(name: str, acquisition: Acquisition, t1_scale: float) -> float:
    return physics.tissue_gradient_echo(
        name,
        repetition_time_ms=acquisition.repetition_time_ms or 0.0,
        echo_time_ms=acquisition.echo_time_ms or 0.0,
        flip_angle_deg=acquisition.flip_angle_deg or 0.0,
        field_strength_t=acquisition.field_strength_t or 0.0,
        t1_scale=t1_scale,
    )


def _point_spread(values: np.ndarray, anatomy: BreastAnatomy, acquisition: Acquisition) -> np.ndarray:
    """Slice profile over the sub-slices, then the in-plane blur: (I, J, 3 K) to (I, J, K)."""
    voxel, spacing = anatomy.affine[0, 0], anatomy.affine[2, 2] / SUB_SLICES
    weights = scanner.slice_profile(acquisition.slice_thickness_mm or 0.0, spacing, SUB_SLICES)
    reach = weights.size // 2
    slices = values.shape[2] // SUB_SLICES
    centres = np.arange(slices) * SUB_SLICES + SUB_SLICES // 2
    out = np.zeros((*values.shape[:2], slices), np.float32)
    for offset, weight in zip(range(-reach, reach + 1), weights, strict=True):
        out += weight * values[:, :, np.clip(centres + offset, 0, values.shape[2] - 1)]
    sigma = scanner.scanner_of(acquisition).sharpness_mm / voxel
    return np.asarray(ndimage.gaussian_filter(out, sigma, axes=(0, 1), truncate=3.0))


def _positions(anatomy: BreastAnatomy) -> tuple[np.ndarray, ...]:
    """Broadcastable x, y, z in mm of the slice grid."""
    affine = anatomy.affine
    axes = np.ogrid[tuple(slice(n) for n in anatomy.tissue_label.shape)]
    return tuple((a * affine[d, d] + affine[d, 3]).astype(np.float32) for d, a in enumerate(axes))
