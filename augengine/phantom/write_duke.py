"""Phantom breast subjects in, a folder in the layout of TCIA's Duke-Breast-Cancer-MRI out: DICOM and mask NRRD.

What real Duke files do to a reader, these do too: GE and Siemens store opposite rows and columns, scan options
are multi-valued, Siemens pixels need their rescale intercept, masks name their codes only in the header, and
some of them swap the codes or keep two layers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import nrrd
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from augengine.acquisition_terms import same
from augengine.errors import ConfigError
from augengine.phantom.breast_anatomy import BreastAnatomy
from augengine.phantom.cohort import Cohort
from augengine.phantom.physics import GYROMAGNETIC_MHZ_PER_T
from augengine.phantom.protocols import SIEMENS, options
from augengine.records import Acquisition, Sample
from augengine.rng import digest

COLLECTION = "Duke-Breast-Cancer-MRI"
MASKS = "Segmentation_Masks_NRRD"
MAPPING = "Breast-Cancer-MRI-filepath_filename-mapping.csv"
STUDY, SERIES, SERIES_NUMBER = "MRI BREAST BILATERAL WWO", "ax dynamic pre", 26
MAX_SUBJECTS = 999
SIEMENS_OFFSET = 32  # stored = intensity + offset: a reader that forgets the rescale is caught
Layout = Literal["classic", "descriptive"]


def write_duke_subject(cohort: Cohort, index: int, folder: Path, layout: Layout = "classic") -> list[dict[str, str]]:
    """Write one subject's series and masks; returns its rows of the mapping file. Subjects are independent."""
    if index >= MAX_SUBJECTS:
        raise ConfigError(
            f"names in Duke's layout have three digits, so it holds {MAX_SUBJECTS} subjects", found=cohort.subjects
        )
    sample, anatomy = cohort.scan(index), cohort.anatomy(index)
    rows = []
    for number, dataset in enumerate(dicom_series(sample), start=1):
        classic, descriptive = _paths(dataset, number)
        target = folder / COLLECTION / (classic if layout == "classic" else descriptive).split("/", 1)[1]
        target.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        target.write_bytes(buffer.getvalue())
        subject = sample.subject_id
        rows.append(
            {
                "original_path_and_filename": f"DICOM_Images/{subject}/pre/{subject}_pre_{number:03d}.dcm",
                "classic_path": classic,
                "descriptive_path": descriptive,
            }
        )
    _write_masks(sample, anatomy, index, folder)
    return rows


def write_mapping(folder: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write the collection's mapping file from the rows of all subjects."""
    with (folder / MAPPING).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["original_path_and_filename", "classic_path", "descriptive_path"])
        writer.writeheader()
        writer.writerows(rows)


def dicom_series(sample: Sample) -> list[Dataset]:
    """A canonical volume (1, I, J, K) as MR Image Storage datasets, in the order of their instance numbers.

    GE: rows run to the left, columns to the back, first image at the head. Siemens: all three the other way.
    UIDs follow from the content, so equal volumes have equal files.
    """
    acquisition = sample.acquisition
    siemens = same("manufacturer", acquisition.manufacturer, SIEMENS)
    pixels = sample.image[0].transpose(1, 0, 2)  # rows along j, columns along i
    corner = np.array([0, 0, 0]) if siemens else np.array(sample.image.shape[1:]) - 1
    pixels = pixels if siemens else pixels[::-1, ::-1, ::-1]
    sign = 1 if siemens else -1
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ sample.affine
    spacing = sample.spacing_mm
    columns, rows = sign * lps[:3, 0] / spacing[0], sign * lps[:3, 1] / spacing[1]
    study = generate_uid(entropy_srcs=["study", sample.subject_id])
    content = digest(sample.volume_id, acquisition.to_dict(), float(sample.image.sum(dtype=np.float64)))
    series = generate_uid(entropy_srcs=["series", content])
    frame = generate_uid(entropy_srcs=["frame", sample.subject_id])
    out = []
    for number in range(1, pixels.shape[2] + 1):
        index = corner + np.array([0, 0, sign * (number - 1)])
        ds = _header(sample, acquisition, siemens)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.SOPInstanceUID = generate_uid(entropy_srcs=["image", content, str(number)])
        ds.InstanceNumber = number
        ds.ImagePositionPatient = [round(float(v), 5) for v in (lps @ [*index, 1])[:3]]
        ds.ImageOrientationPatient = [round(float(v), 6) + 0.0 for v in (*columns, *rows)]
        ds.SliceLocation = round(float(ds.ImagePositionPatient[2]), 5)
        ds.PixelSpacing = [round(spacing[1], 6), round(spacing[0], 6)]
        ds.SpacingBetweenSlices = round(spacing[2], 6)
        stored = pixels[:, :, number - 1] + (SIEMENS_OFFSET if siemens else 0)
        ds.Rows, ds.Columns = stored.shape
        ds.PixelData = np.ascontiguousarray(stored, "<u2").tobytes()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        out.append(ds)
    return out


