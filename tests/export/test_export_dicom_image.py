"""MR images of DICOM: values, places and marks; this package's own reader gets the volume back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from export_cohorts import OBLIQUE, augmented, cohort, volume

from augengine.errors import ConfigError
from augengine.export.case import cases_of
from augengine.export.dicom_image import instances, uid
from augengine.export.dicom_seg import DicomSeg
from augengine.export.item import Item, Items
from augengine.pipeline.ingest import ingest
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation
from augengine.selection import Labels, Request, select


def items(tmp_path: Path) -> list[Item]:
    """One real and one synthetic case."""
    real, run = cohort(tmp_path, [volume(0), volume(3)], [augmented(volume(0))])
    selected = select(Request((real,), (run,), splits=("train", "val")))
    read = Items(selected.sources, selected.channels, Labels(), clear=True)
    found = [read(case) for case in cases_of(selected)]
    return [found[0], found[2]]


def test_the_voxels_lie_where_they_were(tmp_path: Path) -> None:
    item = items(tmp_path)[0]
    series = instances(item, item.image[0], "t1", 0, "CC0")
    assert len(series) == 5
    for voxel in ((0, 0, 0), (7, 3, 2), (19, 15, 4)):
        i, j, k = voxel
        one = series[k]
        along = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
        rows, columns = map(float, one.PixelSpacing)
        lps = np.array(one.ImagePositionPatient, float) + along[0] * columns * i + along[1] * rows * j
        assert np.abs(lps * [-1, -1, 1] - (OBLIQUE @ [*voxel, 1])[:3]).max() <= 1e-5
        assert one.pixel_array[j, i] == item.image[0][voxel]


def test_values_that_are_not_whole_keep_their_range(tmp_path: Path) -> None:
    item = items(tmp_path)[0]
    array = np.random.default_rng(0).normal(size=item.image[0].shape).astype(np.float32)
    one = instances(item, array, "t1", 0, None)[2]
    values = one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
    assert np.abs(values.T - array[:, :, 2]).max() <= (array.max() - array.min()) / 65535


def test_synthetic_images_say_so(tmp_path: Path) -> None:
    (real, *_), (made, *_) = (instances(item, item.image[0], "t1", 0, "CC BY 4.0") for item in items(tmp_path))
    assert (real.SyntheticData, made.SyntheticData) == ("NO", "YES")
    assert list(made.ImageType) == ["DERIVED", "SECONDARY", "OTHER", "SYNTHETIC"]
    assert made.SeriesDescription.startswith("SYNTHETIC")
    assert "policy recolour" in made.DerivationDescription
    assert "CC BY 4.0" in made.ImageComments
    assert made.EchoTime == 4.0
    assert "SYNTHETIC" not in real.ImageType
    assert real.ImageType[0] == "DERIVED"
    assert real.PatientID == "S000"


def test_uids_follow_from_ids(tmp_path: Path) -> None:
    assert uid("a", "b") == uid("a", "b") != uid("ab")
    assert pydicom.uid.UID(uid("a")).is_valid


def test_the_series_is_ingested_as_the_volume(tmp_path: Path) -> None:
    item = items(tmp_path)[0]
    (tmp_path / "dicom").mkdir()
    for k, dataset in enumerate(instances(item, item.image[0], "t1", 0, None)):
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]  # derived images are not taken for scans
        sink = io.BytesIO()
        dataset.save_as(sink, enforce_file_format=True)
        (tmp_path / "dicom" / f"{k}.dcm").write_bytes(sink.getvalue())
    ingest(
        tmp_path / "dicom",
        str(tmp_path / "again"),
        layout="dicom",
        preparation=Preparation(slices=False),
        actors=INLINE,
    )
    from augengine.io.dataset import dataset_files
    from augengine.io.shards import iter_samples
    from augengine.io.store import Store

    store = Store(str(tmp_path / "again"))
    (again,) = iter_samples(store, dataset_files(store))
    assert (again.image[0] == volume(0).image[0]).all()
    assert np.abs(again.affine - OBLIQUE).max() <= 1e-5
    assert again.acquisition.echo_time_ms == 2.5


def test_without_highdicom_the_target_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'augengine\[dicom-seg\]'"):
        DicomSeg().check([], None)  # type: ignore[arg-type]
