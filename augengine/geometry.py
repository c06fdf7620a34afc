"""Voxel grids and world millimetres: arrays and affines go in, arrays on another grid and its affine come out.

Affines map a voxel index (the voxel's centre) to RAS+ mm. Reorientation only permutes and flips axes, so an
oblique affine stays exact; resampling states its own affine.
"""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
from scipy import ndimage, sparse

from augengine.errors import DataError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
GRID_TOLERANCE_MM = 0.01


def spacing_mm(affine: np.ndarray) -> np.ndarray:
    """Voxel size along each axis, mm."""
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def check_affine(affine: np.ndarray, where: str | None = None) -> np.ndarray:
    """The affine as float64 `(4, 4)`; a non-finite or singular one is a `DataError`."""
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise DataError("an affine must be a finite (4, 4) matrix", found=affine.tolist(), where=where)
    volume_mm3 = abs(np.linalg.det(affine[:3, :3]))
    # Relative to the voxel size: a thin voxel is no singular one.
    if volume_mm3 < 1e-6 * np.prod(spacing_mm(affine)) or volume_mm3 == 0:
        raise DataError("an affine must be invertible", found=affine.tolist(), where=where)
    return affine


def permute(array: np.ndarray, affine: np.ndarray, order: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Put spatial axis `order[n]` at place n. `array` is `(..., I, J, K)`; leading axes stay."""
    lead = array.ndim - 3
    moved = affine.copy()
    moved[:, :3] = affine[:, list(order)]
    return array.transpose(*range(lead), *(lead + axis for axis in order)), moved


def flip(array: np.ndarray, affine: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Reverse one spatial axis of `(..., I, J, K)`; every voxel keeps its place in the world."""
    place = array.ndim - 3 + axis
    moved = affine.copy()
    moved[:3, 3] += affine[:3, axis] * (array.shape[place] - 1)
    moved[:3, axis] = -affine[:3, axis]
    return np.flip(array, place), moved


def to_canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The closest-to-RAS+ view of `(..., I, J, K)` (nibabel's rule): permutations and flips, no interpolation."""
    orientation = nib.io_orientation(affine).astype(int)  # input axis -> (world axis, direction)
    for axis, (_, direction) in enumerate(orientation):
        if direction < 0:
            array, affine = flip(array, affine, axis)
    return permute(array, affine, np.argsort(orientation[:, 0]).tolist())


def same_grid(shape: Sequence[int], affine: np.ndarray, other_shape: Sequence[int], other: np.ndarray) -> bool:
    """True if two grids have the same shape and no corner differs by more than 0.01 mm."""
    if tuple(shape) != tuple(other_shape):
        return False
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    difference = corners @ (affine - other)[:3, :3].T + (affine - other)[:3, 3]
    return bool(np.abs(difference).max() <= GRID_TOLERANCE_MM)


def resample_labels(label: np.ndarray, affine: np.ndarray, shape: Sequence[int], target: np.ndarray) -> np.ndarray:
    """Nearest-neighbour values of `label` `(I, J, K)` at the voxel centres of another grid; 0 outside."""
    mapping = np.linalg.inv(affine) @ target
    # A tiny shift breaks the ties of a grid at half-voxel offset the same way on every machine.
    return np.asarray(
        ndimage.affine_transform(
            label, mapping[:3, :3], mapping[:3, 3] + 1e-6, tuple(shape), order=0, mode="grid-constant", cval=0
        )
    )


def background(image: np.ndarray, measured: np.ndarray | None = None) -> np.ndarray:
    """What a channel of `(C, I, J)` or `(C, I, J, K)` has where nothing is: float32 `(C,)`.

    Magnitudes have no negative values, and no signal is 0. Where there are negative values (z-scores, interpolation
    that overshoots, phases), 0 need not be the background: the median of each slice's rim, the first and last voxels
    along I and J, shows what is.

    Args:
        measured: bool of the spatial shape, the voxels that count, at least one; None: all. Voxels next to others
            belong to the rim, too.
    """
    rim = np.zeros(image.shape[1:], bool)
    rim[[0, -1]] = rim[:, [0, -1]] = True
    if measured is not None:
        rim = (rim | ndimage.binary_dilation(~measured)) & measured
    found = []
    for channel in image:
        least = (channel if measured is None else channel[measured]).min()
        found.append(np.median(channel[rim]) if least < 0 else 0.0)
    return np.asarray(found, np.float32)


def axis_weights(n_in: int, n_out: int, step: float) -> tuple[sparse.csr_array, float]:
    """Linear resampling of one axis about its centre, anti-aliased.

    Output voxel u lies at input coordinate `step * u + offset`. The kernel is a triangle, as wide as the
    coarser of the two grids; weights sum to 1, and rows outside the input are empty.

    Returns:
        A sparse `(n_out, n_in)` matrix and the offset. With step 1 every row is a copy of one input voxel.
    """
    offset = (n_in - 1) / 2 - step * (n_out - 1) / 2
    if step == 1:
        offset = float(np.floor(offset))
    position = step * np.arange(n_out) + offset
    width = max(step, 1.0)
    taps = np.floor(position)[:, None] + np.arange(-np.ceil(width), np.ceil(width) + 1)[None]
    weight = np.maximum(0, 1 - np.abs(taps - position[:, None]) / width)
    weight[(taps < 0) | (taps >= n_in)] = 0
    weight[(position < -0.5) | (position > n_in - 0.5)] = 0
    total = weight.sum(1, keepdims=True)
    weight = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    rows = np.broadcast_to(np.arange(n_out)[:, None], taps.shape)
    keep = weight > 0
    matrix = sparse.csr_array(
        (weight[keep].astype(np.float32), (rows[keep], taps[keep].astype(int))), shape=(n_out, n_in)
    )
    return matrix, offset


def regrid(
    image: np.ndarray, label: np.ndarray | None, affine: np.ndarray, shape: Sequence[int], spacing: Sequence[float],
    fill: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:  # fmt: skip
    """Resample about the centre of the field of view: crop, pad, shrink or enlarge, axis by axis.

    Args:
        image: float32 `(C, I, J, K)`, linear with anti-aliasing.
        label: uint8 `(I, J, K)`; every code is resampled as the image is, and the largest share wins.
        affine: of the input grid.
        shape: voxels of the output, three numbers.
        spacing: voxel size of the output, mm, three numbers.
        fill: `(C,)`, what each channel has outside the input, where the label map has 0; None is 0. No other voxel
            takes a share of it.

    Returns:
        image, label and the affine of the output grid.
    """
    steps = np.asarray(spacing) / spacing_mm(affine)
    steps[np.isclose(steps, 1, rtol=1e-5)] = 1
    weights, offsets = zip(*map(axis_weights, image.shape[1:], shape, steps.tolist()), strict=True)
    change = np.diag([*steps, 1.0])
    change[:3, 3] = offsets
    if label is not None:
        label = _regrid_label(label, weights)
    image = _apply(image, weights)
    if fill is not None and fill.any():
        for axis, matrix in enumerate(weights):
            np.moveaxis(image, 1 + axis, 1)[:, np.diff(matrix.indptr) == 0] = fill.reshape(-1, 1, 1, 1)
    return image, label, affine @ change


def _apply(array: np.ndarray, weights: Sequence[sparse.csr_array]) -> np.ndarray:
    """Multiply the last three axes by their matrices, the strongest reduction first."""
    lead = array.ndim - 3
    for axis in np.argsort([w.shape[0] / w.shape[1] for w in weights], kind="stable"):
        moved = np.moveaxis(array, lead + axis, 0)
        out = weights[axis] @ moved.reshape(moved.shape[0], -1)
        array = np.moveaxis(out.reshape(-1, *moved.shape[1:]), 0, lead + axis)
    return np.ascontiguousarray(array, np.float32)


def _regrid_label(label: np.ndarray, weights: Sequence[sparse.csr_array]) -> np.ndarray:
    shape = tuple(w.shape[0] for w in weights)
    best, result = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    for code in np.unique(label).tolist():
        share = _apply((label == code).astype(np.float32), weights)
        wins = share > best
        best[wins], result[wins] = share[wins], code
    return result
