"""Gates about the label map, alone, beside the source's and on the image: size, place, nesting, shifts and swaps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy.ndimage import binary_dilation, binary_fill_holes, find_objects, label

from augengine import masks
from augengine.body import body_mask
from augengine.gates.base import (
    Case,
    Gate,
    LesionGate,
    RealPair,
    ReferenceGate,
    Tools,
    label_mask,
    label_of,
    present,
)
from augengine.gates.reference import label_masks
from augengine.metrics.memorisation import nearest_training_dice
from augengine.metrics.overlap import dice
from augengine.records import Sample

SHIFTS = (2, 4, 8)
MIN_VOXELS = 8


class VolumeRatio(LesionGate):
    """Voxels of the lesion after the edit, relative to before."""

    comparison: ClassVar[RealPair] = "itself"

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        old, new = (np.count_nonzero(self.mask(s)) for s in (case.before, case.after))
        return new / old if old else math.nan


class LesionVolume(LesionGate):
    """Volume of the lesion after the edit in ml; a voxel of a slice reaches to the next slice."""

    comparison: ClassVar[RealPair] = "itself"

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        return float(np.count_nonzero(self.mask(case.after)) * np.prod(case.after.spacing_mm) / 1000)


class InBrain(LesionGate):
    """Share of the new lesion that lies in the source's foreground (brain, breast), holes filled; 1 without one."""

    comparison: ClassVar[RealPair] = "itself"

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        lesion = self.mask(case.after)
        inside = binary_fill_holes(body_mask(case.before.image))
        return float(inside[lesion].mean()) if lesion.any() else 1.0


class LabelComponents(LesionGate):
    """Connected pieces (corners connect) of the lesion after the edit."""

    comparison: ClassVar[RealPair] = "itself"

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        mask = self.mask(case.after)
        return float(label(mask, np.ones((3,) * mask.ndim))[1])


class Nesting(Gate):
    """Share of a region's voxels that touch what may not be next to it, the worst region's; 0 without any.

    A region may touch itself, everything inside it, and the next one outside; the outermost may touch anything.
    """

    comparison: ClassVar[RealPair] = "itself"
    order: tuple[str, ...] = Field(default=("necrosis", "enhancing", "oedema"), min_length=2)
    """Label names from the inside out."""

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        worst = 0.0
        for n, name in enumerate(self.order[:-1]):
            region = label_mask(case.after, (name,))
            if region.any():
                # The frame's edge is not outside: a slice or crop may cut through a lesion.
                outside = binary_dilation(~label_mask(case.after, self.order[: n + 2]), border_value=0)
                worst = max(worst, float(outside[region].mean()))
        return worst


class NearestTrainingDice(ReferenceGate, LesionGate):
    """Dice with the most similar training label map: near 1, the prior has learnt it by heart.

    `reference` is a folder of shards; its training rows count. Mean over the labels of `lesion` that either holds.
    """

    comparison: ClassVar[RealPair] = "unseen"

    def open(self, tools: Tools) -> None:
        """Read the training label maps."""
        tools.reference(self.reference, self.lesion)

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        found = label_masks(label_of(case.after), dict(case.after.labels), self.lesion)
        nearest, _ = nearest_training_dice(found[None], tools.reference(self.reference, self.lesion).planes)
        return float(nearest[0])


class LabelAgreement(Gate):
    """How well the label's borders lie on edges of the image, relative to the source's own: 1, as well as there.

    Measured is the edge strength under the borders, relative to the best place within 8 voxels. Which side of an edge
    is brighter does not count, so no acquisition changes it, whereas a label that was moved finds its edges again
    when it is moved back. Real lesions fade into their surroundings, so the source's value is the scale. 1 without
    labels.
    """

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        return best_place_share(case.after) / best_place_share(case.before)


def best_place_share(sample: Sample) -> float:
    """Edge strength under the label's borders ÷ the highest within 8 voxels, 0…1; NaN without edges."""
    index = label_of(sample)
    box = find_objects((index > 0).astype(np.uint8))
    if not box:
        return 1.0
    crop = tuple(slice(max(s.start - max(SHIFTS), 0), s.stop + max(SHIFTS)) for s in box[0])
    index, edges = index[crop], edge_strength(sample.image[(slice(None), *crop)])
    here = on_edges(edges, index)
    best = max(on_edges(edges, np.roll(index, shift, range(index.ndim))) for shift in _shifts(index.ndim))
    return min(1.0, here / best) if best > 0 else math.nan


