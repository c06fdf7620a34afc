"""The record that flows through every stage: a `Sample` (one slice or one volume) with its lineage."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from augengine.errors import DataError
from augengine.rng import canonical_json


@dataclass(frozen=True)
class Acquisition:
    """MR acquisition parameters; None where the source does not state the value.

    `scan_options` is DICOM (0018,0022) as written, multiple values joined by a backslash in header order.
    For samples whose channels were acquired differently only the shared fields are set.
    """

    manufacturer: str | None = None
    model: str | None = None
    field_strength_t: float | None = None
    scan_options: str | None = None
    flip_angle_deg: float | None = None
    slice_thickness_mm: float | None = None
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None

    def to_dict(self) -> dict[str, str | float | None]:
        """All fields by name."""
        return dataclasses.asdict(self)

    def replace(self, **changes: str | float | None) -> Acquisition:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


ACQUISITION_CATEGORICAL = ("manufacturer", "model", "scan_options")
ACQUISITION_NUMERIC = tuple(f.name for f in dataclasses.fields(Acquisition) if f.name not in ACQUISITION_CATEGORICAL)

CREDIBLE: Mapping[str, float] = {
    "field_strength_t": 25,
    "flip_angle_deg": 360,
    "slice_thickness_mm": 500,
    "echo_time_ms": 1000,
    "repetition_time_ms": 60_000,
    "inversion_time_ms": 20_000,
}
"""The largest value of each number of an acquisition; bounds are wide: what exceeds them has another unit."""

LONGEST_MM = 1e4
"""What is acquired at once is no longer than this."""


def incredible(name: str, value: float | None) -> bool:
    """True for a number that no scan is made with: below 0, above `CREDIBLE`, or none at all."""
    return value is not None and not 0 <= value <= CREDIBLE[name]


@dataclass(frozen=True)
class IntensityRule:
    """How the intensity ranges of a volume were measured; two rows compare only under one rule.

    Attributes:
        percentiles: the two that normalisation maps to 0 and 1.
        foreground: the voxels that count, in each channel: `all`, those that are not 0 (`nonzero`), or those of the
            body.
        together: one range for all channels, as shards of schema version 1 hold it.
    """

    percentiles: tuple[float, float] = (10.0, 99.0)
    foreground: str = "all"
    together: bool = False

    def __str__(self) -> str:
        low, high = (f"{p:g}" for p in self.percentiles)
        of = "of all channels together" if self.together else "of each channel"
        return f"percentiles {low} and {high} of {self.foreground} voxels {of}"

    @property
    def identity(self) -> list[dict[str, Any]]:
        """Its part in a digest of rows: nothing for the default, so that digests from before the choice stay."""
        return [] if self == IntensityRule() else [self.to_dict()]

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, plain JSON."""
        return {"percentiles": list(self.percentiles), "foreground": self.foreground, "together": self.together}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> IntensityRule:
        """Inverse of `to_dict`."""
        low, high = values["percentiles"]
        return cls((float(low), float(high)), values["foreground"], values["together"])


@dataclass(frozen=True)
class Provenance:
    """Where a synthetic sample came from; enough to make it again.

    `plan` is the edit's whole plan (plain JSON: drawn parameters, seed, replicate, attempt, donors whose
    metadata were borrowed); `models` maps role to sha256; `gates` lists name, value, bounds and verdict; `plugins` maps
    the packages whose edits or gates had a part in it to their versions.
    """

    output_id: str
    parent_id: str
    policy: str
    policy_digest: str
    edit: str
    plan: Mapping[str, Any]
    models: Mapping[str, str] = field(default_factory=dict)
    gates: Sequence[Mapping[str, Any]] = field(default_factory=list)
    engine_version: str = ""
    source_licence: str | None = None
    plugins: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Canonical JSON text; without plug-ins it does not speak of them."""
        values = dataclasses.asdict(self)
        return canonical_json(values if self.plugins else {k: v for k, v in values.items() if k != "plugins"})

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Inverse of `to_json`."""
        return cls(**json.loads(text))


