"""The output folder: files are created once, versions stand side by side, and only what a crash left is swept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from augengine.errors import RunError
from augengine.io.commits import claim, committed_files, create, sweep, version, writing
from augengine.io.store import Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}/out")


def test_a_file_is_created_by_one_caller(store: Store) -> None:
    assert create(store, "_attempts/u.1", b"first")
    assert not create(store, "_attempts/u.1", b"second")
    assert store.read("_attempts/u.1") == b"first"


def test_a_changed_fingerprint_is_refused_or_gets_a_version(store: Store) -> None:
    claim(version(store, {"policy": "a", "source": 1}), {"policy": "a", "source": 1})
    with pytest.raises(RunError, match=r"another source; found 1; .*--new-version \(this run has 2\)"):
        version(store, {"policy": "a", "source": 2})
    second = version(store, {"policy": "a", "source": 2}, new=True)
    assert second.uri == f"{store.uri}/v2"
    claim(second, {"policy": "a", "source": 2})
    # From here on the rows of both go where they belong, with the flag or without.
    for new in (True, False):
        assert version(store, {"policy": "a", "source": 1}, new).uri == store.uri
        assert version(store, {"policy": "a", "source": 2}, new).uri == second.uri
    assert version(store, {"policy": "b", "source": 2}, new=True).uri == f"{store.uri}/v3"


def test_the_sweep_takes_old_orphans_and_nothing_else(store: Store) -> None:
    for name in ("rows/part-done.parquet", "rows/part-crashed.parquet", "rows/notes.txt", "picture.png"):
        store.write(name, b"x")
    store.write("rows/.tmp-part-crashed.parquet-1-ab", b"x")
    store.write_json("_commits/done.json", {})
    store.write("v2/rows/.tmp-of-another-job", b"x")
    assert sweep(store, age_s=60) == 0
    time.sleep(0.02)
    assert sweep(store, age_s=0.01) == 2
    assert committed_files(store, "rows") == store.names("rows", ".parquet") == ["rows/part-done.parquet"]
    assert store.exists("rows/notes.txt")
    assert store.exists("picture.png")


def test_a_disk_error_says_what_to_do(store: Store) -> None:
    expected = pytest.raises(
        RunError, match=r"cannot write the output; found No space left.*run the same command again"
    )
    with expected, writing(store, "rows/part-u.parquet"):
        raise OSError(28, os.strerror(28))


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/_lock.json: cannot write the output; found File exists"):
        create(Store(str(tmp_path / "file")), "_lock.json")
