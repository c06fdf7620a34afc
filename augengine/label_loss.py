"""A label map before and after each step goes in; how much of every label was lost comes out, or a refusal.

A code that resampling would take from a whole slice is given back, so that no slice turns healthy by rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from augengine.errors import DataError
from augengine.geometry import inside

NOTED_SHARE = 0.01


def label_volumes(label: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """float64 `(256,)`: volume of every code of a uint8 label map, mm³."""
    counts = np.bincount(label[label != 0], minlength=256)  # most voxels are 0, and are left to a subtraction
    counts[0] = label.size - counts.sum()
    return np.asarray(counts * abs(np.linalg.det(affine[:3, :3])))


def keep_vanished(
    before: np.ndarray, affine: np.ndarray, after: np.ndarray, target: np.ndarray, axes: Sequence[int]
) -> tuple[np.ndarray, int]:
    """A resampled label map in which no plane has lost a code that it had.

    A plane had a code if the centre of a voxel with that code lies in it. Where resampling left none of it, the voxel
    that most such centres fall into gets it back (ties: the first one), unless it is the last one of another code in
    its plane.

    Args:
        before, affine: uint8 `(I, J, K)`, as it was.
        after, target: uint8 on another grid, as it became.
        axes: of the new grid, whose planes are looked at; none: the volume as a whole is one plane.

    Returns:
        The label map and how many voxels were given back.
    """
    mapping, kept, given = np.linalg.inv(target) @ affine, after.copy(), 0
    for code, box in enumerate(ndimage.find_objects(before), start=1):
        if box is None:
            continue
        corner = np.array([part.start for part in box])
        places = _landing(before[box] == code, corner, mapping, kept.shape)
        for axis in axes or (None,):
            planes = np.zeros(len(places), int) if axis is None else places[:, axis]
            view = kept[None] if axis is None else np.moveaxis(kept, axis, 0)
            has = (view == code).any(axis=tuple(range(1, view.ndim)))
            lost = (np.bincount(planes, minlength=len(view)) > 0) & ~has
            for plane in np.flatnonzero(lost).tolist():
                given += _give_back(kept, view[plane], code, places[planes == plane])
    return kept, given


def _landing(mask: np.ndarray, corner: np.ndarray, mapping: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """int32 `(N, 3)`: the voxels of another grid that the centres of a mask's voxels fall into.

    Args:
        corner: where the mask begins in its grid, three indices.
    """
    # Single precision is exact to 1e-4 voxels.
    centres = (np.stack(np.nonzero(mask)) + corner[:, None]).astype(np.float32)
    places = mapping[:3, :3].astype(np.float32) @ centres + mapping[:3, 3:].astype(np.float32)
    places = np.rint(places).astype(np.int32)
    limits = np.array(shape, np.int32)[:, None]
    return np.asarray(places[:, ((places >= 0) & (places < limits)).all(axis=0)].T)


def _give_back(label: np.ndarray, plane: np.ndarray, code: int, places: np.ndarray) -> int:
    """Write `code` into the voxel of `places` with the largest share; `plane` is the part of `label` it lies in."""
    found, shares = np.unique(places, axis=0, return_counts=True)
    for voxel in map(tuple, found[np.argsort(-shares, kind="stable")].tolist()):
        if label[voxel] == 0 or np.count_nonzero(plane == label[voxel]) > 1:
            label[voxel] = code
            return 1
    return 0


@dataclass(eq=False)
class LabelWatch:
    """Follows the labels of one volume from step to step.

    Attributes:
        labels: label name to code.
        max_loss: share of a label's volume that all steps together may lose, 0 to 1.
        start: mm³ of every code before the first step.
        now: mm³ after the last one.
        uncovered: bool, image voxels that the mask says nothing about; None: it covers the image.
        notes: what was lost, free of names of files.
    """

    labels: Mapping[str, int]
    max_loss: float
    start: np.ndarray
    now: np.ndarray
    uncovered: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    _rounding_mm3: float = 0.0
    _asked: float = 0.0

    @classmethod
    def of(cls, label: np.ndarray, affine: np.ndarray, labels: Mapping[str, int], max_loss: float) -> LabelWatch:
        """A watch that starts with this label map."""
        volumes = label_volumes(label, affine)
        return cls(labels, max_loss, volumes, volumes)

    def cut(self, label: np.ndarray, affine: np.ndarray, step: str, asked: float) -> None:
        """A step that left out voxels, as the user asked, and kept the others as they are.

        Args:
            asked: share of the image that is left out; a label that is spread over the image loses as much of it.

        Raises:
            DataError: a label lost more than the bound allows and than the user asked for, or all of it.
        """
        self._asked = max(self._asked, asked)
        self._compare(label_volumes(label, affine), step)

    def resampled(
        self,
        before: np.ndarray,
        affine: np.ndarray,
        after: np.ndarray,
        target: np.ndarray,
        step: str,
        axes: Sequence[int] = (),
    ) -> np.ndarray:
        """The label map after a step that put it on another grid, with vanished codes given back.

        What lies outside of the new field of view counts as cut off, the rest as resampled; one voxel of the new
        grid per label is allowed for rounding. Arguments as for `keep_vanished`.

        Raises:
            DataError: as for `cut`.
        """
        seen = np.where(inside(before.shape, affine, after.shape, target), before, np.uint8(0))
        self._compare(label_volumes(seen, affine), f"{step} (outside of the field of view)")
        kept, given = keep_vanished(before, affine, after, target, axes)
        if given:
            self.notes.append(f"{given} voxels of labels that {step} would take from a slice were kept")
        self._rounding_mm3 += float(abs(np.linalg.det(target[:3, :3])))
        self._compare(label_volumes(kept, target), step)
        return kept

    def unlabelled_slices(self, uncovered: np.ndarray, slices: bool) -> np.ndarray:
        """bool `(K,)`: slices along the last axis that the mask does not touch; their label is unknown, not healthy.

        Args:
            uncovered: bool `(I, J, K)`, voxels beyond the mask.
            slices: False for a row that is a whole volume, whose label is one.

        Raises:
            DataError: a larger share of a whole volume than `max_loss` lies beyond the mask.
        """
        share, untouched = float(uncovered.mean()), uncovered.all(axis=(0, 1))
        if not slices and share > self.max_loss:
            raise DataError(
                "the mask of a volume row must cover its image",
                found=f"{share:.0%} of it lie beyond the mask",
                next_step="cut slices (those beyond the mask get no label), or raise --max-label-loss",
            )
        text = f"{share:.0%} of the image lie beyond the mask"
        if slices and untouched.any():
            text += f"; {untouched.sum()} slices wholly, they have no label"
        self.notes.append(text)
        return np.asarray(untouched)

    def _compare(self, now: np.ndarray, step: str) -> None:
        for name, code in self.labels.items():
            start, before, after = (float(v[code]) for v in (self.start, self.now, now))
            if before - after > NOTED_SHARE * start:
                self.notes.append(f"label '{name}': {(before - after) / start:.0%} of {start:.0f} mm3 lost by {step}")
            lost = start - after
            bound = max(self.max_loss, self._asked)
            over = lost > bound * start + self._rounding_mm3 or (after == 0 and self.max_loss < 1)
            if before > after and over:
                raise DataError(
                    f"of label '{name}' at most {bound:.0%} may be lost",
                    found=f"{lost / start:.0%} of {start:.0f} mm3 lost, the last of it by {step}",
                    next_step="look at image and mask, change that setting, or raise --max-label-loss",
                )
        self.now = now
