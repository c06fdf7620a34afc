"""Shards: lossless, and readable without augengine or Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import slice_sample, write_samples

from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.shards import from_row, iter_samples, to_bytes, to_row, to_table
from augengine.io.store import Store
from augengine.records import IntensityRule, Provenance, Sample


def assert_equal(a: Sample, b: Sample) -> None:
    assert a.image.dtype == b.image.dtype == np.float32
    assert a.image.tobytes() == b.image.tobytes()
    for name in ("label", "label_confidence"):
        one, two = getattr(a, name), getattr(b, name)
        assert (one is None and two is None) or (one.dtype == two.dtype and np.array_equal(one, two)), name
    assert a.affine.tobytes() == b.affine.tobytes()
    for name in (
        "channels",
        "labels",
        "acquisition",
        "subject_id",
        "volume_id",
        "slice_index",
        "site",
        "split",
        "intensity_range",
        "intensity_rule",
        "provenance",
        "sample_id",
    ):
        assert getattr(a, name) == getattr(b, name), name


@pytest.mark.parametrize(
    ("image", "stored"),
    [
        (np.array([[0, 65535], [7, 1]]), "<u2"),
        (np.array([[-32768, 32767], [7, 1]]), "<i2"),
        (np.array([[0.5, 1e-30], [-3, np.pi]]), "<f4"),
        (np.array([[0, 70000], [7, 1]]), "<f4"),
        (np.array([[-0.0, 1], [7, 1]]), "<f4"),
    ],
)
def test_pixels_come_back_bit_for_bit(image: np.ndarray, stored: str) -> None:
    sample = slice_sample(1, image=image.astype(np.float32)[None], label=None)
    row = to_row(sample)
    assert row["image_dtype"] == stored
    assert_equal(sample, from_row(row))


def test_every_field_survives_a_file_2d_and_3d(tmp_path: Path) -> None:
    provenance = Provenance("o1", "S001#0000", "p", "d", "acquisition", {"seed": 5, "params": {"a": [1.5]}}, {"g": "h"})
    volume = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5) / 7
    ranges, rule = ((0.5, 3.0), (-2.0, 70.25)), IntensityRule((0.0, 99.5), "nonzero")
    samples = [
        slice_sample(1, 3),
        slice_sample(2, 0, label=None, labels={}, split=None, site="A", intensity_range=None, provenance=provenance),
        slice_sample(
            3,
            image=volume,
            label=np.ones((3, 4, 5), np.uint8),
            channels=("t1", "t2"),
            slice_index=None,
            intensity_range=ranges,
            intensity_rule=rule,
        ),
        slice_sample(4, label_confidence=np.arange(32 * 32).reshape(32, 32).astype(np.uint8)),
    ]
    store = Store(write_samples(tmp_path, samples, per_file=2))
    for a, b in zip(samples, iter_samples(store, dataset_files(store)), strict=True):
        assert_equal(a, b)


def read_plain(row: dict) -> tuple[np.ndarray, np.ndarray]:
    image = np.frombuffer(row["image"], row["image_dtype"]).reshape(tuple(row["image_shape"]))
    return image, np.frombuffer(row["label"], np.uint8).reshape(image.shape[1:])


@pytest.mark.parametrize("reader", ["pyarrow", "pandas", "polars", "duckdb", "datasets"])
def test_other_readers_open_shards(tmp_path: Path, reader: str) -> None:
    library = pytest.importorskip("pyarrow.parquet" if reader == "pyarrow" else reader)
    two = np.stack([slice_sample(2).image[0], 7 + 3 * slice_sample(2).image[0]])
    ranges = ((30.0, 700.0), (97.0, 2107.0))
    samples = [slice_sample(1), slice_sample(2, image=two, channels=("a", "b"), intensity_range=ranges)]
    store = Store(write_samples(tmp_path / "shards", samples))
    file = store.path(dataset_files(store)[0])
    if reader == "pyarrow":
        rows = library.read_table(file).to_pylist()
    elif reader == "pandas":
        rows = library.read_parquet(file).to_dict("records")
    elif reader == "polars":
        rows = library.read_parquet(file).to_dicts()
    elif reader == "duckdb":
        # The nested columns come as Python values too, as in the other readers.
        cursor = library.connect().execute(f"select * from '{file}'")
        rows = [dict(zip([c[0] for c in cursor.description], r, strict=True)) for r in cursor.fetchall()]
    else:
        rows = list(library.load_dataset("parquet", data_files=file, split="train", cache_dir=str(tmp_path / "hf")))
    for row, sample in zip(rows, samples, strict=True):
        image, label = read_plain(row)
        assert np.array_equal(image, sample.image)
        assert np.array_equal(label, sample.label)
        assert row["acquisition"]["echo_time_ms"] == sample.acquisition.echo_time_ms
        assert np.allclose(np.reshape(row["affine"], (4, 4)), sample.affine)
        low, high = (np.reshape(row[name], (-1, 1, 1)) for name in ("intensity_low", "intensity_high"))
        assert np.allclose((image - low) / (high - low), normalise(sample), atol=1e-6)
        assert list(row["intensity_rule"]["percentiles"]) == [10, 99]


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("broken.parquet", to_bytes(to_table([slice_sample(1)]))[:-20])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(iter_samples(store, ["broken.parquet"]))
    foreign = to_table([slice_sample(1)]).select(["sample_id", "image"]).replace_schema_metadata({})
    store.write("foreign.parquet", to_bytes(foreign))
    with pytest.raises(DataError, match="not an augengine shard"):
        list(iter_samples(store, ["foreign.parquet"]))


def test_pixels_that_do_not_fit_their_header_are_refused() -> None:
    row = to_row(slice_sample(1))
    with pytest.raises(DataError, match="must fit image_shape"):
        from_row({**row, "image": row["image"][:-2]})


@pytest.mark.parametrize("name", ["label", "label_confidence"])
def test_a_sample_refuses_a_label_of_another_shape(name: str) -> None:
    with pytest.raises(DataError, match=f"{name} must be uint8"):
        slice_sample(1, **{name: np.zeros((4, 4), np.uint8)})


def test_a_new_label_does_not_inherit_the_old_one_s_confidence() -> None:
    sample = slice_sample(1, label_confidence=np.full((32, 32), 200, np.uint8))
    assert sample.replace(site="A").label_confidence is not None
    assert sample.replace(label=np.zeros((32, 32), np.uint8)).label_confidence is None


def test_shards_from_before_the_confidence_column_are_read(tmp_path: Path) -> None:
    store, sample = Store(str(tmp_path)), slice_sample(1)
    store.write("old.parquet", to_bytes(to_table([sample]).drop_columns(["label_confidence"])))
    assert_equal(sample, next(iter_samples(store, ["old.parquet"])))
