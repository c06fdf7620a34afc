"""Ctrl-C ends a training with one line, the exit code 130 and nothing that runs on, within seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from builders import slice_sample, write_samples

from augengine.commands import program
from augengine.commands.program import descendants, run_program
from augengine.io.run_lock import LOCK
from augengine.io.store import Store
from augengine.train.metrics_file import read_metrics

RECIPE = """\
version: 1
name: stopped
kind: acquisition
seed: 0
network: {body: compact, channels: [8, 16], head_channels: 8, norm_groups: 4, token_dim: 8}
diffusion: {parametrisation: x0, schedule: cosine, timesteps: 100}
data: {validation_rows: 2}
optimiser: {batch_size: 4, learning_rate: 1.0e-3, weight_decay: 0.0, warmup_steps: 0, ema_decay: 0.9}
steps: 1000000
"""
LINE = "stopped; what was committed is kept: run the same command again to go on"
WITHIN_S = 5.0


@pytest.mark.slow
def test_ctrl_c_ends_a_training_at_once_with_one_line(tmp_path: Path) -> None:
    data = write_samples(tmp_path / "data", [slice_sample(s, i) for s in range(3) for i in range(4)])
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-c",
        "from augengine.cli import main; main()",
        "train",
        str(tmp_path / "recipe.yaml"),
        "--data",
        data,
        "--out",
        str(out),
        "--cpu",
    ]
    said = tmp_path / "stderr"
    with said.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        try:
            deadline = time.monotonic() + 300
            while not read_metrics(Store(str(out))):
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
            ray = psutil.Process(process.pid).children(recursive=True)
            before = len(said.read_text().splitlines())
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            started = time.monotonic()
            code = process.wait(timeout=60)
            seconds = time.monotonic() - started
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    lines = [line for line in said.read_text().splitlines()[before:] if line.strip()]
    assert (code, lines) == (130, [LINE])
    assert seconds < WITHIN_S
    assert ray, "Ray ran"
    assert not psutil.wait_procs(ray, timeout=10)[1], "nothing of it runs on"
    assert not (out / LOCK).exists()


def test_only_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ended: list[int] = []
    monkeypatch.setattr(program, "descendants", lambda pid: [])
    monkeypatch.setattr(program.os, "_exit", ended.append)

    def exits(code: int) -> None:
        raise SystemExit(code)

    run_program(lambda: exits(130))
    assert ended == [130]
    for code in (0, 2, 3, 143):
        with pytest.raises(SystemExit) as caught:
            run_program(lambda code=code: exits(code))  # type: ignore[misc]
        assert caught.value.code == code
    assert ended == [130]


def test_descendants_are_found_parents_first() -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("no /proc here")
    child = subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True)
    try:
        below = psutil.Process(child.pid)
        while not below.children():
            time.sleep(0.05)
        found = descendants(os.getpid())
        assert found.index(child.pid) < found.index(below.children()[0].pid)
        assert os.getpid() not in found
        assert os.getppid() not in found
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
