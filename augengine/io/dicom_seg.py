"""A DICOM Segmentation goes in; the images it was made on, and its segments as a mask with the stated codes, come out.

BINARY, FRACTIONAL (a voxel belongs to a segment from a half on) and LABELMAP, read by highdicom. Segments are taken by
their descriptions, never by their numbers: a data set's codes 1, 2 and 4 are segments 1, 2 and 3 here. Frames that the
file leaves out are background. Slices lie where their positions say, whatever order a library stacks them in.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from augengine.errors import ConfigError, DataError
from augengine.geometry import LPS_TO_RAS
from augengine.io.labels import Mask
from augengine.io.segments import named_mask, plain

# What coded types of segments are called in label schemes, where the segment's own label is none of the stated ones.
_TYPES = {
    "55603005": "fat",
    "6574001": "necrosis",
    "79654002": "oedema",
    "52988006": "lesion",
    "108369006": "lesion",
}
_WHOLE = 1e-3  # voxels; farther off the image's own grid, a mask is resampled
_HALF = 0.5


def image_uids(path: Path) -> frozenset[str]:
    """SOP Instance UIDs of all images that a Segmentation or an RT Structure Set refers to.

    Raises:
        DataError: a file that cannot be read.
    """
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        return frozenset(str(e.value) for e in header.iterall() if e.keyword == "ReferencedSOPInstanceUID")
    except Exception as error:  # pydicom raises many unrelated classes for damaged files
        raise DataError("this DICOM file is damaged", found=type(error).__name__) from None


def need_highdicom() -> None:
    """Refuse where it is not installed."""
    if importlib.util.find_spec("highdicom") is None:
        raise ConfigError(
            "DICOM Segmentations are read by highdicom",
            found="not installed",
            where="--labels",
            next_step="pip install 'augengine[dicom-seg]', or --mask none to ingest images only",
        )


def read_segmentation(path: Path, labels: Mapping[str, int], shape: Sequence[int], affine: np.ndarray) -> Mask:
    """The segments as one mask, on the image's grid where they lie on it.

    Args:
        shape, affine: of the image `(I, J, K)`, to RAS+ mm.

    Raises:
        DataError: a damaged file, planes that are no volume, or a segment that is none of the stated labels.
    """
    from highdicom.seg import segread

    try:
        found = segread(path)
        volume = found.get_volume(combine_segments=False)
        segments = [found.get_segment_description(int(n)) for n in found.segment_numbers]
        kind = str(found.SegmentationType)
    except Exception as error:  # highdicom raises many unrelated classes for files that it cannot take
        text = str(error).split("\n")[0]
        raise DataError(
            "a DICOM Segmentation must be one volume of planes", found=f"{type(error).__name__}: {text}"
        ) from None
    layers = (np.asarray(volume.array) >= _HALF).transpose(3, 2, 1, 0).astype(np.uint8)
    order = [2, 1, 0, 3]  # highdicom's axes are slice, row, column
    own = LPS_TO_RAS @ np.asarray(volume.affine, np.float64)[:, order]
    header: dict[str, str] = {}
    for n, segment in enumerate(segments):
        header |= {
            f"Segment{n}_Name": _name(segment, labels),
            f"Segment{n}_LabelValue": "1",
            f"Segment{n}_Layer": str(n),
        }
    mask = named_mask(layers, own, header, labels, path)
    notes = [*mask.notes, f"mask: a DICOM Segmentation ({kind})"]
    if kind == "FRACTIONAL":
        notes.append("mask: voxels of which a segment has a half or more are of it")
    placed = _on_grid(mask.label, own, shape, affine)
    return Mask(mask.label, own, True, notes) if placed is None else Mask(placed, affine, True, notes)


def _name(segment: Any, labels: Mapping[str, int]) -> str:
    """The segment's own label, or what its coded type is called, whichever is stated."""
    kind = segment.segmented_property_type
    known = {plain(name) for name in labels}
    label = str(segment.segment_label)
    for name in (label, _TYPES.get(str(kind.value), ""), str(kind.meaning)):
        if plain(name) in known or plain(name, numbered=True) in known:
            return name
    return label


def _on_grid(label: np.ndarray, own: np.ndarray, shape: Sequence[int], affine: np.ndarray) -> np.ndarray | None:
    """The mask voxel by voxel on the image's grid; None where it lies between its voxels, or labels lie outside."""
    step = np.linalg.inv(affine) @ own
    whole = np.rint(step)
    corners = np.array([[0, 0, 0, 1], [*(n - 1 for n in label.shape), 1]]).T
    if np.abs((step - whole) @ corners).max() > _WHOLE * max(label.shape):
        return None
    places = np.argwhere(label)
    there = (places @ whole[:3, :3].T + whole[:3, 3]).astype(int)
    if ((there < 0) | (there >= np.array(shape))).any():
        return None
    out = np.zeros(tuple(shape), np.uint8)
    out[tuple(there.T)] = label[tuple(places.T)]
    return out
