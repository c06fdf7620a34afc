"""A DICOM file goes in; its frames (geometry, allow-listed acquisition values, reason to refuse) and pixels come out.

Classic files hold one frame. Enhanced multi-frame files hold many, whose positions, TR, TE and flip angle sit
in functional groups; both become the same `Frame`.

Refused, with the reason: objects that are not MR images, colour images, phase images, Siemens mosaics (one
frame tiles a whole volume: its slices are not where the header says), and echo-planar series (fMRI, diffusion:
distorted, low-resolution time series are no training images for structural edits), unless allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from augengine.errors import DataError
from augengine.records import Acquisition

NOT_MR = "only MR images can be ingested"
MOSAIC = "a mosaic tiles a whole volume into one frame; it is not a volume for this purpose"
ECHO_PLANAR = "echo-planar series (fMRI, diffusion) are not ingested unless --allow-echo-planar is given"
PHASE = "phase images are not magnitude images"
COLOUR = "only MONOCHROME2 images with one sample per pixel can be ingested"
NO_GEOMETRY = "position, orientation and pixel spacing must be stated"

# Nothing else of a header is looked at, bar the functional groups.
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "PatientID", "Modality", "SeriesDescription",
    "SeriesNumber", "SeriesTime", "AcquisitionTime", "InstanceNumber", "ImageType", "ScanningSequence",
    "EchoPlanarPulseSequence", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "TemporalPositionIdentifier",
    "RescaleSlope", "RescaleIntercept", "Manufacturer", "ManufacturerModelName", "MagneticFieldStrength",
    "ScanOptions", "FlipAngle", "SliceThickness", "EchoTime", "RepetitionTime", "InversionTime",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """One image of a series, without pixels. Geometry is in LPS mm as DICOM states it; None where refused."""

    path: Path
    index: int | None
    series: str
    patient: str
    description: str
    series_number: float
    time: float
    rows: int
    columns: int
    image_type: tuple[str, ...]
    temporal: str
    acquisition: Acquisition
    slope: float
    intercept: float
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    refusal: str | None

    @property
    def stack_key(self) -> tuple[Any, ...]:
        """Equal for frames that may stand in one volume: a mixed series is split by this."""
        rounded = tuple(np.round(self.orientation or (), 3) + 0.0)
        spacing = tuple(np.round(self.spacing or (), 4))
        a = self.acquisition
        return (
            self.series, self.patient, self.rows, self.columns, spacing, rounded, self.image_type, self.temporal,
            a.echo_time_ms, a.flip_angle_deg, a.inversion_time_ms, self.refusal,
        )  # fmt: skip


def read_frames(path: Path, allow_echo_planar: bool = False) -> list[Frame] | None:
    """Frames of one file, from its header alone; None if the file is no DICOM.

    Raises:
        DataError: a DICOM file whose header is cut off or lacks the series' identity.
    """
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom raises many unrelated classes for damaged files
        raise DataError("this DICOM file is damaged", found=type(error).__name__) from None
    return _frames(header, path, allow_echo_planar)


def read_pixels(path: Path, allow_echo_planar: bool = False) -> list[tuple[Frame, np.ndarray]]:
    """Every frame of a file with its stored pixels `(rows, columns)`; compressed transfer syntaxes are decoded.

    Raises:
        DataError: pixels missing, cut off or not decodable.
    """
    try:
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array
    except Exception as error:  # decoders raise many unrelated classes for damaged files
        raise DataError(
            "the pixels of a DICOM file cannot be decoded: it is cut off or damaged", found=type(error).__name__
        ) from None
    frames = _frames(dataset, path, allow_echo_planar)
    return [(frame, pixels if frame.index is None else pixels[frame.index]) for frame in frames]


def _frames(header: Any, path: Path, allow_echo_planar: bool) -> list[Frame]:
    if "SeriesInstanceUID" not in header or "Modality" not in header:
        raise DataError("a DICOM file must state modality and series", found="a header without them: it is cut off")
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        return [_frame(header, path, None, [], allow_echo_planar)]
    shared = header.get("SharedFunctionalGroupsSequence") or []
    single = len(groups) == 1
    return [
        _frame(header, path, None if single else n, [group, *shared], allow_echo_planar)
        for n, group in enumerate(groups)
    ]


def _frame(header: Any, path: Path, index: int | None, groups: list[Any], allow_echo_planar: bool) -> Frame:
    def value(keyword: str, sequence: str | None = None, enhanced: str | None = None) -> Any:
        """From the frame's functional groups, then the shared ones, then the top level."""
        for group in groups:
            for item in (group.get(sequence) or []) if sequence else []:
                found = item.get(enhanced or keyword)
                if found is not None and found != "":
                    return found
        return header.get(keyword)

    timing, echo, modifier = "MRTimingAndRelatedParametersSequence", "MREchoSequence", "MRModifierSequence"
    transform, measures = "PixelValueTransformationSequence", "PixelMeasuresSequence"
    image_type = texts(value("ImageType", "MRImageFrameTypeSequence", "FrameType"))
    position = numbers(value("ImagePositionPatient", "PlanePositionSequence"), 3)
    orientation = numbers(value("ImageOrientationPatient", "PlaneOrientationSequence"), 6)
    spacing = numbers(value("PixelSpacing", measures), 2)
    slope = number(value("RescaleSlope", transform))
    return Frame(
        path=path,
        index=index,
        series=str(header.SeriesInstanceUID),
        patient=str(header.get("PatientID") or "").strip(),
        description=str(header.get("SeriesDescription") or ""),
        series_number=number(header.get("SeriesNumber")) or 0.0,
        time=number(header.get("AcquisitionTime")) or number(header.get("SeriesTime")) or 0.0,
        rows=int(header.get("Rows") or 0),
        columns=int(header.get("Columns") or 0),
        image_type=image_type,
        temporal=str(value("TemporalPositionIdentifier", "FrameContentSequence", "TemporalPositionIndex") or ""),
        acquisition=Acquisition(
            manufacturer=text(header.get("Manufacturer")),
            model=text(header.get("ManufacturerModelName")),
            field_strength_t=number(header.get("MagneticFieldStrength")),
            scan_options="\\".join(texts(header.get("ScanOptions"))) or None,
            flip_angle_deg=number(value("FlipAngle", timing)),
            slice_thickness_mm=number(value("SliceThickness", measures)),
            echo_time_ms=number(value("EchoTime", echo, "EffectiveEchoTime")),
            repetition_time_ms=number(value("RepetitionTime", timing)),
            inversion_time_ms=number(value("InversionTime", modifier, "InversionTimes")),
        ),
        slope=1.0 if slope is None else slope,
        intercept=number(value("RescaleIntercept", transform)) or 0.0,
        position=position,
        orientation=orientation,
        spacing=spacing,
        refusal=_refusal(header, image_type, allow_echo_planar, bool(position and orientation and spacing)),
    )


