"""The gates of a policy in, opened once per process; for every row, each gate's value with pass or fail out."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from augengine.gates import copied, image, judged, label
from augengine.gates.base import Case, Gate, Tools
from augengine.plugins import Registry, of_class
from augengine.policy.spec import GateSpec
from augengine.records import Sample

_OWN: dict[str, type[Gate]] = {
    "structure_ssim": image.StructureSsim,
    "out_of_range": image.OutOfRange,
    "changed": image.Changed,
    "void_fraction": image.VoidFraction,
    "locality": image.Locality,
    "sharpness": image.Sharpness,
    "detail_structure": image.DetailStructure,
    "checkerboard": image.Checkerboard,
    "duplicate": image.Duplicate,
    "volume_ratio": label.VolumeRatio,
    "lesion_volume_ml": label.LesionVolume,
    "in_brain": label.InBrain,
    "label_components": label.LabelComponents,
    "nesting": label.Nesting,
    "nearest_training_dice": label.NearestTrainingDice,
    "copy_distance": copied.CopyDistance,
    "label_agreement": label.LabelAgreement,
    "label_swap": label.LabelSwap,
    "intensity_distance": label.IntensityDistance,
    "mirror_distance": label.MirrorDistance,
    "residual_lesion": judged.ResidualLesion,
    "referee_dice": judged.RefereeDice,
    "acquisition_prediction": judged.AcquisitionPrediction,
}
MEASURES: Registry[type[Gate]] = Registry("gate", _OWN, of_class(Gate, None))
"""Name in a policy to the gate; those of installed packages (`augengine.gates`) beside our own."""


@dataclass(frozen=True)
class GateResult:
    """The value of one gate on one row, beside the bounds it had to keep; `error` says why there is no value."""

    name: str
    value: float
    min: float | None
    max: float | None
    passed: bool
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values; a value that is no number becomes None."""
        return {**asdict(self), "value": self.value if math.isfinite(self.value) else None}

    def __str__(self) -> str:
        bound = " and ".join(f"{s} {b:g}" for s, b in (("≥", self.min), ("≤", self.max)) if b is not None)
        return f"{self.name} = {self.value:.4g}, must be {bound}" + (f" ({self.error})" if self.error else "")


class Gates:
    """All gates of a policy. Made once per actor: models and reference maps are read here, and here only.

    Args:
        specs: the policy's gates.
        device: where referees and predictors run.
        tools: what is in memory already, to share it.

    Raises:
        AugengineError: unknown options, or a checkpoint or reference that cannot be used.
    """

    def __init__(self, specs: Sequence[GateSpec], device: str = "cpu", tools: Tools | None = None) -> None:
        self.tools = tools or Tools(device)
        self.gates = [(spec, MEASURES.find(spec.name).model_validate(spec.options)) for spec in specs]
        for _, gate in self.gates:
            gate.open(self.tools)

    def __call__(
        self, before: Sample, after: Sample, region: np.ndarray | None = None, kept: Collection[str] = ()
    ) -> list[GateResult]:
        """Judge one row; see `Case` for the arguments. What cannot be measured fails."""
        case = Case(before, after, region, kept)
        return [judge(spec, gate, case, self.tools) for spec, gate in self.gates]


def judge(spec: GateSpec, gate: Gate, case: Case, tools: Tools) -> GateResult:
    """One gate on one row."""
    value, error = math.nan, None
    if not np.isfinite(case.after.image).all():
        error = "the image holds values that are no numbers"
    else:
        try:
            value = float(gate.value(case, tools))
        except Exception as problem:  # whatever keeps a gate from measuring fails the row, not the job
            error = f"{type(problem).__name__}: {problem}"
    return GateResult(spec.name, value, spec.min, spec.max, keeps(spec, value), error)


def keeps(spec: GateSpec, value: float) -> bool:
    """True if a value is a number within the bounds."""
    return math.isfinite(value) and (spec.min is None or value >= spec.min) and (spec.max is None or value <= spec.max)


def complete(spec: GateSpec) -> GateSpec:
    """The gate with its options' defaults filled in, so that equal behaviour is equal text.

    Raises:
        ValidationError: options that the gate does not have.
    """
    options = MEASURES.find(spec.name).model_validate(spec.options).model_dump(mode="json")
    return spec.model_copy(update={"options": options})


def gate_hashes(specs: Sequence[GateSpec]) -> dict[str, str]:
    """`gate.option` to sha256 of every file that decides a verdict; belongs into the run's digest with the models'.

    Raises:
        AugengineError: a file that is missing or unfit; no weights are loaded.
    """
    gates = [(spec.name, MEASURES.find(spec.name).model_validate(spec.options)) for spec in specs]
    return {f"{name}.{option}": sha256 for name, gate in gates for option, sha256 in gate.hashes().items()}
