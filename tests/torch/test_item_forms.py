"""Items as MONAI and TorchIO take them: pixels, labels and the world coordinates of an oblique slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import monai.data
import numpy as np
import pytest
import torch
from augmented_rows import real_row
from builders import lesion_sample, write_samples
from monai.transforms import Compose, Randomizable

from augengine.torch import ShardDataset, lesion_sampler

SIZES_MM = (2.0, 3.0, 5.0)


def oblique() -> np.ndarray:
    """Turned about two axes, with voxels of 2 x 3 x 5 mm."""
    a, b = 0.4, 0.3
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ np.diag(SIZES_MM)
    affine[:3, 3] = 10, -20, 30
    return affine


@pytest.fixture
def slices(tmp_path: Path) -> str:
    return write_samples(tmp_path / "slices", [real_row(1, n, affine=oblique()) for n in range(4)])


@pytest.fixture
def volumes(tmp_path: Path) -> str:
    rows = [lesion_sample(n, at_mm=(-8.0, 0.0, 0.0), size=16, affine=oblique()) for n in (1, 2)]
    healed = lesion_sample(3, at_mm=(-8.0, 0.0, 0.0), size=16, affine=oblique())
    label = np.array(healed.label)
    label[label < 5] = 0
    return write_samples(tmp_path / "volumes", [*rows, healed.replace(label=label)])


def test_a_slice_for_monai_has_the_size_of_its_voxels(slices: str) -> None:
    from monai.data import DataLoader, MetaTensor
    from monai.transforms import Compose, EnsureTyped, RandFlipd, SpatialPadd

    plain, found = ShardDataset(slices)[1], ShardDataset(slices, as_="monai")[1]
    assert isinstance(found["image"], MetaTensor)
    assert torch.equal(found["image"].as_tensor(), plain["image"])
    assert torch.equal(found["label"].as_tensor()[0], plain["label"])
    assert found["confidence"].shape == found["label"].shape == (1, 32, 32)
    for key in ("image", "label", "confidence"):
        # A 4 x 4 affine says 2 and 2.87. MONAI before 1.6 has a third size of every slice, 1.
        assert np.allclose(found[key].pixdim[:2], SIZES_MM[:2], rtol=0, atol=1e-9)
    assert np.array_equal(found["affine"], oblique())
    transform = Compose(
        [
            EnsureTyped(["image", "label"]),
            SpatialPadd(["image", "label"], 40),
            RandFlipd(["image", "label"], prob=1.0),
        ]
    )
    batch = next(iter(DataLoader(ShardDataset(slices, as_="monai", transform=transform), batch_size=2)))
    assert batch["image"].shape == batch["label"].shape == (2, 1, 40, 40)


def test_spacing_of_monai_resamples_an_oblique_slice_rightly(slices: str) -> None:
    from monai.transforms import Spacing

    flat = Spacing(pixdim=(1.0, 1.0))(ShardDataset(slices, as_="monai")[0]["image"])
    assert flat.shape[1:] == (63, 94)  # 31 steps of 2 mm and 31 of 3 mm


def test_a_slice_as_a_volume_keeps_its_place_in_the_world(slices: str) -> None:
    found = ShardDataset(slices, as_="monai", layout="slice3d")[0]
    assert found["image"].shape == (1, 32, 32, 1)
    assert np.allclose(found["image"].pixdim, SIZES_MM, rtol=0, atol=1e-9)
    assert np.allclose(found["label"].affine, oblique(), rtol=0, atol=1e-12)


def test_volumes_for_monai_take_a_training_step(volumes: str) -> None:
    from monai.data import DataLoader
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet
    from monai.transforms import RandCropByPosNegLabeld

    crop = RandCropByPosNegLabeld(["image", "label"], "label", (8, 8, 8), pos=1, neg=1, num_samples=2)
    labels = {"lesion": ["necrosis", "oedema", "enhancing"]}
    found = ShardDataset(volumes, labels=labels, as_="monai", transform=crop)
    network = UNet(3, 2, 2, (4, 8), (2,))
    batch = next(iter(DataLoader(found, batch_size=3)))
    assert batch["image"].shape == (6, 2, 8, 8, 8)
    loss = DiceCELoss(to_onehot_y=True, softmax=True)(network(batch["image"]), batch["label"])
    loss.backward()
    assert torch.isfinite(loss)


def test_a_subject_for_torchio(slices: str, volumes: str) -> None:
    tio = pytest.importorskip("torchio", reason="TorchIO is not installed")
    for uri, shape in ((slices, (1, 32, 32, 1)), (volumes, (2, 16, 16, 16))):
        plain, subject = ShardDataset(uri)[1], ShardDataset(uri, as_="torchio")[1]
        assert subject.image.shape == shape
        assert torch.equal(subject.image.data.reshape(plain["image"].shape), plain["image"])
        assert torch.equal(subject.label.data.reshape(plain["label"].shape), plain["label"])
        assert np.allclose(subject.image.affine, oblique(), rtol=0, atol=1e-9)
        assert np.allclose(subject.image.spacing, SIZES_MM, rtol=0, atol=1e-9)
        assert subject["sample_id"] == plain["sample_id"]
        brighter = tio.RescaleIntensity((0, 9))(subject)
        assert torch.equal(brighter.confidence.data, subject.confidence.data)


def test_a_queue_of_torchio_takes_patches_of_rows_with_and_without_lesion(volumes: str) -> None:
    tio = pytest.importorskip("torchio", reason="TorchIO is not installed")
    found = ShardDataset(volumes, labels={"lesion": ["necrosis", "oedema", "enhancing"]}, as_="torchio")
    assert found.has_lesion().tolist() == [True, True, False]
    with pytest.raises(RuntimeError, match="Empty probability map"):
        next(tio.LabelSampler(4, "label", {1: 1})(found[2]))
    queue = tio.Queue(found, 12, 4, lesion_sampler(4, {1: 1}), num_workers=0)
    patches: list[Any] = [patch for batch in tio.SubjectsLoader(queue, batch_size=4) for patch in [batch]]
    shown: dict[str, list[bool]] = {}
    for batch in patches:
        for name, label in zip(batch["sample_id"], batch["label"]["data"], strict=True):
            assert label.shape == (1, 4, 4, 4)
            shown.setdefault(name, []).append(bool(label[0, 2, 2, 2] == 1))
    assert shown == {"L001": [True] * 4, "L002": [True] * 4, "L003": [False] * 4}


def test_a_lesion_at_the_border_gives_a_patch_elsewhere() -> None:
    tio = pytest.importorskip("torchio", reason="TorchIO is not installed")
    label = torch.zeros(1, 16, 16, 1, dtype=torch.int64)
    label[0, 0, 0] = 1
    image = tio.ScalarImage(tensor=torch.zeros(1, 16, 16, 1))
    subject = tio.Subject(image=image, label=tio.LabelMap(tensor=label))
    assert next(lesion_sampler((8, 8, 1))(subject, 1)).shape == (1, 8, 8, 1)


class Drawn(Randomizable):
    """Puts a number of its random state in the item's place."""

    def __call__(self, item: dict[str, Any]) -> int:
        return int(self.R.randint(2**31))


@pytest.mark.parametrize("loader", [torch.utils.data.DataLoader, monai.data.DataLoader], ids=["torch", "monai"])
def test_workers_and_epochs_do_not_repeat_what_monai_draws(tmp_path: Path, loader: Any) -> None:
    """In PyTorch's loader two workers gave the same 8 numbers each, in both epochs."""
    rows = write_samples(tmp_path / "rows", [real_row(1, n) for n in range(16)])
    data = ShardDataset(rows, as_="monai", transform=Compose([Drawn()]))
    drawn = [n for _ in range(2) for batch in loader(data, batch_size=4, num_workers=2) for n in batch.tolist()]
    assert len(drawn) == len(set(drawn)) == 32
    here = [n for batch in loader(data, batch_size=4) for n in batch.tolist()]
    assert len(set(here)) == 16


def test_a_state_that_was_set_decides_where_no_worker_is(tmp_path: Path) -> None:
    rows = write_samples(tmp_path / "rows", [real_row(1, n) for n in range(4)])
    found = [[ShardDataset(rows, transform=Drawn().set_random_state(seed))[n] for n in range(4)] for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
