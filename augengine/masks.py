"""Masks and label maps in, masks and label maps grown, ranked, filled, drawn and moved by millimetres out.

Any number of spatial axes, shown as `*`; `spacing_mm` is the voxel size along each of them. Lengths and angles are
those of the voxel grid's own axes, so an oblique affine needs no resampling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from augengine.geometry import background
from augengine.rng import generator


def dilate(mask: np.ndarray, distance_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """bool (*): `mask`, and every voxel whose centre lies within `distance_mm` of the centre of one of its voxels."""
    grown: np.ndarray = mask.copy()
    if distance_mm > 0 and mask.any():
        box = bounding_box(mask, [math.ceil(distance_mm / s) for s in spacing_mm])
        away_mm = ndimage.distance_transform_edt(~mask[box], sampling=spacing_mm)
        grown[box] = away_mm <= distance_mm * (1 + 1e-6)  # a voxel exactly that far away belongs to it
    return grown


def erode(mask: np.ndarray, distance_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """bool (*): voxels of `mask` farther than `distance_mm` from all others; the edge of the image is no edge of it."""
    kept: np.ndarray = mask.copy()
    if distance_mm > 0 and mask.any() and not mask.all():
        box = bounding_box(mask, [math.ceil(distance_mm / s) for s in spacing_mm])  # no voxel beyond it is near enough
        kept[box] &= ~dilate(~mask[box], distance_mm, spacing_mm)
    return kept


def bounding_box(mask: np.ndarray, margin: Sequence[int]) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty, and `margin` voxels more per axis, cut at the image's edge."""
    box = []
    for axis, more in enumerate(margin):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(max(0, inside[0] - more), inside[-1] + 1 + more))
    return tuple(box)


def components(mask: np.ndarray) -> np.ndarray:
    """int32 (*): connected parts of `mask`, diagonals included, numbered from 1 by falling size; 0 elsewhere."""
    found, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    order = 1 + np.argsort(-sizes[1:], kind="stable")
    rank = np.zeros(count + 1, np.int32)
    rank[order] = np.arange(1, count + 1)
    return np.asarray(rank[found])


def foreground(image: np.ndarray) -> np.ndarray:
    """bool (*): where a channel of `image` (C, *) is not background, holes filled: the brain of a skull-stripped scan.

    Background is 0, or, in images with negative values such as z-scores, what the rim has; resampling rounds that.
    """
    air = background(image).reshape(-1, *[1] * (image.ndim - 1))
    return np.asarray(ndimage.binary_fill_holes((np.abs(image - air) > 1e-5 * np.abs(air)).any(axis=0)))


