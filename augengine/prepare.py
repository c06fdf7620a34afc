"""A source volume goes in; canonical, resampled slices or one volume come out, ready for a shard."""

from __future__ import annotations

from typing import Literal

import nibabel as nib
import numpy as np
from pydantic import Field, model_validator

from augengine.body import body_mask
from augengine.errors import DataError
from augengine.geometry import background, check_affine, permute, regrid, spacing_mm, to_canonical
from augengine.label_loss import LabelWatch
from augengine.records import IntensityRule, Sample
from augengine.yaml_config import Strict

Foreground = Literal["all", "nonzero", "body"]
PLANE_AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}


class Preparation(Strict):
    """How volumes become samples.

    Attributes:
        slices: cut 2D slices along the through-plane axis; False keeps the volume.
        plane: what lies in-plane; `acquired` takes the axis that slices were acquired along; where nobody says,
            that of a single voxel, else that of the coarsest spacing (ties: the last).
        drop_end_slices: slices left out at each end of the through-plane axis.
        size: square in-plane matrix. Alone, the whole field of view fits into it, padded with background; with
            `spacing_mm`, the field of view is cropped or padded about its centre.
        spacing_mm: voxel size to resample to: in-plane for slices, along all axes for volumes. Volumes with
            `size` alone are resampled along all axes, too: voxels come out isotropic.
        percentiles: of each channel of a volume, which normalisation maps to 0 and 1.
        foreground: voxels that these are taken of: `all`, those that are not 0 in the channel (`nonzero`), or those of
            the body (`body`, see `augengine.body`): how much air a field of view holds then says nothing.
    """

    slices: bool = True
    plane: Literal["acquired", "axial", "coronal", "sagittal"] = "acquired"
    drop_end_slices: int = Field(default=0, ge=0)
    size: int | None = Field(default=None, ge=8, le=4096)
    spacing_mm: float | None = Field(default=None, gt=0.01, le=100)
    percentiles: tuple[float, float] = (10.0, 99.0)
    foreground: Foreground = "all"

    @property
    def intensity_rule(self) -> IntensityRule:
        """How intensity ranges are measured, as samples state it."""
        return IntensityRule(self.percentiles, self.foreground)

    @model_validator(mode="after")
    def _field_of_view(self) -> Preparation:
        if self.size and self.spacing_mm and self.size * self.spacing_mm < 10:
            raise ValueError("size x spacing_mm must give a field of view of at least 10 mm")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError("percentiles are two rising numbers from 0 to 100")
        return self


