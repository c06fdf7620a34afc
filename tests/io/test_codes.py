"""Values of masks: whole codes, scales of editors, rounding of floats, and what is no code."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from augengine.errors import DataError
from augengine.io.codes import check_codes
from augengine.io.labels import SCHEMES
from augengine.io.mask_files import read_mask

LABELS = {"a": 1, "b": 3}


@pytest.fixture
def label() -> np.ndarray:
    values = np.zeros((12, 10, 6), np.uint8)
    values[2:6, 3:6, 2:4] = 1
    values[6:9, 3:6, 2:4] = 3
    return values


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "<i2", ">i2", "i4", "i8", "f2", "f4", ">f8"])
def test_every_number_type(label: np.ndarray, dtype: str) -> None:
    codes, notes = check_codes(np.asfortranarray(label.astype(dtype)), LABELS)
    np.testing.assert_array_equal(codes, label)
    assert codes.dtype == np.uint8
    assert notes == []


def test_a_mask_edited_as_floats_under_its_integer_header(tmp_path: Path) -> None:
    label = np.zeros((8, 8, 4), np.uint8)
    label[1:3], label[3:5], label[5:7] = 1, 2, 4
    first = nib.Nifti1Image(label, np.eye(4))
    edited = nib.Nifti1Image(first.get_fdata(), first.affine, first.header)  # as scripts do
    nib.save(edited, tmp_path / "seg.nii.gz")
    assert set(np.unique(nib.load(tmp_path / "seg.nii.gz").get_fdata())) - {0, 1, 2, 4}  # the file holds no whole codes
    mask = read_mask(tmp_path / "seg.nii.gz", SCHEMES["brats2021"])
    np.testing.assert_array_equal(mask.label, label)
    assert "taken as the nearest code" in mask.notes[-1]


@pytest.mark.parametrize("slope", [3 / 255, 4 / 255, 0.1, 1 / 3, 0.75])
def test_multiples_of_a_slope_within_half_a_step(label: np.ndarray, slope: float) -> None:
    codes, _ = check_codes(np.rint(label / slope).astype(np.uint8), LABELS, float(np.float32(slope)))
    np.testing.assert_array_equal(codes, label)


def test_the_intercept_counts(label: np.ndarray) -> None:
    codes, _ = check_codes(label.astype(np.int16) + 5, LABELS, 1.0, -5.0)
    np.testing.assert_array_equal(codes, label)


@pytest.mark.parametrize("direction", [0, 9])
def test_floats_beside_a_code(label: np.ndarray, direction: int) -> None:
    beside = np.nextafter(label.astype(np.float32), np.float32(direction)) * (label > 0)
    codes, notes = check_codes(beside, LABELS)  # 0.99999994 must not become 0
    np.testing.assert_array_equal(codes, label)
    assert notes == ["mask: values off by rounding were taken as the nearest code"]


def test_nan_is_background_and_infinity_is_not(label: np.ndarray) -> None:
    values = np.where(label > 0, label, np.nan).astype(np.float32)
    codes, notes = check_codes(values, LABELS)
    np.testing.assert_array_equal(codes, label)
    assert notes == ["mask: NaN was taken as background"]
    values[0, 0, 0] = np.inf
    with pytest.raises(DataError, match=r"whole codes.*inf"):
        check_codes(values, LABELS)


@pytest.mark.parametrize(
    ("stored", "slope"),
    [
        (np.array([0, 0.5, 1]), 1.0),
        (np.array([0, 0.999]), 1.0),  # an interpolated mask
        (np.array([0, 128, 255], np.uint8), 1 / 255),  # a map of probabilities in 8 bits
        (np.array([0, 1, 2], np.uint8), 0.5),
        (np.array([0, 1, 2], np.uint8), 0.75),
        (np.array([0, 1], np.uint8), 1.5),
    ],
)
def test_fractions_stay_an_error(stored: np.ndarray, slope: float) -> None:
    with pytest.raises(DataError, match=r"whole codes.*threshold a map of probabilities"):
        check_codes(stored, {"a": 1, "b": 2}, slope)


@pytest.mark.parametrize("value", [2, -1, 257, -255, 1035])
def test_codes_without_a_name_are_never_wrapped_into_one(value: int) -> None:
    mask = np.zeros((2, 2, 2), np.int16)
    mask[0] = value
    with pytest.raises(DataError, match=rf"must be those of the stated labels \(a=1, b=3\).*\[{value}\].*--labels"):
        check_codes(mask, LABELS)


def test_booleans_and_what_is_no_number() -> None:
    assert check_codes(np.array([True, False]), {"a": 1})[0].tolist() == [1, 0]
    with pytest.raises(DataError, match="holds numbers"):
        check_codes(np.array([1j]), {"a": 1})
