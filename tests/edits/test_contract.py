"""Every edit of the project keeps what `augengine.contracts.edit` asks of all edits, and more of our own.

The cases are the policies of the project, each with every kind of model that may serve: an edit is covered as soon
as it has a policy, which a test asks for.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from augengine.contracts.edit import CHECKS, EditCase, agrees_alone, edit_case
from augengine.contracts.samples import SAMPLES
from augengine.edits import EDITS
from augengine.edits.chain import Step
from augengine.gates import Gates
from augengine.load import load_mixture, load_policy
from augengine.policy.runtime import Runtime
from augengine.runtime.network import under

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
        {
            "mirror": "never",
            "shift_mm": None,
            "add": {
                "diameter_mm": [16, 20],
                "parts": [{"label": "oedema", "share": 2}, {"label": "necrosis", "share": 1}],
            },
        },
    ],
}
# What costs time and decides no property, by edit.
LESS = {
    "synthetic_labels": {"candidates": 3, "places": 3, "prior": {"solver": "ddim", "steps": 2}},
    "lesion_insertion": {"recipients": "any", "ball": None},  # a ball goes with one label, and the samples have three
}


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
def case(request: pytest.FixtureRequest) -> EditCase:
    path, kinds, more = request.param
    return edit_case(load_policy(path), kinds, changes=lambda step: {**LESS.get(step.edit.name, {}), **more})


@pytest.mark.parametrize("promise", CHECKS)
def test_every_edit_keeps(case: EditCase, promise: str) -> None:
    CHECKS[promise](case)


def test_in_portions_a_row_alone_has_the_bits_of_a_row_among_others(case: EditCase) -> None:
    runtime = Runtime(network_batch=2)
    apart = replace(case, models={role: under(model, runtime) for role, model in case.models.items()})
    pixels = all(getattr(model.network, "autoencoder", None) is None for model in apart.models.values())
    assert all(step.apart(apart.models) for step in apart.steps) == (pixels or in_boxes(case))
    agrees_alone(apart)


def in_boxes(case: EditCase) -> bool:
    """True if every step paints each row in a box of its own."""
    return all(getattr(step.params, "roi_margin_mm", None) is not None for step in case.steps)


def test_another_seed_gives_another_row_unless_deterministic(case: EditCase) -> None:
    plan = case.plan(SAMPLES[0], 1)
    steps = [{**values, "seed": 2} for values in plan.params.get("steps", [])]
    other = replace(plan, seed=2, params={"steps": steps} if steps else plan.params)
    a, b = (case.apply([SAMPLES[0]], [p])[0].image for p in (plan, other))
    assert np.array_equal(a, b) == all(decided_by_plan(step) for step in case.steps)


def test_an_untrained_model_fails_a_gate(case: EditCase) -> None:
    if {step.edit.name for step in case.steps} == {"reconstruction"}:
        pytest.skip("its rows are measured, not trained on: none may be chosen before")
    if {step.edit.name for step in case.steps} == {"lesion_insertion"}:
        pytest.skip("a bank holds lesions and no weights: there is no untrained one")
    if any(method(step) == "local_contrast" for step in case.steps):
        pytest.skip(
            "even an untrained network leaves anatomy where it is, and no shipped gate knows the right contrast"
        )
    for sample, plan in zip(SAMPLES, case.plans, strict=True):
        judged = [Gates(gates)(before, after, region) for gates, before, after, region in case.judged(sample, plan)]
        assert not all(result.passed for results in judged for result in results)


def test_every_edit_has_a_policy_and_so_a_case() -> None:
    assert {step.edit.name for path in SINGLE for step in load_policy(path).steps} == set(EDITS)


def test_a_chain_is_among_the_policies() -> None:
    assert any(len(load_policy(path).steps) > 1 for path in SINGLE)
