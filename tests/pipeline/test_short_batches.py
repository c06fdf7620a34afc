"""A short batch, of a retry or the last of a unit, costs its own rows where they are computed apart, and none else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from augengine.contracts.edit import EditCase, edit_case
from augengine.edits.chain import Step
from augengine.load import load_policy
from augengine.pipeline.row_maker import apply_padded
from augengine.policy.runtime import Runtime
from augengine.records import Sample
from augengine.runtime.network import under

SIZE = 3


def case_of(policy: str, kind: str, runtime: Runtime | None = None, **changes: Any) -> EditCase:
    case = edit_case(load_policy(policy), [kind], changes=lambda step: changes)
    if runtime is None:
        return case
    return replace(case, models={role: under(model, runtime) for role, model in case.models.items()})


@pytest.mark.parametrize(
    ("case", "computed"),
    [
        (case_of("brats_lesion_insertion", "lesion_bank", recipients="any", ball=None), 1),
        (case_of("brats_tumor_removal", "painter", roi_margin_mm=8.0), 1),
        (case_of("brats_tumor_removal", "painter", Runtime(network_batch=2), roi_margin_mm=None), 1),
        (case_of("brats_tumor_removal", "painter", roi_margin_mm=None), SIZE),
    ],
    ids=["row by row", "in boxes", "in portions", "all at once"],
)
def test_rows_that_are_computed(case: EditCase, computed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (step,), seen = case.steps, list[int]()
    apply = Step.apply_measured

    def counted(self: Step, samples: Sequence[Sample], *rest: Any) -> Any:
        seen.append(len(samples))
        return apply(self, samples, *rest)

    monkeypatch.setattr(Step, "apply_measured", counted)
    plans = [case.plan(sample, 7) for sample in case.samples[:SIZE]]
    whole = apply_padded(step, case.models, case.samples[:SIZE], plans, SIZE)
    short = apply_padded(step, case.models, case.samples[1:2], plans[1:2], SIZE)
    assert seen == [SIZE, computed]
    assert len(short) == 1
    assert short[0][0].image.tobytes() == whole[1][0].image.tobytes()
