"""What a header says an image is goes in; why it is no magnitude image to train with comes out.

Two answers: a file or frame that is no such image at all is *named* and left alone (reports, colour captures, phase
images, localisers); an image that this engine cannot or will not read is *refused*, and counts as a volume that failed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydicom.uid import UID

from augengine.io.dicom_header import FrameHeader, stated, texts

DICOMDIR = "1.2.840.10008.1.3.10"
MR_IMAGES = (
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.4.3",
    "1.2.840.10008.5.1.4.1.1.4.4",
)
SPECTRUM = "1.2.840.10008.5.1.4.1.1.4.2"
CAPTURES = "1.2.840.10008.5.1.4.1.1.7"  # of a screen; the multi-frame ones begin alike
DIRECTORY = "a directory of the medium (DICOMDIR)"
CAPTURE = "a capture of a screen, without a place in the patient"
COLOUR = "a colour image"
PHASE, REAL, IMAGINARY = "phase image", "real part of a complex image", "imaginary part of a complex image"
VELOCITY, FIELD_MAP = "velocity map", "field map"
LOCALISER = "localiser"
SEGMENTATION = "a DICOM Segmentation (layout dicom reads it with --labels)"
STRUCTURES = "an RT Structure Set: its contours are not read"
PROJECTION, DIFFERENCE, MAP = "projection through slices", "difference of images", "parameter map"

MOSAIC = "a mosaic tiles a whole volume into one frame; it is not a volume for this purpose"
ECHO_PLANAR = "echo-planar series (fMRI, diffusion) are not ingested unless --allow-echo-planar is given"
INVERTED = "only MONOCHROME2 images can be ingested"
NO_GEOMETRY = "position, orientation and pixel spacing must be stated"

# ImageType, from its third value on. Siemens: M, P, R, I (ND, NORM, …). Philips, classic conformance statements:
# M_FFE\M, PHASE MAP\P, VELOCITY MAP\P, R_IR\R, I\I. Single letters count with what follows an underscore; words count
# alone, since IN_PHASE and OUT_PHASE are magnitude images (Dixon). MAX_IP, MIN_IP, SUBTRACTION and QUANTITY: values 3
# and 4 of Enhanced MR (PS3.3 C.8.16.1.3 and C.8.16.1.4); SUB, ADC, FA, T1 MAP, …: Siemens.
_LETTERS = {"P": PHASE, "R": REAL, "I": IMAGINARY}
_WORDS = {
    "PHASE": PHASE,
    "PHASE MAP": PHASE,
    "PHASE IMAGE": PHASE,
    "REAL": REAL,
    "IMAGINARY": IMAGINARY,
    "VELOCITY": VELOCITY,
    "VELOCITY MAP": VELOCITY,
    "B0 MAP": FIELD_MAP,
    "FIELD MAP": FIELD_MAP,
    "PROJECTION IMAGE": PROJECTION,
    "MIP": PROJECTION,
    "MINIP": PROJECTION,
    "MAX IP": PROJECTION,
    "MIN IP": PROJECTION,
    "SUBTRACTION": DIFFERENCE,
    "SUB": DIFFERENCE,
    "QUANTITY": MAP,
    "ADC": MAP,
    "FA": MAP,
    "T1 MAP": MAP,
    "T2 MAP": MAP,
    "T2 STAR MAP": MAP,
}
_COMPONENTS = {"PHASE": PHASE, "REAL": REAL, "IMAGINARY": IMAGINARY}  # (0008,9208); PS3.3, table C.8-85
_GE_PARTS = {1: PHASE, 2: REAL, 3: IMAGINARY}
# Siemens writes MOSAIC; United Imaging's grid of slices is VFRAME (dcm2niix, UIH/README.md).
_MOSAICS = ("MOSAIC", "VFRAME")


def no_image(header: Any) -> str | None:
    """Why a data set holds no MR image at all, or None."""
    sop = str(getattr(header.file_meta, "MediaStorageSOPClassUID", None) or stated(header, "SOPClassUID") or "")
    if sop == DICOMDIR or "DirectoryRecordSequence" in header:
        return DIRECTORY
    modality = str(stated(header, "Modality") or "")
    if not modality:
        return None  # a header that is cut off says nothing
    if modality in ("SEG", "RTSTRUCT"):
        return SEGMENTATION if modality == "SEG" else STRUCTURES
    if modality != "MR":
        name = UID(sop).name if sop else ""
        known = f", {name}" if name and name != sop else ""
        return f"no MR image (modality {modality}{known})"
    if sop == SPECTRUM or (not stated(header, "Rows") and sop and sop not in MR_IMAGES):
        return "no image in this DICOM object (raw data, spectrum or the like)"
    if sop.startswith(CAPTURES) and not stated(header, "ImagePositionPatient"):
        return CAPTURE
    return None


def no_magnitude(header: FrameHeader, image_type: Sequence[str]) -> str | None:
    """Why a frame is no magnitude image in grey, or None."""
    if int(stated(header.top, "SamplesPerPixel") or 1) != 1:
        return COLOUR
    component = texts(header.get("ComplexImageComponent", "MRImageFrameTypeSequence"))
    if component and component[0] in _COMPONENTS:
        return _COMPONENTS[component[0]]
    if "LOCALIZER" in image_type:
        return LOCALISER
    for value in image_type[2:]:
        word = value.upper().replace("_", " ")
        if word in _WORDS:
            return _WORDS[word]
        letter = re.match(r"([PRI])(_|$)", value.upper())
        if letter:
            return _LETTERS[letter.group(1)]
    return _GE_PARTS.get(header.ge_part() or 0)


def refusal(header: FrameHeader, image_type: Sequence[str], allow_echo_planar: bool) -> str | None:
    """Why a magnitude image cannot be read, or None."""
    if stated(header.top, "PhotometricInterpretation") != "MONOCHROME2":
        return INVERTED
    if any(word in image_type for word in _MOSAICS):
        return MOSAIC
    sequence = texts(header.setting("ScanningSequence"))
    if ("EP" in sequence or header.get("EchoPlanarPulseSequence") == "YES") and not allow_echo_planar:
        return ECHO_PLANAR
    return None
