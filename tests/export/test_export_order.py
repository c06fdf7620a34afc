"""Arrays in another order than C, as nibabel gives NIfTI voxels and transposing makes them, change no exported byte."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa
import pytest
from export_cohorts import exported, volume, volume_cohort

from augengine.export.hf import HuggingFace
from augengine.export.monai import Monai
from augengine.export.torchio import TorchIO
from augengine.export.webdataset import WebDataset
from augengine.io.shards import SCHEMA, from_row, to_bytes, to_table


def turned(array: np.ndarray) -> np.ndarray:
    """The same values in an order whose permutation is not its own inverse: (C, I, J, K) held as (K, C, I, J)."""
    axes = (array.ndim - 1, *range(array.ndim - 1))
    return np.ascontiguousarray(array.transpose(axes)).transpose(np.argsort(axes))


def test_shards_hold_c_order(tmp_path: Path) -> None:
    plain = volume(0)
    assert plain.label is not None
    nib.save(nib.Nifti1Image(plain.image[0], np.eye(4)), tmp_path / "scan.nii")
    loaded = np.asanyarray(nib.load(tmp_path / "scan.nii").dataobj)
    assert not loaded.flags.c_contiguous
    for image in (turned(plain.image), np.asfortranarray(plain.image), np.stack([loaded, plain.image[1]])):
        other = plain.replace(image=image, label=turned(plain.label))
        assert to_bytes(to_table([other])) == to_bytes(to_table([plain]))
        back = from_row(to_table([other]).to_pylist()[0])
        assert np.array_equal(back.image, plain.image)
        assert np.array_equal(back.label, plain.label)


@pytest.mark.parametrize(
    "target",
    [
        Monai(),
        TorchIO(),
        WebDataset(readers=2),
        WebDataset(readers=2, arrays=True),
        HuggingFace(),
        HuggingFace(nifti=True),
    ],
    ids=["monai", "torchio", "webdataset", "webdataset_arrays", "hf", "hf_nifti"],
)
def test_exports_do_not_depend_on_the_order_in_memory(
    tmp_path: Path, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = volume_cohort(tmp_path / "data")
    exported(target, stores, tmp_path / "plain")
    files = type(target).files

    def scrambled(self: Any, items: Iterator[Any], *rest: Any) -> Any:
        return files(
            self,
            (
                dataclasses.replace(
                    item, image=turned(item.image), label=None if item.label is None else turned(item.label)
                )
                for item in items
            ),
            *rest,
        )

    monkeypatch.setattr(type(target), "files", scrambled)
    exported(target, stores, tmp_path / "turned")
    for path in sorted((tmp_path / "plain").rglob("*")):
        if path.is_file() and path.suffix in (".gz", ".nii", ".npy", ".tar", ".parquet"):
            assert path.read_bytes() == (tmp_path / "turned" / path.relative_to(tmp_path / "plain")).read_bytes(), path


def test_pixels_are_in_no_half_precision() -> None:
    """fastparquet reads float16 as byte strings, PySpark and DuckDB refuse it."""

    class About:
        channels, labels = ("t1",), ("lesion",)

    for schema in (SCHEMA, HuggingFace().columns(About()), HuggingFace(nifti=True).columns(About())):  # type: ignore[arg-type]
        assert "halffloat" not in str(schema)
        assert not any(isinstance(field.type, pa.FixedShapeTensorType) for field in schema)
