"""What a policy file may say: which rows, which edits with which models, which gates, how many; and its digest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from augengine.acquisition_terms import nearest, same
from augengine.policy.runtime import Runtime
from augengine.records import ACQUISITION_NUMERIC, Acquisition
from augengine.rng import digest
from augengine.yaml_config import Strict, unset

Scalar = str | float | int
Where = dict[str, Scalar | list[Scalar]]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


def matches(where: Where, acquisition: Acquisition) -> bool:
    """True if every named acquisition field says the value, or one of the values, asked for, however it is spelt."""
    stated = {key: getattr(acquisition, key) for key in where}
    return all(any(same(key, one, stated[key]) for one in _values(wanted)) for key, wanted in where.items())


def mismatch(where: Where, found: Mapping[Acquisition, int]) -> str:
    """Why no acquisition of `found` (with its number of rows) matches: the values nearest to those asked for.

    >>> mismatch({"manufacturer": "GE"}, {Acquisition("SIEMENS"): 3})
    "no manufacturer 'GE', nearest: 'SIEMENS' (3)"
    """
    reasons = []
    for key, wanted in where.items():
        counts: Counter[str | float] = Counter()
        for acquisition, rows in found.items():
            if (value := getattr(acquisition, key)) is not None:
                counts[value] += rows
        if not any(same(key, one, value) for one in _values(wanted) for value in counts):
            asked = " or ".join(map(repr, _values(wanted)))
            reasons.append(f"no {key} {asked}, nearest: {nearest(key, _values(wanted)[0], counts)}")
    return "; ".join(reasons) or "each value occurs, but no row has them all"


def _values(wanted: Scalar | list[Scalar]) -> list[Scalar]:
    return wanted if isinstance(wanted, list) else [wanted]


def check_where(where: Where) -> Where:
    """Refuse conditions that no acquisition can meet: fields that it does not have, and values of another type."""
    valid = Acquisition().to_dict()
    for key, wanted in where.items():
        if key not in valid:
            raise ValueError(f"no acquisition parameter '{key}'; valid: {', '.join(valid)}")
        if not _values(wanted):
            raise ValueError(f"{key} needs a value, or it takes no row")
        for value in _values(wanted):
            if isinstance(value, str) == (key in ACQUISITION_NUMERIC):
                kind = "a number" if key in ACQUISITION_NUMERIC else "a text, in quotes if it is made of digits"
                raise ValueError(f"{key} is {kind}, not {value!r}")
    return where


class Select(Strict):
    """Which rows of the data are edited.

    Attributes:
        split: that of the rows; None takes all.
        where: values of acquisition parameters that they state.
        labelled: only rows with a label map (true) or without (false); None takes both.
    """

    split: Literal["train", "val", "test"] | None = "train"
    where: Where = Field(default_factory=dict)
    labelled: bool | None = Field(default=None, exclude_if=unset)
    _check = field_validator("where")(check_where)

    def takes(self, split: str | None, acquisition: Acquisition, labelled: bool) -> bool:
        """True if a row of this split and acquisition, with or without a label map, is to be edited."""
        there = self.split in (None, split) and self.labelled in (None, labelled)
        return there and matches(self.where, acquisition)


class ModelRef(Strict):
    """A checkpoint; `ref` (a URI or a path, from the policy's folder) may be a flag instead and is not digested."""

    ref: str | None = Field(default=None, min_length=1)
    sha256: str | None = None


class Sampler(Strict):
    """How the reverse process is run.

    `strength` is the fraction of the chain that is noised and denoised again (1 = from pure noise);
    `guidance` is the classifier-free scale w (1 = conditional only, no second evaluation), on in `guidance_interval`
    of the chain (0 clean, 1 noise); `guidance_rescale` pulls the contrast that it inflates back.
    """

    solver: Literal["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "unipc"] = "ddim"
    steps: int = Field(default=15, ge=1, le=1000)
    strength: float = Field(default=1.0, gt=0, le=1)
    guidance: float = Field(default=1.0, ge=0, le=20)
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)

    @field_validator("guidance_interval")
    @classmethod
    def _rising(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= interval[0] < interval[1] <= 1:
            raise ValueError("guidance_interval must be two rising fractions of the chain")
        return interval


class GateSpec(Strict):
    """A quality gate: a measure by name, the bounds that the value must keep, and the measure's own options."""

    name: str
    min: float | None = None
    max: float | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _bounded(self) -> GateSpec:
        if self.min is None and self.max is None:
            raise ValueError(f"gate '{self.name}' needs min or max, or it can never fail")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"gate '{self.name}' can never pass: min {self.min} > max {self.max}")
        return self


def _gates_once(gates: list[GateSpec]) -> list[GateSpec]:
    names = [g.name for g in gates]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"gate '{name}' may stand once")
    return gates


