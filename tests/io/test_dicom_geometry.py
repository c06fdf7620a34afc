"""Positions of slices: rounding is no gap, a gap is no rounding."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import block, errors, volumes, write_slices
from mri_files import series_affine

from augengine.io.dicom_frames import Frame, read_frames
from augengine.io.dicom_geometry import rounding_mm

OBLIQUE = (0.88721967, 0.29733548, -0.35275051, -0.10480381, 0.87451601, 0.47353762)


@pytest.mark.parametrize(
    ("step", "decimals"), [(1.25, 1), (0.65, 1), (0.955, 2), (1.0 / 3, 2), (2.2, 1), (2.5, 0), (3.0, 6)]
)
def test_rounded_positions_lie_on_their_line(tmp_path: Path, step: float, decimals: int) -> None:
    z = [round(step * k + 0.001, decimals) for k in range(20)]
    write_slices(tmp_path / "p", block((6, 5, 20)), positions=[(0, 0, f"{v:.{decimals}f}") for v in z])
    (volume,) = volumes(tmp_path)
    assert volume.sample.image.shape == (1, 6, 5, 20)
    most = 0.5 * 10.0**-decimals
    assert volume.sample.spacing_mm[2] == pytest.approx(step, abs=most / 8)
    places = volume.sample.affine[2, 3] + volume.sample.affine[2, 2] * np.arange(20)
    assert np.abs(places - step * np.arange(20)).max() <= most + 0.001
    off = np.abs(np.array(z) - step * np.arange(20)).max()
    assert bool(volume.notes) == (off > 0.012), volume.notes


def test_rounded_positions_of_an_oblique_stack(tmp_path: Path) -> None:
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    write_slices(
        tmp_path / "p",
        block((6, 5, 20)),
        orientation=OBLIQUE,
        positions=[[f"{v:.1f}" for v in np.array((-30, -20, 5)) + normal * 1.25 * k] for k in range(20)],
    )
    (volume,) = volumes(tmp_path)
    wanted = series_affine(OBLIQUE, (1, 1), (-30, -20, 5), 1.25)
    corners = np.array([[0, 0, 0, 1], [5, 4, 0, 1], [0, 0, 19, 1], [5, 4, 19, 1]]).T
    assert np.abs((volume.sample.affine - wanted) @ corners).max() < 0.06


def test_one_slice_that_is_off_bends_no_line(tmp_path: Path) -> None:
    z = [3.0 * k + (0.2 if k == 4 else 0) for k in range(12)]
    write_slices(tmp_path / "p", block((6, 5, 12)), positions=[(0, 0, v) for v in z])
    (volume,) = volumes(tmp_path)
    assert volume.sample.spacing_mm[2] == pytest.approx(3, abs=1e-6)
    assert volume.sample.affine[2, 3] == pytest.approx(0, abs=1e-6)
    assert any("up to 0.20 mm off an even 3 mm" in note for note in volume.notes)


@pytest.mark.parametrize(
    "z",
    [
        [0, 3, 6, 12, 15, 18],  # one is missing
        [0, 3, 6, 9.5, 12.5, 15.5],  # half a millimetre more is neither rounding nor a slice
        [0.0, 1.2, 2.5, 5.0, 6.2, 7.5],  # one is missing among rounded ones
        [0, 1, 3, 6, 10, 15],  # ever wider
    ],
)
def test_gaps_are_refused(tmp_path: Path, z: list[float]) -> None:
    write_slices(
        tmp_path / "p",
        block((6, 5, 6)),
        positions=[(0, 0, v) for v in z],
        per_slice=lambda k: {"InstanceNumber": k + (k > 2)},
    )
    (error,) = errors(tmp_path)
    assert "evenly spaced" in str(error)


def test_regular_positions_are_kept_to_the_last_bit(tmp_path: Path) -> None:
    write_slices(tmp_path / "p", block(), positions=[(0.1, -7.3, 5 + 3 * k) for k in range(6)])
    (volume,) = volumes(tmp_path)
    expected = np.diag([-1.0, -1, 3, 1])
    expected[:3, 3] = -0.1, 7.3, 5
    assert np.array_equal(volume.sample.affine, expected)
    assert volume.notes == []


def test_the_rounding_is_that_of_the_file(tmp_path: Path) -> None:
    def rounding(*places: tuple[object, ...]) -> float:
        paths = write_slices(tmp_path / "p", block((6, 5, len(places))), positions=places)
        frames: list[Frame] = [f for p in paths for f in read_frames(p).frames]
        return rounding_mm(frames)

    assert rounding((0, 0, "1.2"), (0, 0, "2")) == pytest.approx(0.1)
    assert rounding(("0.123", 0, "1.25"), (0, 0, "2.5")) == pytest.approx(0.01)
    assert rounding((0, 0, "1e-2"), (0, 0, "1.0e0")) == pytest.approx(0.01)
