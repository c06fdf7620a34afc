"""A training folder continues what it began alone: other labels or pixels under the same ids are other data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_cases import part_specs, recipe, samples_of, write_rows

from augengine.errors import RunError
from augengine.io.store import Store
from augengine.records import Acquisition, Sample
from augengine.train.model import model_spec
from augengine.train.rows import SplitRows, dataset_facts
from augengine.train.run import _begin, _check_claim, train


def claim(out: Path, *folders: str) -> list[str]:
    """Begin or continue the run in `out`; what is said to the user."""
    lines: list[str] = []
    asked, found = recipe("segmenter"), dataset_facts(list(folders), SplitRows("train"))
    spec = model_spec(asked, found, part_specs("segmenter"))
    _begin(Store(out), _check_claim(Store(out), asked, found, spec, list(folders), lines.append))
    return lines


def changed(**changes: Any) -> list[Sample]:
    """The rows with another third one."""
    rows = samples_of()
    return [*rows[:2], rows[2].replace(**changes), rows[3]]


THIRD = samples_of()[2]
CHANGES: dict[str, dict[str, Any]] = {
    "labels": {"label": np.ascontiguousarray(THIRD.label[::-1])},  # type: ignore[index]
    "pixels": {"image": np.ascontiguousarray(THIRD.image[:, ::-1])},
    "acquisition": {"acquisition": Acquisition("Philips")},
}


@pytest.mark.parametrize("change", CHANGES)
def test_rows_of_the_same_subjects_with_another_content_are_refused(change: str, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", samples_of())
    assert claim(tmp_path / "run", data) == []
    assert claim(tmp_path / "run", write_rows(tmp_path / "moved", samples_of())) == []
    again = write_rows(tmp_path / "again", changed(**CHANGES[change]))
    with pytest.raises(RunError, match="a run with another data"):
        claim(tmp_path / "run", again)


def test_each_of_several_folders_counts(tmp_path: Path) -> None:
    one, two = (write_rows(tmp_path / name, samples_of()) for name in ("one", "two"))
    other = write_rows(tmp_path / "other", changed(**CHANGES["labels"]))
    claim(tmp_path / "run", one, two)
    claim(tmp_path / "run", two, one)  # the same, moved
    with pytest.raises(RunError, match="another data"):
        claim(tmp_path / "run", one, other)


def test_a_run_from_before_contents_were_recorded_goes_on_and_says_so(tmp_path: Path) -> None:
    data, out = write_rows(tmp_path / "data", samples_of()), Store(tmp_path / "run")
    claim(tmp_path / "run", data)
    held = out.read_json("run.json")
    del held["content"]
    out.write_json("run.json", held)
    (line,) = claim(tmp_path / "run", data)
    assert "did not record its data's content" in line
    with pytest.raises(RunError, match="another data"):
        claim(tmp_path / "run", write_rows(tmp_path / "fewer", samples_of()[:3]))


@pytest.mark.usefixtures("ray_session")
def test_a_training_that_was_refused_has_begun_nothing(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", samples_of())
    with pytest.raises(RunError, match="64 workers need a CPU each"):
        train(
            recipe("segmenter", optimiser={"batch_size": 64, "learning_rate": 1}),
            data,
            str(tmp_path / "run"),
            num_workers=64,
            use_gpu=False,
        )
    claim(tmp_path / "run", data)  # another recipe, in the same folder