class Output(Strict):
    """How many rows per input, how often a rejected one is tried again, and how many may be rejected or fail.

    The two rates judge the run and decide no row, so they do not enter the digest: a run that exceeds one ends with
    exit code 3, and the same command with a higher rate accepts it as it is.
    """

    per_input: int = Field(default=1, ge=1, le=1000)
    retries: int = Field(default=2, ge=0, le=10)
    max_reject_rate: float = Field(default=0.4, ge=0, le=1)
    max_fail_rate: float = Field(default=0.05, ge=0, le=1)
    micro_batch: int = Field(default=8, ge=1, le=512)


class EditSpec(Strict):
    """An edit by name with its own parameters (see `augengine.load`), models by role, and sampler."""

    edit: str
    params: dict[str, Any] = Field(default_factory=dict)
    models: dict[str, ModelRef] = Field(default_factory=dict)
    sampler: Sampler = Field(default_factory=Sampler)


class StepSpec(EditSpec):
    """One edit of a chain; its gates compare what it was given with what it made, in its own region."""

    gates: list[GateSpec] = Field(default_factory=list)
    _once = field_validator("gates")(_gates_once)


class Base(Strict):
    """What every policy states of its rows, whether one edit makes them or several; `gates` judge source and result."""

    version: Literal[1]
    name: str = Field(pattern=NAME)
    seed: int = Field(default=0, ge=0)
    select: Select = Field(default_factory=Select)
    gates: list[GateSpec] = Field(min_length=1)
    output: Output = Field(default_factory=Output)
    runtime: Runtime = Field(default_factory=Runtime)
    _once = field_validator("gates")(_gates_once)


class Policy(Base, EditSpec):
    """A policy of one edit."""


class Chain(Base):
    """A policy of several edits in order; each works on what the one before it made."""

    edits: list[StepSpec] = Field(min_length=2)


class Member(Strict):
    """A policy of a mix, as a path relative to the mix's file or written out, and its share of the rows."""

    policy: str | dict[str, Any]
    share: float = Field(gt=0, lt=1)


class MixOutput(Strict):
    """How many rows per input; everything else is said by the members."""

    per_input: int = Field(default=1, ge=1, le=1000)


class Mix(Strict):
    """Several policies for one set of rows: each requested row is made by exactly one of them, drawn by share."""

    version: Literal[1]
    name: str = Field(pattern=NAME)
    seed: int = Field(default=0, ge=0)
    mix: list[Member] = Field(min_length=2)
    output: MixOutput = Field(default_factory=MixOutput)

    @field_validator("mix")
    @classmethod
    def _whole(cls, members: list[Member]) -> list[Member]:
        total = sum(m.share for m in members)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares sum to 1, not {total:g}")
        return members


def policy_digest(policy: Policy | Chain) -> str:
    """Digest of everything that decides the rows; paths of models, comments and layout of the file do not.

    The padded micro-batch decides the last bits of a row on a given machine (batched kernels), so it counts; so does
    the runtime, which is left out where it is that of policies from before there was one.
    """
    models: Any = {"__all__": {"ref"}}
    gates: Any = {"__all__": {"options": {"model": {"ref"}, "reference": {"ref"}}}}
    not_behaviour: Any = {
        "models": models,
        "gates": gates,
        "edits": {"__all__": {"models": models, "gates": gates}},
        "output": {"max_reject_rate", "max_fail_rate"},
    }
    if policy.runtime.plain:
        not_behaviour["runtime"] = True
    return digest(policy.model_dump(mode="json", exclude=not_behaviour))