def edge_strength(image: np.ndarray) -> list[np.ndarray]:
    """Along every axis, |difference| of neighbouring voxels of (C, *), in deviations of the channel, mean of them."""
    scaled = image / (image.std(axis=tuple(range(1, image.ndim)), keepdims=True) + 1e-9)
    return [np.abs(np.diff(scaled, axis=axis)).mean(axis=0) for axis in range(1, image.ndim)]


def on_edges(edges: Sequence[np.ndarray], index: np.ndarray) -> float:
    """Mean edge strength between voxels of different labels; 0 without any."""
    border = [np.diff(index.astype(np.int16), axis=axis) != 0 for axis in range(index.ndim)]
    faces = sum(np.count_nonzero(b) for b in border)
    return float(sum(e[b].sum() for e, b in zip(edges, border, strict=True)) / faces) if faces else 0.0


def _shifts(ndim: int) -> list[list[int]]:
    """To the faces of a cube, of a square to its corners, too."""
    directions = [d for d in itertools.product((-1, 0, 1), repeat=ndim) if 0 < sum(map(abs, d)) <= max(4 - ndim, 1)]
    return [[step * d for d in direction] for direction in directions for step in SHIFTS]


class LabelSwap(Gate):
    """Largest Dice of a label with another label of the source: near 1, a structure has kept its place, not its name.

    Intensities cannot tell: another acquisition may exchange the brightness of two tissues.
    """

    comparison: ClassVar[RealPair] = "itself"

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        old, new = present(case.before), present(case.after)
        return max((dice(new[a], old[b]) for a in new for b in old if a != b), default=0.0)


class IntensityDistance(Gate):
    """Does what was newly labelled look like its tissue? Wasserstein-1 distance on the normalised scale.

    For every label, voxels that carry it only after the edit are compared with the source's voxels of that label; of
    a local edit that gave a label no new voxels, those that it painted anew. New background (of a label map that names
    lesions alone) is compared with the tissue within 5 voxels of it. Mean of the channels, the worst label's; labels
    of fewer than 8 such voxels are left out, and 0 is the value without any.
    A new label that the source does not hold has nothing to compare with; with no other, the row fails.
    """

    comparison: ClassVar[RealPair] = "neighbour"

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        from scipy.stats import wasserstein_distance  # slow to import

        before, after = case.normalised()
        old, new = label_of(case.before), label_of(case.after)
        painted = case.within((before != after).any(axis=0)) if case.region is not None else np.zeros(old.shape, bool)
        distances, added = [], False
        for code in (0, *case.after.labels.values()):
            fresh = (new == code) & (old != code)
            if np.count_nonzero(fresh) < MIN_VOXELS:
                fresh = (new == code) & painted
            if not code:
                fresh &= body_mask(case.before.image)
            if np.count_nonzero(fresh) < MIN_VOXELS:
                continue
            added = True
            same = (old == code) if code else _around(fresh) & (old == 0) & body_mask(case.before.image)
            if np.count_nonzero(same) >= MIN_VOXELS:
                pairs = zip(after[:, fresh], before[:, same], strict=True)
                distances.append(float(np.mean([wasserstein_distance(x, y) for x, y in pairs])))
        if not distances:
            return math.nan if added else 0.0
        return max(distances)


class MirrorDistance(LesionGate):
    """How far the place of a removed lesion stands off from its mirror image, in deviations of the healthy body.

    |difference of means| between what the source calls lesion and the output does not, and the same place across the
    plane that halves the body; the largest of the channels. What was healed should look like the other side. Voxels
    whose mirror image is no healthy tissue of the source are left out; with fewer than 8 others (a lesion across the
    midline, or a slice without left and right) nothing says that it was healed, and the row fails.
    """

    comparison: ClassVar[RealPair] = "elsewhere"

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        axis = masks.left_right_axis(case.before.affine, case.before.image.ndim - 1)
        if axis is None:
            return math.nan
        before, after = case.normalised()
        lesion = self.mask(case.before)
        healthy = body_mask(case.before.image) & ~lesion
        other = masks.mirror_image(lesion & ~self.mask(case.after), case.before.image, axis) & healthy
        healed = masks.mirror_image(other, case.before.image, axis)
        if np.count_nonzero(healed) < MIN_VOXELS:
            return math.nan
        off = np.abs(after[:, healed].mean(axis=1) - before[:, other].mean(axis=1))
        return float((off / np.maximum(before[:, healthy].std(axis=1), 1e-9)).max())


def _around(mask: np.ndarray) -> np.ndarray:
    return np.asarray(binary_dilation(mask, np.ones((3,) * mask.ndim), iterations=5) & ~mask)
