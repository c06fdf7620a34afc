"""The signal equations against closed forms and against measured spoiled-gradient-echo signals."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from augengine.phantom import physics
from augengine.phantom.tissues import SOURCES, TISSUES

MAIN_PEAK = ((-3.5, 1.0),)


def predicted(row: dict[str, str], t1_ms: float, s0: float, tr_ms: float, flip_scale: float = 1.0) -> np.ndarray:
    """Signals of one row; T2* decay is part of the measured s0."""
    flips = np.array(row["FA"].split(), float) * flip_scale
    return physics.spoiled_gradient_echo(
        s0, t1_ms, np.inf, repetition_time_ms=tr_ms, echo_time_ms=0.0, flip_angle_deg=flips
    )


def worst_errors(folder: Path, name: str, r1_unit_ms: float) -> np.ndarray:
    """Greatest error over the flip angles relative to the greatest signal, for each voxel of one table."""
    out = []
    with (folder / "A8_osipi_t1_csv" / f"t1_{name}_data.csv").open() as file:
        for row in csv.DictReader(file):
            measured = np.array(row["s"].split(), float)
            tr_ms = 1e3 * float(row["TR"].split()[0])
            found = predicted(row, r1_unit_ms / float(row["R1"]), float(row["s0"]), tr_ms)
            out.append(np.abs(found - measured).max() / measured.max())
    return np.array(out)


def test_measured_brain_signals(real_data: Path) -> None:
    # R1 in 1/s; three flip angles were fitted by two parameters, so what is left is noise of a few percent.
    errors = worst_errors(real_data, "brain", 1e3)
    assert len(errors) == 76
    assert np.median(errors) < 0.02
    assert errors.max() < 0.06


def test_digital_reference_object(real_data: Path) -> None:
    # QIBA's object is synthetic with known R1 (1/ms) and noise of SD 2 or 10 on signals of hundreds to thousands.
    errors = worst_errors(real_data, "quiba", 1.0)
    assert len(errors) == 45
    assert np.median(errors) < 0.006
    assert errors.max() < 0.035


def test_measured_prostate_signals_need_the_transmit_field(real_data: Path) -> None:
    errors = []
    with (real_data / "A8_osipi_t1_csv" / "t1_prostate_data.csv").open() as file:
        for row in csv.DictReader(file, skipinitialspace=True):
            measured = np.array(row["s"].split(), float)
            found = predicted(
                row, float(row["T1 nonlinear B1cor"]), float(row["s0 nonlinear B1cor"]), 20.0, float(row["B1"]) / 100
            )
            errors.append(np.abs(found - measured).max() / measured.max())
    assert np.median(errors) < 0.03
    assert max(errors) < 0.07


@pytest.mark.parametrize("t1_ms", [296.0, 1266.0, 4300.0])
def test_signal_peaks_at_the_ernst_angle(t1_ms: float) -> None:
    angles = np.linspace(0.2, 60, 6000)
    signal = physics.spoiled_gradient_echo(
        1.0, t1_ms, 30.0, repetition_time_ms=5.0, echo_time_ms=2.0, flip_angle_deg=angles
    )
    ernst = np.rad2deg(np.arccos(np.exp(-5.0 / t1_ms)))
    assert angles[np.argmax(signal)] == pytest.approx(ernst, abs=0.02)


def test_gradient_echo_limits() -> None:
    """Full recovery leaves PD sin(a); a quarter of T2* later the signal has fallen by exp(-1/4)."""
    long = physics.spoiled_gradient_echo(0.8, 500.0, 40.0, repetition_time_ms=1e5, echo_time_ms=0, flip_angle_deg=30)
    assert float(long) == pytest.approx(0.4)
    late = physics.spoiled_gradient_echo(0.8, 500.0, 40.0, repetition_time_ms=1e5, echo_time_ms=10, flip_angle_deg=30)
    assert float(late / long) == pytest.approx(np.exp(-0.25))


@pytest.mark.parametrize(("field_t", "opposed_ms"), [(1.5, 2.24), (3.0, 1.12)])
def test_opposed_and_in_phase_echo_times(field_t: float, opposed_ms: float) -> None:
    assert physics.fat_phasor(opposed_ms, field_t, MAIN_PEAK).real == pytest.approx(-1, abs=1e-3)
    assert physics.fat_phasor(2 * opposed_ms, field_t, MAIN_PEAK).real == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("echo_time_ms", "field_t", "low", "high"),
    [
        (2.232, 1.5, -1.0, -0.93),  # GE 1.5 T: -0.94 to -0.99
        (2.476, 1.5, -0.96, -0.93),
        (2.332, 3.0, 0.87, 0.97),  # GE 3 T: +0.65 to +0.88
        (2.416, 3.0, 0.86, 0.90),
        (2.568, 3.0, 0.58, 0.66),
        (1.44, 3.0, -0.63, -0.61),  # Siemens 3 T
        (1.36, 1.5, -0.34, -0.32),  # Siemens Avanto
    ],
)
def test_phase_at_duke_echo_times(echo_time_ms: float, field_t: float, low: float, high: float) -> None:
    assert low <= physics.fat_phasor(echo_time_ms, field_t, MAIN_PEAK).real <= high


def test_many_fat_peaks_start_in_phase_and_dephase() -> None:
    assert physics.fat_phasor(0.0, 3.0) == pytest.approx(1 + 0j)
    late = [abs(physics.fat_phasor(te, 3.0)) for te in np.linspace(1, 8, 50)]
    assert max(late) < 1
    # The main peak leads: the sum opposes water near the main peak's opposed echo time, but not fully.
    assert -1 < physics.fat_phasor(2.237, 1.5).real < -0.7


def test_fat_water_signal_cancels_when_opposed() -> None:
    te = 2.237
    share = abs(physics.fat_phasor(te, 1.5).real)
    mixed = physics.fat_water_signal(np.array(share), np.array(1.0), 1.0, te, 1.5)
    pure = physics.fat_water_signal(np.array(share), np.array(0.0), 1.0, te, 1.5)
    assert mixed < 0.2 * pure
    assert float(physics.fat_water_signal(np.array(0.3), np.array(0.5), 1.0, 0.0, 1.5)) == pytest.approx(0.8)


def test_flair_nulls_csf_and_keeps_oedema() -> None:
    flair = {
        name: float(
            physics.inversion_recovery(
                TISSUES[name].pd.value,
                TISSUES[name].t1_ms(1.5),
                TISSUES[name].t2_ms(1.5),
                repetition_time_ms=9000,
                echo_time_ms=120,
                inversion_time_ms=2500,
            )
        )
        for name in ("csf", "white_matter", "oedema")
    }
    assert flair["csf"] < 0.1 * flair["white_matter"]
    assert flair["oedema"] > 2 * flair["white_matter"]


def test_spin_echo_and_contrast_agent() -> None:
    echo = physics.spin_echo(0.7, 800.0, 100.0, repetition_time_ms=800 * np.log(2), echo_time_ms=100 * np.log(2))
    assert float(echo) == pytest.approx(0.7 / 4)
    assert physics.contrast_enhanced_t1_ms(1300, 0.0) == pytest.approx(1300)
    # 1/T1' = 1/1.3 s + 4.5 * 0.2 per s
    assert physics.contrast_enhanced_t1_ms(1300, 0.2) == pytest.approx(1e3 / (1 / 1.3 + 0.9))


def test_rician_noise_floor_and_spread() -> None:
    rng = np.random.default_rng(0)
    floor = physics.add_rician_noise(np.zeros(200_000, np.float32), 2.0, rng)
    assert floor.mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.01)  # Rayleigh
    high = physics.add_rician_noise(np.full(200_000, 100, np.float32), 2.0, rng)
    assert high.std() == pytest.approx(2.0, rel=0.02)


def test_tissue_table_keeps_marks_and_sources() -> None:
    for name, tissue in TISSUES.items():
        for value in (tissue.t1_15, tissue.t1_3, tissue.t2_15, tissue.t2_3, tissue.pd):
            assert value.mark in {"V", "S", "R", "E"}, name
            assert value.source in SOURCES, name
            assert (value.mark == "E") == (value.source == "estimate"), name
        assert tissue.t1_ms(1.5) == pytest.approx(tissue.t1_15.value)
        assert tissue.t1_ms(3.0) == pytest.approx(tissue.t1_3.value)
        assert tissue.t2_star_ms(3.0) <= tissue.t2_ms(3.0)
    assert TISSUES["fat"].t2_star_ms(3.0) == pytest.approx(36.4)
    assert 1266 < TISSUES["fibroglandular"].t1_ms(2.0) < 1445
