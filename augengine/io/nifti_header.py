"""A NIfTI header goes in; its affine in mm, by the better of sform and qform, and notes come out."""

from __future__ import annotations

from typing import Any

import numpy as np

from augengine.errors import DataError
from augengine.geometry import check_affine, same_grid, spacing_mm

UNIT_MM = {"unknown": 1.0, "mm": 1.0, "micron": 1e-3, "meter": 1e3}
_UNIT_CODES = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}


def header_affine(header: Any, raw: Any, shape: tuple[int, ...]) -> tuple[np.ndarray | None, list[str]]:
    """The affine in mm by sform, or by qform where the sform cannot be meant; and notes.

    The standard lets a file hold both; like nibabel, this takes the sform if both are usable.
    """
    unit, notes = length_unit(header), []
    factor = UNIT_MM.get(unit, 1.0)
    if factor != 1:
        notes.append(f"voxel sizes of the header are in {unit}s; turned into mm")
    elif unit not in UNIT_MM:
        notes.append("the header's unit of length is none of the standard; taken as mm")
    stated = {"sform": header.get_sform(coded=True)[0], "qform": _qform(header)}
    usable = {name: _usable(a, factor, shape) for name, a in stated.items() if a is not None}
    sform, qform = usable.get("sform"), usable.get("qform")
    notes += [f"the {name} is stated but no usable matrix" for name, a in usable.items() if a is None]
    if sform is None:
        if qform is not None and raw is not None and float(raw["pixdim"][0]) not in (1.0, -1.0):
            notes.append("pixdim[0] is neither 1 nor -1; taken as 1")
        return qform, notes
    if qform is not None and not same_grid(shape, sform, shape, qform):
        if np.allclose(stated["sform"], np.eye(4), atol=1e-6) and not np.allclose(spacing_mm(qform), factor, rtol=1e-3):
            return qform, [*notes, "the sform is the identity and contradicts the voxel size; qform was taken"]
        notes.append("sform and qform differ; sform was taken")
    return sform, notes


def _qform(header: Any) -> np.ndarray | None:
    try:
        return np.asarray(header.get_qform(coded=True)[0]) if int(header["qform_code"]) else None
    except Exception:  # a quaternion that is none; nibabel raises several classes
        return np.full((4, 4), np.nan)


def _usable(affine: np.ndarray, factor: float, shape: tuple[int, ...]) -> np.ndarray | None:
    """The affine in mm; a single slice without a thickness gets 1 mm; None if it is not finite or not invertible."""
    affine = np.array(affine, np.float64)
    affine[:3] *= factor
    if shape[2] == 1 and not affine[:3, 2].any() and np.isfinite(affine).all():
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / max(float(np.linalg.norm(normal)), 1e-12)
    try:
        return check_affine(affine)
    except DataError:
        return None


def length_unit(header: Any) -> str:
    """The unit of length as nibabel calls it, e.g. `mm` or `unknown`; whatever the bits of the unit of time say."""
    return _UNIT_CODES.get(int(header["xyzt_units"]) & 7, "none of the standard")


def slice_axis(header: Any) -> int | None:
    """The axis that `dim_info` calls that of the slices, unless other voxels are longer: then it is left over."""
    axis = header.get_dim_info()[2]
    sizes = [abs(float(z)) for z in header.get_zooms()[:3]]
    return axis if axis is not None and len(sizes) == 3 and sizes[axis] >= max(sizes) * (1 - 1e-2) else None