def _header(sample: Sample, acquisition: Acquisition, siemens: bool) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"] if siemens else ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.SOPClassUID = MRImageStorage
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "19900101"
    ds.StudyTime, ds.SeriesTime = "120000", "121500"
    ds.AcquisitionTime = ds.ContentTime = "121500"
    ds.AccessionNumber = ""
    ds.Modality = "MR"
    ds.Manufacturer = acquisition.manufacturer or ""
    ds.ReferringPhysicianName = ""
    ds.StudyDescription, ds.SeriesDescription = STUDY, SERIES
    ds.ManufacturerModelName = acquisition.model or ""
    ds.PatientName = ds.PatientID = sample.subject_id
    ds.PatientBirthDate, ds.PatientSex = "", "F"
    ds.BodyPartExamined = "BREAST"
    ds.ScanningSequence = "GR"
    ds.SequenceVariant = ["SP", "OSP"] if siemens else ["SS", "SP", "SK"]
    if options(acquisition):
        ds.ScanOptions = list(options(acquisition))
    ds.MRAcquisitionType = "3D"
    for keyword, value in (
        ("SliceThickness", acquisition.slice_thickness_mm),
        ("RepetitionTime", acquisition.repetition_time_ms),
        ("EchoTime", acquisition.echo_time_ms),
        ("MagneticFieldStrength", acquisition.field_strength_t),
        ("FlipAngle", acquisition.flip_angle_deg),
    ):
        if value is not None:
            setattr(ds, keyword, value)
    ds.NumberOfAverages = 1
    ds.ImagingFrequency = round((acquisition.field_strength_t or 1.5) * GYROMAGNETIC_MHZ_PER_T, 6)
    ds.ImagedNucleus = "1H"
    ds.EchoNumbers = 1
    ds.EchoTrainLength = 1
    # As in the table: GE feet first, the Trio family head first.
    ds.PatientPosition = "HFP" if siemens and acquisition.model != "Skyra" else "FFP"
    ds.SeriesNumber, ds.AcquisitionNumber = SERIES_NUMBER, 1
    ds.PositionReferenceIndicator = ""
    ds.StudyID = "1"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    brightest = int(sample.image.max())
    ds.WindowCenter, ds.WindowWidth = brightest // 2, max(1, brightest)
    if siemens:
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -SIEMENS_OFFSET, 1, "US"
    return ds


def _paths(ds: Dataset, number: int) -> tuple[str, str]:
    """Classic and descriptive path of one file; the numbers in descriptive names are the tails of the UIDs."""
    start = f"{COLLECTION}/{ds.PatientID}"
    study, series = str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID)
    name = f"1-{number:03d}.dcm"
    described = f"01-01-1990-NA-{STUDY}-{study[-5:]}/{SERIES_NUMBER}.000000-{SERIES}-{series[-5:]}"
    return f"{start}/{study}/{series}/{name}", f"{start}/{described}/{name}"


def _write_masks(sample: Sample, anatomy: BreastAnatomy, index: int, folder: Path) -> None:
    subject = sample.subject_id
    target = folder / MASKS / subject
    target.mkdir(parents=True, exist_ok=True)
    breast = anatomy.label() > 0
    dense_and_vessels = anatomy.dense_and_vessels()
    vessels, dense = dense_and_vessels == 1, dense_and_vessels == 2
    write_segmentation(
        target / f"Segmentation_{subject}_Breast.seg.nrrd", {"Breast": breast}, {"Breast": 1}, sample.affine
    )
    codes = {"Dense": 1, "Vessels": 2} if index % 10 == 5 else {"Vessels": 1, "Dense": 2}
    write_segmentation(
        target / f"Segmentation_{subject}_Dense_and_Vessels.seg.nrrd",
        {"Vessels": vessels, "Dense": dense},
        codes,
        sample.affine,
        layers=index % 10 == 8,
    )


def write_segmentation(
    path: Path, segments: dict[str, np.ndarray], codes: dict[str, int], affine: np.ndarray, *, layers: bool = False
) -> None:
    """A `.seg.nrrd` as 3D Slicer writes it: codes and layers are explained by SegmentN_* fields only.

    Args:
        path: the file.
        segments: name to bool (I, J, K) in the order of N.
        codes: name to code.
        affine: RAS+ affine of the segments.
        layers: one 3D layer for each segment (4-D file, each with code 1) instead of one shared layer.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    shape = next(iter(segments.values())).shape
    header: dict[str, object] = {"type": "unsigned char", "encoding": "gzip", "space": "left-posterior-superior"}
    directions = lps[:3, :3].T
    if layers:
        data = np.stack([mask.astype(np.uint8) for mask in segments.values()])
        header |= {
            "kinds": ["list", "domain", "domain", "domain"],
            "space directions": np.vstack([np.full(3, np.nan), directions]),
        }
    else:
        data = np.zeros(shape, np.uint8)
        for name, mask in segments.items():
            data[mask] = codes[name]
        header |= {"kinds": ["domain", "domain", "domain"], "space directions": directions}
    header["space origin"] = lps[:3, 3]
    extent = f"0 {shape[0] - 1} 0 {shape[1] - 1} 0 {shape[2] - 1}"
    for n, name in enumerate(segments):
        header |= {
            f"Segment{n}_ID": f"Segment_{n + 1}",
            f"Segment{n}_Name": name,
            f"Segment{n}_NameAutoGenerated": "0",
            f"Segment{n}_LabelValue": "1" if layers else str(codes[name]),
            f"Segment{n}_Layer": str(n) if layers else "0",
            f"Segment{n}_Extent": extent,
            f"Segment{n}_Tags": "Segmentation.Status:inprogress|",
        }
    header |= {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    nrrd.write(str(path), data, header, index_order="F")
