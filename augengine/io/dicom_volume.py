"""Files and frame numbers of one stack go in; a volume, sorted along its normal, comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from augengine.errors import DataError
from augengine.geometry import LPS_TO_RAS, check_affine, spacing_mm
from augengine.io.dicom_geometry import SAME_POSITION_MM, Line, depths, fit_line, same_position_mm
from augengine.io.dicom_pixels import Image, read_images
from augengine.io.units import check_spacing

SLICE_AXIS = 2


@dataclass(frozen=True, eq=False)
class Loaded:
    """A stack with pixels.

    Attributes:
        image: float32 `(I, J, K)`: i along a row, j down the rows, k from slice to slice.
        affine: voxel index to RAS+ mm.
        outside: bool `(I, J, K)`, padding; None where there is none.
        notes: what was done, free of names.
    """

    image: np.ndarray
    affine: np.ndarray
    outside: np.ndarray | None
    notes: list[str]


def load_stack(paths: Sequence[Path], indices: Sequence[Sequence[int] | None]) -> Loaded:
    """Pixels of one stack.

    Args:
        paths: its files.
        indices: for each file the numbers of its frames; None for a file of a single one.

    Raises:
        DataError: files that cannot be decoded, or as `assemble` does.
    """
    images: list[Image] = []
    for path, wanted in zip(paths, indices, strict=True):
        images += read_images(path, wanted)
    return assemble(images)


def assemble(images: Sequence[Image]) -> Loaded:
    """Sort by position along the normal, drop exact duplicates, insist on even spacing.

    Raises:
        DataError: different images at one position, a gap (with the positions beside it), slices that are not
            in one line, or fewer than two positions.
    """
    frames = [image.frame for image in images]
    depth, same = depths(frames), same_position_mm(frames)
    kept: list[int] = []
    duplicates = 0
    for n in np.argsort(depth, kind="stable").tolist():
        if not kept or depth[n] - depth[kept[-1]] > same:
            kept.append(n)
        elif np.array_equal(images[n].pixels, images[kept[-1]].pixels):
            duplicates += 1
        else:
            raise DataError(
                "a series must hold one image per position",
                found=f"different images at {depth[n]:.2f} mm",
                next_step="split dynamic or multi-echo series into one folder per volume",
            )
    line = fit_line([frames[n] for n in kept])
    volume = np.stack([images[n].pixels.T for n in kept], axis=-1)
    notes = [f"{duplicates} exact duplicates dropped"] if duplicates else []
    affine = _affine(images[kept[0]], line)
    check_spacing(spacing_mm(affine), "mm", "PixelSpacing", None)
    return Loaded(volume, affine, _outside(images, kept), notes + _notes(images, line))


def _affine(image: Image, line: Line) -> np.ndarray:
    spacing, orientation = image.frame.spacing, np.array(image.frame.orientation)
    assert spacing is not None  # frames without spacing were refused
    affine = np.eye(4)
    # DICOM C.7.6.2.1: the first spacing is between rows, the first direction runs along a row.
    affine[:3, 0] = orientation[:3] * spacing[1]
    affine[:3, 1] = orientation[3:] * spacing[0]
    affine[:3, 2] = line.step
    affine[:3, 3] = line.origin
    return check_affine(LPS_TO_RAS @ affine)


def _outside(images: Sequence[Image], kept: Sequence[int]) -> np.ndarray | None:
    masks = [images[n].outside for n in kept]
    if all(mask is None or not mask.any() for mask in masks):
        return None
    planes = [np.zeros(images[n].pixels.T.shape, bool) if m is None else m.T for n, m in zip(kept, masks, strict=True)]
    outside = np.stack(planes, axis=-1)
    if outside.all():
        raise DataError("some voxels must be measured", found="nothing but padding (PixelPaddingValue)")
    return outside


def _notes(images: Sequence[Image], line: Line) -> list[str]:
    notes = []
    padded = sum(int(i.outside.sum()) for i in images if i.outside is not None)
    if padded:
        share = 100 * padded / sum(i.pixels.size for i in images)
        notes.append(f"{share:.1f} % of the voxels are padding (PixelPaddingValue): not measured")
    if any(image.foreign for image in images):
        notes.append("bits beside the stored ones held something else, as an overlay, and were cleared")
    notes += sorted({image.frame.scaling for image in images if image.frame.scaling})
    if line.off_mm > SAME_POSITION_MM:
        notes.append(
            f"slice positions are up to {line.off_mm:.2f} mm off an even {line.step_mm:.4g} mm "
            f"(stated to {line.rounding_mm:.2g} mm); a line was fitted through them"
        )
    return notes
