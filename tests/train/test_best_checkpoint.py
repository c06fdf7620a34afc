"""Best-checkpoint selection and early stopping: by validation loss alone, the same after a kill, and said."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from training_cases import recipe, samples_of, write_rows

from augengine.denormals import flushes
from augengine.diffusion.checkpoint import load_model, read_spec, subject_hash
from augengine.errors import DataError
from augengine.io.store import Store
from augengine.records import Sample
from augengine.train import loop
from augengine.train.best import Best
from augengine.train.config import Recipe
from augengine.train.metrics_file import read_metrics
from augengine.train.preview import preview
from augengine.train.run import train
from augengine.train.sections import BestCheckpointRecipe


def offered(losses: list[float], patience: int | None = None, every: int = 10) -> Best:
    best = Best(BestCheckpointRecipe(patience=patience))
    for n, loss in enumerate(losses, 1):
        if best.exhausted:
            break
        best.offer(n * every, loss, lambda n=n: {"w": torch.tensor(float(n))})
    return best


@pytest.mark.parametrize(
    ("losses", "patience", "step", "seen", "ends"),
    [
        ([3, 2, 1], 2, 30, 30, False),
        ([3, 1, 2, 2, 0.5], None, 50, 50, False),
        ([3, 1, 2, 2, 0.5], 2, 20, 40, True),
        ([1, 1, 1], 2, 10, 30, True),  # an equal loss is no lower one
        ([float("nan"), 2, float("nan"), 1], 3, 40, 40, False),
        ([float("nan"), float("nan")], 2, None, 20, True),
        ([3, 4, 2, 3, 3], 2, 30, 50, True),  # patience counts from the best
    ],
)
def test_the_first_of_the_least_losses_is_kept(
    losses: list[float], patience: int | None, step: int | None, seen: int, ends: bool
) -> None:
    best = offered(losses, patience)
    assert (best.step, best.seen, best.exhausted) == (step, seen, ends)
    assert dict(best.weights) == ({} if step is None else {"w": torch.tensor(step / 10)})


def test_a_second_validation_after_the_same_step_changes_nothing() -> None:
    best = offered([1, 2], patience=2)
    best.offer(20, 3.0, dict)
    assert (best.since, best.exhausted) == (1, False)
    again = Best(BestCheckpointRecipe(patience=2))
    again.load_state_dict(json.loads(json.dumps(best.state_dict())), best.weights)
    again.offer(20, 0.1, dict)
    assert (again.step, again.loss, again.since) == (10, 1, 1)
    again.offer(30, 5.0, dict)
    assert again.exhausted


def rows(folder: Path) -> str:
    """Training subjects S0 to S3 and validation subjects V0 to V3, whose label maps lie elsewhere."""
    held_back: list[Sample] = [
        s.replace(subject_id=f"V{n}", volume_id=f"V{n}", label=np.roll(s.label, 5, 0), split="val")
        for n, s in enumerate(samples_of())
    ]
    return write_rows(folder, [*samples_of(), *held_back])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rows(tmp_path_factory.mktemp("data"))


# At this rate the network learns four rows by heart, and the validation loss rises after its least value.
def overfitting(**changes: object) -> Recipe:
    values = {
        "steps": 120,
        "validate_every": 10,
        "checkpoint_minutes": 100,
        "optimiser": {"batch_size": 4, "learning_rate": 0.02, "decay": "constant", "ema_decay": 0.5},
        "hardware": {"precision": "float32"},
        "best_checkpoint": {},
    }
    return recipe("segmenter", **{**values, **changes})


def validations(out: Path) -> dict[int, float]:
    return {line["step"]: line["validation_loss"] for line in read_metrics(Store(out)) if "validation_loss" in line}


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Path, list[str]]:
    """A run of all steps that keeps its best weights, and what it said."""
    out, lines = tmp_path_factory.mktemp("whole"), list[str]()
    train(overfitting(), data, str(out), num_workers=0, threads_per_worker=1, progress=lines.append)
    assert not flushes(), "a training leaves this process as it was"
    return out, lines


def test_the_checkpoint_holds_the_weights_of_the_least_validation_loss(
    data: str, whole: tuple[Path, list[str]], tmp_path: Path
) -> None:
    out, lines = whole
    found = validations(out)
    least = min(found, key=lambda step: (found[step], step))
    assert least < 120, "the run was to overfit"
    metrics = read_spec(str(out / "checkpoint")).metrics
    assert (metrics["best_step"], metrics["steps"]) == (least, 120)
    assert metrics["validation_loss"] == pytest.approx(found[least], rel=1e-5)
    assert "stopped_early" not in metrics
    assert f"the checkpoint holds the weights after step {least}, whose validation loss" in lines[-1]
    best = [line["best_step"] for line in read_metrics(Store(out)) if "validation_loss" in line]
    assert best[-1] == least
    assert best == sorted(best)

    # The same run that takes its last weights, ended where the best ones were: the same bytes.
    short = overfitting(steps=least, best_checkpoint=None)
    uri = train(short, data, str(tmp_path), num_workers=0, threads_per_worker=1, progress=lambda _: None)
    assert read_spec(uri).sha256 == read_spec(str(out / "checkpoint")).sha256


@pytest.mark.usefixtures("ray_session")
def test_patience_ends_the_training(data: str, whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    found = validations(whole[0])
    best, steps = Best(BestCheckpointRecipe(patience=2)), list[int]()
    for step, loss in found.items():
        if not best.exhausted:
            best.offer(step, loss, dict)
            steps.append(step)
    assert steps[-1] < 120, "the run was to stop early"
    lines: list[str] = []
    asked = overfitting(best_checkpoint={"patience": 2})
    uri = train(asked, data, str(tmp_path), num_workers=0, threads_per_worker=1, progress=lines.append)
    metrics = read_spec(uri).metrics
    assert (metrics["best_step"], metrics["steps"], metrics["stopped_early"]) == (best.step, steps[-1], 1)
    assert validations(tmp_path) == {step: found[step] for step in steps}
    assert lines[-1].endswith(
        f"; 2 validations in a row without a lower one ended the training after {steps[-1]} of 120 steps"
    )
    assert not any("max_minutes" in line for line in lines)
    again: list[str] = []
    assert train(asked, data, str(tmp_path), num_workers=0, progress=again.append) == uri
    assert "already trained" in again[0]


class _KilledError(Exception):
    pass


@pytest.mark.usefixtures("ray_session")
def test_a_run_that_dies_after_its_best_step_ends_with_the_same_bytes(
    data: str, whole: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies after the best step and before the last one, and goes on from its state, not from the beginning."""
    best_step = int(read_spec(str(whole[0] / "checkpoint")).metrics["best_step"])
    asked = overfitting(checkpoint_minutes=1e-9, best_checkpoint={"patience": 3})
    calm = train(asked, data, str(tmp_path / "calm"), num_workers=0, threads_per_worker=1, progress=lambda _: None)
    seen: list[int] = []
    offer = Best.offer

    def dies(self: Best, step: int, *rest: object) -> None:
        seen.append(step)
        offer(self, step, *rest)
        if step == best_step + 20:
            raise _KilledError

    monkeypatch.setattr(Best, "offer", dies)
    with pytest.raises(Exception, match="training failed"):
        train(asked, data, str(tmp_path / "run"), num_workers=0, threads_per_worker=1, progress=lambda _: None)
    died = len(seen)
    monkeypatch.setattr(Best, "offer", offer)
    steps: list[int] = []
    monkeypatch.setattr(loop.rng, "derive", _noting(loop.rng.derive, steps))
    uri = train(asked, data, str(tmp_path / "run"), num_workers=0, threads_per_worker=1, progress=lambda _: None)
    assert died == (best_step + 20) // 10
    assert min(steps) == best_step + 19, "the state before the step that died"
    assert read_spec(uri).sha256 == read_spec(calm).sha256
    assert read_spec(uri).metrics["best_step"] == best_step
    assert not list((tmp_path / "run/state").glob("**/*.safetensors")), "the state goes when the result is there"


