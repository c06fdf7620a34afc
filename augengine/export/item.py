"""A case in; its pixels, labels and geometry as every target writes them, out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from augengine.errors import DataError
from augengine.export.case import Case, Place
from augengine.export.stack import stack_affine
from augengine.io.shards import from_row, read_group
from augengine.io.store import Store
from augengine.records import Sample
from augengine.selection import Labels
from augengine.selection.reading import open_shard

_GROUPS_KEPT = 3


@dataclass(frozen=True, eq=False)
class Item:
    """A case with its pixels.

    Attributes:
        image: `(C, I, J, K)`, K = 1 of a slice; uint16 or int16 where all values are whole numbers, else float32.
        label: uint8 `(I, J, K)`, codes 1, 2, … of the export's labels; None where there is none.
        confidence: uint8 `(I, J, K)`, or None.
        affine: `(4, 4)`, voxel to RAS+ mm.
        cleared: voxels of a synthetic image that were set to 0 since its source has exactly 0 there.
    """

    case: Case
    image: np.ndarray
    label: np.ndarray | None
    confidence: np.ndarray | None
    affine: np.ndarray
    cleared: int = 0

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size along i, j, k; the third one of a slice is the distance between slices."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))


class Items:
    """Reads cases; holds a few row groups.

    Args:
        sources: the data sets that places count in.
        channels: of every image, in order.
        clear: set synthetic voxels to 0 where the source has 0 in all channels and the case has no label.
    """

    def __init__(self, sources: Sequence[Store], channels: Sequence[str], labels: Labels, clear: bool) -> None:
        self.sources, self.channels, self.labels, self.clear = sources, tuple(channels), labels, clear
        self._groups: OrderedDict[tuple[int, str, int], Any] = OrderedDict()

    def __call__(self, case: Case) -> Item:
        """Read one case.

        Raises:
            DataError: values that are no numbers, codes without names, or slices that are no volume.
        """
        samples = [self._sample(place) for place in case.rows]
        affines = [sample.affine for sample in samples]
        affine = affines[0] if case.slice_index is not None else stack_affine(affines, case.sample_id)
        image = _joined([self._channels(sample) for sample in samples], case)
        if not np.isfinite(image).all():
            raise DataError(
                "an image must hold finite numbers",
                found=f"{int((~np.isfinite(image)).sum())} voxels that are none",
                where=case.sample_id,
                next_step="mend the source and ingest it again: tools read them as 0 or fail",
            )
        label = _joined([self._label(sample) for sample in samples], case)
        confidence = _joined([sample.label_confidence for sample in samples], case)
        cleared = 0
        if self.clear and case.air:
            empty = _joined([self._air(place) for place in case.air], case)
            if empty.shape != image.shape[1:]:
                raise DataError("a row must have its source's grid", found=str(empty.shape), where=case.sample_id)
            if label is not None:
                empty &= label == 0
            cleared = int((image[:, empty] != 0).any(0).sum())
            image[:, empty] = 0
        return Item(case, _compact(image), label, confidence, affine, cleared)

    def _sample(self, place: Place) -> Sample:
        return from_row(self._row(place))

    def _row(self, place: Place) -> dict[str, Any]:
        key = (place.source, place.name, place.group)
        if key not in self._groups:
            file = open_shard(self.sources[place.source], place.name)
            self._groups[key] = read_group(file, place.group)
            if len(self._groups) > _GROUPS_KEPT:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        found: dict[str, Any] = self._groups[key].slice(place.row, 1).to_pylist()[0]
        return found

    def _channels(self, sample: Sample) -> np.ndarray:
        return sample.image[[sample.channels.index(name) for name in self.channels]]

    def _air(self, place: Place) -> np.ndarray:
        return np.asarray((self._channels(self._sample(place)) == 0).all(0))

    def _label(self, sample: Sample) -> np.ndarray | None:
        if sample.label is None:
            return None
        names, codes = list(sample.labels), list(sample.labels.values())
        return self.labels.mapped(sample.label, names, codes, sample.sample_id)


def _joined(planes: Sequence[Any], case: Case) -> Any:
    """Slices `(…, I, J)` along a new last axis, a single one with a last axis of length 1; a volume as it is.

    None if any of them is none.
    """
    if any(plane is None for plane in planes):
        return None
    whole = len(planes) == 1 and case.slice_index is None
    return np.array(planes[0]) if whole else np.stack(planes, -1)


def _compact(image: np.ndarray) -> np.ndarray:
    """Whole numbers as uint16 or int16, if they fit; every value stays what it is."""
    for kind in (np.uint16, np.int16):
        info = np.iinfo(kind)
        if image.min() >= info.min and image.max() <= info.max and (image == np.round(image)).all():
            return image.astype(kind)
    return image
