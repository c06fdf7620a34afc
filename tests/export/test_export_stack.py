"""Slices become volumes only where every one is there once and the same was drawn for all."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from export_cohorts import OBLIQUE, augmented, cohort, exported, slice_cohort, slices, volume, volume_cohort

from augengine.errors import DataError, RunError
from augengine.export.monai import Monai
from augengine.records import Sample


def rows() -> list[Sample]:
    return [s for subject in (0, 3) for s in slices(volume(subject))]


def test_without_stack_slices_stay_slices(tmp_path: Path) -> None:
    stores = slice_cohort(tmp_path)
    exported(Monai(), stores, tmp_path / "out")
    found = nib.load(tmp_path / "out/images/S000-0003_t1.nii.gz")
    assert found.shape == (20, 16, 1)
    assert np.abs(found.affine[:3, 3] - (OBLIQUE[:3, 3] + 3 * OBLIQUE[:3, 2])).max() <= 1e-5


def test_a_stack_is_the_volume_again(tmp_path: Path) -> None:
    stores = slice_cohort(tmp_path)
    summary = exported(Monai(), stores, tmp_path / "out", stack=True, clear=False)
    assert summary.counts == {"test real": 1, "train augmented": 3, "train real": 3, "val real": 1}
    sample = volume(2)
    found = nib.load(tmp_path / "out/images/S002_flair.nii.gz")
    assert (np.asarray(found.dataobj) == sample.image[1]).all()
    assert np.abs(found.affine - OBLIQUE).max() <= 1e-5
    cases = json.loads((tmp_path / "out/export.json").read_text())["cases"]
    (name,) = [n for n, case in cases.items() if case.get("parent") == "S002"]
    made = np.asarray(nib.load(tmp_path / f"out/images/{name}_flair.nii.gz").dataobj)
    assert (made == augmented(sample).image[1]).all()


def test_air_of_a_stack_is_cleared_slice_by_slice(tmp_path: Path) -> None:
    exported(Monai(), slice_cohort(tmp_path), tmp_path / "out", stack=True)
    cases = json.loads((tmp_path / "out/export.json").read_text())["cases"]
    (name,) = [n for n, case in cases.items() if case.get("parent") == "S001"]
    made = nib.load(tmp_path / f"out/images/{name}_t1.nii.gz").get_fdata()
    assert ((made == 0) == (volume(1).image == 0).all(0)).all()


def test_a_gap_is_refused(tmp_path: Path) -> None:
    stores = cohort(tmp_path, [row for row in rows() if row.sample_id != "S000#0002"])
    with pytest.raises(DataError, match="slices 1 and 3 next to each other"):
        exported(Monai(), stores, tmp_path / "out", stack=True)


def test_a_synthetic_stack_needs_all_slices_of_its_source(tmp_path: Path) -> None:
    stores = cohort(tmp_path, rows(), [augmented(row) for row in slices(volume(0))[1:]])
    with pytest.raises(DataError, match="4 of 5"):
        exported(Monai(), stores, tmp_path / "out", stack=True)


def test_what_was_drawn_for_each_slice_alone_is_no_volume(tmp_path: Path) -> None:
    """A relocated lesion lies somewhere else in every slice."""
    made = [augmented(row, params={"shift_mm": [row.slice_index, 0]}) for row in slices(volume(0))]
    with pytest.raises(DataError, match="same was drawn"):
        exported(Monai(), cohort(tmp_path, rows(), made), tmp_path / "out", stack=True)


def test_slices_out_of_line_are_no_volume(tmp_path: Path) -> None:
    moved = OBLIQUE.copy()
    moved[0, 3] += 1
    shifted = [r.replace(affine=moved) if r.sample_id == "S003#0001" else r for r in rows()]
    with pytest.raises(RunError, match="slice distance apart"):
        exported(Monai(), cohort(tmp_path, shifted), tmp_path / "out", stack=True)


def test_volumes_are_not_stacked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only slices"):
        exported(Monai(), volume_cohort(tmp_path), tmp_path / "out", stack=True)
