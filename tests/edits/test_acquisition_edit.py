"""The acquisition edit: whole rows of a joint table, and the new parameters on the new row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import GE, SIEMENS, contrast_spec, slice_sample, tiny_spec, write_checkpoint

from augengine.diffusion.checkpoint import load_generator, untrained_model
from augengine.diffusion.conditions import Vocabulary
from augengine.edits.acquisition import AcquisitionEdit, AcquisitionParams
from augengine.edits.base import Context, Donor, Drawing, Plan, Skip, SkippedError
from augengine.errors import CheckpointError, ConfigError, DataError
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


def test_an_inversion_that_loses_the_row_is_skipped_with_what_it_lost(tmp_path: Path) -> None:
    models = {"generator": load_generator(write_checkpoint(tmp_path))}
    samples, plans = [slice_sample(n) for n in (1, 3)], [Plan("o", "s", 0, 0, 1, {"acquisition": GE.to_dict()})] * 2
    values = {"method": "inversion", "target": {"explicit": [{}]}}
    sampler = Sampler(solver="ddim", steps=8, strength=0.2)
    params = AcquisitionParams.model_validate({**values, "round_trip": 100})
    made = EDIT.apply_measured(samples, plans, models, params, sampler)
    lost = [measured["round_trip"] for _, measured in made]
    assert lost[0] != lost[1]
    assert next(s for s, _ in made).acquisition == GE
    narrow = AcquisitionParams.model_validate({**values, "round_trip": min(lost)})
    with pytest.raises(SkippedError, match=f"differs from itself by {max(lost):.3g} of its standard deviation"):
        EDIT.apply_measured(samples, plans, models, narrow, sampler)
    default = AcquisitionParams.model_validate(values)
    with pytest.raises(SkippedError, match=r"params.round_trip allows 0\.1"):
        EDIT.apply_measured(samples, plans, models, default, sampler)
    assert len(EDIT.apply(samples, plans, models, default, sampler)) == 2
    with pytest.raises(ValueError, match="round_trip goes with method inversion"):
        AcquisitionParams.model_validate({**values, "method": "sdedit", "round_trip": 0.1})


def test_normalisation_is_inverted_on_the_source_scale() -> None:
    sample = slice_sample(1)
    assert np.array_equal(denormalise(normalise(sample), sample), sample.image)
    fractional = sample.replace(image=sample.image / np.float32(7) - 3)
    assert np.allclose(denormalise(normalise(fractional), fractional), fractional.image, atol=1e-4)


SEEN = tiny_spec("acquisition").model_copy(update={"vocabulary": Vocabulary.fit([GE, SIEMENS])})
PHILIPS = {"manufacturer": "Philips", "model": "Achieva"}


def planned(target: dict, donors: tuple[Donor, ...] = (), sample=slice_sample(1)) -> Drawing | Skip:  # noqa: B008
    params = AcquisitionParams.model_validate({"target": target})
    return EDIT.plan(sample, params, np.random.default_rng(0), Context(donors, {"generator": SEEN}))


def test_a_donor_that_the_generator_never_saw_is_no_target() -> None:
    """Painted under the null token, the row would be filed as a scanner that nobody painted."""
    donor = (Donor("D1", GE.replace(**PHILIPS, echo_time_ms=9.0)),)
    skip = planned({"empirical": {}}, donor)
    assert isinstance(skip, Skip)
    for said in ("manufacturer 'Philips' (nearest seen: ", "model 'Achieva'", "echo_time_ms 9 (seen: 1.44 to 2.32)"):
        assert said in skip.reason
    drawn = planned({"empirical": {}, "unseen": "absent"}, donor)
    assert isinstance(drawn, Drawing)
    absent = {"manufacturer": None, "model": None, "echo_time_ms": None}
    assert Acquisition(**drawn.params["acquisition"]) == GE.replace(**absent)
    assert drawn.params["unseen"] == {**PHILIPS, "echo_time_ms": 9.0}
    assert drawn.donors == ("D1",)
    # A number has a nearest one that training held; a vendor has none.
    drawn = planned({"empirical": {}, "unseen": "nearest"}, donor)
    assert isinstance(drawn, Drawing)
    assert Acquisition(**drawn.params["acquisition"]) == GE.replace(**{**absent, "echo_time_ms": 2.32})
    assert drawn.params["unseen"] == {**PHILIPS, "echo_time_ms": 9.0}


def test_another_spelling_of_the_source_s_scanner_is_no_target() -> None:
    own = SIEMENS.replace(manufacturer="Siemens Healthineers", model="MAGNETOM_Skyra", field_strength_t=2.8936)
    assert isinstance(planned({"empirical": {}}, (Donor("D1", own),)), Skip)
    stated = planned({"empirical": {}}, (Donor("D1", GE.replace(manufacturer="GE", model="Signa_HDX")),))
    assert isinstance(stated, Drawing)
    assert stated.params["acquisition"]["manufacturer"] == "GE"  # as the donor's file states it
    assert "unseen" not in stated.params


def test_what_no_generator_takes_is_not_filed_as_painted() -> None:
    inverted = planned({"empirical": {}}, (Donor("D1", GE.replace(inversion_time_ms=900.0)),))
    assert isinstance(inverted, Drawing)
    assert inverted.params["acquisition"] == GE.to_dict()
    own = slice_sample(1, acquisition=SIEMENS.replace(inversion_time_ms=900.0))
    kept = planned({"explicit": [{"echo_time_ms": 2.3}]}, sample=own)
    assert isinstance(kept, Drawing)
    assert kept.params["acquisition"]["inversion_time_ms"] == 900.0


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        (
            {"explicit": [{"echo_time_ms": 2.0}, {"manufacturer": "Philips"}]},
            CheckpointError,
            r"target.explicit\[1\].*'Philips' \(nearest seen: ",
        ),
        (
            {"protocols": {"far": {"manufacturer": "GE", "repetition_time_ms": 40.0}}},
            CheckpointError,
            r"target.protocols.far.*repetition_time_ms 40 \(seen: 3.77 to 4.94\)",
        ),
        ({"explicit": [{"inversion_time_ms": 900.0}]}, ConfigError, "inversion_time_ms; leave it out"),
        ({"empirical": {"from": "duke_protocols", "where": {"model": "Verio"}}}, ConfigError, "'Verio', nearest: "),
        ({"empirical": {"from": "duke_protocols", "where": {"model": "Avanto"}}}, CheckpointError, "model 'Avanto'"),
    ],
)
def test_what_the_policy_states_is_refused_before_any_row(target: dict, error: type[Exception], says: str) -> None:
    params, sampler = AcquisitionParams.model_validate({"method": "sdedit", "target": target}), Sampler()
    with pytest.raises(error, match=says):
        EDIT.check(params, sampler, {"generator": SEEN})


@pytest.mark.parametrize(
    "target",
    [
        {"empirical": {"where": {"manufacturer": "Philips"}}},  # of the data, which `check_donors` looks at
        {"empirical": {"from": "duke_protocols", "where": {"manufacturer": "Siemens", "model": "Skyra"}}},
        {"empirical": {"from": "duke_protocols", "where": {"model": "Avanto"}}, "unseen": "absent"},
        {"explicit": [{"manufacturer": "General Electric", "field_strength_t": 1.494}]},
    ],
)
def test_what_the_generator_saw_however_spelt_is_accepted(target: dict) -> None:
    EDIT.check(AcquisitionParams.model_validate({"method": "sdedit", "target": target}), Sampler(), {"generator": SEEN})


def test_a_choice_that_no_training_subject_meets_names_the_nearest() -> None:
    donors = (Donor("D1", GE), Donor("D2", GE), Donor("D3", SIEMENS))

    def check(**where: object) -> None:
        params = AcquisitionParams.model_validate({"target": {"empirical": {"where": where}}})
        EDIT.check_donors(params, donors)

    check(manufacturer="Siemens", field_strength_t=2.9)
    with pytest.raises(DataError, match=r"no model 'Skyro', nearest: 'Skyra' \(1\), 'SIGNA HDx' \(2\)"):
        check(model="Skyro")
    with pytest.raises(DataError, match="no row has them all"):
        check(manufacturer="SIEMENS", field_strength_t=1.5)


def test_conditions_state_values_of_the_parameter_s_type() -> None:
    for where in ({"echo_time_ms": "2.3"}, {"model": 750}, {"manufacturer": []}):
        with pytest.raises(ValueError, match=r"echo_time_ms is a number|model is a text|manufacturer needs a value"):
            AcquisitionParams.model_validate({"target": {"empirical": {"where": where}}})


CONTRAST = AcquisitionParams.model_validate({"method": "local_contrast", "target": {"empirical": {}}})
CHANGES = contrast_spec().model_copy(update={"vocabulary": Vocabulary.fit([GE, SIEMENS])})


def test_a_method_takes_the_generator_that_was_trained_for_it() -> None:
    EDIT.check(CONTRAST, Sampler(), {"generator": CHANGES})
    for params, spec in ((CONTRAST, SEEN), (CONTRAST.model_copy(update={"method": "sdedit"}), CHANGES)):
        with pytest.raises(CheckpointError, match=r"'local_contrast', and it alone, takes a generator"):
            EDIT.check(params, Sampler(), {"generator": spec})
    with pytest.raises(ValueError, match="texture goes with method local_contrast"):
        AcquisitionParams.model_validate({"texture": 0.2, "target": {"empirical": {}}})


def test_changed_contrast_leaves_label_and_geometry_and_needs_no_neighbour() -> None:
    model = untrained_model(CHANGES, seed=2)
    samples = [slice_sample(n) for n in (1, 3)]
    plans = [Plan("o", s.sample_id, 0, 0, n, {"acquisition": GE.to_dict()}) for n, s in enumerate(samples)]
    together = EDIT.apply(samples, plans, {"generator": model}, CONTRAST, Sampler())
    for sample, plan, after in zip(samples, plans, together, strict=True):
        (alone,) = EDIT.apply([sample], [plan], {"generator": model}, CONTRAST, Sampler(steps=3))
        assert np.array_equal(alone.image, after.image)
        assert after.acquisition == GE
        assert np.array_equal(after.label, sample.label)
        assert np.array_equal(after.affine, sample.affine)
        assert (after.image != sample.image).mean() > 0.2
        assert (after.image == np.round(after.image)).all()
    sharp = CONTRAST.model_copy(update={"texture": 1.0})
    (other,) = EDIT.apply(samples[:1], plans[:1], {"generator": model}, sharp, Sampler())
    assert not np.array_equal(other.image, together[0].image)


def test_a_source_that_the_generator_never_saw_is_skipped_or_marked() -> None:
    context = Context((Donor("D2", GE),), {"generator": CHANGES})
    far = slice_sample(1, acquisition=SIEMENS.replace(repetition_time_ms=400.0, model="another"))
    skip = EDIT.plan(far, CONTRAST, np.random.default_rng(0), context)
    assert isinstance(skip, Skip)
    assert "never saw the source's repetition_time_ms 400 (seen: 3.77 to 4.94)" in skip.reason
    silent = slice_sample(1, acquisition=SIEMENS.replace(flip_angle_deg=None))
    skip = EDIT.plan(silent, CONTRAST, np.random.default_rng(0), context)
    assert isinstance(skip, Skip)
    assert "flip_angle_deg, which is not stated (seen: up to " in skip.reason
    known = {"absent": None, "nearest": 4.94}
    plain = EDIT.plan(slice_sample(1), CONTRAST, np.random.default_rng(0), context)
    assert isinstance(plain, Drawing)
    assert "unseen_source" not in plain.params
    # What the network is shown of such a source is what the plan says.
    model = untrained_model(CHANGES, seed=2)
    for unseen, value in known.items():
        params = AcquisitionParams.model_validate(
            {**CONTRAST.model_dump(), "target": {"empirical": {}, "unseen": unseen}}
        )
        marked = EDIT.plan(far, params, np.random.default_rng(0), context)
        assert isinstance(marked, Drawing)
        assert marked.params["unseen_source"] == {"repetition_time_ms": value}
        plan = Plan("o", "s", 0, 0, 1, marked.params)
        other = far.replace(acquisition=far.acquisition.replace(repetition_time_ms=value))
        shown = [EDIT.apply([s], [plan], {"generator": model}, params, Sampler())[0].image for s in (far, other)]
        assert np.array_equal(*shown)
