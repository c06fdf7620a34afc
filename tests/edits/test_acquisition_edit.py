"""The acquisition edit: whole rows of a joint table, and the new parameters on the new row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import GE, SIEMENS, slice_sample, write_checkpoint

from augengine.diffusion.checkpoint import load_generator
from augengine.edits.acquisition import AcquisitionEdit, AcquisitionParams
from augengine.edits.base import Context, Donor, Drawing, Plan, Skip
from augengine.errors import CheckpointError
from augengine.intensity import denormalise, normalise
from augengine.phantom.protocols import duke_protocols
from augengine.policy.spec import Sampler
from augengine.records import Acquisition

EDIT = AcquisitionEdit()
CONTEXT = Context((Donor("S001", SIEMENS), Donor("D2", GE), Donor("D3", GE.replace(echo_time_ms=9.0))))


def draw(target: dict, seed: int = 0, sample=slice_sample(1)) -> Drawing | Skip:  # noqa: B008
    return EDIT.plan(sample, AcquisitionParams.model_validate({"target": target}), np.random.default_rng(seed), CONTEXT)


def test_targets_are_whole_rows_of_donors_and_never_the_source() -> None:
    seen = {
        d.donors[0]: d.params["acquisition"] for n in range(30) if isinstance(d := draw({"empirical": {}}, n), Drawing)
    }
    assert seen == {"D2": GE.to_dict(), "D3": GE.replace(echo_time_ms=9.0).to_dict()}


def test_conditions_choose_rows_and_an_empty_choice_is_a_skip() -> None:
    drawing = draw({"empirical": {"where": {"echo_time_ms": 9.0}}})
    assert isinstance(drawing, Drawing)
    assert drawing.donors == ("D3",)
    assert isinstance(draw({"empirical": {"where": {"manufacturer": "SIEMENS"}}}), Skip)


def test_published_protocols_are_drawn_as_joint_rows() -> None:
    rows = {(p.manufacturer, p.model, p.scan_options, p.slice_thickness_mm) for p in duke_protocols()}
    for seed in range(20):
        drawing = draw({"empirical": {"from": "duke_protocols", "where": {"manufacturer": "GE MEDICAL SYSTEMS"}}}, seed)
        assert isinstance(drawing, Drawing)
        a = drawing.params["acquisition"]
        assert (a["manufacturer"], a["model"], a["scan_options"], a["slice_thickness_mm"]) in rows
        assert a["manufacturer"] == "GE MEDICAL SYSTEMS"
        assert drawing.donors == ()


def test_explicit_targets_change_the_named_parameters_only() -> None:
    drawing = draw({"explicit": [{"echo_time_ms": 5.0}]})
    assert isinstance(drawing, Drawing)
    assert Acquisition(**drawing.params["acquisition"]) == SIEMENS.replace(echo_time_ms=5.0)


def test_named_protocols_are_whole_and_the_plan_names_them() -> None:
    protocols = {
        "avanto": {"manufacturer": "SIEMENS", "echo_time_ms": 1.4},
        "signa": {k: v for k, v in GE.to_dict().items() if v is not None},
    }
    drawn = [draw({"protocols": protocols}, seed) for seed in range(20)]
    assert all(isinstance(d, Drawing) and not d.donors for d in drawn)
    found = {d.params["protocol"]: Acquisition(**d.params["acquisition"]) for d in drawn if isinstance(d, Drawing)}
    # What a protocol leaves out is unknown, not the source's.
    assert found == {"avanto": Acquisition(manufacturer="SIEMENS", echo_time_ms=1.4), "signa": GE}


@pytest.mark.parametrize(
    "target", [{}, {"explicit": [{}], "protocols": {"a": {}}}, {"protocols": {}}, {"protocols": {"a": {"echo": 1}}}]
)
def test_a_target_is_exactly_one_of_three_and_knows_its_parameters(target: dict) -> None:
    with pytest.raises(ValueError, match=r"exactly one|at least 1|echo"):
        AcquisitionParams.model_validate({"target": target})


def test_the_new_row_carries_the_new_acquisition_and_whole_numbers(tmp_path: Path) -> None:
    models = {"generator": load_generator(write_checkpoint(tmp_path))}
    plan = Plan("o", "s", 0, 0, 1, {"acquisition": GE.to_dict()})
    params = AcquisitionParams.model_validate({"target": {"explicit": [{}]}})
    (after,) = EDIT.apply([slice_sample(1)], [plan], models, params, Sampler(steps=2))
    assert after.acquisition == GE
    assert (after.image == np.round(after.image)).all()
    assert after.image.min() >= 0
    with pytest.raises(CheckpointError, match="trained on channels t1"):
        EDIT.apply([slice_sample(1, channels=("flair",))], [plan], models, params, Sampler(steps=2))


def test_normalisation_is_inverted_on_the_source_scale() -> None:
    sample = slice_sample(1)
    assert np.array_equal(denormalise(normalise(sample), sample), sample.image)
    fractional = sample.replace(image=sample.image / np.float32(7) - 3)
    assert np.allclose(denormalise(normalise(fractional), fractional), fractional.image, atol=1e-4)
