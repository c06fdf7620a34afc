"""Tars that WebDataset streams: a key is what stands before the first dot, and nothing is gzipped twice."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from export_cohorts import LABELS, OBLIQUE, exported, slice_cohort, volume, volume_cohort

from augengine.errors import ConfigError
from augengine.export.webdataset import WebDataset


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def test_keys_have_no_dots_and_files_are_gzipped_once(tmp_path: Path) -> None:
    exported(WebDataset(readers=3), volume_cohort(tmp_path), tmp_path / "out", clear=False)
    found = {
        name: content for tar in sorted((tmp_path / "out").glob("*.tar")) for name, content in members(tar).items()
    }
    keys = {name.partition(".")[0] for name in found}
    assert len(keys) == 8
    assert {name.partition(".")[2] for name in found} == {"t1.nii.gz", "flair.nii.gz", "label.nii.gz", "json"}
    content = gzip.decompress(found["S001.flair.nii.gz"])
    assert content[:2] != b"\x1f\x8b"
    image = nib.Nifti1Image.from_bytes(content)
    assert (np.asarray(image.dataobj) == volume(1).image[1]).all()
    about = json.loads(found["S001.json"])
    assert np.abs(np.array(about["affine"]) - OBLIQUE).max() == 0
    assert about["labels"] == dict(zip(LABELS, (1, 2, 3), strict=True))


def test_every_reader_has_a_tar(tmp_path: Path) -> None:
    stores = slice_cohort(tmp_path)
    exported(WebDataset(readers=6), stores, tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").glob("train-*.tar"))
    assert names == [f"train-{n:06d}.tar" for n in range(6)]
    kinds = [{k.startswith("syn-") for k in members(tmp_path / "out" / n)} for n in names]
    assert kinds.count({True, False}) >= 4  # real and augmented cases are mixed
    with pytest.raises(ConfigError, match="--readers 30 or fewer"):
        exported(WebDataset(readers=31), stores, tmp_path / "more")


def test_arrays_decode_without_a_decoder(tmp_path: Path) -> None:
    exported(WebDataset(readers=1, arrays=True), volume_cohort(tmp_path), tmp_path / "out")
    found = members(tmp_path / "out/val-000000.tar")
    image = np.load(io.BytesIO(found["S003.image.npy"]))
    assert (image == volume(3).image).all()
    assert image.dtype == np.uint16
    assert np.load(io.BytesIO(found["S003.label.npy"])).shape == (20, 16, 5)
