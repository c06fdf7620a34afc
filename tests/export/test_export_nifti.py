"""NIfTI files: every reader places the voxels where the shard does."""

from __future__ import annotations

import io

import nibabel as nib
import numpy as np
import pytest
from export_cohorts import OBLIQUE

from augengine.errors import DataError
from augengine.export.nifti import check_grid, nifti_bytes, oriented


def loaded(content: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(__import__("gzip").decompress(content))


def test_affine_values_and_units_are_kept() -> None:
    array = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)
    image = loaded(nifti_bytes(array, OBLIQUE))
    assert np.abs(image.affine - OBLIQUE).max() <= 1e-5
    assert np.abs(image.get_qform() - OBLIQUE).max() <= 1e-4  # quaternions of float32
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.get_data_dtype() == np.uint16
    assert (np.asarray(image.dataobj) == array).all()


def test_a_slice_is_a_volume_of_one() -> None:
    image = loaded(nifti_bytes(np.ones((4, 3), np.uint8), OBLIQUE))
    assert image.shape == (4, 3, 1)
    assert image.header["dim"][0] == 3
    assert image.header.get_zooms() == pytest.approx((0.8, 1.1, 3.3))


def test_equal_input_gives_equal_bytes() -> None:
    array = np.ones((4, 3, 2), np.float32)
    assert nifti_bytes(array, OBLIQUE) == nifti_bytes(array.copy(), OBLIQUE.copy())


def test_shear_is_refused_and_rounding_is_not() -> None:
    sheared = OBLIQUE.copy()
    sheared[:3, 1] += 0.01 * sheared[:3, 0]
    with pytest.raises(DataError, match="right angles"):
        check_grid(sheared, (200, 200, 30), "x")
    check_grid(OBLIQUE.astype(np.float32).astype(float), (400, 400, 200), "x")


@pytest.mark.parametrize("target", ["LPS", "RAS", "SLA", "PIR"])
def test_another_orientation_moves_no_voxel(target: str) -> None:
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    (moved, channels), affine = oriented([array, np.stack([array, -array])], OBLIQUE, target)
    assert "".join(nib.aff2axcodes(affine)) == target
    assert (channels[0] == moved).all()
    for voxel in ((0, 0, 0), (3, 1, 5), (2, 4, 0)):
        world = OBLIQUE @ [*voxel, 1]
        there = np.rint(np.linalg.inv(affine) @ world)[:3].astype(int)
        assert moved[tuple(there)] == array[voxel]
        assert np.abs(affine @ [*there, 1] - world).max() < 1e-9


def test_a_slice_keeps_its_plane() -> None:
    """Of a slice that lies along other axes only the directions change, or it would be (1, J, K)."""
    sagittal = OBLIQUE[:, [1, 2, 0, 3]]
    array = np.arange(20).reshape(4, 5, 1)
    (moved,), affine = oriented([array], sagittal, "LPS")
    assert moved.shape == (4, 5, 1)
    assert set(nib.aff2axcodes(affine)) == set("LPS")
    assert moved[0, 0, 0] == array[3, 0, 0]  # P is flipped, S is not


def test_bytes_are_a_gzip_file_once() -> None:
    content = nifti_bytes(np.ones((2, 2, 2), np.uint8), OBLIQUE)
    assert content[:2] == b"\x1f\x8b"
    assert nib.Nifti1Image.from_stream(__import__("gzip").open(io.BytesIO(content))).shape == (2, 2, 2)
