"""Augmentation on a real Ray: the same bytes for any number of actors, and resume after an interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from builders import slice_sample, write_checkpoint, write_samples

from augengine.errors import RunError
from augengine.io.commits import committed_files, committed_units
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.load import load_policy
from augengine.pipeline.augment import augment
from augengine.pipeline.units import INLINE, Actors

POLICY = """\
version: 1
name: ray-test
edit: acquisition
params: {target: {empirical: {from: duke_protocols}}}
sampler: {steps: STEPS}
gates: [{name: changed, min: 0.0}]
output: {micro_batch: 4}
"""


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("ray-augment")
    samples = [slice_sample(s, i) for s in range(4) for i in range(8)]
    (folder / "policy.yaml").write_text(POLICY.replace("STEPS", "3"))
    (folder / "slow.yaml").write_text(POLICY.replace("STEPS", "60"))
    return {
        "folder": str(folder),
        "data": write_samples(folder / "data", samples, per_file=2),
        "checkpoint": write_checkpoint(folder / "model"),
    }


def images(out: str) -> dict[str, bytes]:
    store = Store(out)
    samples = list(iter_samples(store, committed_files(store, "accepted")))
    found = {s.sample_id: s.image.tobytes() for s in samples}
    assert len(found) == len(samples), "a row was made twice"
    return found


def run(setup: dict[str, str], name: str, **kwargs: Any) -> Any:
    policy = load_policy(f"{setup['folder']}/policy.yaml")
    return augment(policy, setup["data"], f"{setup['folder']}/{name}", {"generator": setup["checkpoint"]}, **kwargs)


def test_one_actor_two_actors_and_no_ray_make_the_same_bytes(ray_session: None, setup: dict[str, str]) -> None:
    inline = run(setup, "inline", actors=INLINE)
    one = run(setup, "one", actors=Actors(1))
    two = run(setup, "two", actors=Actors(2))
    assert len(inline.run.pids) == len(one.run.pids) == 1
    assert inline.run.pids[0] == os.getpid() != one.run.pids[0]
    assert len(two.run.pids) == 2
    made = [images(f"{setup['folder']}/{name}") for name in ("inline", "one", "two")]
    assert len(made[0]) == 32
    assert made[0] == made[1] == made[2]


def test_actors_that_would_starve_ray_are_refused(ray_session: None, setup: dict[str, str]) -> None:
    with pytest.raises(RunError, match="leave nothing for Ray's own tasks"):
        run(setup, "starved", actors=Actors(50, num_cpus=1))


SCRIPT = """
import sys
from augengine.load import load_policy
from augengine.pipeline.augment import augment
from augengine.pipeline.cluster import user_errors
from augengine.pipeline.units import INLINE
folder, data, checkpoint = sys.argv[1:]
with user_errors():
    augment(load_policy(f"{folder}/slow.yaml"), data, f"{folder}/stopped", {"generator": checkpoint}, actors=INLINE)
"""


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_run_is_resumed_by_the_same_call(setup: dict[str, str], signal_number: int, code: int) -> None:
    folder = setup["folder"]
    command = [sys.executable, "-c", SCRIPT, folder, setup["data"], setup["checkpoint"]]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    store, before = Store(f"{folder}/stopped"), 0
    before = len(committed_units(store))
    deadline = time.monotonic() + 90
    while len(committed_units(store)) <= before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    if signal_number == signal.SIGINT:
        assert "run the same command again to go on" in errors
        assert "Traceback" not in errors
    done = committed_units(store)
    assert before < len(done) < 16
    assert not Path(f"{folder}/stopped/_SUCCESS.json").exists()
    if signal_number == signal.SIGKILL:
        policy = load_policy(f"{folder}/slow.yaml")
        summary = augment(policy, setup["data"], store.uri, {"generator": setup["checkpoint"]}, actors=INLINE)
        assert (summary.run.skipped, summary.run.made) == (len(done), 16 - len(done))
        assert len(images(store.uri)) == 32
