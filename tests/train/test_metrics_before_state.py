"""What a training measured up to a state is written before the state: a kill right after it loses no line."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_cases import recipe, samples_of, write_rows

from augengine.train.local_state import LocalState
from augengine.train.metrics_file import read_metrics
from augengine.train.run import train

STEPS = 4


@pytest.mark.usefixtures("ray_session")
def test_lines_up_to_a_state_are_written_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validated: dict[int, list[int]] = {}
    save = LocalState.save

    def look(state: LocalState, folder: Path, step: int) -> None:
        validated[step] = [line["step"] for line in read_metrics(state.out) if "validation_loss" in line]
        save(state, folder, step)

    monkeypatch.setattr(LocalState, "save", look)
    samples = samples_of()
    rows = [row.replace(split="val" if row.subject_id == samples[0].subject_id else "train") for row in samples]
    asked = recipe(
        "segmenter",
        steps=STEPS,
        validate_every=1,
        checkpoint_minutes=1e-6,
        optimiser={"batch_size": 2, "learning_rate": 1e-3},
        hardware={"precision": "float32"},
    )
    train(asked, write_rows(tmp_path / "data", rows), str(tmp_path / "run"), num_workers=0, progress=lambda _: None)
    assert validated == {step: list(range(1, step + 1)) for step in range(1, STEPS + 1)}
