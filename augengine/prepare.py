"""A source volume goes in; canonical, resampled slices or one volume come out, ready for a shard."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from augengine.errors import DataError
from augengine.geometry import check_affine, permute, regrid, spacing_mm, to_canonical
from augengine.label_loss import LabelWatch
from augengine.records import Sample
from augengine.yaml_config import Strict

PLANE_AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}
INTENSITY_PERCENTILES = (10, 99)


class Preparation(Strict):
    """How volumes become samples.

    Attributes:
        slices: cut 2D slices along the through-plane axis; False keeps the volume.
        plane: what lies in-plane; `acquired` takes the axis of the coarsest spacing (ties: the last) as
            through-plane axis.
        drop_end_slices: slices left out at each end of the through-plane axis.
        size: square in-plane matrix. Alone, the whole field of view fits into it, padded by 0; with
            `spacing_mm`, the field of view is cropped or padded about its centre.
        spacing_mm: voxel size to resample to: in-plane for slices, along all axes for volumes. Volumes with
            `size` alone are resampled along all axes, too: voxels come out isotropic.
    """

    slices: bool = True
    plane: Literal["acquired", "axial", "coronal", "sagittal"] = "acquired"
    drop_end_slices: int = Field(default=0, ge=0)
    size: int | None = Field(default=None, ge=8, le=4096)
    spacing_mm: float | None = Field(default=None, gt=0.01, le=100)

    @model_validator(mode="after")
    def _field_of_view(self) -> Preparation:
        if self.size and self.spacing_mm and self.size * self.spacing_mm < 10:
            raise ValueError("size x spacing_mm must give a field of view of at least 10 mm")
        return self


def prepare(volume: Sample, preparation: Preparation, *, watch: LabelWatch | None = None) -> list[Sample]:
    """Canonical orientation, through-plane axis last, resampling and slicing.

    Args:
        volume: image `(C, I, J, K)` in any orientation; oblique affines stay exact.
        watch: follows the labels, refuses a loss above its bound, and knows where the mask says nothing: such slices
            get no label. Without it, any loss is allowed.

    Returns:
        Slices (image `(C, I, J)`, `slice_index` counted in the canonical source volume, affine places
        `(i, j, 0)`) or one volume; `intensity_range` is the (10th, 99th) percentile of the source volume.

    Raises:
        DataError: a slice instead of a volume, an empty, non-finite or constant image, no slice left, or too much of
            a label lost.
    """
    check(volume)
    low, high = np.percentile(volume.image, INTENSITY_PERCENTILES)
    if not high > low:
        raise DataError(
            "10th and 99th percentile of the volume must differ", found=float(low), where=volume.sample_id,
            next_step="look at the image: nearly all of it is one value",
        )  # fmt: skip
    image, affine = to_canonical(volume.image, volume.affine)
    label = None if volume.label is None else to_canonical(volume.label, volume.affine)[0]

    through = through_plane_axis(affine, preparation.plane)
    order = [axis for axis in range(3) if axis != through] + [through]
    label = None if label is None else permute(label, affine, order)[0]
    image, affine = permute(image, affine, order)
    if label is not None and watch is None:
        watch = LabelWatch.of(label, affine, volume.labels, max_loss=1.0)

    first, last = preparation.drop_end_slices, image.shape[-1] - preparation.drop_end_slices
    if last <= first:
        raise DataError(
            f"dropping {first} slices at each end must leave one", found=f"{image.shape[-1]} slices",
            where=volume.sample_id, next_step="lower drop_end_slices",
        )  # fmt: skip
    image, label = image[..., first:last], None if label is None else label[..., first:last]
    affine = shifted(affine, first)
    if label is not None and watch is not None:
        watch.cut(label, affine, "--drop-end-slices", 2 * first / (2 * first + label.shape[-1]))

    if preparation.size or preparation.spacing_mm:
        before, source = label, affine
        image, label, affine = regrid(image, label, affine, *target_grid(image.shape[1:], affine, preparation))
        if label is not None and before is not None and watch is not None:
            axes = (2,) if preparation.slices else ()
            label = watch.resampled(before, source, label, affine, "--size/--spacing-mm", axes)
    whole = volume.replace(
        image=np.ascontiguousarray(image, np.float32),
        label=None if label is None else np.ascontiguousarray(label),
        affine=affine,
        intensity_range=(float(low), float(high)),
    )
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
        )
        for k in range(whole.image.shape[-1])
    ]
    return [row.replace(label=None, labels={}) if unknown[k] else row for k, row in enumerate(rows)]


def check(volume: Sample) -> None:
    """Refuse what cannot become samples: wrong dimensions, empty, NaN or infinite, constant channels."""
    if volume.image.ndim != 4:
        raise DataError("preparation needs volumes (C, I, J, K)", found=volume.image.shape, where=volume.sample_id)
    if volume.image.size == 0:
        raise DataError("the image is empty", found=volume.image.shape, where=volume.sample_id)
    check_affine(volume.affine, volume.sample_id)
    for name, channel in zip(volume.channels, volume.image, strict=True):
        bad = channel.size - np.count_nonzero(np.isfinite(channel))
        if bad:
            raise DataError(
                "voxels must be finite", found=f"{bad} NaN or infinite voxels in channel '{name}'",
                where=volume.sample_id, next_step="repair or leave out this image",
            )  # fmt: skip
        if channel.min() == channel.max():
            raise DataError(
                f"channel '{name}' must not be constant", found=float(channel.flat[0]), where=volume.sample_id
            )


def through_plane_axis(affine: np.ndarray, plane: str) -> int:
    """The axis of a canonical affine along which slices are cut."""
    if plane != "acquired":
        return PLANE_AXIS[plane]
    spacing = spacing_mm(affine)
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