def _refusal(header: Any, image_type: tuple[str, ...], allow_echo_planar: bool, geometry: bool) -> str | None:
    if header.get("Modality") != "MR":
        return f"{NOT_MR}; found modality {header.get('Modality') or 'none'}"
    if int(header.get("SamplesPerPixel") or 1) != 1 or header.get("PhotometricInterpretation") != "MONOCHROME2":
        return COLOUR
    if "MOSAIC" in image_type:
        return MOSAIC
    echo_planar = "EP" in texts(header.get("ScanningSequence")) or header.get("EchoPlanarPulseSequence") == "YES"
    if echo_planar and not allow_echo_planar:
        return ECHO_PLANAR
    if "P" in image_type[2:3] or "PHASE MAP" in image_type:
        return PHASE
    return None if geometry else NO_GEOMETRY


def texts(value: Any) -> tuple[str, ...]:
    """One or several values of a text attribute, in header order."""
    if value is None or value == "":
        return ()
    return tuple(str(v).strip() for v in ([value] if isinstance(value, str) else value))


def text(value: Any) -> str | None:
    """A text attribute; empty is None."""
    return str(value or "").strip() or None


def number(value: Any) -> float | None:
    """A numeric attribute (the first of several); empty or malformed is None."""
    try:
        first = value if isinstance(value, str | int | float) else next(iter(value))
        result = float(first)
    except (TypeError, ValueError, StopIteration):
        return None
    return result if np.isfinite(result) else None


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers, or None."""
    try:
        result = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        return None
    return result if len(result) == count and np.isfinite(result).all() else None
