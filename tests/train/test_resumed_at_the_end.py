"""A training that is resumed after its last step has no loss to tell, and its checkpoint is whole all the same."""

import shutil
from pathlib import Path

import pytest
import torch
from training_cases import recipe, samples_of, write_rows

from augengine.diffusion.checkpoint import load_model
from augengine.train.run import train


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_no_step_is_left(tmp_path: Path) -> None:
    data, out = write_rows(tmp_path / "data", samples_of()), tmp_path / "run"
    asked = recipe("segmenter", steps=2, optimiser={"batch_size": 4, "learning_rate": 1e-3})
    first = load_model(train(asked, data, str(out), use_gpu=False))
    assert "loss" in first.spec.metrics
    shutil.rmtree(out / "checkpoint")  # as if the machine had died between the last state and the end
    again = load_model(train(asked, data, str(out), use_gpu=False))
    assert again.spec.metrics["steps"] == 2
    assert "loss" not in again.spec.metrics
    weights = again.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in first.network.state_dict().items())
