"""Small files as scanners and archives write them: DICOM series, Enhanced multi-frame, NIfTI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

SECRETS = ("DOE^JANE", "HOSP-4711", "19700203", "General Hospital of Nowhere")


def block(shape: tuple[int, int, int] = (12, 10, 6), seed: int = 0) -> np.ndarray:
    """Pixels `(columns, rows, slices)`, uint16."""
    return np.random.default_rng(seed).integers(1, 900, shape).astype(np.uint16)


def header(series: str, **tags: Any) -> Dataset:
    """Tags of one MR image, identifiers included."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = MRImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.InstitutionName = SECRETS
    ds.StudyInstanceUID, ds.SeriesInstanceUID = series + ".9", series
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "MR", "SIEMENS", "Skyra"
    ds.MagneticFieldStrength, ds.ScanOptions = "3.0", ["PFP", "FS"]
    ds.RepetitionTime, ds.EchoTime, ds.FlipAngle, ds.SliceThickness = "4.1", "1.5", "10", "3"
    ds.ImageType, ds.ScanningSequence = ["ORIGINAL", "PRIMARY", "M", "ND"], "GR"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def write_series(
    folder: Path,
    pixels: np.ndarray,
    *,
    series: str = "1.2.826.0.1.77",
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    spacing: tuple[float, float] = (0.9, 0.8),
    origin: tuple[float, float, float] = (-30, -20, 5),
    step_mm: float = 3.0,
    skip: tuple[int, ...] = (),
    **tags: Any,
) -> list[Path]:
    """One classic file per slice; names run against the slice order. `spacing` is (between rows, between columns)."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    paths = []
    for k in range(pixels.shape[2]):
        if k in skip:
            continue
        ds = header(series, **tags)
        ds.InstanceNumber = k + 1
        ds.Rows, ds.Columns = pixels.shape[1], pixels.shape[0]
        ds.PixelSpacing = list(spacing)
        ds.ImageOrientationPatient = [f"{v:.10g}" for v in orientation]
        ds.ImagePositionPatient = [f"{v:.10g}" for v in np.array(origin) + normal * step_mm * k]
        ds.PixelData = np.ascontiguousarray(pixels[:, :, k].T).tobytes()
        paths.append(folder / f"1-{900 - k:03d}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def series_affine(
    orientation: tuple[float, ...], spacing: tuple[float, float], origin: tuple[float, ...], step_mm: float
) -> np.ndarray:
    """RAS affine of `write_series`, written out by hand."""
    affine = np.eye(4)
    affine[:3, 0] = np.array(orientation[:3]) * spacing[1]
    affine[:3, 1] = np.array(orientation[3:]) * spacing[0]
    affine[:3, 2] = np.cross(orientation[:3], orientation[3:]) * step_mm
    affine[:3, 3] = origin
    return np.diag([-1, -1, 1, 1]) @ affine


def write_enhanced(path: Path, pixels: np.ndarray, *, series: str = "1.2.826.0.1.99", **tags: Any) -> None:
    """One Enhanced MR file; frames run against the slice order, timing sits in functional groups only."""
    ds = header(series, **tags)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = EnhancedMRImageStorage
    for name in ("RepetitionTime", "EchoTime", "FlipAngle", "SliceThickness", "ScanOptions", "ScanningSequence"):
        delattr(ds, name)
    ds.Columns, ds.Rows, ds.NumberOfFrames = pixels.shape
    shared, timing, measures, orientation = Dataset(), Dataset(), Dataset(), Dataset()
    timing.RepetitionTime, timing.FlipAngle = 7.5, 12.0
    measures.PixelSpacing, measures.SliceThickness = [1.0, 1.0], 2.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.MRTimingAndRelatedParametersSequence = [timing]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames, order = [], list(range(pixels.shape[2]))[::-1]
    for k in order:
        frame, position, echo, transform = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 2.0 * k]
        echo.EffectiveEchoTime = 3.25
        transform.RescaleSlope, transform.RescaleIntercept = "2", "-5"
        frame.PlanePositionSequence, frame.MREchoSequence = [position], [echo]
        frame.PixelValueTransformationSequence = [transform]
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    ds.PixelData = np.ascontiguousarray(pixels[:, :, order].transpose(2, 1, 0)).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray | None = None, coded: bool = True) -> None:
    """NIfTI with (or without) a stated orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, np.diag([-1.0, -1.0, 1.0, 1.0]) if affine is None else affine)
    image.set_sform(image.affine, code=1 if coded else 0)
    image.set_qform(image.affine, code=0)
    nib.save(image, path)


def edit(path: Path, **tags: Any) -> None:
    """Change tags of a DICOM file in place."""
    ds = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(ds, name, value)
    ds.save_as(path)
