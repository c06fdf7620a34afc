"""A DICOM file goes in; its frames come out: geometry, allow-listed acquisition values, and why not to use them.

Classic files hold one frame. Enhanced multi-frame files hold many, whose positions, TR, TE and flip angle sit in
functional groups; both become the same `Frame`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augengine.errors import DataError
from augengine.io.dicom_header import FrameHeader, number, numbers, read_header, stated, text, texts
from augengine.io.dicom_kinds import NO_GEOMETRY, no_image, no_magnitude, refusal
from augengine.records import Acquisition

NO_DICOM, EMPTY = "no DICOM file", "an empty file"
_TIMING, _ECHO, _MODIFIER = "MRTimingAndRelatedParametersSequence", "MREchoSequence", "MRModifierSequence"
MAPPED = "intensities scaled by the real-world value mapping; no rescale slope is stated"
UNMAPPED = "the rescale slope was used; a real-world value mapping with other numbers was not"
DISPLAY = "Philips: display values (rescale slope alone); its private scale slope (2005,100E) was not used"
_CONTENT, _MEASURES = "FrameContentSequence", "PixelMeasuresSequence"


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a series, without pixels. Geometry is in LPS mm as DICOM states it; None where it does not.

    Attributes:
        index: of the frame in its file; None in a file of one frame.
        uid: of the image; two files with one uid are copies.
        day, second: when it was acquired.
        order: the place in the series that the scanner gave it.
        decimals: digits after the point with which the position is stated, one number for each of its components.
        named: why this is no magnitude image at all: it is left alone.
        refusal: why this image cannot be read: its volume fails.
        slice_by_slice: it was excited alone (MRAcquisitionType 2D), not as part of a slab.
        scaling: what else than the rescale slope has a say in its intensities, and what was done.
    """

    path: Path
    index: int | None
    uid: str
    study: str
    series: str
    patient: str
    description: str
    series_number: float
    acquisition_number: float | None
    day: int | None
    second: float | None
    trigger_ms: float | None
    order: int | None
    rows: int
    columns: int
    image_type: tuple[str, ...]
    temporal: str
    stack: str
    echo: float | None
    acquisition: Acquisition
    slice_by_slice: bool
    slope: float
    intercept: float
    scaling: str | None
    position: tuple[float, ...] | None
    decimals: tuple[int, ...]
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    gap_mm: float | None
    named: str | None
    refusal: str | None

    @property
    def moment(self) -> float | None:
        """Seconds of the day, or since the first day of the calendar where the day is stated, too."""
        return None if self.second is None else self.second + 86400.0 * (self.day or 0)


class NoSeriesError(DataError):
    """An image that does not say which series it is of; `place` is where it lies."""

    place: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Contents:
    """What a file holds: frames, or the reason why it holds none."""

    frames: tuple[Frame, ...] = ()
    reason: str | None = None


def read_frames(path: Path, allow_echo_planar: bool = False) -> Contents:
    """Frames of one file, from its header alone.

    Raises:
        OSError: a file that cannot be opened.
        DataError: a DICOM file whose header is damaged or cut off.
    """
    header = read_header(path)
    if header is None:
        return Contents(reason=EMPTY if path.stat().st_size == 0 else NO_DICOM)
    try:
        return frames_of(header, path, allow_echo_planar)
    except DataError:
        raise
    except Exception as error:  # values that are not what their VR says raise many unrelated classes
        raise DataError("this DICOM file is damaged", found=type(error).__name__) from None


def frames_of(header: Any, path: Path, allow_echo_planar: bool = False) -> Contents:
    """Frames of a data set. Raises DataError if its header is cut off, `NoSeriesError` if its UIDs were removed."""
    reason = no_image(header)
    if reason is not None:
        return Contents(reason=reason)
    missing = [k for k in ("SeriesInstanceUID", "Modality", "Rows", "Columns") if not stated(header, k)]
    if missing == ["SeriesInstanceUID"]:  # what stands behind it in the file is there
        error = NoSeriesError(
            "a DICOM image must say which series it is of",
            found="no SeriesInstanceUID, as after de-identification",
            next_step="de-identify anew and replace UIDs instead of removing them (PS3.15, Retain UIDs, or new ones)",
        )
        error.place = numbers(stated(header, "ImagePositionPatient"), 3)
        raise error
    if missing:
        cut = f"a header without {missing[0]}: it is cut off"
        raise DataError("a DICOM image must state modality, series and matrix", found=cut)
    groups = stated(header, "PerFrameFunctionalGroupsSequence")
    if not groups:
        return Contents((_frame(FrameHeader(header), path, None, allow_echo_planar),))
    shared = stated(header, "SharedFunctionalGroupsSequence") or []
    single = len(groups) == 1
    return Contents(
        tuple(
            _frame(FrameHeader(header, [group, *shared]), path, None if single else n, allow_echo_planar)
            for n, group in enumerate(groups)
        )
    )