def _noting(derive: object, steps: list[int]) -> object:
    def noting(*names: object) -> int:
        if "step" in names:
            steps.append(int(names[names.index("step") + 1]))  # type: ignore[call-overload]
        return derive(*names)  # type: ignore[operator]

    return noting


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("shard", [False, True])
def test_two_workers_stop_together(data: str, tmp_path: Path, shard: bool) -> None:
    asked = overfitting(best_checkpoint={"patience": 2}, hardware={"precision": "float32", "shard": shard}, steps=200)
    lines: list[str] = []
    uri = train(asked, data, str(tmp_path), num_workers=2, use_gpu=False, threads_per_worker=1, progress=lines.append)
    found, metrics = validations(tmp_path), read_spec(uri).metrics
    assert metrics["best_step"] == min(found, key=lambda step: (found[step], step))
    assert metrics["steps"] == metrics["best_step"] + 20 < 200
    load_model(uri)


def test_validation_subjects_that_chose_are_named(data: str, whole: tuple[Path, list[str]]) -> None:
    spec = read_spec(str(whole[0] / "checkpoint"))
    assert spec.selection_hashes == tuple(sorted(subject_hash(f"V{n}") for n in range(4)))
    assert spec.subject_hashes == tuple(sorted(subject_hash(f"S{n}") for n in range(4)))


@pytest.mark.usefixtures("ray_session")
def test_nothing_to_validate_on_is_refused_before_training(data: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs data\.validation_rows above 0"):
        overfitting(data={**overfitting().data.model_dump(), "validation_rows": 0})
    alone = write_rows(tmp_path / "alone", samples_of())
    for refuses in (
        lambda: train(overfitting(), alone, str(tmp_path / "run"), num_workers=0),
        lambda: preview(overfitting(), alone, 1, {}),
    ):
        with pytest.raises(DataError, match="no labelled rows of split 'val'"):
            refuses()
    assert not os.path.exists(tmp_path / "run/run.json")


def test_the_dry_run_tells_the_patience(data: str) -> None:
    table = dict(preview(overfitting(best_checkpoint={"patience": 3}), data, 1, {}))
    assert table["steps"] == "120 (120.0 epochs), or 3 validations (30 steps) without a lower loss"
