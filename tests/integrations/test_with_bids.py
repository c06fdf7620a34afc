"""bids-validator accepts the raw data set and its derivatives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")
if not VALIDATOR.exists():
    pytest.skip("bids-validator-deno is not installed", allow_module_level=True)

from export_cohorts import cohort, exported, slice_cohort, volume, volume_cohort  # noqa: E402

from augengine.export.bids import Bids  # noqa: E402


def errors(folder: Path) -> list[Any]:
    """Errors of the validator; its exit code must say the same."""
    run = subprocess.run([VALIDATOR, folder, "--format", "json"], capture_output=True, text=True, check=False)
    issues = json.loads(run.stdout)["issues"]["issues"]
    found = [issue for issue in issues if issue["severity"] == "error"]
    assert (run.returncode == 0) == (not found), run.stdout[-2000:]
    return found


@pytest.mark.parametrize("kind", ["slices", "volumes", "runs"])
def test_rc_0(tmp_path: Path, kind: str) -> None:
    if kind == "runs":
        rows = [volume(0), volume(0, volume_id="S000-2"), volume(3), volume(4, subject_id="S-4", volume_id="S-4")]
        stores = cohort(tmp_path, rows)
    else:
        stores = slice_cohort(tmp_path) if kind == "slices" else volume_cohort(tmp_path)
    exported(Bids(), stores, tmp_path / "out", licence="CC0 1.0")
    assert errors(tmp_path / "out") == []
    assert errors(tmp_path / "out/derivatives/augengine") == []


def test_the_validator_finds_a_wrong_name(tmp_path: Path) -> None:
    """It does look: a name that is not BIDS is an error."""
    exported(Bids(), volume_cohort(tmp_path), tmp_path / "out")
    image = tmp_path / "out/sub-S000/anat/sub-S000_T1w.nii.gz"
    image.rename(image.with_name("sub-S000_desc-x_T1w.nii.gz"))
    assert errors(tmp_path / "out")