def _frame(header: FrameHeader, path: Path, index: int | None, allow_echo_planar: bool) -> Frame:
    top, get, setting = header.top, header.get, header.setting
    image_type = texts(get("ImageType", "MRImageFrameTypeSequence", "FrameType"))
    place = get("ImagePositionPatient", "PlanePositionSequence")
    position = numbers(place, 3)
    orientation = numbers(get("ImageOrientationPatient", "PlaneOrientationSequence"), 6)
    spacing = numbers(get("PixelSpacing", _MEASURES), 2)
    slope, intercept, scaling = _scale(header)
    day, second = header.moment()
    named = no_magnitude(header, image_type)
    why = None
    if named is None:
        why = refusal(header, image_type, allow_echo_planar)
        why = why or (None if position and orientation and spacing else NO_GEOMETRY)
    order = number(get("InstanceNumber")) if index is None else index + 1
    uid = str(get("SOPInstanceUID") or path)
    return Frame(
        path=path,
        index=index,
        uid=uid if index is None else f"{uid}#{index}",
        study=str(stated(top, "StudyInstanceUID") or ""),
        series=str(stated(top, "SeriesInstanceUID")),
        patient=str(stated(top, "PatientID") or "").strip(),
        description=str(stated(top, "SeriesDescription") or ""),
        series_number=number(stated(top, "SeriesNumber")) or 0.0,
        acquisition_number=number(get("AcquisitionNumber", _CONTENT, "FrameAcquisitionNumber")),
        day=day,
        second=second,
        trigger_ms=number(get("TriggerTime", "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")),
        order=None if order is None else int(order),
        rows=int(stated(top, "Rows")),
        columns=int(stated(top, "Columns")),
        image_type=image_type,
        temporal=str(get("TemporalPositionIdentifier", _CONTENT, "TemporalPositionIndex") or ""),
        stack=str(next((v for item in header.items(_CONTENT) if (v := stated(item, "StackID"))), "")),
        echo=number(get("EchoNumbers")),
        acquisition=Acquisition(
            manufacturer=text(stated(top, "Manufacturer")),
            model=text(stated(top, "ManufacturerModelName")),
            field_strength_t=number(stated(top, "MagneticFieldStrength")),
            scan_options="\\".join(texts(setting("ScanOptions"))) or None,
            flip_angle_deg=number(setting("FlipAngle", _TIMING)),
            slice_thickness_mm=number(get("SliceThickness", _MEASURES)),
            echo_time_ms=number(setting("EchoTime", _ECHO, "EffectiveEchoTime")),
            repetition_time_ms=number(setting("RepetitionTime", _TIMING)),
            inversion_time_ms=number(setting("InversionTime", _MODIFIER, "InversionTimes")),
        ),
        slice_by_slice=(text(setting("MRAcquisitionType")) or "").upper() == "2D",
        slope=slope,
        intercept=intercept,
        scaling=scaling,
        position=position,
        decimals=tuple(map(_decimals, place.split("\\") if isinstance(place, str) else place))
        if position
        else (0, 0, 0),
        orientation=orientation,
        spacing=spacing,
        gap_mm=number(get("SpacingBetweenSlices", _MEASURES)),
        named=named,
        refusal=why,
    )


def _scale(header: FrameHeader) -> tuple[float, float, str | None]:
    """Slope, intercept, and a note where something else than the rescale slope scales, or might."""
    transform, mapping = "PixelValueTransformationSequence", "RealWorldValueMappingSequence"
    slope = number(header.get("RescaleSlope", transform))
    intercept = number(header.get("RescaleIntercept", transform))
    mappings = [*header.items(mapping), *(stated(header.top, mapping) or ())]
    slopes = [number(stated(m, "RealWorldValueSlope")) for m in mappings]
    if slope is None and intercept is None and len(mappings) == 1 and slopes[0]:
        return slopes[0], number(stated(mappings[0], "RealWorldValueIntercept")) or 0.0, MAPPED
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    others = [number(stated(m, "RealWorldValueIntercept")) or 0.0 for m in mappings]
    if any(pair != (slope, intercept) for pair in zip(slopes, others, strict=True)):
        return slope, intercept, UNMAPPED
    return slope, intercept, DISPLAY if header.scaled_by_philips() else None


def _decimals(value: str) -> int:
    """Digits after the point of a decimal string, as written.

    >>> _decimals("-12.50"), _decimals("3"), _decimals("1e-3")
    (2, 0, 3)
    """
    digits, _, power = value.lower().partition("e")
    try:
        return max(0, len(digits.partition(".")[2]) - int(power or 0))
    except ValueError:
        return 0
