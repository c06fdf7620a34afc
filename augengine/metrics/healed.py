"""Rows that a lesion was taken from, with their sources, in; what is left of it and what else changed, by patient, out.

The place of the lesion is what the source's label map calls lesion and the edited one does not. Its mirror image, cut
to the foreground and to where no lesion is, stands for healthy tissue.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from augengine import masks
from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.metrics.partial import Pair, SubjectMeans
from augengine.metrics.referee import Referee, check_unseen
from augengine.metrics.removal import (
    Edited,
    IouCurve,
    diffmap_iou,
    local_variance_ratio,
    residual_floor,
    tumor_residual,
    void_fraction,
    voids,
)
from augengine.records import Sample


class HealedMeasure:
    """Patient-level means over the rows of which a lesion was removed.

    - `void_fraction`, `variance_ratio` (relative to the mirror image; below 1 the fill is blurred);
    - with a referee `tumor_residual`, and `residual_floor`, the same of the mirror image in the source;
    - with a threshold `diffmap_iou`.

    Args:
        lesion: labels that make a lesion.
        referee: folder of a segmenter that was trained on none of the rows' subjects.
        threshold: of the difference map, from `ChangeMeasure` on validation rows.
        device: of the referee.
    """

    def __init__(
        self, lesion: Collection[str], referee: str | None = None, threshold: float | None = None, device: str = "cpu"
    ) -> None:
        self.lesion, self.threshold = tuple(lesion), threshold
        self.referee = None if referee is None else Referee(referee, device)
        self.regions = [] if self.referee is None else self.referee.lesion_regions(self.lesion)

    def __call__(self, pairs: Sequence[Pair]) -> SubjectMeans | None:
        """Sums over the rows; None if no lesion was removed from any."""
        healed = [(pair.sample, source, gone) for pair, source, gone in removed(pairs, self.lesion) if gone.any()]
        if not healed:
            return None
        seen = self._seen([sample for sample, _, _ in healed] + [source for _, source, _ in healed])
        after, before = seen[: len(healed)], seen[len(healed) :]
        return SubjectMeans.of(
            (sample.subject_id, self._row(sample, source, gone, now, then))
            for (sample, source, gone), now, then in zip(healed, after, before, strict=True)
        )

    def _seen(self, samples: Sequence[Sample]) -> list[np.ndarray | None]:
        """bool (*spatial) of every row: where the referee sees a lesion."""
        if self.referee is None:
            return [None] * len(samples)
        check_unseen(self.referee.model.spec, {sample.subject_id for sample in samples})
        return [np.asarray(found[self.regions].any(0)) for found in self.referee.seen(samples)]

    def _row(
        self, sample: Sample, source: Sample, gone: np.ndarray, now: np.ndarray | None, then: np.ndarray | None
    ) -> dict[str, float]:
        before, after = normalise(source), normalise(source.replace(image=sample.image))
        brain, healthy = masks.foreground(source.image), mirrored(source, gone, self.lesion)
        values = {
            "void_fraction": void_fraction(after, gone),
            "variance_ratio": local_variance_ratio(after, gone, healthy) if healthy.any() else math.nan,
        }
        if now is not None and then is not None:
            values["tumor_residual"] = tumor_residual(now, gone, voids(after, brain))
            values["residual_floor"] = residual_floor(then, healthy, voids(before, brain))
        if self.threshold is not None:
            values["diffmap_iou"] = diffmap_iou(before, after, gone, self.threshold)
        return values


class ChangeMeasure:
    """Rows of which a lesion was removed in, their `IouCurve` out; `lesion` are the labels that make one."""

    def __init__(self, lesion: Collection[str]) -> None:
        self.lesion = tuple(lesion)

    def __call__(self, pairs: Sequence[Pair]) -> IouCurve:
        """The curve of the rows."""
        return IouCurve.of(
            Edited(normalise(source), normalise(source.replace(image=pair.sample.image)), gone)
            for pair, source, gone in removed(pairs, self.lesion)
        )


def removed(pairs: Sequence[Pair], lesion: Collection[str]) -> list[tuple[Pair, Sample, np.ndarray]]:
    """Pairs with label maps, their source, and where (bool (*spatial)) it has a lesion and the edited row has none.

    Raises:
        DataError: a row without its source, or of another shape.
    """
    found = []
    for pair in pairs:
        sample, source = pair
        if source is None or source.image.shape != sample.image.shape:
            raise DataError(
                "a removal is measured beside its source, of the same shape",
                where=sample.sample_id,
                next_step="give the folder that was augmented",
            )
        if sample.label is not None and source.label is not None:
            found.append((pair, source, _of(source, lesion) & ~_of(sample, lesion)))
    return found


def mirrored(source: Sample, place: np.ndarray, lesion: Collection[str]) -> np.ndarray:
    """bool (*spatial): the mirror image of a place, in the foreground and without lesions; empty where there is none.

    A slice that has no left and right has no mirror image.
    """
    axis = masks.left_right_axis(source.affine, place.ndim)
    if axis is None:
        return np.zeros_like(place)
    other = masks.mirror_image(place, source.image, axis)
    return np.asarray(other & masks.foreground(source.image) & ~_of(source, lesion) & ~place)


def _of(sample: Sample, lesion: Collection[str]) -> np.ndarray:
    assert sample.label is not None
    return np.isin(sample.label, [code for name, code in sample.labels.items() if name in lesion])
