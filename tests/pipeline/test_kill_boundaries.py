"""A run may die at any write, once, twice or thrice: afterwards every row is there once, on disks and object stores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from object_store import BUCKET

ROOT = Path(__file__).resolve().parents[2]
DIVIDED = "several.1,several.2"
QUARANTINED = f"{DIVIDED},several-row0001.1,several-row0001.2,several-row0001.3"


def explored(place: object, *arguments: object) -> dict[str, int]:
    """Counts of a call of `kill_boundaries.py`, which found nothing wrong."""
    command = [sys.executable, str(Path(__file__).with_name("kill_boundaries.py")), str(place), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    print(arguments[:3], found["counts"])  # noqa: T201
    assert found["bad"] == []
    assert (found["counts"]["lost"], found["counts"]["doubled"]) == (0, 0)
    counts: dict[str, int] = found["counts"]
    return counts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "units", "marks", "deaths", "quarantined"),
    [
        (2, "single", "none", 400, False),
        (1, "single", "single.1,single.2", 20, True),
        (1, "single,several", "none", 40, False),
        (1, "several", DIVIDED, 60, False),
        (1, "several", QUARANTINED, 60, True),
    ],
)
def test_no_death_loses_or_doubles_a_row_on_a_disk(
    tmp_path: Path, kills: int, units: str, marks: str, deaths: int, quarantined: bool
) -> None:
    counts = explored(tmp_path / "k", kills, units, marks)
    assert counts["deaths"] > deaths
    assert counts["undisturbed runs"] == counts["states"]
    assert (counts["quarantined"] > 0) == quarantined


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "units", "marks", "every", "deaths"),
    [(3, "single", "none", 1, 20), (2, "several", DIVIDED, 6, 8), (1, "several", QUARANTINED, 16, 2)],
)
def test_no_death_loses_or_doubles_a_row_on_an_object_store(
    s3_options: dict[str, Any], kills: int, units: str, marks: str, every: int, deaths: int
) -> None:
    place = f"s3://{BUCKET}/kills-{units}-{every}"
    counts = explored(place, kills, units, marks, json.dumps(s3_options), every)
    assert counts["deaths"] > deaths
