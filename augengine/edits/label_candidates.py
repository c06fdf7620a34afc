"""A label map that a prior drew and a sample's host region in; the lesion that is left of it there, and its fit, out.

Source: label priors over nested regions are paper 002. Legend: R regions from the outermost inwards, `*` spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from scipy import ndimage

from augengine import masks
from augengine.errors import CheckpointError


def region_labels(regions: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The label of what lies in each region and in none further in; a label map follows from the regions by these.

    Raises:
        CheckpointError: regions that do not nest, or that leave the choice between several labels.

    >>> region_labels({"whole": ("oedema", "core"), "core": ("core",)})
    ('oedema', 'core')
    """
    names = []
    for outer, inner in zip_longest(regions.values(), list(regions.values())[1:], fillvalue=()):
        own = set(outer) - set(inner)
        if len(own) != 1 or not set(inner) <= set(outer):
            raise CheckpointError(
                "each region of a label prior holds the next one and one label more",
                found="; ".join(f"{name}: {', '.join(labels)}" for name, labels in regions.items()),
                next_step="train the prior on regions listed from the outermost to the innermost",
            )
        names.append(own.pop())
    return tuple(names)


@dataclass(frozen=True)
class Wanted:
    """What a lesion should be like; None leaves it to the prior.

    Attributes:
        volume_ml, lesions: of all its connected parts together, and how many there are.
        min_component_ml: smaller parts are removed.
        inside: share of these parts that should find room.
    """

    volume_ml: float | None
    lesions: int | None
    min_component_ml: float
    inside: float


@dataclass(frozen=True, eq=False)
class Candidate:
    """A lesion on the sample's grid.

    Attributes:
        regions: bool (R, *), nested; all empty where nothing of the map found room.
        confidence: float32 (*), 0…1: distance of the nearest of the prior's planes from the value at which its
            decision turns (inside 1, outside -1). 1 where the sample's own label stands whatever the prior drew.
        misfit: nothing is left; too little found room; distance from the drawn volume and number. Less is better.
    """

    regions: np.ndarray
    confidence: np.ndarray
    misfit: tuple[bool, bool, float]

    @property
    def lesion(self) -> np.ndarray:
        """bool (*): the whole lesion."""
        return np.asarray(self.regions[0])


def laid(
    values: np.ndarray, spacing_mm: Sequence[float], shape: Sequence[int], sample_spacing_mm: Sequence[float]
) -> np.ndarray:
    """float32 (R, *shape): planes (R, *) of voxels `spacing_mm` on a grid of other voxels, middle on middle; nested if
    they were. Beyond the planes' frame there is no lesion."""
    step = np.asarray(sample_spacing_mm) / np.asarray(spacing_mm)
    offset = np.array([n // 2 for n in values.shape[1:]]) - step * [n // 2 for n in shape]
    planes = [ndimage.affine_transform(v, step, offset, tuple(shape), order=1, cval=-1.0) for v in values]
    return np.stack(planes).astype(np.float32)


def candidate(
    planes: np.ndarray, room: np.ndarray, voxel_ml: float, centre: Sequence[int] | None, wanted: Wanted
) -> Candidate:
    """Carry a drawn map to a place, cut it to `room`, and keep its largest parts.

    Args:
        planes: float32 (R, *), nested, above 0 inside, as the prior drew them, on the sample's grid.
        room: bool (*), where a lesion may lie; every voxel counts `voxel_ml`.
        centre: voxel for the middle of the map's largest part; None leaves the map where it is.
        wanted: which parts are kept, and what a good lesion is.
    """
    if centre is not None and (planes[0] > 0).any():
        shift = np.asarray(centre) - masks.centre(masks.components(planes[0] > 0) == 1)
        planes = ndimage.shift(planes, (0, *shift), order=0, cval=-1.0)
    drawn = masks.components(planes[0] > 0)
    parts = masks.components((drawn > 0) & room)
    sizes_ml = np.bincount(parts.ravel())[1 : 1 + (wanted.lesions or parts.size)] * voxel_ml
    kept = int((sizes_ml >= wanted.min_component_ml).sum())  # parts are numbered by falling size
    lesion = (parts > 0) & (parts <= kept)
    whole = np.isin(drawn, drawn[lesion]) & (drawn > 0)  # the drawn parts that something is left of
    confidence = np.abs(planes).min(axis=0).clip(max=1)
    confidence[~lesion & (~room | (drawn > 0))] = 1
    off = 0.0 if wanted.lesions is None else float(abs(kept - wanted.lesions))
    if kept and wanted.volume_ml is not None:
        off += abs(math.log(sizes_ml[:kept].sum() / wanted.volume_ml))
    return Candidate(
        regions=(planes > 0) & lesion,
        confidence=confidence,
        misfit=(not kept, bool(lesion.sum() < wanted.inside * whole.sum()), off),
    )
