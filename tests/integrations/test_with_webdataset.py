"""WebDataset: every case once through the workers of a DataLoader."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

wds = pytest.importorskip("webdataset")

from export_cohorts import OBLIQUE, exported, volume, volume_cohort  # noqa: E402

from augengine.export.webdataset import WebDataset  # noqa: E402


def nifti(key: str, content: bytes) -> Any:
    """A decoder for what WebDataset has gunzipped by itself."""
    return nib.Nifti1Image.from_bytes(content) if key.endswith("nii") else None


@pytest.mark.parametrize("workers", [0, 2])
def test_every_case_once(tmp_path: Path, workers: int) -> None:
    exported(WebDataset(readers=2), volume_cohort(tmp_path), tmp_path / "out", clear=False)
    urls = sorted(str(p) for p in (tmp_path / "out").glob("train-*.tar"))
    data = wds.WebDataset(urls, shardshuffle=False).decode(nifti).map(cased)
    found = list(wds.WebLoader(data, batch_size=None, num_workers=workers))
    names = json.loads((tmp_path / "out/export.json").read_text())["cases"]
    assert sorted(case for case, *_ in found) == sorted(n for n, c in names.items() if c["split"] == "train")
    for case, image, label, affine in found:
        assert np.abs(affine - OBLIQUE).max() <= 1e-5
        if case == "S001":
            assert (image == volume(1).image).all()
            assert ((label == 3) == (volume(1).label == 4)).all()


def cased(sample: dict[str, Any]) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """What a training loop takes of a sample."""
    image = np.stack([sample[f"{name}.nii.gz"].get_fdata() for name in ("t1", "flair")])
    return sample["__key__"], image, sample["label.nii.gz"].get_fdata(), sample["t1.nii.gz"].affine


def test_arrays_need_no_decoder(tmp_path: Path) -> None:
    exported(WebDataset(readers=1, arrays=True), volume_cohort(tmp_path), tmp_path / "out", clear=False)
    (sample,) = wds.WebDataset(str(tmp_path / "out/test-000000.tar"), shardshuffle=False).decode()
    assert (sample["image.npy"] == volume(4).image).all()
    assert sample["json"]["affine"] == OBLIQUE.tolist()


def test_their_writer_would_gzip_twice_and_a_key_ends_at_its_first_dot(tmp_path: Path) -> None:
    """Why the tars are written here, and names have no dots."""
    with wds.TarWriter(str(tmp_path / "x.tar")) as writer:
        writer.write({"__key__": "a.b", "t1.nii.gz": gzip.compress(b"volume")})
    with tarfile.open(tmp_path / "x.tar") as tar:
        (member,) = tar.getmembers()
        content = tar.extractfile(member)
        assert content is not None
        once = gzip.decompress(content.read())
    assert once[:2] == b"\x1f\x8b"
    (sample,) = wds.WebDataset(str(tmp_path / "x.tar"), shardshuffle=False)
    assert sample["__key__"] == "a"