@dataclass(frozen=True, eq=False)
class Sample:
    """One 2D slice or one 3D volume.

    Attributes:
        image: float32 `(C, I, J)` or `(C, I, J, K)`, intensities as the source states them (after rescale).
        affine: float64 `(4, 4)`, voxel index to RAS+ mm. A slice's affine places `(i, j, 0)`.
        channels: C names, e.g. `("t1",)`.
        subject_id: a pseudonym; a subject never stands in two splits.
        volume_id: a pseudonym, too.
        label: uint8 of the image's spatial shape, or None.
        label_confidence: uint8 of the same shape, 0 (a guess) to 255 (certain) for each voxel's label, or None where
            nobody says.
        labels: label name to code; 0 is always background and not listed.
        slice_index: position in the canonical source volume, or None for a volume.
        slab_end_mm: distance from the slice's centre to the nearer end of what was acquired, along the axis of the
            slices; of a volume, that of its outermost slices. None where nobody says. Of a scan that is encoded in
            three dimensions it says how far the pulse tilts.
        intensity_range: of each channel (low, high), two percentiles of the whole source volume; normalisation maps
            them to 0 and 1.
        intensity_rule: which percentiles of which voxels these are.
    """

    image: np.ndarray
    affine: np.ndarray
    channels: tuple[str, ...]
    subject_id: str
    volume_id: str
    label: np.ndarray | None = None
    label_confidence: np.ndarray | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    acquisition: Acquisition = field(default_factory=Acquisition)
    slice_index: int | None = None
    slab_end_mm: float | None = None
    site: str | None = None
    split: str | None = None
    intensity_range: tuple[tuple[float, float], ...] | None = None
    intensity_rule: IntensityRule = IntensityRule()
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        image, label, affine = self.image, self.label, self.affine
        if image.dtype != np.float32 or image.ndim not in (3, 4):
            self._fail("image must be float32 (C, I, J) or (C, I, J, K)", f"{image.dtype} {image.shape}")
        if affine.shape != (4, 4) or affine.dtype != np.float64 or not np.isfinite(affine).all():
            self._fail("affine must be a finite float64 (4, 4)", f"{affine.dtype} {affine.shape}")
        if len(self.channels) != image.shape[0]:
            self._fail("channels must name every channel", f"{self.channels} for {image.shape[0]} channels")
        for name, found in (("label", label), ("label_confidence", self.label_confidence)):
            if found is not None and (found.dtype != np.uint8 or found.shape != image.shape[1:]):
                self._fail(f"{name} must be uint8 {image.shape[1:]}", f"{found.dtype} {found.shape}")
        if self.slab_end_mm is not None and not 0 <= self.slab_end_mm <= LONGEST_MM:
            self._fail(f"slab_end_mm must be 0 to {LONGEST_MM:g}", f"{self.slab_end_mm:g}")
        ranges = self.intensity_range
        if ranges is not None and (len(ranges) != len(image) or any(np.shape(pair) != (2,) for pair in ranges)):
            self._fail("intensity_range must be a pair (low, high) for every channel", str(ranges))
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))

    def _fail(self, rule: str, found: str) -> None:
        raise DataError(rule, found=found, where=self.sample_id)

    @property
    def sample_id(self) -> str:
        """`volume_id`, or `volume_id#0012` for a slice; of a synthetic sample, its output id."""
        if self.provenance is not None:
            return self.provenance.output_id
        return self.volume_id if self.slice_index is None else f"{self.volume_id}#{self.slice_index:04d}"

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size along i, j, k; for a slice the third entry is the distance between slices."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))

    def replace(self, **changes: Any) -> Sample:
        """A new sample with some fields changed; arrays are never shared for writing.

        The confidence of a label map that is replaced goes with it.
        """
        if "label" in changes:
            changes.setdefault("label_confidence", None)
        return dataclasses.replace(self, **{**changes, "labels": dict(changes.get("labels", self.labels))})

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot travel between processes; the constructor makes it again.
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return _sample, ({**values, "labels": dict(self.labels)},)


def _sample(values: dict[str, Any]) -> Sample:
    return Sample(**values)