def prepare(
    volume: Sample,
    preparation: Preparation,
    *,
    outside: np.ndarray | None = None,
    acquired_axis: int | None = None,
    slice_by_slice: bool = False,
    watch: LabelWatch | None = None,
) -> list[Sample]:
    """Canonical orientation, through-plane axis last, resampling and slicing.

    Args:
        volume: image `(C, I, J, K)` in any orientation; oblique affines stay exact.
        outside: bool `(I, J, K)`, voxels that the scanner did not measure, such as DICOM pixel padding. Whatever they
            hold counts for nothing, and becomes what padding is: the background of the measured voxels. The smallest
            measured value would not do, since a single dark voxel may be far below the air around it.
        acquired_axis: array axis of `volume` that slices were acquired along, if known.
        slice_by_slice: they were excited one by one, so that none lies at the end of a slab (`Sample.slab_end_mm`).
        watch: follows the labels, refuses a loss above its bound, and knows where the mask says nothing: such slices
            get no label. Without it, any loss is allowed.

    Returns:
        Slices (image `(C, I, J)`, `slice_index` counted in the canonical source volume, affine places
        `(i, j, 0)`) or one volume; `intensity_range` are percentiles of each channel of the source volume.

    Raises:
        DataError: a slice instead of a volume, an empty, non-finite or constant image, no slice left, nothing
            measured, or too much of a label lost.
    """
    measured = None if outside is None or not outside.any() else ~outside
    check(volume, measured)
    image, affine = to_canonical(volume.image, volume.affine)
    label, measured = (None if m is None else to_canonical(m, volume.affine)[0] for m in (volume.label, measured))

    if acquired_axis is not None:  # an axis of the array becomes one of the canonical array
        acquired_axis = int(nib.io_orientation(volume.affine)[acquired_axis, 0])
    affine_before, shape = affine, image.shape[1:]
    through = through_plane_axis(affine, preparation.plane, shape, acquired_axis)
    order = [axis for axis in range(3) if axis != through] + [through]
    label, measured = (None if m is None else permute(m, affine, order)[0] for m in (label, measured))
    image, affine = permute(image, affine, order)
    acquired = not slice_by_slice and through == through_plane_axis(affine_before, "acquired", shape, acquired_axis)
    slices, thick = image.shape[-1], float(spacing_mm(affine)[2])
    ranges = intensity_ranges(volume.replace(image=image, affine=affine, label=None, labels={}), preparation, measured)
    resampled = preparation.size is not None or preparation.spacing_mm is not None
    air = background(image, measured) if resampled or measured is not None else None
    if measured is not None and air is not None:
        image = np.where(measured, image, air.reshape(-1, 1, 1, 1))
    if label is not None and watch is None:
        watch = LabelWatch.of(label, affine, volume.labels, max_loss=1.0)

    first, last = preparation.drop_end_slices, image.shape[-1] - preparation.drop_end_slices
    if last <= first:
        raise DataError(
            f"dropping {first} slices at each end must leave one",
            found=f"{image.shape[-1]} slices",
            where=volume.sample_id,
            next_step="lower drop_end_slices",
        )
    image, label = image[..., first:last], None if label is None else label[..., first:last]
    affine = shifted(affine, first)
    if first and label is not None and watch is not None:
        watch.cut(label, affine, "--drop-end-slices", 2 * first / (2 * first + label.shape[-1]))

    if resampled:
        before, source = label, affine
        grid = target_grid(image.shape[1:], affine, preparation)
        image, label, affine = regrid(image, label, affine, *grid, fill=air)
        if label is not None and before is not None and watch is not None:
            axes = (2,) if preparation.slices else ()
            label = watch.resampled(before, source, label, affine, "--size/--spacing-mm", axes)
    whole = volume.replace(
        image=np.ascontiguousarray(image, np.float32),
        label=None if label is None else np.ascontiguousarray(label),
        affine=affine,
        intensity_range=ranges,
        intensity_rule=preparation.intensity_rule,
    )
    if acquired:
        whole = whole.replace(slab_end_mm=first * thick + whole.spacing_mm[2] / 2)
    unknown = np.zeros(last - first, bool)
    if watch is not None and watch.uncovered is not None:
        uncovered = permute(to_canonical(watch.uncovered, volume.affine)[0], affine, order)[0]
        unknown = watch.unlabelled_slices(uncovered[..., first:last], preparation.slices)
    if not preparation.slices:
        return [whole]
    rows = [
        whole.replace(
            image=whole.image[..., k].copy(),
            label=None if whole.label is None else whole.label[..., k].copy(),
            affine=shifted(affine, k),
            slice_index=first + k,
            slab_end_mm=(min(first + k, slices - 1 - first - k) + 0.5) * thick if acquired else None,
        )
        for k in range(whole.image.shape[-1])
    ]
    return [row.replace(label=None, labels={}) if unknown[k] else row for k, row in enumerate(rows)]


