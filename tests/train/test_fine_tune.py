"""Training that goes on from another model: its weights, and everything that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_cases import NESTED, recipe, samples_of, spec_of, survey_of, write_rows

from augengine.diffusion.build import build
from augengine.diffusion.checkpoint import load_model, read_spec, save_model, subject_hash
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.spec import ModelSpec
from augengine.errors import CheckpointError, RunError
from augengine.io.store import Store
from augengine.records import Acquisition
from augengine.train.fine_tune import fine_tuned
from augengine.train.model import model_spec
from augengine.train.run import train

SLOW = {"batch_size": 4, "learning_rate": 1e-6}


def started(case: str, **changes: Any) -> ModelSpec:
    """A trained model's description: other subjects of another vendor."""
    own: dict[str, Any] = {
        "subject_hashes": (subject_hash("elsewhere"),),
        "manufacturers": ("PHILIPS",),
        "sha256": "f" * 64,
    }
    return spec_of(case).model_copy(update=own | changes)


def test_the_weights_and_all_that_they_saw_are_taken_over(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows", samples_of())
    start = save_model(
        Store(str(tmp_path / "start")), started("segmenter"), build(spec_of("segmenter"), 5).state_dict()
    )
    given = recipe("segmenter", steps=1, optimiser=SLOW)
    where = {"init": str(tmp_path / "start"), "num_workers": 0}
    tuned = load_model(train(given, data, str(tmp_path / "tuned"), **where))
    weights, began = tuned.network.state_dict(), load_model(str(tmp_path / "start")).network.state_dict()
    far = max(float((weights[name].float() - value.float()).abs().max()) for name, value in began.items())
    assert 0 < far < 1e-5
    assert set(tuned.spec.subject_hashes) == {subject_hash(s) for s in ("S0", "S1", "S2", "S3", "elsewhere")}
    assert tuned.spec.manufacturers == ("GE MEDICAL SYSTEMS", "PHILIPS", "SIEMENS")
    assert tuned.spec.initialised_from == start.sha256
    scratch = load_model(train(given, data, str(tmp_path / "scratch"), num_workers=0)).network.state_dict()
    assert max(float((scratch[name].float() - value.float()).abs().max()) for name, value in began.items()) > 1e-3
    assert "initialised_from" not in read_spec(str(tmp_path / "scratch/checkpoint")).model_dump(mode="json")
    with pytest.raises(RunError, match="another parts"):
        train(given, data, str(tmp_path / "scratch"), **where)


def test_labels_and_vocabulary_are_those_that_the_network_knows() -> None:
    start = started("structure", labels=("core", "grey", "rim", "vessel"))
    few = survey_of(labels=("core", "grey", "rim"))
    tuned = fine_tuned(model_spec(recipe("structure"), few, {}), start, "start")
    assert tuned.labels == start.labels
    assert tuned.vocabulary == start.vocabulary


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"regions": NESTED}, "must have its regions"),
        ({"channels": ("t2",)}, "must have its channels: .*t2.*found .*t1"),
        ({"untrained_seed": 1}, "starts from a trained model"),
        ({"subject_hashes": ()}, "says whose scans it has seen"),
        ({"labels": ("core",)}, "names labels that this model knows; found grey"),
    ],
)
def test_models_that_do_not_fit_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(CheckpointError, match=rule):
        fine_tuned(spec_of("segmenter"), started("segmenter", **changes), "start")


@pytest.mark.parametrize(
    ("acquisition", "found"),
    [
        (Acquisition("PHILIPS", "Signa", 1.5, "FS", 10.0, 2.0, 2.4, 5.3), "manufacturer Philips Medical Systems"),
        (
            Acquisition("GE", "Signa", 1.5, "FS", 90.0, 2.0, 2.4, 5.3),
            "flip_angle_deg from 90 to 90, not within 10 to 12",
        ),
    ],
)
def test_acquisitions_that_the_network_has_no_input_for_are_refused(acquisition: Acquisition, found: str) -> None:
    new = model_spec(recipe("acquisition"), survey_of(vocabulary=Vocabulary.fit([acquisition])), {})
    with pytest.raises(CheckpointError, match=found):
        fine_tuned(new, started("acquisition"), "start")


def test_a_later_training_from_a_fine_tuned_model_knows_all_three() -> None:
    middle = fine_tuned(spec_of("segmenter"), started("segmenter"), "start").model_copy(update={"sha256": "a" * 64})
    last = fine_tuned(spec_of("segmenter"), middle, "middle")
    assert subject_hash("elsewhere") in last.subject_hashes
    assert len(last.subject_hashes) == 5
    assert last.initialised_from == "a" * 64
