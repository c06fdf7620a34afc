"""From an oblique, anisotropic NIfTI file through shards and augmentation to files: every voxel stays where it was.

nibabel reads them, and SimpleITK where it is installed (`make test-integrations`).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from builders import tiny_spec
from export_cohorts import OBLIQUE, exported, volume

from augengine.diffusion.checkpoint import save_model, untrained
from augengine.export.bids import Bids
from augengine.export.monai import Monai
from augengine.export.nnunet import NnUnet
from augengine.export.torchio import TorchIO
from augengine.io.sources import SourceOptions
from augengine.io.store import Store
from augengine.load import load_policy
from augengine.pipeline.augment import augment
from augengine.pipeline.ingest import ingest
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation

SHAPE = (32, 32, 8)
POLICY = """
version: 1
name: other-scanner
edit: acquisition
seed: 3
select: {split: train}
params: {method: structure, target: {explicit: [{echo_time_ms: 2.0}]}}
sampler: {solver: ddim, steps: 1}
gates: [{name: out_of_range, max: 1.0}]
output: {per_input: 1, max_fail_rate: 1.0}
"""


def run(tmp_path: Path, slices: bool) -> tuple[Store, Store]:
    """Four subjects as NIfTI files with masks, their shards, and augmented rows of an untrained model."""
    for n in range(6):
        folder = tmp_path / "nifti" / f"P{n}"
        folder.mkdir(parents=True)
        sample = volume(n, shape=SHAPE)
        assert sample.label is not None
        nib.save(nib.Nifti1Image(sample.image[0].astype(np.int16), OBLIQUE), folder / "t1.nii.gz")
        nib.save(nib.Nifti1Image(sample.label, OBLIQUE), folder / "mask.nii.gz")
    options = SourceOptions(
        labels={"fat": 1, "b": 2, "c": 4}, channels={"t1": "t1.nii.gz"}, mask="mask.nii.gz", public_ids=True
    )
    ingest(
        tmp_path / "nifti",
        str(tmp_path / "data"),
        layout="nifti",
        options=options,
        fractions=(0.5, 0.25, 0.25),
        preparation=Preparation(slices=slices),
        licence="CC BY-NC 4.0",
        actors=INLINE,
    )
    (tmp_path / "policy.yaml").write_text(POLICY)
    spec = tiny_spec("acquisition", axes=2 if slices else 3)
    model = untrained(spec, 0)
    save_model(Store(str(tmp_path / "model")), model.spec, model.network.state_dict())
    made = augment(
        load_policy(tmp_path / "policy.yaml"),
        str(tmp_path / "data"),
        str(tmp_path / "run"),
        {"": str(tmp_path / "model")},
        actors=INLINE,
    )
    assert made.counts["accepted"] > 0
    return Store(str(tmp_path / "data")), Store(str(tmp_path / "run"))


def cases(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "export.json").read_text())["cases"]
    return found


def read(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Voxels and RAS+ affine, by each reader."""
    image = nib.load(path)
    yield np.asarray(image.dataobj), image.affine
    if importlib.util.find_spec("SimpleITK"):
        sitk = importlib.import_module("SimpleITK")
        other, affine = sitk.ReadImage(path), np.eye(4)
        affine[:3, :3] = np.reshape(other.GetDirection(), (3, 3)) * other.GetSpacing()
        affine[:3, 3] = other.GetOrigin()
        yield sitk.GetArrayFromImage(other).transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@pytest.mark.parametrize("slices", [True, False], ids=["2d", "3d"])
def test_affines_and_labels(tmp_path: Path, slices: bool) -> None:
    stores = run(tmp_path, slices)
    for target, name in ((Monai(), "monai"), (Bids(), "bids"), (NnUnet(), "Dataset501_G"), (TorchIO(), "torchio")):
        exported(target, stores, tmp_path / name, checkpoints=(Store(str(tmp_path / "model")),))
        found = cases(tmp_path / name)
        assert json.loads((tmp_path / name / "export.json").read_text())["licence"] == "CC BY-NC 4.0"
        assert {c["source_licence"] for c in found.values() if c["synthetic"]} == {"CC BY-NC 4.0"}
        assert any(case["synthetic"] for case in found.values())
        for case in found.values():
            parent = case.get("parent") or case["sample_id"]
            subject, _, k = parent.partition("#")
            expected = OBLIQUE.copy()
            expected[:3, 3] += OBLIQUE[:3, 2] * int(k or 0)
            columns = [0, 1, 3] if slices else [0, 1, 2, 3]  # nnU-Net's third spacing of a slice is 999
            label = volume(int(subject.split("_")[0].removeprefix("P")), shape=SHAPE).label
            assert label is not None
            plane = label[:, :, int(k) : int(k) + 1] if slices else label
            for file in (f for f in case["files"] if f.endswith(".nii.gz")):
                for voxels, affine in read(tmp_path / name / file):
                    assert np.abs((affine - expected)[:, columns]).max() <= 1e-5, file
                    if "label" in file or "dseg" in file:
                        assert (voxels == np.searchsorted([0, 1, 2, 4], plane)).all(), file
