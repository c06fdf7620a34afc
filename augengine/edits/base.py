"""What an edit is: `plan` draws parameters (cheap, on the CPU, plain JSON), `apply` computes pixels in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from augengine.diffusion.spec import ModelSpec
from augengine.policy.spec import Sampler
from augengine.records import Acquisition, Sample
from augengine.yaml_config import Strict


@dataclass(frozen=True)
class Plan:
    """One output row to be made. Plain JSON: what can be printed can be replayed.

    `params` is the edit's own drawing; `donors` are the subjects whose metadata it borrowed.
    """

    output_id: str
    sample_id: str
    replicate: int
    attempt: int
    seed: int
    params: Mapping[str, Any]
    donors: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "donors": list(self.donors)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Inverse of `to_dict`."""
        return cls(**{**values, "donors": tuple(values["donors"])})


@dataclass(frozen=True)
class Drawing:
    """What `Edit.plan` returns: the parameters of one output row."""

    params: Mapping[str, Any]
    donors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Skip:
    """A row that this edit cannot serve, with the reason; counted, never lost."""

    reason: str


class SkippedError(Exception):
    """Raised by `Edit.apply` for a row that, as only its pixels show, the edit cannot serve: skipped, as by `Skip`."""


@dataclass(frozen=True)
class Donor:
    """A subject of the training split, how it was scanned, and whether it has a label map."""

    subject_id: str
    acquisition: Acquisition
    labelled: bool = False


@dataclass(frozen=True)
class Context:
    """Facts beyond the sample that planning may use.

    Attributes:
        donors: of the data set; training subjects only.
        specs: role → what the model's `model.json` says.
    """

    donors: tuple[Donor, ...] = field(default_factory=tuple)
    specs: Mapping[str, ModelSpec] = field(default_factory=dict)


@runtime_checkable
class TakesDonors(Protocol):
    """An edit that borrows from the data's training subjects."""

    def check_donors(self, params: Any, donors: Sequence[Donor]) -> None:
        """Refuse parameters that no subject of the data can serve, before any row is made: `DataError`."""


@runtime_checkable
class Measuring(Protocol):
    """An edit that measures, as it computes a row, how far the row can be trusted."""

    def apply_measured(
        self, samples: Sequence[Sample], plans: Sequence[Plan], models: Mapping[str, Any], params: Any, sampler: Sampler
    ) -> list[tuple[Sample, Mapping[str, float]]]:
        """As `apply`, each row with finite numbers by name, which its plan in the provenance then holds."""


@runtime_checkable
class RowByRow(Protocol):
    """An edit that can compute rows apart; short batches of others are filled up, since their size decides bits."""

    def apart(self, models: Mapping[str, Any], params: Any) -> bool:
        """True where no bit of a row depends on how many rows `apply` is given."""


class Edit(Protocol):
    """One kind of augmentation. Implementations are stateless."""

    name: ClassVar[str]
    Params: ClassVar[type[Strict]]
    MODELS: ClassVar[Mapping[str, tuple[str, ...]]]
    """Role to the kinds of model that serve, e.g. `{"generator": ("acquisition",)}`."""

    def check(self, params: Any, sampler: Sampler, specs: Mapping[str, Any]) -> None:
        """Refuse settings and models (role → what its `model.json` says) that cannot work, before any row is made."""

    def plan(self, sample: Sample, params: Any, rng: np.random.Generator, context: Context) -> Drawing | Skip:
        """Draw the parameters of one output row, or say why there is none."""

    def apply(
        self, samples: Sequence[Sample], plans: Sequence[Plan], models: Mapping[str, Any], params: Any, sampler: Sampler
    ) -> list[Sample]:
        """Edit a batch of samples of equal shape; a row's result depends on its own sample and plan only."""

    def region(self, sample: Sample, plan: Plan) -> np.ndarray | None:
        """Boolean mask (spatial shape) of the voxels that may change; None: all of them."""
