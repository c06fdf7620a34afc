"""A segmentation that names its segments (3D Slicer's `.seg.nrrd`) goes in; a label with the stated codes comes out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from augengine.errors import DataError
from augengine.io.labels import Mask

UNNAMED = re.compile(r"segment[ _-]?\d*", re.IGNORECASE)


def segment_numbers(header: Mapping[str, Any]) -> list[int]:
    """Numbers of the segments that a header describes; empty where it is no segmentation of this kind."""
    found = (re.match(r"Segment(\d+)_(?:ID|Name|LabelValue)$", str(key)) for key in header)
    return sorted({int(match.group(1)) for match in found if match})


def named_mask(
    data: np.ndarray, affine: np.ndarray, header: Mapping[str, Any], labels: Mapping[str, int], path: Path
) -> Mask:
    """The label that the segments' names make with the stated labels.

    A segment belongs to the label of its name: letter case, blanks and a number at its end (`Lesion 2`) do not count,
    and segments of one name are joined. Where segments overlap, the label stated last wins. Slicer stores no more
    than the box around all segments: beyond it, all is background.

    Args:
        data: `(I, J, K)`, or `(layers, I, J, K)`.
        header: with `SegmentN_Name`, `SegmentN_LabelValue` and `SegmentN_Layer`.

    Raises:
        DataError: a segment whose name is none of the labels, or a header that lacks value or layer.
    """
    layers = data[None] if data.ndim == 3 else data
    known = {plain(name): code for name, code in labels.items()}
    joined: dict[int, np.ndarray] = {}
    notes: list[str] = []
    for number in segment_numbers(header):
        name = str(header.get(f"Segment{number}_Name", ""))
        value = _integer(header, number, "LabelValue", "1" if data.ndim == 4 else None, path)
        layer = _integer(header, number, "Layer", "0", path)
        if not 0 <= layer < len(layers):
            raise DataError("a segment's layer must be in the file", found=layer, where=str(path))
        code = known.get(plain(name), known.get(plain(name, numbered=True)))
        if code is None and UNNAMED.fullmatch(name.strip()) and value in labels.values():
            code = value
            notes.append("mask: segments that bear no name were taken by their values")
        if code is None:
            raise DataError(
                f"names of segments must be those of the stated labels ({', '.join(labels)})",
                found=f"'{name}'",
                where=str(path),
                next_step="state them with --labels name=code,...",
            )
        joined[code] = joined.get(code, np.zeros(layers.shape[1:], bool)) | (layers[layer] == value)
    label = np.zeros(layers.shape[1:], np.uint8)
    for code in (c for c in labels.values() if c in joined):
        hidden = np.count_nonzero(joined[code] & (label > 0))
        if hidden:
            notes.append(f"mask: segments overlap in {hidden} voxels; the label stated last was taken")
        label[joined[code]] = code
    return Mask(label, affine, whole=True, notes=tuple(dict.fromkeys(notes)))


def plain(name: str, numbered: bool = False) -> str:
    """`Lesion_2 ` -> `lesion 2`, or `lesion` with a number left out."""
    text = re.sub(r"[\s_-]+", " ", name).strip().lower()
    return re.sub(r"\s*\d+$", "", text) if numbered else text


def _integer(header: Mapping[str, Any], number: int, what: str, default: str | None, path: Path) -> int:
    try:
        return int(str(header.get(f"Segment{number}_{what}", default)).strip())
    except ValueError:
        raise DataError(
            f"the mask's header must state Segment{number}_{what} as a whole number", where=str(path)
        ) from None
