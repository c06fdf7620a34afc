"""Labelled rows in; how bright and how large their lesions are by patient, and a sample of the lesions themselves, out.

What is kept grows by patients and by the size of the sample, not by rows. The sample is the lesions with the least
ranks, which follow from their rows' ids: the same for any number of readers.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from augengine import masks, rng
from augengine.diffusion.lesion_bank import Crop
from augengine.errors import DataError
from augengine.lesion_scene import Scene
from augengine.metrics.lesion_contrast import Contrast, ring_around
from augengine.metrics.partial import Pair
from augengine.records import IntensityRule, Sample

RECIPIENTS = 4096
"""Rows with lesions, at most, that say what such rows are like."""


@dataclass(frozen=True)
class Patient:
    """The lesions of one patient.

    Attributes:
        rows, lesion_rows: labelled rows, and those that show a lesion.
        volume_ml: of all lesions; a slice reaches to the next one.
        contrast: how bright they are beside their surroundings.
    """

    site: str
    split: str
    rows: int
    lesion_rows: int
    volume_ml: float
    contrast: Contrast

    def merge(self, other: Patient) -> Patient:
        """Both parts of one patient."""
        return Patient(
            self.site,
            self.split,
            self.rows + other.rows,
            self.lesion_rows + other.lesion_rows,
            self.volume_ml + other.volume_ml,
            self.contrast.merge(other.contrast),
        )


@dataclass(frozen=True, eq=False)
class Found:
    """One lesion of the sample."""

    rank: int
    subject_id: str
    manufacturer: str | None
    crop: Crop

    def __lt__(self, other: Found) -> bool:
        return self.rank < other.rank


@dataclass(frozen=True, eq=False)
class LesionSurvey:
    """The contribution of some rows.

    Attributes:
        patients: by subject id.
        lesions: the sample, those with the least ranks, rising; of the training split.
        recipients: (rank, body size, brightness, roughness) of rows with lesions, of the training split.
        too_large: lesions of the training split that fit no box.
        names: label names that rows know.
        channels, shape, rule: of the rows; they must be the same in all.
        spacing_mm: the least of any row.
        kept: size of the sample.
    """

    patients: dict[str, Patient]
    lesions: list[Found]
    recipients: list[tuple[int, float, float, float]]
    too_large: int
    names: frozenset[str]
    channels: tuple[str, ...]
    shape: tuple[int, ...]
    rule: IntensityRule
    spacing_mm: tuple[float, ...]
    kept: int

    def merge(self, other: LesionSurvey) -> LesionSurvey:
        """Both."""
        for name in ("channels", "shape", "rule"):
            if (here := getattr(self, name)) != (there := getattr(other, name)):
                raise DataError(
                    f"rows must share their {name}; some have {here}",
                    found=str(there),
                    next_step="ingest with --size, or survey one data set at a time",
                )
        patients = dict(self.patients)
        for name, more in other.patients.items():
            patients[name] = patients[name].merge(more) if name in patients else more
        return LesionSurvey(
            patients,
            heapq.nsmallest(self.kept, [*self.lesions, *other.lesions]),
            heapq.nsmallest(RECIPIENTS, [*self.recipients, *other.recipients]),
            self.too_large + other.too_large,
            self.names | other.names,
            self.channels,
            self.shape,
            self.rule,
            min(self.spacing_mm, other.spacing_mm),
            self.kept,
        )


class SurveyLesions:
    """The measure of a `LesionSurvey`.

    Args:
        labels: that make a lesion.
        kept: size of the sample.
        size: voxels along each axis of the box that a lesion must fit in.
        least_ml: smaller lesions are not kept.
    """

    def __init__(self, labels: Sequence[str], kept: int, size: int, least_ml: float) -> None:
        self.labels, self.kept, self.size, self.least_ml = tuple(labels), kept, size, least_ml

    def __call__(self, pairs: Sequence[Pair]) -> LesionSurvey | None:
        """Of the labelled rows among these; None if none is."""
        found = [self._of(pair.sample) for pair in pairs if pair.sample.label is not None]
        merged: LesionSurvey | None = None
        for survey in found:
            merged = survey if merged is None else merged.merge(survey)
        return merged

    def _of(self, sample: Sample) -> LesionSurvey:
        assert sample.label is not None  # only such rows come here
        codes = [sample.labels[name] for name in self.labels if name in sample.labels]
        lesion, spacing = np.isin(sample.label, codes), sample.spacing_mm[: sample.image.ndim - 1]
        voxel_ml = float(np.prod(sample.spacing_mm)) / 1000
        silent = Patient(sample.site or "", sample.split or "", 1, 0, 0.0, Contrast((0.0,) * len(sample.channels)))
        common = (
            frozenset(sample.labels),
            sample.channels,
            sample.image.shape[1:],
            sample.intensity_rule,
            spacing,
            self.kept,
        )
        if not lesion.any():
            return LesionSurvey({sample.subject_id: silent}, [], [], 0, *common)
        scene = Scene.of(sample.image, lesion, spacing)
        contrast = Contrast.of(scene.signal, lesion, scene.body)
        patient = Patient(silent.site, silent.split, 1, 1, volume_ml(lesion, voxel_ml), contrast)
        lesions, recipients, too_large = [], [], 0
        if sample.split == "train":
            rank = rng.derive("recipient", sample.sample_id)
            assert sample.intensity_range is not None  # shards always state one
            recipients = [(rank, scene.body_size, scene.brightness(sample.intensity_range), scene.roughness)]
            parts = masks.components(lesion)
            for n in range(1, int(parts.max()) + 1):
                part = parts == n
                if volume_ml(part, voxel_ml) < self.least_ml:
                    continue
                box = masks.bounding_box(part, [0] * part.ndim)
                if max(s.stop - s.start for s in box) > self.size:
                    too_large += 1
                elif (crop := self._crop(sample, scene, lesion, part)) is not None:
                    lesions.append(
                        Found(
                            rng.derive("lesion", sample.sample_id, n),
                            sample.subject_id,
                            sample.acquisition.manufacturer,
                            crop,
                        )
                    )
        return LesionSurvey(
            {sample.subject_id: patient}, heapq.nsmallest(self.kept, lesions), recipients, too_large, *common
        )

    def _crop(self, sample: Sample, scene: Scene, lesion: np.ndarray, part: np.ndarray) -> Crop | None:
        assert sample.label is not None
        ring = ring_around(part, scene.body & ~lesion)
        around = [float(np.median(channel[ring])) if ring.any() else 0.0 for channel in scene.signal]
        if min(around) <= 0:
            return None
        codes = {sample.labels[name]: n for n, name in enumerate(self.labels, 1) if name in sample.labels}
        label, ratios = np.zeros(part.shape, np.uint8), np.empty(scene.signal.shape, np.float32)
        for code, n in codes.items():
            label[part & (sample.label == code)] = n
        # Beyond the lesion its nearest voxel stands, so that interpolation mixes nothing of the surroundings in.
        nearest = distance_transform_edt(~part, return_distances=False, return_indices=True)
        for c, channel in enumerate(scene.signal):
            ratios[c] = np.log(np.clip(channel / around[c], 0.05, 20.0))[tuple(nearest)]
        middle, half = masks.centre(part), self.size // 2
        return Crop(
            _box(ratios, middle, half, self.size), _box(label[None], middle, half, self.size)[0], scene.spacing_mm
        )


def volume_ml(mask: np.ndarray, voxel_ml: float) -> float:
    """Volume of a mask."""
    return float(mask.sum()) * voxel_ml


def _box(planes: np.ndarray, middle: Iterable[int], half: int, size: int) -> np.ndarray:
    """The voxels (C, *box) about one of (C, *); beyond the image, those at its edge."""
    index = [
        np.clip(np.arange(m - half, m - half + size), 0, length - 1)
        for m, length in zip(middle, planes.shape[1:], strict=True)
    ]
    for axis, wanted in enumerate(index, 1):
        planes = planes.take(wanted, axis)
    return np.ascontiguousarray(planes)
