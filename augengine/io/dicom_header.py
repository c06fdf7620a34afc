"""A DICOM file goes in; its header comes out, as a whole and as each frame sees it.

Part 10's preamble and file meta information may be missing, as in exports and competition data (PS3.10, 7.1). A frame
of a multi-frame file states its values in functional groups; files converted from classic ones keep what has no place
there in `Unassigned…ConvertedAttributesSequence` (0020,9170; 0020,9171), and Philips' in a private sequence.
"""

from __future__ import annotations

import datetime
import io
import math
import os
import struct
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from augengine.errors import DataError

# Nothing else of a header is looked at, bar the functional groups.
_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientID",
    "Modality",
    "SeriesDescription",
    "SeriesNumber",
    "InstanceNumber",
    "AcquisitionNumber",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "SeriesDate",
    "SeriesTime",
    "TriggerTime",
    "TemporalPositionIdentifier",
    "ImageType",
    "ComplexImageComponent",
    "ScanningSequence",
    "EchoPlanarPulseSequence",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SpacingBetweenSlices",
    "RescaleSlope",
    "RescaleIntercept",
    "RealWorldValueMappingSequence",
    "Manufacturer",
    "ManufacturerModelName",
    "MagneticFieldStrength",
    "ScanOptions",
    "MRAcquisitionType",
    "FlipAngle",
    "SliceThickness",
    "EchoTime",
    "EchoNumbers",
    "RepetitionTime",
    "InversionTime",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DirectoryRecordSequence",
)
_PIXEL_KEYWORDS = (
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "PixelData",
)
# GE's part of a complex image, in whatever block the file reserved for it.
_GE_CREATORS = frozenset(Tag(0x0043, block) for block in range(0x10, 0x20))
_GE_CREATOR, _GE_PART = "GEMS_PARM_01", 0x2F
_GE_PARTS = frozenset(Tag(0x0043, (block << 8) + _GE_PART) for block in range(0x10, 0x20))
_PHILIPS = Tag(0x2005, 0x140F)
_SCALE_SLOPE = Tag(0x2005, 0x100E)
_HEADER_TAGS = {int(tag) for tag in (*map(Tag, _KEYWORDS), *_GE_CREATORS, *_GE_PARTS, _SCALE_SLOPE)}
_IMAGE_TAGS = _HEADER_TAGS | {int(Tag(keyword)) for keyword in _PIXEL_KEYWORDS}
_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
# Values of these are read from their bytes at once: pydicom's own conversion takes most of the time of a scan.
_TEXT = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UI"))
_CONVERTED = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")
_HEAD = 140
_SMALL = 2**16
_VRS = {vr.value.encode() for vr in EXPLICIT_VR_LENGTH_16 | EXPLICIT_VR_LENGTH_32}
_LONGEST_FIRST_VALUE = 256  # bytes; the first element is a group length, a character set, an image type or a UID


def looks_like_dicom(path: Path) -> bool:
    """True if the file starts as DICOM does, with or without its preamble; reads 140 bytes."""
    try:
        with path.open("rb") as file:
            return _is_dicom(file.read(_HEAD))
    except OSError:
        return False


def read_header(path: Path, pixels: bool = False) -> Any:
    """The data set of a file, with pixels or the few attributes that matter; None if the file is no DICOM.

    Raises:
        OSError: a file that cannot be opened.
        DataError: a damaged one.
    """
    with _File(path) as file:
        if not _is_dicom(file.read(_HEAD)):
            return None
        file.seek(0)
        try:
            if pixels:
                return read_partial(file, force=True, specific_tags=_IMAGE_TAGS)
            return read_partial(file, _at_pixels, force=True, specific_tags=_HEADER_TAGS)
        except Exception as error:  # pydicom raises many unrelated classes for damaged files
            raise DataError("this DICOM file is damaged", found=type(error).__name__) from None


