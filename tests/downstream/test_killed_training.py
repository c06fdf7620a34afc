"""An evaluation whose training process is killed once: the training goes on from its last state, to the same bytes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from builders import slice_sample, write_samples
from training_cases import recipe

from augengine.diffusion.checkpoint import read_spec
from augengine.downstream.experiment import Experiment
from augengine.downstream.protocols import Protocol, protocol
from augengine.downstream.run import run
from augengine.io.store import Store
from augengine.pipeline.units import Actors
from augengine.train.local_state import LocalState
from augengine.train.metrics_file import read_metrics

PROTOCOL = Protocol.model_validate(
    protocol("brats_paper").model_dump() | {"name": "tiny", "classes": {"fat": ("fat",)}, "metrics": ("dice",)}
)
STEPS = 600


@contextmanager
def quiet(title: str) -> Iterator[Callable[..., None]]:
    yield lambda done, total, details: None


def experiment(folder: Path, name: str) -> Experiment:
    splits = {"train": range(1, 5), "val": range(5, 7), "test": range(7, 9)}
    rows = [slice_sample(n, split=split) for split, subjects in splits.items() for n in subjects]
    asked = recipe(
        "segmenter",
        data={"regions": {"fat": ["fat"]}},
        optimiser={"batch_size": 2, "learning_rate": 1e-3},
        hardware={"precision": "float32"},
        checkpoint_minutes=0.002,
        validate_every=50,
    )
    data = write_samples(folder / "real", rows)
    return Experiment(PROTOCOL, data, str(folder / name), {"unet": asked}, seeds=1, steps=STEPS)


def actors() -> list[int]:
    """Ray Data actors that descend from this process; another run on the machine is not ours to kill."""
    found = [p for p in psutil.Process().children(recursive=True) if p.is_running()]
    return [p.pid for p in found if p.cmdline() and "MapWorker" in p.cmdline()[0]]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_killed_training_goes_on_where_it_was(tmp_path: Path) -> None:
    killed, calm = experiment(tmp_path, "killed"), experiment(tmp_path, "calm")
    ended = threading.Event()
    before: list[dict[str, float]] = []  # metrics up to the state that the training must go on from

    def kill_once() -> None:
        while not (before or ended.wait(0.02)):
            for mark in Path(killed.out).glob("segmenters/*/unet/state/local.json"):
                out = Store(mark.parents[1])
                named = LocalState(out)._named()
                step = int(named[-1].rpartition("-")[2]) if named else STEPS
                lines = [line for line in read_metrics(out) if line["step"] <= step]
                if lines and step < STEPS * 0.9:
                    before.extend(lines)
                    os.kill(min(actors()), signal.SIGKILL)

    killer = threading.Thread(target=kill_once)
    killer.start()
    try:
        done = run(killed, quiet, actors=Actors(1))
    finally:
        ended.set()
        killer.join()
    assert before, "the training ended before it could be killed"
    (trial,) = done.trials
    out = Store(f"{killed.out}/segmenters/{trial.trial_id}/unet")
    assert read_metrics(out)[: len(before)] == before  # one that began anew would have written others
    run(calm, quiet, actors=Actors(1))
    specs = [read_spec(f"{e.out}/segmenters/{trial.trial_id}/unet/checkpoint") for e in (killed, calm)]
    assert specs[0].sha256 == specs[1].sha256
    assert specs[0].metrics["steps"] == STEPS
    assert np.isfinite(specs[0].metrics["validation_loss"])
    assert not list(Path(out.root).glob("state/**/*.safetensors"))
