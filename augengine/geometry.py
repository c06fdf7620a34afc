"""Voxel grids and world millimetres: arrays and affines go in, arrays on another grid and its affine come out.

Affines map a voxel index (the voxel's centre) to RAS+ mm. Reorientation only permutes and flips axes, so an
oblique affine stays exact; resampling states its own affine.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, sparse

from augengine.errors import DataError
from augengine.label_regrid import regrid_label

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Nearest neighbours stay the same up to half a voxel, and headers round to far less than a tenth of one.
SAME_GRID_VOXELS = 0.1


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
    from nibabel.orientations import io_orientation  # slow to import

    orientation = io_orientation(affine).astype(int)  # input axis -> (world axis, direction)
    for axis, (_, direction) in enumerate(orientation):
        if direction < 0:
            array, affine = flip(array, affine, axis)
    return permute(array, affine, np.argsort(orientation[:, 0]).tolist())


def grid_shift(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """The largest distance between two grids of one shape at any corner, along any axis of the first, in voxels."""
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, n - 1) for n in shape))], float).T
    return float(np.abs(np.linalg.inv(affine) @ other @ corners - corners).max())


def same_grid(shape: Sequence[int], affine: np.ndarray, other_shape: Sequence[int], other: np.ndarray) -> bool:
    """True if two grids have the same shape and no corner differs by more than a tenth of a voxel."""
    return tuple(shape) == tuple(other_shape) and grid_shift(shape, affine, other) <= SAME_GRID_VOXELS


def inside(shape: Sequence[int], affine: np.ndarray, other_shape: Sequence[int], other: np.ndarray) -> np.ndarray:
    """bool `shape`: voxels of one grid whose centre lies within the voxels of another."""
    result = np.ones(tuple(shape), bool)
    for row, count in zip((np.linalg.inv(other) @ affine)[:3], other_shape, strict=True):
        at = np.full((1, 1, 1), row[3])
        for axis in np.flatnonzero(np.abs(row[:3]) * shape > 1e-6).tolist():  # an aligned grid needs one of three
            steps = [1, 1, 1]
            steps[axis] = shape[axis]
            at = at + row[axis] * np.arange(shape[axis]).reshape(steps)
        result &= (at >= -0.5 - SAME_GRID_VOXELS) & (at <= count - 0.5 + SAME_GRID_VOXELS)
    return result


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
    image: np.ndarray,
    label: np.ndarray | None,
    affine: np.ndarray,
    shape: Sequence[int],
    spacing: Sequence[float],
    fill: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Resample about the centre of the field of view: crop, pad, shrink or enlarge, axis by axis.

    Args:
        image: float32 `(C, I, J, K)`, linear with anti-aliasing.
        label: uint8 `(I, J, K)`; every code is resampled as the image is, and keeps its volume (`regrid_label`).
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
        label = regrid_label(label, weights, list(map(_fills, image.shape[1:], shape, steps.tolist(), offsets)))
    image = _apply(image, weights)
    if fill is not None and fill.any():
        for axis, matrix in enumerate(weights):
            np.moveaxis(image, 1 + axis, 1)[:, np.diff(matrix.indptr) == 0] = fill.reshape(-1, 1, 1, 1)
    return image, label, affine @ change


def _fills(n_in: int, n_out: int, step: float, offset: float) -> np.ndarray:
    """float64 `(n_in,)`: output voxels that each input voxel fills, as far as it lies in the output's extent."""
    edges = np.clip(np.arange(n_in + 1) - 0.5, offset - step / 2, offset + step * (n_out - 0.5))
    return np.asarray(np.diff(edges) / step)


def _apply(array: np.ndarray, weights: Sequence[sparse.csr_array]) -> np.ndarray:
    """Multiply the last three axes by their matrices, the strongest reduction first."""
    lead = array.ndim - 3
    for axis in np.argsort([w.shape[0] / w.shape[1] for w in weights], kind="stable"):
        if _is_identity(weights[axis]):
            continue
        moved = np.moveaxis(array, lead + axis, 0)
        out = weights[axis] @ moved.reshape(moved.shape[0], -1)
        array = np.moveaxis(out.reshape(-1, *moved.shape[1:]), 0, lead + axis)
    return np.ascontiguousarray(array, np.float32)


def _is_identity(weights: sparse.csr_array) -> bool:
    n_out, n_in = weights.shape
    return bool(
        n_out == n_in == weights.nnz and (weights.indices == np.arange(n_in)).all() and (weights.data == 1).all()
    )