def intensity_ranges(
    volume: Sample, preparation: Preparation, measured: np.ndarray | None = None
) -> tuple[tuple[float, float], ...]:
    """The two percentiles of every channel, of `measured` voxels (bool `(I, J, K)`; None: all).

    Args:
        volume: with its slices along the last axis: a body is looked for slice by slice.

    Raises:
        DataError: a channel whose percentiles coincide.
    """
    if preparation.foreground == "body":
        shown = volume.image if measured is None else np.where(measured, volume.image, 0)
        measured = body_mask(shown) & (True if measured is None else measured)
    found = []
    for name, channel in zip(volume.channels, volume.image, strict=True):
        values = channel if measured is None else channel[measured]
        if preparation.foreground == "nonzero":
            values = values[values != 0]
        low, high = np.percentile(values.ravel(order="K"), preparation.percentiles) if values.size else (0.0, 0.0)
        if not high > low:
            raise DataError(
                f"percentiles {preparation.percentiles[0]:g} and {preparation.percentiles[1]:g} of channel '{name}' "
                "must differ",
                found=float(low),
                where=volume.sample_id,
                next_step="look at the image: nearly all of it is one value",
            )
        found.append((float(low), float(high)))
    return tuple(found)


def check(volume: Sample, measured: np.ndarray | None = None) -> None:
    """Refuse what cannot become samples: wrong dimensions, empty, NaN or infinite, constant channels.

    Only `measured` voxels (bool `(I, J, K)`; None: all) count.
    """
    if volume.image.ndim != 4:
        raise DataError("preparation needs volumes (C, I, J, K)", found=volume.image.shape, where=volume.sample_id)
    if volume.image.size == 0:
        raise DataError("the image is empty", found=volume.image.shape, where=volume.sample_id)
    check_affine(volume.affine, volume.sample_id)
    if measured is not None and (measured.shape != volume.image.shape[1:] or not measured.any()):
        raise DataError(
            f"some voxels of an image {volume.image.shape[1:]} must have been measured",
            found=f"{np.count_nonzero(measured)} of {measured.shape}",
            where=volume.sample_id,
        )
    for name, values in zip(volume.channels, volume.image, strict=True):
        channel = values if measured is None else values[measured]
        bad = channel.size - np.count_nonzero(np.isfinite(channel))
        if bad:
            raise DataError(
                "voxels must be finite",
                found=f"{bad} NaN or infinite voxels in channel '{name}'",
                where=volume.sample_id,
                next_step="repair or leave out this image",
            )
        if channel.min() == channel.max():
            raise DataError(
                f"channel '{name}' must not be constant", found=float(channel.flat[0]), where=volume.sample_id
            )


def through_plane_axis(affine: np.ndarray, plane: str, shape: tuple[int, ...], acquired: int | None = None) -> int:
    """The axis of a canonical affine along which slices are cut; `acquired` is that of acquisition, if known."""
    if plane != "acquired":
        return PLANE_AXIS[plane]
    if acquired is not None:
        return acquired
    spacing = spacing_mm(affine)
    if 1 in shape:  # a single slice, however thick
        spacing = np.where(np.asarray(shape) == 1, spacing, 0)
    return int(np.flatnonzero(spacing >= spacing.max() * (1 - 1e-3))[-1])


def shifted(affine: np.ndarray, k: float) -> np.ndarray:
    """The affine whose index 0 along the last axis is index k of the given one."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, 2] * k
    return moved


def target_grid(
    shape: tuple[int, ...], affine: np.ndarray, preparation: Preparation
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Shape and spacing (mm) of the prepared grid; see `Preparation` for what `size` and `spacing_mm` mean."""
    spacing = spacing_mm(affine)
    extent_mm = spacing * shape
    if preparation.spacing_mm is not None:
        step = preparation.spacing_mm
    else:
        assert preparation.size is not None  # the caller resamples only if one of both is set
        step = float(max(extent_mm[:2])) / preparation.size
    # Rounding to whole voxels: 1e-3 forgives spacings stored as float32 text.
    count = [max(1, int(np.ceil(e / step - 1e-3))) for e in extent_mm]
    if preparation.size is not None:
        count[:2] = [preparation.size] * 2
    if preparation.slices:
        return (count[0], count[1], shape[2]), (step, step, float(spacing[2]))
    return (count[0], count[1], count[2]), (step, step, step)
