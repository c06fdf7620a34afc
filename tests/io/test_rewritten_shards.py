"""Shards that other tools wrote again, in other types and without a version; what they filter by, what is verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from augmented_rows import made_rows, real_rows
from builders import slice_sample, write_samples

from augengine.errors import DataError
from augengine.io.dataset import dataset_files, finish, read_manifest, write_dataset
from augengine.io.parts import Part
from augengine.io.shards import SCHEMA, iter_metadata, iter_samples, read_group, to_bytes, to_row, to_table
from augengine.io.store import Store
from augengine.records import Sample
from augengine.torch import ShardDataset, ShardStream

VOLUME = slice_sample(
    7,
    slice_index=None,
    image=np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5) / 7,
    label=np.full((3, 4, 5), 3, np.uint8),
    label_confidence=np.full((3, 4, 5), 9, np.uint8),
)
WITHOUT = slice_sample(8, label=None, labels={}, site=None, split=None, intensity_range=None)


def by_pandas(path: str) -> None:
    import pandas

    pandas.read_parquet(path).to_parquet(path)


def by_filtered_pandas(path: str) -> None:
    import pandas

    frame = pandas.read_parquet(path)
    frame[frame["sample_id"] != "nobody"].iloc[::-1].iloc[::-1].to_parquet(path)  # with an index of its own


def by_polars(path: str) -> None:
    import polars

    polars.read_parquet(path).write_parquet(path)


def by_duckdb(path: str) -> None:
    import duckdb

    duckdb.sql(f"copy (select * from read_parquet('{path}')) to '{path}.new' (format parquet)")
    Path(f"{path}.new").replace(path)


def by_pyarrow_with_the_key_in_the_footer_alone(path: str) -> None:
    """Where Polars writes it: not in the Arrow schema, which `schema_arrow` reads."""
    table = pq.read_table(path).replace_schema_metadata(None)
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"augengine.schema_version": "2"})


TOOLS: list[Callable[[str], None]] = [
    by_pandas,
    by_filtered_pandas,
    by_polars,
    by_duckdb,
    by_pyarrow_with_the_key_in_the_footer_alone,
]


def rewritten(uri: str, tool: Callable[[str], None]) -> Store:
    """The data set with files that the tool wrote, under names that say nothing of their content."""
    store, parts = Store(uri), []
    for n, name in enumerate(dataset_files(store)):
        tool(store.path(name))
        Path(store.path(name)).rename(store.path(f"samples/other{n}.parquet"))
        parts.append(Part(f"samples/other{n}.parquet", None, None, store.size(f"samples/other{n}.parquet") or 0))
    finish(store, {**read_manifest(store), "counts": {}}, {"samples": parts})
    return store


def same(a: Sample, b: Sample) -> bool:
    return str(to_row(a)) == str(to_row(b))


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("rows", [[VOLUME], [WITHOUT], [slice_sample(1), WITHOUT, VOLUME], made_rows(2)[:3]], ids=len)
def test_what_another_tool_rewrote_is_read(tmp_path: Path, tool: Callable[[str], None], rows: list[Sample]) -> None:
    uri = write_samples(tmp_path, rows)
    before = list(iter_metadata(Store(uri), dataset_files(Store(uri))))
    store = rewritten(uri, tool)
    found = list(iter_samples(store, dataset_files(store)))
    assert len(found) == len(rows)
    assert all(same(a, b) for a, b in zip(found, rows, strict=True))
    assert list(iter_metadata(store, dataset_files(store))) == before
    table = read_group(store.parquet(dataset_files(store)[0]), 0)
    assert sorted(table.column_names) == sorted(SCHEMA.names)
    assert all(table.schema.field(name).type == SCHEMA.field(name).type for name in SCHEMA.names)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_training_loop_gets_the_same_items(tmp_path: Path, tool: Callable[[str], None]) -> None:
    real, run = write_samples(tmp_path / "real", real_rows()), write_samples(tmp_path / "run", made_rows(2))
    expected = list(ShardDataset(real, run))
    rewritten(real, tool)
    rewritten(run, tool)
    for found in (list(ShardDataset(real, run)), list(ShardStream(real, run, shuffle=False))):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert all(torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k] == b[k] for k in b)


@pytest.mark.slow
def test_what_ray_data_wrote_is_a_data_set_again(tmp_path: Path, ray_session: Any) -> None:
    import ray

    rows = [slice_sample(1), slice_sample(2), *made_rows(1)[:2]]
    store = Store(write_samples(tmp_path / "before", rows))
    ray.data.read_parquet([store.path(name) for name in dataset_files(store)]).write_parquet(str(tmp_path / "ray"))
    with pytest.raises(DataError, match=r"Parquet files alone; write them with augengine\.io\.dataset"):
        dataset_files(Store(str(tmp_path / "ray")))
    tables = [pq.read_table(path) for path in sorted((tmp_path / "ray").glob("*.parquet"))]
    again = write_dataset(str(tmp_path / "again"), tables)
    found = {s.sample_id: s for s in iter_samples(again, dataset_files(again))}
    assert len(found) == len(rows)
    assert all(same(found[row.sample_id], row) for row in rows)


@pytest.mark.slow
def test_a_step_of_ray_data_that_keeps_no_row_is_a_data_set_without_rows(tmp_path: Path, ray_session: Any) -> None:
    """Ray Data 2.60 writes no folder then: what reads it as tables has none, and says what that means."""
    import ray

    store = Store(write_samples(tmp_path / "before", [slice_sample(1)]))
    kept = ray.data.read_parquet(store.path(dataset_files(store)[0])).filter(lambda row: False)
    kept.write_parquet(str(tmp_path / "ray"))
    assert not (tmp_path / "ray").exists()
    empty = write_dataset(str(tmp_path / "again"), map(pq.read_table, (tmp_path / "ray").glob("*.parquet")))
    with pytest.raises(DataError, match="this data set has no rows"):
        dataset_files(empty)


def test_rows_that_polars_chose_are_a_data_set(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    run = Store(write_samples(tmp_path / "run", made_rows(2)))
    frame = polars.read_parquet([run.path(name) for name in dataset_files(run)])
    chosen = write_dataset(str(tmp_path / "chosen"), [frame.filter(polars.col("replicate") == 1).to_arrow()])
    found = list(iter_samples(chosen, dataset_files(chosen)))
    wanted = [row for row in made_rows(2) if row.provenance is not None and row.provenance.plan["replicate"] == 1]
    assert 0 < len(wanted) < len(made_rows(2))
    assert [row.sample_id for row in found] == [row.sample_id for row in wanted]


def test_columns_that_were_left_out_or_changed_are_named(tmp_path: Path) -> None:
    table, store = to_table([slice_sample(1)]), Store(str(tmp_path))
    store.write("short.parquet", to_bytes(table.drop_columns(["affine", "site"]).replace_schema_metadata(None)))
    with pytest.raises(
        DataError, match=r"short\.parquet: a shard that another tool rewrote must .*; found no site, affine"
    ):
        next(iter_samples(store, ["short.parquet"]))
    changed = table.set_column(table.column_names.index("affine"), "affine", pa.array([["a"] * 16]))
    store.write("changed.parquet", to_bytes(changed.replace_schema_metadata(None)))
    with pytest.raises(DataError, match=r"changed\.parquet: .* must hold fixed_size_list.*; found affine of type list"):
        next(iter_samples(store, ["changed.parquet"]))


def test_where_a_row_came_from_stands_in_columns() -> None:
    rows = [slice_sample(1), *made_rows(2)]
    for row, values in zip(rows, to_table(rows).to_pylist(), strict=True):
        made = row.provenance
        expected = (made.parent_id, made.policy, made.plan["replicate"]) if made else (None, None, None)
        assert (values["parent_id"], values["policy"], values["replicate"]) == expected


def test_shards_without_these_columns_say_it_by_their_provenance(tmp_path: Path) -> None:
    rows, store = [slice_sample(1), *made_rows(2)], Store(str(tmp_path))
    names = ["parent_id", "policy", "replicate"]
    store.write("old.parquet", to_bytes(to_table(rows).drop_columns(names)))
    file = store.parquet("old.parquet")
    assert read_group(file, 0, names).to_pylist() == to_table(rows).select(names).to_pylist()
    assert set(names) < set(read_group(file, 0).column_names)
    assert read_group(file, 0, ["split"]).column_names == ["split"]
    store.write("lost.parquet", to_bytes(pa.table({"output_id": ["a"], "reason": ["b"]})))  # as of failed rows
    assert read_group(store.parquet("lost.parquet"), 0).column_names == ["output_id", "reason"]


def test_statistics_checksums_and_index_of_pages(tmp_path: Path) -> None:
    """What rows are looked up by has a range in the footer, so that readers skip row groups."""
    store = Store(str(tmp_path))
    rows = [slice_sample(1, 0, split="train"), slice_sample(2, 0, split="train"), *made_rows(2)]
    store.write("x.parquet", to_bytes(to_table(rows)))
    group = store.parquet("x.parquet").metadata.row_group(0)
    columns = {c.path_in_schema: c for c in (group.column(n) for n in range(group.num_columns))}
    for name in ("sample_id", "subject_id", "split", "synthetic", "parent_id", "policy", "replicate"):
        assert columns[name].statistics.has_min_max, name
        assert columns[name].has_column_index, name
    assert (columns["synthetic"].statistics.min, columns["synthetic"].statistics.max) == (False, True)
    assert columns["split"].statistics.min == "train"
    assert columns["label"].statistics.null_count == 0
    assert all(column.has_offset_index for column in columns.values())


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    store, rng = Store(str(tmp_path)), np.random.default_rng(0)
    noise = slice_sample(1, image=rng.integers(0, 60000, (1, 32, 32)).astype(np.float32))
    content = bytearray(to_bytes(to_table([noise])))
    place = bytes(content).find(to_row(noise)["image"][:64])  # noise is stored as it is
    assert place > 0
    content[place + 3] ^= 1
    store.write("x.parquet", bytes(content))
    plain = pq.read_table(store.path("x.parquet"), columns=["image"])["image"][0].as_py()
    assert plain != to_row(noise)["image"]  # a reader that does not verify takes it for an image
    with pytest.raises(DataError, match=r"x\.parquet: this is not a readable Parquet file; found .*CRC"):
        next(iter_samples(store, ["x.parquet"]))


def _noting(original: Any, read: list[str]) -> Any:
    def noted(self: Any, groups: Any, columns: list[str], **options: Any) -> Any:
        read.extend(columns)
        return original(self, groups, columns=columns, **options)

    return noted


def test_has_labels_is_told_by_the_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a data set reads no label maps where all rows have one."""
    store = Store(write_samples(tmp_path, real_rows()))
    read = []
    for name in ("read_row_group", "read_row_groups"):
        monkeypatch.setattr(pq.ParquetFile, name, _noting(getattr(pq.ParquetFile, name), read))
    assert len(ShardDataset(store)) > 0
    assert read
    assert "label" not in read
