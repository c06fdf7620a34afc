"""SimpleITK and nibabel read the NIfTI files of every export alike, in two and in three dimensions."""

from __future__ import annotations

import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest

sitk = pytest.importorskip("SimpleITK")

from export_cohorts import OBLIQUE, exported, slice_cohort, volume_cohort  # noqa: E402

from augengine.export.bids import Bids  # noqa: E402
from augengine.export.hf import HuggingFace  # noqa: E402
from augengine.export.monai import Monai  # noqa: E402
from augengine.export.nnunet import NnUnet  # noqa: E402
from augengine.export.torchio import TorchIO  # noqa: E402
from augengine.export.webdataset import WebDataset  # noqa: E402

TARGETS = {
    "Dataset501_X": NnUnet(),
    "Dataset502_X": NnUnet(source_orientation="LPS"),
    "monai": Monai(),
    "bids": Bids(),
    "torchio": TorchIO(),
    "hf": HuggingFace(nifti=True),
    "wds": WebDataset(readers=1),
}


def sitk_affine(image: sitk.Image) -> np.ndarray:
    """RAS+ affine of a volume that SimpleITK read."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def unpacked(folder: Path) -> list[Path]:
    """All NIfTI files of an export, those in tars and tables, too."""
    for tar in folder.glob("*.tar"):
        with tarfile.open(tar) as found:
            found.extractall(folder / "unpacked", filter="data")
    for table in folder.rglob("*.parquet"):
        for row in pq.read_table(table).to_pylist():
            for value in (v for v in row.values() if isinstance(v, dict)):
                (folder / value["path"]).write_bytes(value["bytes"])
    return sorted(folder.rglob("*.nii.gz"))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("axes", [2, 3])
def test_both_readers_agree_with_the_shard(tmp_path: Path, name: str, axes: int) -> None:
    stores = slice_cohort(tmp_path) if axes == 2 else volume_cohort(tmp_path)
    exported(TARGETS[name], stores, tmp_path / name)
    files = unpacked(tmp_path / name)
    assert len(files) >= 24
    for path in files:
        first, second = nib.load(path), sitk.ReadImage(path)
        assert second.GetDimension() == 3
        assert np.abs(first.affine - sitk_affine(second)).max() <= 1e-5, path
        assert (np.asarray(first.dataobj) == sitk.GetArrayFromImage(second).transpose(2, 1, 0)).all()
        corners = np.array([[0, 0, 0, 1], [19, 15, 0, 1]], float).T  # on the first slice, however it is flipped
        flip = np.eye(4)
        if name == "Dataset502_X":
            flip = np.array([[-1, 0, 0, 19], [0, -1, 0, 15], [0, 0, 1, 0], [0, 0, 0, 1]], float)
        away = first.affine @ flip @ corners - OBLIQUE @ corners
        along = OBLIQUE[:3, 2]
        steps = away[:3, 0] @ along / (along @ along)
        assert np.abs(steps - round(steps)) < 1e-4  # a whole slice
        assert np.abs(away[:3].T - round(steps) * along).max() <= 3e-5


def test_a_flat_file_would_have_a_direction_that_is_none(tmp_path: Path) -> None:
    """Why slices are (I, J, 1): ITK cuts the direction of an oblique slice to two axes."""
    nib.save(nib.Nifti1Image(np.zeros((5, 6), np.uint8), OBLIQUE), tmp_path / "flat.nii.gz")
    direction = np.reshape(sitk.ReadImage(tmp_path / "flat.nii.gz").GetDirection(), (2, 2))
    assert np.abs(direction @ direction.T - np.eye(2)).max() > 1e-3
