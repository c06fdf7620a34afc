"""The edits of a policy in order: each plans on what the one before it made, and their plans together make one row.

A later step may need what an earlier one has painted (a new label map, the foreground of a new image), so its plan is
drawn when its input is there, from a seed that follows from the row's and the step's number. The row's plan holds the
plans of all steps: with the source and the models it makes the row again, and nothing is drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from augengine.diffusion.spec import ModelSpec
from augengine.edits.base import Context, Donor, Edit, Measuring, Plan, RowByRow, Skip, TakesDonors
from augengine.policy.spec import GateSpec, Sampler
from augengine.records import Sample
from augengine.rng import derive

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """One edit of a policy, ready to run.

    Attributes:
        label: names the step in roles, gates and reasons; empty where it is the policy's only one.
        number: from 1 in a chain; 0 for the only one, whose seed is the row's own.
        gates: compare the step's input with its output.
    """

    edit: Edit
    params: Any
    sampler: Sampler
    label: str = ""
    number: int = 0
    gates: tuple[GateSpec, ...] = ()

    def named(self, name: str) -> str:
        """A role or gate of this step, as the whole policy calls it."""
        return f"{self.label}.{name}" if self.label else name

    def own(self, by_role: Mapping[str, T]) -> dict[str, T]:
        """The part of a mapping by the policy's roles that is this step's, by the edit's roles."""
        return {role: by_role[self.named(role)] for role in self.edit.MODELS}

    def check(self, specs: Mapping[str, ModelSpec]) -> None:
        """Refuse settings and models (by the policy's roles) that cannot work."""
        self.edit.check(self.params, self.sampler, self.own(specs))

    def check_donors(self, donors: Sequence[Donor]) -> None:
        """Refuse parameters that none of the data's training subjects can serve."""
        if isinstance(self.edit, TakesDonors):
            self.edit.check_donors(self.params, donors)

    def plan(self, sample: Sample, row: Plan, donors: Sequence[Donor], specs: Mapping[str, ModelSpec]) -> Plan | Skip:
        """Draw this step's plan for a row.

        Args:
            sample: the source as the steps before have left it.
            row: says which row this is, and its seed.
            donors: of the data set.
            specs: the policy's role → what the model's `model.json` says.
        """
        seed = derive("step", self.number, row.seed) if self.number else row.seed
        rng = np.random.Generator(np.random.Philox(seed))
        drawing = self.edit.plan(sample, self.params, rng, Context(tuple(donors), self.own(specs)))
        if isinstance(drawing, Skip):
            return Skip(f"{self.label}: {drawing.reason}") if self.label else drawing
        return replace(row, seed=seed, params=drawing.params, donors=drawing.donors)

    def apply(self, samples: Sequence[Sample], plans: Sequence[Plan], models: Mapping[str, Any]) -> list[Sample]:
        """Edit a batch of samples of equal shape; `models` by the policy's roles."""
        return self.edit.apply(samples, plans, self.own(models), self.params, self.sampler)

    def apart(self, models: Mapping[str, Any]) -> bool:
        """True where no bit of a row depends on how many stand beside it in a batch; `models` by the policy's roles."""
        return isinstance(self.edit, RowByRow) and self.edit.apart(self.own(models), self.params)

    def apply_measured(
        self, samples: Sequence[Sample], plans: Sequence[Plan], models: Mapping[str, Any]
    ) -> list[tuple[Sample, Mapping[str, float]]]:
        """The same, with what the edit measured of each row; most measure nothing."""
        if isinstance(self.edit, Measuring):
            return self.edit.apply_measured(samples, plans, self.own(models), self.params, self.sampler)
        return [(made, {}) for made in self.apply(samples, plans, models)]


def joined(row: Plan, steps: Sequence[Step], plans: Sequence[Plan]) -> Plan:
    """The plan of a whole row: that of its only step, or `{"steps": [...]}` with edit, seed, params and donors each."""
    if len(steps) == 1:
        return plans[0]
    params = [
        {"edit": step.edit.name, "seed": plan.seed, "params": plan.params, "donors": list(plan.donors)}
        for step, plan in zip(steps, plans, strict=True)
    ]
    donors = dict.fromkeys(donor for plan in plans for donor in plan.donors)
    return replace(row, params={"steps": params}, donors=tuple(donors))


def parted(plan: Plan, steps: Sequence[Step]) -> list[Plan]:
    """Inverse of `joined`: one plan per step."""
    if len(steps) == 1:
        return [plan]
    return [
        replace(plan, seed=values["seed"], params=values["params"], donors=tuple(values["donors"]))
        for values in plan.params["steps"]
    ]


def union(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    """bool (*): the voxels that either of two edits may change; None: all of them."""
    return None if a is None or b is None else np.asarray(a | b)
