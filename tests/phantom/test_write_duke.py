"""DICOM and masks of the Duke layout come back with the geometry, the pixels and the names that went in."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import nrrd
import numpy as np
import pydicom
import pytest

from augengine.phantom.cohort import Cohort
from augengine.phantom.write import write
from augengine.phantom.write_duke import dicom_series
from augengine.records import Sample

COHORT = Cohort(subjects=10, seed=3, matrix=64, slices=4, siemens_fraction=0.5, lesion_fraction=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("duke")
    write(COHORT, path, "duke-classic")
    return path


def read_back(datasets: list[pydicom.Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (columns, rows, slices) and RAS affine, from the headers alone."""
    datasets = sorted(datasets, key=lambda d: float(d.ImagePositionPatient[2]))
    slope = [float(d.get("RescaleSlope", 1)) for d in datasets]
    intercept = [float(d.get("RescaleIntercept", 0)) for d in datasets]
    pixels = np.stack([d.pixel_array.T * s + i for d, s, i in zip(datasets, slope, intercept, strict=True)], axis=-1)
    first, last = datasets[0], datasets[-1]
    orientation = np.array(first.ImageOrientationPatient, float)
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * float(first.PixelSpacing[1])
    affine[:3, 1] = orientation[3:] * float(first.PixelSpacing[0])
    start, end = (np.array(d.ImagePositionPatient, float) for d in (first, last))
    affine[:3, 2] = (end - start) / (len(datasets) - 1)
    affine[:3, 3] = start
    return pixels, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def at_world(pixels: np.ndarray, affine: np.ndarray, sample: Sample) -> np.ndarray:
    """`pixels` looked up at the world positions of the sample's voxels."""
    index = np.indices(sample.image.shape[1:]).reshape(3, -1)
    world = sample.affine @ np.vstack([index, np.ones(index.shape[1])])
    there = (np.linalg.inv(affine) @ world)[:3]
    assert np.abs(there - np.rint(there)).max() < 0.01
    return pixels[tuple(np.rint(there).astype(int))].reshape(sample.image.shape[1:])


def test_files_come_back_through_pydicom(folder: Path) -> None:
    series = defaultdict(list)
    for path in (folder / "Duke-Breast-Cancer-MRI").rglob("*.dcm"):
        ds = pydicom.dcmread(path)
        assert ds.file_meta.MediaStorageSOPClassUID == pydicom.uid.MRImageStorage
        assert path.parts[-4:-1] == (ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID)
        series[str(ds.PatientID)].append(ds)
    assert len(series) == 10
    directions = defaultdict(set)
    for i in range(10):
        sample, datasets = COHORT.scan(i), series[COHORT.subject_id(i)]
        assert len(datasets) == 4
        pixels, affine = read_back(datasets)
        assert np.array_equal(at_world(pixels, affine, sample), sample.image[0])
        head, a = datasets[0], sample.acquisition
        written = "\\".join([head.ScanOptions] if isinstance(head.ScanOptions, str) else head.ScanOptions)
        assert written == a.scan_options
        assert (head.Manufacturer, head.ManufacturerModelName) == (a.manufacturer, a.model)
        numbers = (head.EchoTime, head.RepetitionTime, head.FlipAngle, head.SliceThickness, head.MagneticFieldStrength)
        assert [float(n) for n in numbers] == [
            a.echo_time_ms,
            a.repetition_time_ms,
            a.flip_angle_deg,
            a.slice_thickness_mm,
            a.field_strength_t,
        ]
        directions[a.manufacturer].add(float(head.ImageOrientationPatient[0]))
    assert directions == {"GE MEDICAL SYSTEMS": {1.0}, "SIEMENS": {-1.0}}


def test_uids_follow_from_the_content() -> None:
    first, again, other = (dicom_series(COHORT.scan(i)) for i in (0, 0, 1))
    assert [d.SOPInstanceUID for d in first] == [d.SOPInstanceUID for d in again]
    uids = [d.SOPInstanceUID for d in first + other]
    assert len(set(uids)) == len(uids)
    assert first[0].SeriesInstanceUID != other[0].SeriesInstanceUID


def test_descriptive_layout_holds_the_same_files(folder: Path, tmp_path: Path) -> None:
    write(COHORT, tmp_path, "duke-descriptive", subjects=[0])
    found = sorted((tmp_path / "Duke-Breast-Cancer-MRI" / "Breast_MRI_001").rglob("*.dcm"))
    assert [p.name for p in found] == [f"1-{n:03d}.dcm" for n in range(1, 5)]
    assert found[0].parent.name.startswith("26.000000-ax dynamic pre-")
    assert found[0].parent.parent.name.startswith("01-01-1990-NA-MRI BREAST BILATERAL WWO-")
    classic = sorted((folder / "Duke-Breast-Cancer-MRI" / "Breast_MRI_001").rglob("*.dcm"))
    assert [p.read_bytes() for p in found] == [p.read_bytes() for p in classic]


def test_mapping_file_names_existing_files(folder: Path) -> None:
    lines = (folder / "Breast-Cancer-MRI-filepath_filename-mapping.csv").read_text().splitlines()
    assert lines[0] == "original_path_and_filename,classic_path,descriptive_path"
    assert len(lines) == 41
    original, classic, _ = lines[1].split(",")
    assert original == "DICOM_Images/Breast_MRI_001/pre/Breast_MRI_001_pre_001.dcm"
    assert (folder / classic).is_file()


def test_masks_are_understood_by_names_alone(folder: Path) -> None:
    codes, kinds = set(), set()
    for i in range(10):
        sample, subject = COHORT.scan(i), COHORT.subject_id(i)
        start = folder / "Segmentation_Masks_NRRD" / subject / f"Segmentation_{subject}"
        breast, header = nrrd.read(f"{start}_Breast.seg.nrrd")
        assert header["Segment0_Name"] == "Breast"
        assert sample.label is not None
        assert np.array_equal(breast > 0, sample.label > 0)
        data, header = nrrd.read(f"{start}_Dense_and_Vessels.seg.nrrd")
        n = next(n for n in (0, 1) if header[f"Segment{n}_Name"] == "Dense")
        code, layer = int(header[f"Segment{n}_LabelValue"]), int(header[f"Segment{n}_Layer"])
        dense = (data[layer] if data.ndim == 4 else data) == code
        assert np.array_equal(dense, sample.label == 2)
        codes.add(code)
        kinds.add(data.ndim)
        directions = np.asarray(header["space directions"], float)[-3:]
        lps = np.diag([-1.0, -1.0, 1.0]) @ sample.affine[:3]
        assert header["space"] == "left-posterior-superior"
        assert np.allclose(directions.T, lps[:, :3])
        assert np.allclose(header["space origin"], lps[:, 3])
    assert codes == {1, 2}  # some subjects have them swapped
    assert kinds == {3, 4}
