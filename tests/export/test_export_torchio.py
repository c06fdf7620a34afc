"""What TorchIO reads: subjects and a map to sample from that no subject lacks."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from export_cohorts import augmented, cohort, exported, volume

from augengine.export.torchio import TorchIO


def test_every_subject_can_be_sampled(tmp_path: Path) -> None:
    rows = [volume(0), volume(3), volume(4)]
    assert rows[0].label is not None
    healed = augmented(rows[0]).replace(label=np.zeros_like(rows[0].label))
    empty = augmented(rows[0], 1).replace(label=np.zeros_like(rows[0].label), image=np.zeros_like(rows[0].image))
    exported(TorchIO(), cohort(tmp_path, rows, [healed, empty]), tmp_path / "out")
    maps = {s["name"]: s for s in json.loads((tmp_path / "out/subjects.json").read_text())["subjects"]}
    assert len(maps) == 5

    def sampling(name: str) -> np.ndarray:
        return np.asarray(nib.load(tmp_path / "out" / maps[name]["sampling"]).dataobj)

    assert (sampling("S000") == (rows[0].label > 0)).all()
    assert (sampling(f"syn-{healed.sample_id}") == (rows[0].image != 0).any(0)).all()  # air was cleared, and is air
    assert sampling(f"syn-{empty.sample_id}").all()
    assert [s["split"] for s in maps.values()] == ["train", "val", "test", "train", "train"]
    assert (tmp_path / "out/augengine_subjects.py").is_file()
