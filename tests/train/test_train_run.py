"""Ray Train from shards to a checkpoint, with a worker killed on the way."""

import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from augengine.diffusion.checkpoint import load_generator, subject_hash
from augengine.diffusion.counterfactual import sdedit
from augengine.errors import ConfigError, RunError
from augengine.io.dataset import write_dataset
from augengine.io.shards import to_table
from augengine.io.store import Store
from augengine.records import Acquisition, Sample
from augengine.train.config import Recipe, read_recipe
from augengine.train.metrics_file import read_metrics
from augengine.train.run import train

TINY = {
    "body": "monai",
    "channels": (8, 16),
    "res_blocks": 1,
    "attention_levels": (2,),
    "head_channels": 8,
    "norm_groups": 4,
    "token_dim": 8,
    "unshuffle": 2,
    "structure": True,
}
STEPS = 400


def recipe(**changes: object) -> Recipe:
    values = read_recipe("cddgm_small").model_dump()
    values |= {
        "network": TINY,
        "steps": STEPS,
        "max_minutes": None,
        "hardware": {"precision": "float32"},
        "validate_every": 50,
    }
    values |= {"checkpoint_minutes": 0.005, "optimiser": {"batch_size": 8, "learning_rate": 2e-3, "ema_decay": 0.9}}
    return Recipe.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    random = np.random.default_rng(0)
    rows = [
        Sample(
            image=random.integers(0, 500, (1, 16, 16)).astype(np.float32),
            affine=np.diag([1.0, 1.0, 3.0, 1.0]),
            channels=("t1",),
            subject_id=f"S{subject}",
            volume_id=f"S{subject}",
            acquisition=Acquisition("GE", "Signa", 1.5, "FS", 10.0, 2.0, 2.0 + subject / 10, 5.0),
            slice_index=k,
            split="val" if subject == 5 else "train",
            intensity_range=((50.0, 450.0),),
        )
        for subject in range(6)
        for k in range(8)
    ]
    return write_dataset(tmp_path_factory.mktemp("data"), [to_table(rows)]).uri


def training_processes() -> list[int]:
    """Ray Train workers that descend from this process; another run on the machine is not ours to kill."""
    found = [p for p in psutil.Process().children(recursive=True) if p.is_running()]
    return [p.pid for p in found if p.cmdline() and p.cmdline()[0].startswith("ray::RayTrainWorker")]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_killed_worker_resumes_from_the_last_checkpoint(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A report waits for the controller to ask, by itself every two seconds: longer than these steps take.
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    out = Store(tmp_path / "run")
    ended = threading.Event()
    written_before: list[dict[str, float]] = []  # metrics up to the checkpoint that the run must go on from

    def kill_one() -> None:
        while not (written_before or ended.wait(0.02)):
            # The newest folder may be unfinished, the one before it is a checkpoint that Ray knows.
            texts = [p.read_text() for p in Path(out.root).glob("state/checkpoint_*/progress.json")]
            steps = sorted(json.loads(text)["progress"]["step"] for text in texts if text.endswith("}"))[:-1]
            lines = read_metrics(out)
            if steps and lines and lines[-1]["step"] < STEPS * 0.8:
                written_before.extend(line for line in lines if line["step"] <= steps[-1])
                if written_before:
                    os.kill(min(training_processes()), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    lines: list[str] = []
    try:
        uri = train(recipe(), data, out.uri, num_workers=2, use_gpu=False, threads_per_worker=1, progress=lines.append)
    finally:
        ended.set()
        killer.join()

    assert written_before, "the run ended before a worker could be killed"
    # A run that began anew would have dropped these lines and written others.
    assert all(line in read_metrics(out) for line in written_before)
    assert any("2 workers" in line for line in lines)
    generator = load_generator(uri)
    assert generator.spec.metrics["steps"] == STEPS
    assert generator.spec.subject_hashes == tuple(sorted(subject_hash(f"S{s}") for s in range(5)))
    losses = [m for m in read_metrics(out) if "loss" in m]
    assert [m["step"] for m in losses] == sorted({m["step"] for m in losses})
    assert losses[-1]["loss"] < losses[0]["loss"]

    x = np.random.default_rng(1).random((2, 1, 16, 16), np.float32)
    target = Acquisition("GE", "Signa", 1.5, "FS", 10.0, 2.0, 2.1, 5.0)
    assert np.isfinite(sdedit(generator, x, [target] * 2, [1, 2], steps=3, strength=0.5)).all()

    again: list[str] = []
    assert train(recipe(), data, out.uri, progress=again.append) == uri
    assert "already trained" in again[0]
    with pytest.raises(RunError, match="another recipe"):
        train(recipe(seed=1), data, out.uri)


@pytest.mark.usefixtures("ray_session")
def test_what_cannot_run_is_refused_before_it_starts(data: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="divide evenly"):
        train(recipe(), data, str(tmp_path / "a"), num_workers=3)
    with pytest.raises(RunError, match="need a CPU each"):
        train(recipe(), data, str(tmp_path / "b"), num_workers=8)
    with pytest.raises(RunError, match="need a GPU each"):
        train(recipe(), data, str(tmp_path / "c"), num_workers=1, use_gpu=True)


@pytest.mark.usefixtures("ray_session")
def test_a_run_says_that_the_clock_cut_it(data: str, tmp_path: Path) -> None:
    lines: list[str] = []
    train(recipe(steps=10**6, max_minutes=0.02), data, str(tmp_path), use_gpu=False, progress=lines.append)
    assert "max_minutes 0.02 cut the training after" in lines[-1]
    assert "of 1000000 steps" in lines[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_shards_of_the_optimiser_end_where_whole_copies_do(data: str, tmp_path: Path) -> None:
    """FSDP2 on two CPU workers: the same losses and the same checkpoint as with copied weights."""
    found = {}
    for shard in (False, True):
        hardware = {"precision": "float32", "shard": shard}
        asked = recipe(steps=12, validate_every=12, pictures_every=12, checkpoint_minutes=10, hardware=hardware)
        out = Store(tmp_path / f"shard-{shard}")
        uri = train(asked, data, out.uri, num_workers=2, use_gpu=False, threads_per_worker=1, progress=lambda _: None)
        found[shard] = (read_metrics(out)[-1]["validation_loss"], load_generator(uri).network.state_dict())
        assert (Path(out.root) / "pictures/step-0000012.png").stat().st_size > 1000
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-3)
    for name, weight in found[False][1].items():
        np.testing.assert_allclose(found[True][1][name], weight, atol=2e-3, err_msg=name)
