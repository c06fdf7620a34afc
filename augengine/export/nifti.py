"""A voxel grid and its affine go in; the bytes of a NIfTI file that every reader places alike come out.

Two-dimensional NIfTI files are read wrongly by SimpleITK and MONAI where the slice is oblique, so a slice is written as
`(I, J, 1)`. Both sform and qform are set, since readers differ in which one they take.
"""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np

from augengine.errors import DataError
from augengine.geometry import spacing_mm

_SCANNER = 1
_GZIP_LEVEL = 3

# A header cannot hold every affine exactly; a hundredth of a millimetre is below any voxel that is met.
PLACE_TOLERANCE_MM = 0.01


def nifti_bytes(array: np.ndarray, affine: np.ndarray, synthetic: bool = False) -> bytes:
    """`array` `(I, J)` or `(I, J, K)` as a gzipped NIfTI-1 file in mm; equal input gives equal bytes.

    The affine is kept to float32's precision, 1e-5 mm within 128 mm of the origin. A synthetic image says so in
    `descrip`.
    """
    grid = array[..., None] if array.ndim == 2 else array
    image = nib.Nifti1Image(np.ascontiguousarray(grid), affine)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1, 0)
    image.header["descrip"] = b"synthetic, augengine" if synthetic else b"augengine"
    image.set_sform(affine, _SCANNER)
    image.set_qform(affine, _SCANNER)
    return gzip.compress(image.to_bytes(), _GZIP_LEVEL, mtime=0)


def check_grid(affine: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    """Refuse an affine that most formats cannot state.

    Raises:
        DataError: the axes are not at right angles: readers would move a corner of the grid by more than 0.01 mm.
    """
    columns = affine[:3, :3] / spacing_mm(affine)
    u, _, v = np.linalg.svd(columns)
    grid = np.array([*shape, 1] if len(shape) == 2 else shape) - 1
    moved = np.abs((u @ v - columns) * spacing_mm(affine)) @ grid
    if moved.max() > PLACE_TOLERANCE_MM:
        raise DataError(
            "the axes of an image must be at right angles, since DICOM, ITK and qform know no shear",
            found=f"a corner would move by {moved.max():.3g} mm",
            where=where,
            next_step="resample the volume onto a grid of right angles before ingest",
        )


def oriented(arrays: list[np.ndarray], affine: np.ndarray, target: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Arrays `(..., I, J, K)` and their affine with the axes in another order and direction, e.g. `LPS`.

    Voxels keep their place in the world. A slice keeps its plane and the order of its axes; it is flipped alone.
    """
    shape = arrays[0].shape[-3:]
    now = nib.io_orientation(affine)
    wanted = nib.orientations.axcodes2ornt(target)
    if shape[2] == 1:
        direction = {int(axis): sign for axis, sign in wanted}
        wanted = np.array([[axis, direction[int(axis)]] for axis, _ in now])
    change = nib.orientations.ornt_transform(now, wanted)
    moved = affine @ nib.orientations.inv_ornt_aff(change, shape)
    return [_reoriented(a, change) for a in arrays], moved


def _reoriented(array: np.ndarray, change: np.ndarray) -> np.ndarray:
    if array.ndim == 3:
        return np.asarray(nib.apply_orientation(array, change))
    return np.stack([nib.apply_orientation(a, change) for a in array])
