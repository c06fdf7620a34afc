"""A NIfTI file goes in, one 3D array and its RAS+ affine come out."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from augengine.errors import DataError
from augengine.geometry import check_affine, same_grid

SUFFIXES = (".nii", ".nii.gz")


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Values after scl_slope/scl_inter as they are (integers stay integers), affine, notes.

    Raises:
        DataError: damaged file, more than one volume (4D, 5D), colour or complex voxels, or a header
            without orientation (neither sform nor qform), since left and right would be a guess.
    """
    try:
        file = nib.load(path)
        data = np.asanyarray(file.dataobj)
    except FileNotFoundError:
        raise DataError("this file is missing", where=str(path)) from None
    except Exception as error:  # nibabel, gzip and zlib raise many unrelated classes for damaged files
        raise DataError("this NIfTI file is damaged", found=type(error).__name__, where=str(path)) from None
    data = squeeze(data, path)
    header, notes = file.header, []
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    if sform is None and qform is None:
        raise DataError(
            "sform or qform must state where the voxels lie", found="both codes 0", where=str(path),
            next_step="set the orientation with a tool that knows it, e.g. nibabel or fslorient",
        )  # fmt: skip
    affine = check_affine(file.affine, str(path))
    if sform is not None and qform is not None and not same_grid(data.shape, sform, data.shape, qform):
        notes.append("sform and qform differ; sform was taken")
    return data, affine, notes


def squeeze(data: np.ndarray, path: Path) -> np.ndarray:
    """Drop trailing axes of length 1 and insist on one volume of real numbers."""
    shape = data.shape
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise DataError(
            "one file must hold one 3D volume", found=f"shape {shape}", where=str(path),
            next_step="split time series and multi-channel files first",
        )  # fmt: skip
    if data.dtype.kind not in "iuf":
        raise DataError("voxels must be real numbers", found=str(data.dtype), where=str(path))
    return data
