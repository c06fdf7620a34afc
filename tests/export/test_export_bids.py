"""BIDS: names, sidecars in seconds, sources; and what this package's own reader makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from export_cohorts import OBLIQUE, augmented, cohort, exported, slice_cohort, volume, volume_cohort

from augengine.errors import ConfigError
from augengine.export.bids import Bids


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def test_raw_and_derivatives(tmp_path: Path) -> None:
    exported(Bids(), volume_cohort(tmp_path), tmp_path / "out", licence="CC0 1.0")
    out, derived = tmp_path / "out", tmp_path / "out/derivatives/augengine"
    assert load(out / "dataset_description.json")["DatasetType"] == "raw"
    assert load(out / "dataset_description.json")["License"] == "CC0 1.0"
    about = load(derived / "dataset_description.json")
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0]["Name"] == "augengine"
    assert about["License"] == "CC0 1.0"
    raw = load(out / "sub-S000/anat/sub-S000_FLAIR.json")
    assert (raw["EchoTime"], raw["RepetitionTime"]) == (0.0025, 0.0055)  # seconds
    assert raw["MagneticFieldStrength"] == 3.0
    (made,) = (derived / "sub-S000/anat").glob("sub-S000_desc-syn*_FLAIR.json")
    sidecar = load(made)
    assert sidecar["EchoTime"] == 0.004
    assert sidecar["Sources"] == ["bids:raw:sub-S000/anat/sub-S000_FLAIR.nii.gz"]
    assert sidecar["SpatialReference"] == sidecar["Sources"][0]
    assert sidecar["Synthetic"] is True
    assert sidecar["PolicyDigest"] == "d" * 32
    assert not list(out.glob("sub-*/anat/*desc-*"))  # raw data are real data
    label = nib.load(derived / "sub-S000/anat/sub-S000_dseg.nii.gz")
    assert ((np.asarray(label.dataobj) == 3) == (volume(0).label == 4)).all()
    assert np.abs(label.affine - OBLIQUE).max() <= 1e-5
    assert "3\tenhancing" in (derived / "dseg.tsv").read_text().splitlines()
    assert (out / "participants.tsv").read_text().splitlines()[1] == "sub-S000\ttrain\tn/a"


def test_slices_are_chunks_and_volumes_of_one_subject_are_runs(tmp_path: Path) -> None:
    exported(Bids(), slice_cohort(tmp_path), tmp_path / "out")
    assert (tmp_path / "out/sub-S003/anat/sub-S003_chunk-0004_T1w.nii.gz").is_file()
    twice = [volume(0), volume(0, volume_id="S000-2"), volume(3)]
    exported(Bids(), cohort(tmp_path / "two", twice), tmp_path / "runs")
    assert {p.name for p in (tmp_path / "runs/sub-S000/anat").glob("*T1w.nii.gz")} == {
        "sub-S000_run-1_T1w.nii.gz",
        "sub-S000_run-2_T1w.nii.gz",
    }


def test_a_contrast_agent_is_an_entity_and_unknown_channels_are_asked_for(tmp_path: Path) -> None:
    stores = cohort(tmp_path, [volume(0, channels=("t1c", "dwi")), volume(3, channels=("t1c", "dwi"))])
    with pytest.raises(ConfigError, match="dwi=T1w"):
        exported(Bids(), stores, tmp_path / "out")
    with pytest.raises(ConfigError, match="--suffixes: unknown channel 'dwl'; did you mean 'dwi'"):
        exported(Bids(suffixes={"dwl": "acq-b0_T2w"}), stores, tmp_path / "out")
    exported(Bids(suffixes={"dwi": "acq-b0_T2w"}), stores, tmp_path / "out")
    assert (tmp_path / "out/sub-S000/anat/sub-S000_ce-gadolinium_T1w.nii.gz").is_file()
    assert (tmp_path / "out/sub-S000/anat/sub-S000_acq-b0_T2w.nii.gz").is_file()


def test_a_row_whose_source_is_not_exported_names_none(tmp_path: Path) -> None:
    rows = [volume(n) for n in range(5)]
    stores = cohort(tmp_path, [rows[0].replace(label=None), *rows[1:]], [augmented(rows[0]), augmented(rows[1])])
    exported(Bids(), stores, tmp_path / "out", unlabelled="skip")
    assert not (tmp_path / "out/sub-S000").exists()
    sources = [
        load(path).get("Sources") for path in sorted((tmp_path / "out/derivatives").rglob("*desc-syn*_T1w.json"))
    ]
    assert sources == [None, ["bids:raw:sub-S001/anat/sub-S001_T1w.nii.gz"]]
