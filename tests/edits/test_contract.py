"""What every edit must keep, whichever it is: replay, independence of neighbours, geometry, label, declared region.

The cases are the policies of the project, each with every kind of model that may serve: an edit is covered as soon
as it has a policy, which a test asks for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import GE, SIEMENS, contrast_spec, lesion_sample, tiny_bank, tiny_spec

from augengine.diffusion.checkpoint import Model, untrained_model
from augengine.diffusion.spec import Kind
from augengine.edits import EDITS
from augengine.edits.base import Donor, Plan
from augengine.edits.chain import Step, joined, parted, union
from augengine.gates import Gates
from augengine.load import load_mixture, load_policy
from augengine.policy.spec import GateSpec
from augengine.records import Sample

POLICIES = sorted((Path(__file__).parents[2] / "augengine/policies").glob("*.yaml"))
# A mix has no rows of its own: its members are here already.
SINGLE = [path for path in POLICIES if load_mixture(path).mix is None]
# Parameters that no policy of the project has, on top of those of the policy.
MORE = {
    "brats_acquisition": [{"method": "inversion"}],
    "brats_synthetic_labels": [{"paint": "lesion", "place": "prior", "side": "right", "new_margin_mm": 4.0}],
    "brats_tumor_relocation": [
        {"mirror": "never", "shift_mm": None, "roi_margin_mm": 8.0, "texture": {"flair": [0.5, 1.5]}},
        {"mirror": "never", "shift_mm": None, "keep_position": True},
        {"mirror": "never", "shift_mm": None,
         "add": {"diameter_mm": [16, 20],
                 "parts": [{"label": "oedema", "share": 2}, {"label": "necrosis", "share": 1}]}},
    ],
}  # fmt: skip
# What costs time and decides no property, by edit.
LESS = {
    "synthetic_labels": {"candidates": 3, "places": 3, "prior": {"solver": "ddim", "steps": 2}},
    "lesion_insertion": {"recipients": "any", "ball": None},  # a ball goes with one label, and the samples have three
}
# All of one vendor, as policies select them; donors of both, so that every target has a candidate.
SAMPLES = [lesion_sample(n, at_mm=(-20.0, 4.0 * n), acquisition=GE) for n in range(3)]
DONORS = (Donor("D1", SIEMENS), Donor("D2", GE), Donor("D3", GE.replace(echo_time_ms=2.6)))
CHANNELS = SAMPLES[0].channels


@dataclass(frozen=True)
class Case:
    """The steps of a policy, its gates, and untrained models by role."""

    steps: tuple[Step, ...]
    gates: list[GateSpec]
    models: dict[str, Model]

    def plan(self, sample: Sample, seed: int) -> Plan:
        """Each step plans on what the one before it made of this row."""
        row, plans = Plan(f"out-{sample.sample_id}", sample.sample_id, 0, 0, seed, {}), list[Plan]()
        for step in self.steps:
            plan = step.plan(sample, row, DONORS, {r: m.spec for r, m in self.models.items()})
            assert isinstance(plan, Plan), plan
            plans.append(plan)
            if step is not self.steps[-1]:
                (sample,) = step.apply([sample], [plan], self.models)
        return joined(row, self.steps, plans)

    def plans(self) -> list[Plan]:
        return [self.plan(s, 7 + n) for n, s in enumerate(SAMPLES)]

    def apply(self, samples: list[Sample], plans: list[Plan]) -> list[Sample]:
        for step, own in zip(self.steps, zip(*(parted(p, self.steps) for p in plans), strict=True), strict=True):
            samples = step.apply(samples, own, self.models)
        return samples

    def judged(self, sample: Sample, plan: Plan) -> list[tuple[Sequence[GateSpec], Sample, Sample, Any]]:
        """Gates with what they judge: input, output and region of each step, then of the whole row, which is last."""
        source, found, region = sample, list[Any](), np.zeros(sample.image.shape[1:], bool)
        for step, own in zip(self.steps, parted(plan, self.steps), strict=True):
            (after,) = step.apply([sample], [own], self.models)
            allowed = step.edit.region(sample, own)
            found.append((step.gates, sample, after, allowed))
            sample, region = after, union(region, allowed)
        return [*found, (self.gates, source, sample, region)]

    def region(self, sample: Sample, plan: Plan) -> np.ndarray | None:
        return self.judged(sample, plan)[-1][3]


def method(step: Step) -> str | None:
    """Of an acquisition edit."""
    found: str | None = getattr(step.params, "method", None)
    return found


def decided_by_plan(step: Step) -> bool:
    """True if what the edit makes follows from the plan's parameters alone."""
    return method(step) in ("inversion", "local_contrast") or getattr(step.params, "texture", None) == "donor"


def cases() -> list[Any]:
    found = []
    for path in SINGLE:
        for kinds in product(*load_policy(path).roles.values()):
            for n, more in enumerate([{}, *MORE.get(path.stem, [])]):
                name = "-".join([path.stem, *kinds, *([str(n)] if n else [])])
                found.append(pytest.param((path, kinds, more), id=name))
    return found