class _File(io.BufferedReader):
    """A file that is never asked for more than it holds: Python takes memory for all of a value's stated length."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("rb", buffering=0))
        self._bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _SMALL:
            size = max(0, min(size, self._bytes - self.tell()))
        return super().read(size)


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag in _PIXELS


def _is_dicom(head: bytes) -> bool:
    if head[128:132] == b"DICM":
        return True
    return len(head) >= 8 and any(_is_first_element(head, order) for order in "<>")


def _is_first_element(head: bytes, order: str) -> bool:
    """True for an element of group 0002 or 0008: data sets without a preamble begin with one of these."""
    group, element, length = struct.unpack(f"{order}HHI", head[:8])
    known = element == 0 or dictionary_has_tag((group << 16) + element)
    return group in (0x0002, 0x0008) and known and (head[4:6] in _VRS or length <= _LONGEST_FIRST_VALUE)


class FrameHeader:
    """What a header states of one frame.

    Args:
        top: the data set.
        groups: the frame's functional groups, then the shared ones; empty in classic files.
    """

    def __init__(self, top: Any, groups: Sequence[Any] = ()) -> None:
        self.top, self.groups = top, groups
        self.converted = [item for group in groups for name in _CONVERTED for item in stated(group, name) or ()]
        self.vendor = [item for group in groups if _PHILIPS in group for item in group[_PHILIPS].value or ()]

    def get(self, keyword: str, macro: str | None = None, name: str | None = None) -> Any:
        """An attribute's value, or None.

        Args:
            keyword: of the attribute in a classic header.
            macro, name: functional group that holds it in an Enhanced header, and its keyword there.
        """
        if self.groups:
            if macro is not None:
                for item in self.items(macro):
                    if (found := stated(item, name or keyword)) is not None:
                        return found
            for item in self.converted:
                if (found := stated(item, keyword)) is not None:
                    return found
        return stated(self.top, keyword)

    def setting(self, keyword: str, macro: str | None = None, name: str | None = None) -> Any:
        """As `get`; where nobody else says, Philips' private copy of the classic header."""
        found = self.get(keyword, macro, name)
        if found is None:
            found = next((v for item in self.vendor if (v := stated(item, keyword)) is not None), None)
        return found

    def items(self, macro: str) -> Iterator[Any]:
        """Items of a functional group, the frame's own first."""
        for group in self.groups:
            yield from stated(group, macro) or ()

    def scaled_by_philips(self) -> bool:
        """True where Philips' private scale slope is there: its tools may show floating-point values instead."""
        return any(_SCALE_SLOPE in dataset for dataset in (self.top, *self.converted, *self.vendor))

    def ge_part(self) -> int | None:
        """GE's (0043,xx2F): 0 magnitude, 1 phase, 2 real, 3 imaginary; None where it is not stated."""
        for dataset in (*self.converted, self.top):
            if not _GE_CREATORS & dataset.keys():
                continue
            for creator in _GE_CREATORS & dataset.keys():
                tag = Tag(0x0043, (creator.element << 8) + _GE_PART)
                if str(dataset[creator].value).strip() == _GE_CREATOR and tag in dataset:
                    value = dataset[tag].value
                    part = int.from_bytes(value[:2], "little") if isinstance(value, bytes) else number(value)
                    return None if part is None else int(part)
        return None

    def moment(self) -> tuple[int | None, float | None]:
        """When the frame was acquired: day (ordinal) and second of the day; None where they are not stated."""
        whole = self.get("AcquisitionDateTime", "FrameContentSequence", "FrameAcquisitionDateTime")
        day, second = _day(str(whole or "")[:8]), _second(str(whole or "")[8:])
        if second is None:
            day, second = _day(self.get("AcquisitionDate")), _second(self.get("AcquisitionTime"))
        if second is None:
            day, second = _day(self.get("SeriesDate")), _second(self.get("SeriesTime"))
        return day, second


@cache
def _tag(keyword: str) -> tuple[BaseTag, str]:
    tag = Tag(keyword)
    return tag, dictionary_VR(tag)


def stated(dataset: Any, keyword: str) -> Any:
    """An attribute's value, or None; several text values are one text with backslashes, as in the file."""
    tag, vr = _tag(keyword)
    element = dataset.get_item(tag)
    if element is None:
        return None
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        vr, raw = element.VR or vr, element.value
        if vr in _TEXT and raw.isascii():  # other characters need the file's character set
            return raw.decode("ascii").strip(" \0") or None
        if vr == "US" and len(raw) == 2:
            return int.from_bytes(raw, "little" if element.is_little_endian else "big")
    value = dataset[tag].value
    return None if value is None or value == "" else value


def _day(value: Any) -> int | None:
    digits = str(value or "").replace(".", "")
    try:
        return datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])).toordinal()
    except ValueError:
        return None


def _second(value: Any) -> float | None:
    """Seconds since midnight of a TM or the tail of a DT: HHMMSS.ffffff, shorter ones and old colons, too."""
    text = str(value or "").strip().replace(":", "").split("+")[0].split("-")[0]
    try:
        return 3600 * int(text[:2]) + 60 * int(text[2:4] or 0) + float(text[4:] or 0)
    except ValueError:
        return None


def texts(value: Any) -> tuple[str, ...]:
    """One or several values of a text attribute, in header order."""
    if value is None or value == "":
        return ()
    return tuple(str(v).strip() for v in (value.split("\\") if isinstance(value, str) else value))


def text(value: Any) -> str | None:
    """A text attribute; empty is None."""
    return str(value or "").strip() or None


def number(value: Any) -> float | None:
    """A numeric attribute (the first of several); empty or malformed is None."""
    try:
        if isinstance(value, str):
            value = value.split("\\", 1)[0]
        first = value if isinstance(value, str | int | float) else next(iter(value))
        result = float(first)
    except (TypeError, ValueError, StopIteration):
        return None
    return result if math.isfinite(result) else None


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers, or None."""
    try:
        result = tuple(float(v) for v in (value.split("\\") if isinstance(value, str) else value))
    except (TypeError, ValueError):
        return None
    return result if len(result) == count and all(map(math.isfinite, result)) else None
