"""MONAI reads the datalist, and a training step runs in two and in three dimensions."""

from __future__ import annotations

from pathlib import Path

import monai
import nibabel as nib
import numpy as np
import pytest
import torch
from export_cohorts import OBLIQUE, exported, slice_cohort, volume_cohort
from monai.data import DataLoader, Dataset, load_decathlon_datalist
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureChannelFirstd, LoadImage, LoadImaged, SqueezeDimd
from packaging.version import Version

from augengine.export.monai import Monai


def test_the_datalist_has_three_lists(tmp_path: Path) -> None:
    exported(Monai(), volume_cohort(tmp_path), tmp_path / "out")
    lists = {
        key: load_decathlon_datalist(str(tmp_path / "out/datalist.json"), True, key)
        for key in ("training", "validation", "test")
    }
    assert [len(found) for found in lists.values()] == [6, 1, 1]
    assert [item["synthetic"] for item in lists["training"]] == [False] * 3 + [True] * 3
    assert not any(item["synthetic"] for item in (*lists["validation"], *lists["test"]))
    for item in (*lists["training"], *lists["test"]):
        assert all(Path(path).is_file() for path in (*item["image"], item["label"]))


@pytest.mark.parametrize("axes", [2, 3])
def test_a_training_step(tmp_path: Path, axes: int) -> None:
    exported(Monai(), slice_cohort(tmp_path) if axes == 2 else volume_cohort(tmp_path), tmp_path / "out")
    items = load_decathlon_datalist(str(tmp_path / "out/datalist.json"), True, "training")
    steps = [LoadImaged(["image", "label"]), EnsureChannelFirstd(["image", "label"])]
    if axes == 2:
        steps.append(SqueezeDimd(["image", "label"], dim=-1))
    batch = next(iter(DataLoader(Dataset(items, Compose(steps)), batch_size=2)))
    assert batch["image"].shape == (2, 2, 20, 16, 5)[: axes + 2]
    network = UNet(axes, 2, 4, (4, 8), (1,))
    loss = DiceCELoss(to_onehot_y=True, softmax=True)(network(batch["image"].float()), batch["label"])
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_a_slice_has_its_voxel_size(tmp_path: Path) -> None:
    """Of a two-dimensional file of the same slice MONAI 1.6 makes another one: its affine is cut to two axes."""
    exported(Monai(), slice_cohort(tmp_path), tmp_path / "out")
    right = LoadImage(ensure_channel_first=True)(tmp_path / "out/images/S000-0000_t1.nii.gz")
    assert right.pixdim.tolist() == pytest.approx([0.8, 1.1, 3.3])
    nib.save(nib.Nifti1Image(np.zeros((20, 16), np.uint8), OBLIQUE), tmp_path / "flat.nii.gz")
    flat = LoadImage(ensure_channel_first=True)(tmp_path / "flat.nii.gz")
    assert (abs(flat.pixdim[0] - 0.8) > 0.005) == (Version(monai.__version__) >= Version("1.6"))