@pytest.fixture(scope="module", params=cases())
def case(request: pytest.FixtureRequest) -> Case:
    path, kinds, more = request.param
    loaded = load_policy(path)
    roles: dict[str, Kind] = dict(zip(loaded.roles, kinds, strict=True))
    changes_contrast = any(method(step) == "local_contrast" for step in loaded.steps)
    models: dict[str, Model] = {}
    for role, kind in roles.items():
        if kind == "lesion_bank":  # it holds lesions and no weights, so that there is none without them
            models[role] = tiny_bank(SAMPLES)
            continue
        spec = contrast_spec(CHANNELS) if changes_contrast else tiny_spec(kind, channels=CHANNELS)
        models[role] = untrained_model(spec, seed=1)
    steps = []
    for step in loaded.steps:
        changes = {**LESS.get(step.edit.name, {}), **more}
        params = type(step.params).model_validate({**step.params.model_dump(by_alias=True), **changes})
        sampler = step.sampler.model_copy(update={"steps": 2, "strength": 0.5, "guidance": 1.5})
        steps.append(replace(step, params=params, sampler=sampler))
        steps[-1].check({role: model.spec for role, model in models.items()})
    return Case(tuple(steps), loaded.policy.gates, models)


@pytest.fixture(scope="module")
def edited(case: Case) -> list[Sample]:
    """The whole batch; computed once per case."""
    return case.apply(SAMPLES, case.plans())


def test_plans_replay_from_json_to_the_same_bytes(case: Case, edited: list[Sample]) -> None:
    replayed = [Plan.from_dict(json.loads(json.dumps(p.to_dict(), sort_keys=True))) for p in case.plans()]
    for first, second in zip(edited, case.apply(SAMPLES, replayed), strict=True):
        assert first.image.tobytes() == second.image.tobytes()
        assert first.label.tobytes() == second.label.tobytes()  # type: ignore[union-attr]


def test_neighbours_and_order_change_no_bit_at_equal_batch_size(case: Case, edited: list[Sample]) -> None:
    plans = case.plans()
    backward = case.apply(SAMPLES[::-1], plans[::-1])[::-1]
    assert [a.image.tobytes() for a in edited] == [b.image.tobytes() for b in backward]
    padded = case.apply([SAMPLES[1]] * 3, [plans[1]] * 3)
    assert padded[0].image.tobytes() == edited[1].image.tobytes()


def test_batch_of_n_is_n_batches_of_one_within_tolerance(case: Case, edited: list[Sample]) -> None:
    for sample, plan, after in zip(SAMPLES, case.plans(), edited, strict=True):
        (alone,) = case.apply([sample], [plan])
        # One grey level of rounding: batched kernels differ in the last bits.
        assert np.abs(alone.image - after.image).max() <= 1
        assert np.array_equal(alone.label, after.label)  # type: ignore[arg-type]


def test_geometry_and_source_stay(case: Case) -> None:
    before = [(s.image.copy(), np.array(s.label)) for s in SAMPLES]
    edited = case.apply(SAMPLES, case.plans())
    for (image, label), sample, after in zip(before, SAMPLES, edited, strict=True):
        assert np.array_equal(image, sample.image), "the caller's image was changed"
        assert np.array_equal(label, sample.label), "the caller's label map was changed"  # type: ignore[arg-type]
        assert after.image.shape == sample.image.shape
        assert after.affine.tobytes() == sample.affine.tobytes()
        assert after.channels == sample.channels
        assert (after.subject_id, after.volume_id, after.split) == (sample.subject_id, sample.volume_id, sample.split)


def test_nothing_changes_outside_the_region_and_the_label_follows_the_image(case: Case, edited: list[Sample]) -> None:
    for sample, plan, after in zip(SAMPLES, case.plans(), edited, strict=True):
        assert after.label is not None
        assert all(after.labels[name] == code for name, code in sample.labels.items())
        assert set(np.unique(after.label)) <= {0, *after.labels.values()}
        image, label = (after.image != sample.image).any(axis=0), after.label != sample.label
        region = case.region(sample, plan)
        if region is not None:
            assert region.dtype == bool
            assert not image[~region].any()
            assert not label[~region].any()
        if label.any():
            assert image[label].mean() > 0.5, "a label that changed lies on pixels that did not"


def test_another_seed_gives_another_row_unless_deterministic(case: Case) -> None:
    plan = case.plan(SAMPLES[0], 1)
    steps = [{**values, "seed": 2} for values in plan.params.get("steps", [])]
    other = replace(plan, seed=2, params={"steps": steps} if steps else plan.params)
    a, b = (case.apply([SAMPLES[0]], [p])[0].image for p in (plan, other))
    assert np.array_equal(a, b) == all(decided_by_plan(step) for step in case.steps)


def test_an_untrained_model_fails_a_gate(case: Case) -> None:
    if {step.edit.name for step in case.steps} == {"reconstruction"}:
        pytest.skip("its rows are measured, not trained on: none may be chosen before")
    if {step.edit.name for step in case.steps} == {"lesion_insertion"}:
        pytest.skip("a bank holds lesions and no weights: there is no untrained one")
    if any(method(step) == "local_contrast" for step in case.steps):
        pytest.skip(
            "even an untrained network leaves anatomy where it is, and no shipped gate knows the right contrast"
        )
    for sample, plan in zip(SAMPLES, case.plans(), strict=True):
        judged = [Gates(gates)(before, after, region) for gates, before, after, region in case.judged(sample, plan)]
        assert not all(result.passed for results in judged for result in results)


def test_every_edit_has_a_policy_and_so_a_case() -> None:
    assert {step.edit.name for path in SINGLE for step in load_policy(path).steps} == set(EDITS)


def test_a_chain_is_among_the_policies() -> None:
    assert any(len(load_policy(path).steps) > 1 for path in SINGLE)
