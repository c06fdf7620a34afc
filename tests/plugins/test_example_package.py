"""The example package, installed as anybody would, offline: checked, run on a phantom, explained and replayed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from augengine.io.dataset import run_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.phantom.brain_cohort import BrainCohort
from augengine.pipeline.phantom import shard_cohort
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/augengine_example"
PIP = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
PROMISES = 11


def run(folder: Path, *words: str, environment: dict[str, str]) -> str:
    code = "from augengine.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has augengine and the installed example, and not the example's folder."""
    folder = tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=ignored)  # a build leaves files beside it
    subprocess.run([sys.executable, *PIP, "--target", str(folder / "target"), str(source)], check=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder / "target")])}


def test_its_own_test_passes(environment: dict[str, str], tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir"]
    done = subprocess.run(
        [*words, str(tmp_path), str(EXAMPLE / "tests")],
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_it_keeps_what_everything_of_its_kind_must(environment: dict[str, str], tmp_path: Path) -> None:
    told = run(tmp_path, "check", "--plugin", "augengine_example", environment=environment).splitlines()
    assert len(told) == PROMISES
    assert {line.split("'")[1] for line in told} == {"motion_ghosting", "ghost_level", "motion_ghosts"}


@pytest.mark.slow
def test_its_policy_makes_rows_that_name_it_and_can_be_made_again(environment: dict[str, str], tmp_path: Path) -> None:
    cohort = BrainCohort(subjects=4, matrix=32, slices=4, labels="tissue")
    shard_cohort(cohort, str(tmp_path / "brain"), Preparation(), actors=INLINE)
    asked = ["--data", "brain", "--policy", "motion_ghosts", "--out", "ghosts", "--actors", "1"]
    run(tmp_path, "augment", *asked, environment=environment)
    store, source = Store(str(tmp_path / "ghosts/augmented")), Store(str(tmp_path / "brain"))
    rows = list(iter_samples(store, run_files(store, "accepted")))
    assert rows
    before = {
        s.sample_id: s for s in iter_samples(source, [f"samples/{p.name}" for p in tmp_path.glob("brain/samples/*")])
    }
    for row in rows:
        assert row.provenance is not None
        assert row.provenance.plugins == {"augengine-example": "0.1.0"}
        assert row.provenance.edit == "motion_ghosting"
        parent = before[row.provenance.parent_id]
        assert row.label is not None
        assert row.label.tobytes() == parent.label.tobytes()  # type: ignore[union-attr]
        assert row.image.tobytes() != parent.image.tobytes()
    one = rows[0].sample_id
    told = run(tmp_path, "explain", one, "--out", "ghosts/augmented", environment=environment)
    assert "plug-in augengine-example: 0.1.0" in told
    told = run(tmp_path, "replay", one, "--out", "ghosts/augmented", environment=environment)
    assert f"{one}: equal, byte for byte" in told
