"""Relaxation times and scan parameters in, MR signal out: plain numpy functions that broadcast.

Times are ms, angles degrees, field strengths tesla; a signal is in units of the equilibrium magnetisation.
"""

from __future__ import annotations

import numpy as np

from augengine.phantom.tissues import TISSUES

GYROMAGNETIC_MHZ_PER_T = 42.577
# Hamilton et al. 2011, NMR Biomed 24:784 [S]: six proton peaks of human fat, as (ppm from water, share of signal).
# The published shifts are moved by -0.1 ppm so that the main (methylene) peak stands at -3.5 ppm.
FAT_PEAKS = ((-3.90, 0.087), (-3.50, 0.693), (-2.70, 0.128), (-2.04, 0.004), (-0.49, 0.039), (0.50, 0.048))
RELAXIVITY_PER_MMOL_S = 4.5  # r1 of gadolinium chelates, 1/(mmol/l)/s [R]


def spoiled_gradient_echo(
    pd: np.ndarray | float,
    t1_ms: np.ndarray | float,
    t2_star_ms: np.ndarray | float,
    *,
    repetition_time_ms: float,
    echo_time_ms: float,
    flip_angle_deg: np.ndarray | float,
) -> np.ndarray:
    """Steady state of a spoiled gradient echo: PD sin(a) (1-E1) / (1 - E1 cos(a)) exp(-TE/T2*), E1 = exp(-TR/T1)."""
    alpha = np.deg2rad(flip_angle_deg)
    e1 = np.exp(-repetition_time_ms / np.asarray(t1_ms))
    return np.asarray(pd * np.sin(alpha) * (1 - e1) / (1 - e1 * np.cos(alpha)) * np.exp(-echo_time_ms / t2_star_ms))


def fat_phasor(
    echo_time_ms: float, field_strength_t: float, peaks: tuple[tuple[float, float], ...] = FAT_PEAKS
) -> complex:
    """Sum of the fat peaks at the echo time, relative to water: sum_k a_k exp(i 2 pi df_k TE), |.| <= 1."""
    ppm, share = np.array(peaks).T
    cycles = ppm * GYROMAGNETIC_MHZ_PER_T * field_strength_t * echo_time_ms * 1e-3
    return complex(np.sum(share / share.sum() * np.exp(2j * np.pi * cycles)))


def fat_water_signal(
    water: np.ndarray, fat: np.ndarray, eta: np.ndarray | float, echo_time_ms: float, field_strength_t: float
) -> np.ndarray:
    """Magnitude of a voxel that holds both: |W + eta F sum_k a_k exp(i 2 pi df_k TE)|.

    `eta` is the share of the fat signal that fat saturation leaves: 1 without it, 0.05 to 0.25 with it.
    """
    phasor = fat_phasor(echo_time_ms, field_strength_t)
    residual = eta * fat
    return np.asarray(np.hypot(water + phasor.real * residual, phasor.imag * residual))


def spin_echo(
    pd: np.ndarray | float,
    t1_ms: np.ndarray | float,
    t2_ms: np.ndarray | float,
    *,
    repetition_time_ms: float,
    echo_time_ms: float,
) -> np.ndarray:
    """Spin echo with TE << TR: PD (1 - exp(-TR/T1)) exp(-TE/T2)."""
    return np.asarray(pd * (1 - np.exp(-repetition_time_ms / np.asarray(t1_ms))) * np.exp(-echo_time_ms / t2_ms))


def inversion_recovery(
    pd: np.ndarray | float,
    t1_ms: np.ndarray | float,
    t2_ms: np.ndarray | float,
    *,
    repetition_time_ms: float,
    echo_time_ms: float,
    inversion_time_ms: float,
) -> np.ndarray:
    """Magnitude after an inversion: PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2).

    FLAIR with a long TI that nulls CSF (TR 9000, TI 2500, TE 120 ms); T1 weighting with a short TI and TE.
    """
    t1 = np.asarray(t1_ms)
    recovered = 1 - 2 * np.exp(-inversion_time_ms / t1) + np.exp(-repetition_time_ms / t1)
    return np.asarray(pd * np.abs(recovered) * np.exp(-echo_time_ms / t2_ms))


def contrast_enhanced_t1_ms(t1_ms: float, concentration_mmol_l: float) -> float:
    """T1 after a contrast agent: 1/T1' = 1/T1 + r1 C."""
    return float(1 / (1 / t1_ms + RELAXIVITY_PER_MMOL_S * 1e-3 * concentration_mmol_l))


def tissue_gradient_echo(
    name: str,
    *,
    repetition_time_ms: float,
    echo_time_ms: float,
    flip_angle_deg: float,
    field_strength_t: float,
    t1_scale: float = 1.0,
) -> float:
    """Spoiled-gradient-echo signal of one tissue of the table; `t1_scale` is the subject's deviation from it."""
    tissue = TISSUES[name]
    return float(
        spoiled_gradient_echo(
            tissue.pd.value,
            tissue.t1_ms(field_strength_t) * t1_scale,
            tissue.t2_star_ms(field_strength_t),
            repetition_time_ms=repetition_time_ms,
            echo_time_ms=echo_time_ms,
            flip_angle_deg=flip_angle_deg,
        )
    )


def add_rician_noise(signal: np.ndarray, sigma: np.ndarray | float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of the signal with independent Gaussian noise of SD `sigma` in both receiver channels."""
    real = signal + sigma * rng.standard_normal(signal.shape, np.float32)
    imaginary = sigma * rng.standard_normal(signal.shape, np.float32)
    return np.asarray(np.hypot(real, imaginary))
