"""Elastic trainings: what is refused, and some that go on with fewer workers when a node dies, or more as one joins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from augengine.commands.flags import parse_workers
from augengine.diffusion.checkpoint import read_spec
from augengine.errors import ConfigError
from augengine.train.workers import bounds, check_shares

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("text", ["0", "", "-", "2-", "-2", "4-2", "0-2", "1-2-3", "two", "1.5"])
def test_workers_are_a_number_or_two_rising_ones(text: str) -> None:
    with pytest.raises(ConfigError, match="--workers: workers are a number from 1 on, or the least and the most"):
        parse_workers(text)


def test_every_number_of_workers_divides_the_batch() -> None:
    check_shares(parse_workers("1-4"), 24)
    check_shares(0, 7)
    assert bounds(parse_workers("3-3")) == (3, 3)
    with pytest.raises(ConfigError, match="found 32 rows for 3 or 5 workers"):
        check_shares((2, 5), 32)


@pytest.mark.long
@pytest.mark.parametrize(("what", "workers"), [("dies", [2, 1]), ("joins", [1, 2])])
def test_a_training_goes_on_with_the_workers_that_there_are(what: str, workers: list[int], tmp_path: Path) -> None:
    """Two nodes of one CPU each, of which one dies; or one, which another joins."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # A Ray of its own, which no other one looks for; sockets below its folder allow no long path.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as own:
        mine = {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": own}
        done = subprocess.run(
            [sys.executable, "tests/train/elastic_training.py", what, str(tmp_path)],
            cwd=ROOT,
            text=True,
            timeout=560,
            env={**kept, **mine},
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = done.stdout.splitlines()
    assert json.loads(lines[-1]) == workers
    assert any(line.endswith("1 to 2 workers") for line in lines)
    assert any("where it changes, another run reaches other weights" in line for line in lines)
    assert any("changes of the number of workers on the way: 1;" in line for line in lines)
    assert read_spec(str(tmp_path / "run/checkpoint")).metrics["steps"] == 6000
