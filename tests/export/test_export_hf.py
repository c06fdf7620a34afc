"""What `datasets.load_dataset` reads: the right splits, whole images in every format, exact affines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_cohorts import OBLIQUE, exported, slice_cohort, volume, volume_cohort

from augengine.export.hf import HuggingFace

datasets = pytest.importorskip("datasets")


def read(folder: Path, **options: Any) -> Any:
    return datasets.load_dataset(str(folder), cache_dir=str(folder.parent / "cache"), **options)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def test_one_line_reads_the_splits(tmp_path: Path) -> None:
    exported(HuggingFace(), slice_cohort(tmp_path), tmp_path / "out", licence="CC BY 4.0")
    found = read(tmp_path / "out")
    assert {name: len(split) for name, split in found.items()} == {"train": 30, "validation": 5, "test": 5}
    assert sum(found["train"]["synthetic"]) == 15
    assert not any(found["validation"]["synthetic"])
    assert not any(found["test"]["synthetic"])
    card = (tmp_path / "out/README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "- synthetic" in card
    assert "| train | 15 | 15 |" in card
    assert "| test | 5 | 0 |" in card


@pytest.mark.parametrize("kind", [None, "numpy", "torch"])
def test_every_format_has_the_whole_image_and_the_exact_affine(tmp_path: Path, kind: str | None) -> None:
    exported(HuggingFace(), volume_cohort(tmp_path), tmp_path / "out", clear=False)
    row = read(tmp_path / "out", split="test").with_format(kind)[0]
    image = np.reshape(np.asarray(row["image"]), np.asarray(row["shape"]))
    assert (image == volume(4).image).all()
    assert (image[:, -1, -1, -1] == 0).all()  # air at the end, which binary columns lose
    label = np.reshape(np.asarray(row["label"]), image.shape[1:])
    assert ((label == 2) == (volume(4).label == 2)).all()
    assert (np.reshape(json.loads(row["affine_json"]), (4, 4)) == OBLIQUE).all()
    if kind is not None:
        assert (np.reshape(np.asarray(row["affine"]), (4, 4)) != OBLIQUE).any()  # float32


def test_binary_columns_lose_their_last_zeros(tmp_path: Path) -> None:
    """Why pixels are lists."""
    (tmp_path / "raw").mkdir()
    pq.write_table(pa.table({"image": [b"\x01" * 74 + b"\x00" * 54]}), tmp_path / "raw" / "train.parquet")
    row = read(tmp_path / "raw", split="train").with_format("numpy")[0]
    assert len(row["image"]) == 74


def test_nifti_columns_hold_the_volumes(tmp_path: Path) -> None:
    exported(HuggingFace(nifti=True), volume_cohort(tmp_path), tmp_path / "out", clear=False)
    row = read(tmp_path / "out", split="test")[0]
    assert (row["image_1_flair"].get_fdata() == volume(4).image[1]).all()
    assert np.abs(row["image_1_flair"].affine - OBLIQUE).max() <= 1e-5
    assert ((row["label"].get_fdata() == 3) == (volume(4).label == 4)).all()
    assert row["label"].header["descrip"].item() == b"augengine"
    stored = pq.read_table(tmp_path / "out/data/test-000000.parquet")["label"][0].as_py()
    assert len(stored["bytes"]) > 100


def test_their_own_writer_stores_paths(tmp_path: Path) -> None:
    """Why the files are put into the table here."""
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), OBLIQUE), tmp_path / "a.nii.gz")
    found = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.nii.gz")]}).cast_column("image", datasets.Nifti())
    found.to_parquet(tmp_path / "a.parquet")
    stored = pq.read_table(tmp_path / "a.parquet")["image"][0].as_py()
    assert stored["bytes"] is None
    assert stored["path"].endswith("a.nii.gz")
