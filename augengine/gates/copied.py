"""The gate that asks whether what an edit painted is a training row's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

import numpy as np

from augengine.body import body_mask
from augengine.gates.base import Case, Gate, RealPair, Tools, named, same_hash, unlike
from augengine.gates.reference import RowKind, training_kinds
from augengine.gates.training_images import images_digest
from augengine.policy.spec import ModelRef
from augengine.records import Sample


class CopyDistance(Gate):
    """How unlike the training rows' pixels are those that the edit painted: 0 a copy, 1 nothing alike.

    Compared is the edited region (`edited_region`) with every place of the same shape in every training row of
    `reference` of another subject: 1 − Pearson's correlation over the region, the mean of the channels, at the most
    similar row and shift. So neither where a lesion lies, nor brightness or contrast hides a copy; one that was turned,
    mirrored or scaled is not recognised. Rows are normalised, and compared on a grid of at most 64 voxels a side (of
    volumes, 32). Small regions resemble somebody's by chance: calibrate the bound on held-out rows, whose distance is
    that of their own lesions. A region of fewer than 8 voxels of that grid, or without structure, fails.
    Training rows lie in a temporary file, not in memory. A row takes about 0.15 ms per training row and channel.
    """

    comparison: ClassVar[RealPair] = "held_out"
    reference: ModelRef

    def open(self, tools: Tools) -> None:
        """Read the training rows."""
        tools.training_images(self.reference)

    def hashes(self) -> Mapping[str, str]:
        """Of the training rows."""
        found = images_digest(named(self.reference, "reference"))
        same_hash(self.reference, found)
        return {"reference": found}

    def check_rows(self, kinds: Collection[RowKind]) -> None:
        """Images are compared channel by channel and voxel by voxel."""
        uri = named(self.reference, "reference")
        there = training_kinds(uri)
        for kind in kinds:
            if kind not in there:
                raise unlike(uri, str(kind), "; ".join(map(str, sorted(there))))

    def value(self, case: Case, tools: Tools) -> float:
        """See the class."""
        place = edited_region(case.before, case.after, case.region)
        return tools.training_images(self.reference).nearest(case.after, place).distance


def edited_region(before: Sample, after: Sample, region: np.ndarray | None = None) -> np.ndarray:
    """bool (*): what the edit changed of the region (None: of the body), in any channel; all, if it changed none."""
    within = body_mask(before.image) if region is None else region
    changed = within & (before.image != after.image).any(axis=0)
    return np.asarray(changed if changed.any() else within)
