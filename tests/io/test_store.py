"""Stores: whole files or none, on local disks and on object stores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders import slice_sample

from augengine.errors import DataError, RunError
from augengine.io.shards import iter_samples, to_bytes, to_table
from augengine.io.store import Store


@pytest.mark.parametrize("scheme", ["local", "file", "memory"])
def test_files_come_back_and_are_listed(tmp_path: Path, scheme: str) -> None:
    store = Store({"local": str(tmp_path), "file": f"file://{tmp_path}", "memory": f"memory://{tmp_path.name}"}[scheme])
    assert not store.exists("a/x.json")
    assert store.names("a") == []
    store.write_json("a/x.json", {"n": 1})
    store.write("a/_hidden.json", b"")
    store.write("a/x.json", b'{"n": 2}')
    assert store.names("a", ".json") == ["a/x.json"]
    assert store.read_json("a/x.json") == {"n": 2}
    store.write("rows.parquet", to_bytes(to_table([slice_sample(1)])))
    assert [s.sample_id for s in iter_samples(store, ["rows.parquet"])] == ["S001#0000"]
    store.remove("a/x.json")
    store.remove("a/x.json")
    assert store.names("a") == []
    with pytest.raises(DataError, match="no such shard"):
        store.parquet("absent.parquet")
    store.write("broken.json", b"{")
    with pytest.raises(DataError, match="not valid JSON"):
        store.read_json("broken.json")


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    store.write("x", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="cannot write the output; found No space left on device"):
        store.write("x", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert store.read("x") == b"old"


def test_an_unknown_scheme_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="storage scheme is not available"):
        Store("nonsense://bucket/run")
