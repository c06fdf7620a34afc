"""One channel of a case in; its slices as MR images of DICOM, out. No names, dates or numbers but the case's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from augengine import __version__
from augengine.export.case import Case
from augengine.export.item import Item
from augengine.geometry import LPS_TO_RAS, spacing_mm
from augengine.rng import canonical_json

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
_DAY, _TIME = "19700101", "000000"


def uid(*parts: str) -> str:
    """A UID that follows from ids alone."""
    return str(generate_uid(entropy_srcs=["augengine", canonical_json(parts)]))


def instances(item: Item, array: np.ndarray, channel: str, number: int, licence: str | None) -> list[Any]:
    """MR images of one channel `(I, J, K)`, one for each k; columns run along i and rows along j."""
    values, slope, intercept = _stored(array)
    affine = LPS_TO_RAS @ item.affine
    size = spacing_mm(affine)
    direction = affine[:3, :3] / size
    found = []
    for k in range(array.shape[2]):
        dataset = _headed(item.case, channel, number, k, licence)
        place = affine[:3, 3] + k * affine[:3, 2]
        dataset.ImagePositionPatient = [_decimal(v) for v in place]
        dataset.ImageOrientationPatient = [_decimal(v) for v in (*direction[:, 0], *direction[:, 1])]
        dataset.PixelSpacing = [_decimal(size[1]), _decimal(size[0])]
        dataset.SpacingBetweenSlices = _decimal(size[2])
        dataset.SliceThickness = _decimal(item.case.acquisition.get("slice_thickness_mm") or size[2])
        plane = np.ascontiguousarray(values[:, :, k].T)
        dataset.Rows, dataset.Columns = plane.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, int(values.dtype == np.int16)
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = _decimal(slope), _decimal(intercept), "US"
        dataset.PixelData = plane.tobytes()
        found.append(dataset)
    return found


def _stored(array: np.ndarray) -> tuple[np.ndarray, float, float]:
    """16-bit values, slope and intercept; whole numbers as they are, others to 1/65535 of their range."""
    if array.dtype in (np.uint16, np.int16):
        return array, 1.0, 0.0
    low, high = float(array.min()), float(array.max())
    slope = float(_decimal((high - low) / 65535)) or 1.0
    intercept = float(_decimal(low))
    return np.rint((array.astype(np.float64) - intercept) / slope).clip(0, 65535).astype(np.uint16), slope, intercept


def _headed(case: Case, channel: str, number: int, k: int, licence: str | None) -> Any:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MR_IMAGE_STORAGE
    meta.MediaStorageSOPInstanceUID = uid("image", case.sample_id, channel, str(k))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = f"{case.subject_id}^", case.subject_id
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "written anew from pixels by augengine"
    dataset.StudyInstanceUID, dataset.StudyID = uid("study", case.subject_id, case.volume_id), ""
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = _DAY
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = _TIME
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.Modality, dataset.SeriesNumber = "MR", number + 1
    dataset.SeriesInstanceUID = uid("series", case.sample_id, channel)
    dataset.FrameOfReferenceUID = uid("frame", case.volume_id)
    dataset.PositionReferenceIndicator = ""
    dataset.InstanceNumber = k + 1
    _scanned(dataset, case)
    kind = "SYNTHETIC " if case.synthetic else ""
    dataset.SeriesDescription = f"{kind}{channel}"[:64]
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER", *(["SYNTHETIC"] if case.synthetic else [])]
    dataset.SyntheticData = "YES" if case.synthetic else "NO"
    made = f"synthetic image made from {case.parent} by policy {case.policy} ({case.policy_digest})"
    dataset.DerivationDescription = (made if case.synthetic else f"written by augengine {__version__}")[:1024]
    dataset.ContentQualification, dataset.BurnedInAnnotation = "RESEARCH", "NO"
    dataset.ImageComments = f"licence of the source data: {licence or 'not stated'}"
    return dataset


def _scanned(dataset: Any, case: Case) -> None:
    """How the image was acquired, or, of a synthetic one, is to look as if it were."""
    acquisition = case.acquisition
    dataset.Manufacturer = acquisition.get("manufacturer") or ""
    dataset.ManufacturerModelName = acquisition.get("model") or ""
    dataset.ScanningSequence, dataset.SequenceVariant = "RM", "NONE"
    dataset.ScanOptions = acquisition.get("scan_options") or ""
    dataset.MRAcquisitionType, dataset.EchoTrainLength = "", None
    for key, name in {
        "MagneticFieldStrength": "field_strength_t",
        "FlipAngle": "flip_angle_deg",
        "EchoTime": "echo_time_ms",
        "RepetitionTime": "repetition_time_ms",
        "InversionTime": "inversion_time_ms",
    }.items():
        value = acquisition.get(name)
        setattr(dataset, key, None if value is None else _decimal(value))


def _decimal(value: float) -> str:
    """The nearest text of DICOM's decimal strings, 16 characters at most."""
    for digits in range(16, 0, -1):
        text = f"{float(value):.{digits}g}"
        if len(text) <= 16:
            return text
    return "0"
