"""Philips' two kinds of values: rows hold display values, whichever kind a file has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from bids_files import found as bids
from dicom_files import volumes, write_slices
from mri_files import block, write_nifti
from reading import scanned

from augengine.io.folders import NiftiReader
from augengine.io.layouts import open_layout
from augengine.io.philips import display_factor
from augengine.io.sources import SourceOptions

FLOATING = {
    "Manufacturer": "Philips",
    "PhilipsRescaleSlope": 2,
    "PhilipsRescaleIntercept": 0,
    "PhilipsScaleSlope": 0.004,
    "UsePhilipsFloatNotDisplayScaling": 1,
}
DISPLAYED = {**FLOATING, "UsePhilipsFloatNotDisplayScaling": 0}
NO_SLOPE = {key: value for key, value in FLOATING.items() if key != "PhilipsScaleSlope"}


def dicom(folder: Path, private: bool = True) -> None:
    """Stored values with a rescale slope of 2, and the private scale slope 0.004."""
    for path in write_slices(folder, block(), RescaleSlope="2", Manufacturer="Philips"):
        if private:
            header = pydicom.dcmread(path)
            own = header.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
            own.add_new(0x0E, "FL", 0.004)
            header.save_as(path)


@pytest.mark.parametrize("private", [True, False])
def test_dicom_has_display_values_with_and_without_the_private_tag(tmp_path: Path, private: bool) -> None:
    dicom(tmp_path / "p", private)
    (volume,) = volumes(tmp_path)
    np.testing.assert_array_equal(volume.sample.image[0], block() * 2.0)
    assert any("display values" in note for note in volume.notes) == private


@pytest.mark.parametrize("layout", ["nifti", "bids"])
@pytest.mark.parametrize(
    ("sidecar", "per_display", "note"),
    [
        (FLOATING, 1 / (2 * 0.004), "times 0.008 are display values"),
        (DISPLAYED, 1.0, None),
        ({"Manufacturer": "Philips"}, 1.0, "no sidecar says"),
        ({"Manufacturer": "GE"}, 1.0, None),
    ],
    ids=["floating", "display", "silent", "other"],
)
def test_nifti_of_dcm2niix(
    tmp_path: Path, layout: str, sidecar: dict[str, Any], per_display: float, note: str | None
) -> None:
    """Stored 100 is 200 as a display value and 25000 as a floating-point one: rows hold 200 either way."""
    name = "sub-01/anat/sub-01_T1w" if layout == "bids" else "scan"
    write_nifti(tmp_path / f"{name}.nii.gz", (block() * 2.0 * per_display).astype(np.float32))
    (tmp_path / f"{name}.json").write_text(json.dumps(sidecar))
    reader, _ = open_layout(tmp_path, layout, SourceOptions(public_ids=True))
    (source,) = scanned(reader)
    np.testing.assert_allclose(reader.read(source).sample.image[0], block() * 2.0, rtol=1e-6)
    if layout == "nifti" and sidecar == {"Manufacturer": "Philips"}:
        note = None  # a file that says nothing of scales is none of the layout's
    assert [n for n in source.notes if "Philips" in n] == ([next(n for n in source.notes if note in n)] if note else [])


def test_floating_point_values_without_slopes_are_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "scan.nii.gz", block())
    (tmp_path / "scan.json").write_text(json.dumps(NO_SLOPE))
    (source,) = scanned(NiftiReader(tmp_path, SourceOptions()))
    assert "found PhilipsScaleSlope None; convert anew with dcm2niix -p n" in str(source.error)
    write_nifti(tmp_path / "b/sub-01/anat/sub-01_T1w.nii.gz", block())
    (tmp_path / "b/sub-01/anat/sub-01_T1w.json").write_text(json.dumps(NO_SLOPE))
    (source,) = bids(tmp_path / "b").values()
    assert "PhilipsScaleSlope" in str(source.error)


def test_a_sidecar_that_is_used_is_part_of_its_volume(tmp_path: Path) -> None:
    write_nifti(tmp_path / "scan.nii.gz", block())
    (tmp_path / "scan.json").write_text(json.dumps(FLOATING))
    (source,) = scanned(NiftiReader(tmp_path, SourceOptions()))
    assert sorted(source.files) == ["scan.json", "scan.nii.gz"]
    assert source.spec["factors"] == {"image": display_factor(FLOATING)[0]}