def fill_nearest(label: np.ndarray, gap: np.ndarray, codes: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """A copy of `label` (*) with every voxel of `gap` as the nearest voxel in `codes` is; 0 where there is none."""
    filled: np.ndarray = label.copy()
    filled[gap] = 0
    host = np.isin(filled, list(codes)) & (filled != 0)
    if not (host.any() and gap.any()):
        return filled
    reach_mm = 8 * max(spacing_mm)
    while True:  # a whole volume is slow to search: widen a box until no voxel beyond it can be nearer
        box = bounding_box(gap, [math.ceil(reach_mm / s) for s in spacing_mm])
        whole = host[box].shape == host.shape
        if host[box].any():
            away_mm, nearest = ndimage.distance_transform_edt(~host[box], sampling=spacing_mm, return_indices=True)
            if whole or away_mm[gap[box]].max() <= reach_mm:
                filled[gap] = filled[box][tuple(axis[gap[box]] for axis in nearest)]
                return filled
        reach_mm *= 2


def centre(mask: np.ndarray) -> np.ndarray:
    """int64 (axes): the voxel nearest to the centroid of a mask that is not empty."""
    return np.asarray(np.rint(np.argwhere(mask).mean(axis=0)).astype(np.int64))


def left_right_axis(affine: np.ndarray, axes: int) -> int | None:
    """The one of the first `axes` voxel axes that runs from left to right within 45 degrees, or None."""
    share = np.abs(affine[0, :axes]) / np.linalg.norm(affine[:3, :axes], axis=0)
    axis = int(share.argmax())
    return axis if share[axis] > math.sqrt(0.5) else None


def midplane(image: np.ndarray, axis: int) -> float:
    """Middle of what is not air in (C, *) along an axis, in voxels, to half of one."""
    return round(2 * float(np.argwhere(foreground(image))[:, axis].mean())) / 2


def mirror_image(mask: np.ndarray, image: np.ndarray, axis: int) -> np.ndarray:
    """bool (*): a mask (*) on the other side of the plane, across `axis`, that halves what is not air in (C, *)."""
    places = np.argwhere(mask)
    places[:, axis] = round(2 * midplane(image, axis)) - places[:, axis]
    places = places[(places[:, axis] >= 0) & (places[:, axis] < mask.shape[axis])]
    other = np.zeros_like(mask)
    other[tuple(places.T)] = True
    return other


def ellipsoid(
    diameter_mm: float, elongation: float, parts: Mapping[int, float], spacing_mm: Sequence[float]
) -> np.ndarray:
    """uint8 (*): nested ellipsoids about the middle voxel of a small array.

    Args:
        diameter_mm: that of the disc or ball of the same volume.
        elongation: ratio of the longest to the shortest axis; the longest is the first.
        parts: label code to its share of the volume, outermost first; the shares count relative to their sum.
        spacing_mm: voxel size.
    """
    axes = len(spacing_mm)
    radii_mm = 0.5 * diameter_mm * elongation ** np.linspace(0.5, -0.5, axes)
    half = [math.ceil(r / s) for r, s in zip(radii_mm, spacing_mm, strict=True)]
    grid = np.meshgrid(*(np.arange(-h, h + 1.0) for h in half), indexing="ij", sparse=True)
    depth = sum((g * s / r) ** 2 for g, s, r in zip(grid, spacing_mm, radii_mm, strict=True)) ** (axes / 2)
    label, total = np.zeros(depth.shape, np.uint8), sum(parts.values())
    within = 1.0  # share of the volume that lies inside the surface of this part
    for code, share in parts.items():
        label[depth <= within] = code
        within -= share / total
    return label


@dataclass(frozen=True)
class Motion:
    """How a lesion is carried to another place; the last two steps keep its centre where it is.

    Attributes:
        shift_mm: from the old centre, or its mirror image, to the new one, along each voxel axis.
        rotation_deg: one angle in a slice; about the three voxel axes, one after another, in a volume.
        mirrored_axis: voxel axis that the lesion is reflected along, or None.
        scale: of every length.
        elastic_mm: root mean square displacement of a smooth random field, per axis.
        elastic_length_mm: SD of the Gaussian that makes the field smooth.
        elastic_seed: of the field.
    """

    shift_mm: tuple[float, ...]
    rotation_deg: tuple[float, ...]
    mirrored_axis: int | None = None
    scale: float = 1.0
    elastic_mm: float = 0.0
    elastic_length_mm: float = 10.0
    elastic_seed: int = 0

    def linear(self) -> np.ndarray:
        """float64 (axes, axes): scale and rotation after reflection, in mm of the voxel axes."""
        axes = len(self.shift_mm)
        turn = Rotation.from_euler("xyz", self.rotation_deg if axes == 3 else [0, 0, *self.rotation_deg], degrees=True)
        matrix = self.scale * turn.as_matrix()[:axes, :axes]
        if self.mirrored_axis is not None:
            matrix[:, self.mirrored_axis] *= -1
        return np.asarray(matrix)

    def displacement_mm(self, shape: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
        """float64 (axes, *shape): the elastic field; its mean is 0, so that it deforms and does not move."""
        axes = len(spacing_mm)
        if self.elastic_mm == 0:
            return np.zeros((axes, *[1] * axes))
        noise = generator("elastic", self.elastic_seed).standard_normal((axes, *shape))
        sigma = [self.elastic_length_mm / s for s in spacing_mm]
        field = ndimage.gaussian_filter(noise, sigma, axes=tuple(range(1, axes + 1)))
        over = tuple(range(1, axes + 1))
        field -= field.mean(axis=over, keepdims=True)
        return np.asarray(field * (self.elastic_mm / field.std(axis=over, keepdims=True)))


def place(
    lesion: np.ndarray,
    origin: Sequence[int],
    target: Sequence[int],
    shape: Sequence[int],
    motion: Motion,
    spacing_mm: Sequence[float],
    lesion_spacing_mm: Sequence[float] | None = None,
) -> tuple[np.ndarray, int]:
    """A lesion's label map carried to another place, whole: its parts stay nested.

    Args:
        lesion: uint8 label map, 0 where there is no lesion.
        origin: voxel of `lesion` that the motion turns about.
        target: voxel that stands for it before `motion.shift_mm`.
        shape: of the image that the lesion is laid into.
        motion: what to do; every new voxel takes the value of the nearest old one.
        spacing_mm: voxel size of both maps, or of the image where the lesion's is given.
        lesion_spacing_mm: voxel size of `lesion`.

    Returns:
        uint8 (*shape), and how many voxels the lesion has, those beyond the image's edge included.
    """
    source, start = _pulled(lesion, origin, target, motion, spacing_mm, lesion_spacing_mm or spacing_mm)
    column = (-1, *[1] * len(start))
    index = np.floor(source + 0.5).astype(int) + np.asarray(origin).reshape(column)
    known = np.all((index >= 0) & (index < np.asarray(lesion.shape).reshape(column)), axis=0)
    values = np.where(known, lesion[tuple(np.where(known, axis, 0) for axis in index)], np.uint8(0))
    return _laid(values, start, shape), int(np.count_nonzero(values))


def carry(
    values: np.ndarray,
    lesion: np.ndarray,
    origin: Sequence[int],
    target: Sequence[int],
    shape: Sequence[int],
    motion: Motion,
    spacing_mm: Sequence[float],
    lesion_spacing_mm: Sequence[float],
) -> np.ndarray:
    """Planes (C, *) that belong to a lesion's label map (*), carried as `place` carries that, and interpolated.

    Returns:
        float32 (C, *shape); 0 where `place` does not reach.
    """
    source, start = _pulled(lesion, origin, target, motion, spacing_mm, lesion_spacing_mm)
    source = source + np.asarray(origin).reshape(-1, *[1] * len(start))
    planes = [ndimage.map_coordinates(plane, source, order=1, mode="nearest") for plane in values]
    return np.stack([_laid(plane.astype(np.float32), start, shape) for plane in planes])


def _pulled(
    lesion: np.ndarray,
    origin: Sequence[int],
    target: Sequence[int],
    motion: Motion,
    spacing_mm: Sequence[float],
    lesion_spacing_mm: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Where each voxel of a box about the lesion's new place comes from, float (axes, *box), and the box's first voxel.

    Places are counted in voxels of `lesion`, from `origin`.
    """
    spacing, own = np.asarray(spacing_mm), np.asarray(lesion_spacing_mm)
    offsets_mm = (np.argwhere(lesion) - np.asarray(origin)) * own
    # Elastic displacements rarely exceed three times their root mean square.
    reach_mm = motion.scale * float(np.linalg.norm(offsets_mm, axis=1).max(initial=0)) + 3 * motion.elastic_mm
    half = np.ceil(reach_mm / spacing).astype(int) + 1
    exact = np.asarray(target) + np.asarray(motion.shift_mm) / spacing
    middle = np.rint(exact).astype(int)
    box = np.stack(np.meshgrid(*(np.arange(-h, h + 1.0) for h in half), indexing="ij"))
    column = (-1, *[1] * len(spacing))
    at_mm = (box + (middle - exact).reshape(column)) * spacing.reshape(column)
    at_mm = at_mm - motion.displacement_mm(box.shape[1:], spacing_mm)
    source = np.tensordot(np.linalg.inv(motion.linear()), at_mm, axes=1) / own.reshape(column)
    return source, middle - half


def _laid(values: np.ndarray, start: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A box in an image of zeros (*shape), cut at its edges."""
    moved = np.zeros(tuple(shape), values.dtype)
    inside, taken = [], []
    for first, length, size in zip(start.tolist(), values.shape, shape, strict=True):
        low, high = max(0, first), max(0, min(size, first + length))
        inside.append(slice(low, high))
        taken.append(slice(low - first, max(low - first, high - first)))
    moved[tuple(inside)] = values[tuple(taken)]
    return moved
