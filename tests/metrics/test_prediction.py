"""What an acquisition predictor says before and after an edit, by hand, and whom it must not judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import GE, SIEMENS, slice_sample

from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import save_model, subject_hash
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.discriminative import PredictorSpec
from augengine.diffusion.spec import ModelSpec
from augengine.errors import CheckpointError, DataError
from augengine.io.store import Store
from augengine.metrics.partial import Pair
from augengine.metrics.prediction import PredictionMeasure, check_disjoint, prediction_row

VOCABULARY = Vocabulary.fit([SIEMENS, GE])


def said(**logits: list[float]) -> torch.Tensor:
    """Outputs with some parameters set, the others 0."""
    return torch.tensor([v for name, width in VOCABULARY.widths.items() for v in logits.get(name, [0.0] * width)])


def spec(subjects: tuple[str, ...] = ("S100",)) -> ModelSpec:
    return ModelSpec(
        kind="acquisition_predictor",
        network=PredictorSpec(width=8, norm_groups=4),
        vocabulary=VOCABULARY,
        channels=("t1",),
        image_size=(32, 32),
        spacing_mm=(2.0, 2.0),
        subject_hashes=tuple(subject_hash(s) for s in subjects),
    )


def test_gain_by_hand() -> None:
    """Manufacturers are sorted: GE, Siemens. Odds 1 : 4 of Siemens become 3 : 1 of it: from 0.2 to 0.75."""
    before, after = said(manufacturer=[np.log(4), 0]), said(manufacturer=[0, np.log(3)])
    found = prediction_row(VOCABULARY, before, after, GE, SIEMENS)
    assert found["manufacturer.gain"] == pytest.approx(0.55)
    assert (found["manufacturer.top1"], found["manufacturer.top1_before"]) == (1, 1)
    back = prediction_row(VOCABULARY, after, before, GE, SIEMENS)
    assert back["manufacturer.gain"] == pytest.approx(-0.55)
    assert back["manufacturer.top1"] == 0
    assert found["model.gain"] == 0, "the outputs did not move"


def test_scan_options_gain_by_those_that_were_switched() -> None:
    """GE has FAST_GEMS, FS; Siemens PFP, SFS: all four switch. One logit of ln 3 moves one of four from 0.5 to 0.75."""
    assert VOCABULARY.options == ("FAST_GEMS", "FS", "PFP", "SFS")
    after = said(scan_options=[0, 0, np.log(3), 0])
    found = prediction_row(VOCABULARY, said(), after, GE, SIEMENS)
    assert found["scan_options.gain"] == pytest.approx(0.25 / 4)
    only = prediction_row(VOCABULARY, said(), after, GE, GE.replace(scan_options="FAST_GEMS\\FS\\PFP"))
    assert only["scan_options.gain"] == pytest.approx(0.25)
    all_right = prediction_row(VOCABULARY, said(), said(scan_options=[-1, -1, 1, 1]), GE, SIEMENS)
    assert (all_right["scan_options.top1"], found["scan_options.top1"]) == (1, 0)


def test_numeric_errors_are_in_the_unit_of_the_parameter() -> None:
    """The largest echo time is 2.32 ms: outputs are shares of it."""
    found = prediction_row(VOCABULARY, said(echo_time_ms=[1.0]), said(echo_time_ms=[0.5]), GE, SIEMENS)
    assert found["echo_time_ms.error"] == pytest.approx(1.44 - 1.16)
    assert found["echo_time_ms.error_before"] == pytest.approx(0, abs=1e-6)
    assert found["echo_time_ms.squared_error"] == pytest.approx(((1.44 - 1.16) / 2.32) ** 2)


def test_what_did_not_change_has_no_gain_and_what_is_unknown_is_left_out() -> None:
    found = prediction_row(VOCABULARY, said(), said(manufacturer=[0, 5]), SIEMENS, SIEMENS.replace(model="Unheard of"))
    assert np.isnan(found["manufacturer.gain"])
    assert found["manufacturer.top1"] == 1
    assert not [name for name in found if name.startswith("model.")]


def test_a_predictor_does_not_judge_what_it_knows() -> None:
    predictor = spec(("A", "B"))
    control = spec(()).model_copy(update={"untrained_seed": 1})
    check_disjoint(predictor, {"other": spec(("C",)), "untrained": control}, ["D"])
    with pytest.raises(DataError, match=r"run/y: a generator states the subjects"):
        check_disjoint(predictor, {"run/y": spec(())})
    with pytest.raises(DataError, match=r"run/x.*1 in common"):
        check_disjoint(predictor, {"run/x": spec(("B", "C"))})
    with pytest.raises(DataError, match="found A"):
        check_disjoint(predictor, {}, ["D", "A"])
    with pytest.raises(DataError, match="states the subjects"):
        check_disjoint(spec(()), {})


def test_rows_through_a_network(tmp_path: Path) -> None:
    store, described = Store(tmp_path / "predictor"), spec()
    save_model(store, described, build(described, seed=2).state_dict())
    source = slice_sample(1)
    unchanged = source.replace(acquisition=GE)
    inverted = source.replace(image=700 - source.image, acquisition=GE)
    measure = PredictionMeasure(store.uri)
    assert measure([Pair(unchanged, source)]).means("manufacturer.gain") == {"S001": 0}
    gain = measure([Pair(inverted, source)]).means("manufacturer.gain")["S001"]
    assert 0 < abs(gain) <= 1
    assert measure([Pair(unchanged, source), Pair(inverted, source)]).means("manufacturer.gain")["S001"] == (
        pytest.approx(gain / 2)
    )
    with pytest.raises(DataError, match="S100"):
        measure([Pair(source.replace(subject_id="S100"), source)])
    with pytest.raises(DataError, match="share no training subject"):
        PredictionMeasure(store.uri, [store.uri])
    with pytest.raises(CheckpointError, match="channels"):
        measure([Pair(source.replace(channels=("t2",)), source)])
