"""A bounded set of hostile inputs to every reader: each is right, or refused in one line; the harness tells others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fuzz import pool

from augengine.errors import DataError

ROOT = Path(__file__).parents[2]
CASES = 14


def test_every_case_of_every_reader_is_right_or_refused_in_one_line(tmp_path: Path) -> None:
    """In a process of its own: cases are forked, and this one may hold threads."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    out = tmp_path / "counts.json"
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--cases", str(CASES), "--out", str(out)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(out.read_text())
    assert done.returncode == 0, found["bad"]
    assert found["cases"] == CASES * len(found["by_reader"])
    assert len(found["by_reader"]) >= 15
    assert found["total"][pool.RIGHT] > 20
    assert found["total"][pool.REFUSED] > 50


def _spins(rng: np.random.Generator, folder: Path) -> None:
    while True:
        pass


def _dies(rng: np.random.Generator, folder: Path) -> None:
    os.abort()


def _takes(rng: np.random.Generator, folder: Path) -> None:
    np.ones(2**31, np.uint8)


def _takes_and_says_so(rng: np.random.Generator, folder: Path) -> None:
    raise DataError("this file is damaged", found="MemoryError")


def _escapes(rng: np.random.Generator, folder: Path) -> None:
    (folder.parent / "outside").write_text("x")


def _believes(rng: np.random.Generator, folder: Path) -> None:
    raise pool.Silent("2 is 3")


def _talks(rng: np.random.Generator, folder: Path) -> None:
    raise DataError("x" * 5000)


@pytest.mark.parametrize(
    ("reader", "outcome"),
    [
        (_spins, pool.HANG),
        (_dies, pool.ENDED),
        (_takes, pool.MEMORY),
        (_takes_and_says_so, pool.MEMORY),
        (_escapes, pool.OUTSIDE),
        (_believes, pool.SILENT),
        (_talks, pool.TRACEBACK),
        (lambda rng, folder: None, pool.RIGHT),
        (lambda rng, folder: [][1], pool.TRACEBACK),
    ],
)
def test_the_harness_tells_every_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: pool.Reader, outcome: str
) -> None:
    monkeypatch.setattr(pool, "CPU_LIMIT_S", 1.5)
    began = time.monotonic()
    found = list(pool.run({"it": reader}, [("it", 0), ("it", 1)], tmp_path / "scratch", processes=1))
    assert [result.outcome for result in found] == [outcome] * 2
    assert time.monotonic() - began < 2 * pool.WALL_LIMIT_S
    assert pool.counted(found)["total"][outcome] == 2
