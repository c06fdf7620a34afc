"""Stores: whole files or none, fresh listings and one-line errors, on local disks and on object stores."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from builders import slice_sample
from object_store import BUCKET

from augengine.errors import AugengineError, DataError, RunError
from augengine.io.shards import iter_samples, to_bytes, to_table
from augengine.io.store import Store, check_uri

SECRET = "hunter2-hunter2"


def test_files_come_back_and_are_listed(store: Store) -> None:
    assert not store.exists("a/x.json")
    assert not store.exists()
    assert store.names("a") == store.folders("a") == []
    store.write_json("a/x.json", {"n": 1})
    store.write("a/_hidden.json", b"")
    store.write("a/b/y.json", b"{}")
    store.write("a/x.json", b'{"n": 2}')
    assert store.names("a", ".json") == store.names("a") == ["a/x.json"]
    assert store.sizes("a") == {"a/x.json": 8, "a/_hidden.json": 0}
    assert (store.folders(), store.folders("a")) == (["a"], ["a/b"])
    assert store.names("a/x.json") == store.names("a/x.json/z") == [], "a file is no folder"
    assert (store.exists("a"), store.size("a/x.json"), store.size("a/z")) == (True, 8, None)
    assert store.read_json("a/x.json") == {"n": 2}
    assert store.read_many(["a/x.json", "a/z"]) == {"a/x.json": b'{"n": 2}'}
    with pytest.raises(FileNotFoundError):
        store.read("a/z")
    with pytest.raises(FileNotFoundError):
        store.read("a/x.json/z")
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
    store.folder("a").remove_all()
    store.folder("a").remove_all()
    assert store.folders() == []


def test_what_another_process_writes_and_removes_is_seen_at_once(store: Store) -> None:
    """Another file system object stands for the other process: no cache of this one hears of what it does."""
    other = Store(store.uri, {**store._options, "skip_instance_cache": True})
    assert store.local or other.fs is not store.fs
    for n in range(3):
        assert not store.exists(f"rows/{n}")
        assert store.names("rows") == [f"rows/{k}" for k in range(n)]
        other.write(f"rows/{n}", b"x" * n)
        assert store.exists(f"rows/{n}")
        assert store.names("rows") == [f"rows/{k}" for k in range(n + 1)]
        assert store.sizes("rows")[f"rows/{n}"] == n
    other.remove("rows/1")
    assert store.names("rows") == ["rows/0", "rows/2"]
    assert (store.exists("rows/1"), store.folders()) == (False, ["rows"])


def test_a_cache_that_somebody_asks_for_is_not_kept(s3_options: dict[str, Any]) -> None:
    store = Store(f"s3://{BUCKET}/cache", {**s3_options, "use_listings_cache": True})
    assert store.names("rows") == []
    Store(store.uri, {**s3_options, "skip_instance_cache": True}).write("rows/1", b"")
    assert store.names("rows") == ["rows/1"]
    store.fs.dircache[store.root] = []
    assert store.folders() == ["rows"]


def test_a_folder_marker_is_no_file(s3_options: dict[str, Any]) -> None:
    store = Store(f"s3://{BUCKET}/marked", s3_options)
    fsspec.filesystem("s3", **s3_options).call_s3("put_object", Bucket=BUCKET, Key="marked/rows/", Body=b"")
    store.write("rows/1", b"1")
    assert (store.sizes("rows"), store.folders("rows"), store.folders()) == ({"rows/1": 1}, [], ["rows"])


def test_one_of_many_callers_creates_a_file(store: Store) -> None:
    made: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: store.create("_lock", f"{n}".encode() * 1000) and made.append(n))
        for n in range(1 if store.uri.startswith("memory") else 8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert not store.create("_lock", b"late")
    assert store.read("_lock") == f"{made[0]}".encode() * 1000
    assert list(store.sizes("")) == ["_lock"]


def test_without_hard_links_one_caller_still_creates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    store = Store(tmp_path)
    assert store.create("a/lock", b"first")
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # it appears after the look
    assert not store.create("a/lock", b"second")
    assert store.read("a/lock") == b"first"
    assert list(store.sizes("a")) == ["a/lock"]


def test_a_link_that_nfs_denies_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def twice(source: str, target: str) -> None:
        link(source, target)
        link(source, target)  # the request was sent again, since its answer was lost

    monkeypatch.setattr(os, "link", twice)
    store = Store(tmp_path)
    assert store.create("lock", b"mine")
    assert not store.create("lock", b"other")


@pytest.mark.parametrize("answer", [FileExistsError("412"), OSError(errno.EIO, "the connection was reset")])
def test_a_lost_answer_does_not_lose_what_was_created(
    s3_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, answer: OSError
) -> None:
    store = Store(f"s3://{BUCKET}/lost-{type(answer).__name__}", s3_options)
    pipe = store.fs.pipe_file

    def lost(*args: Any, **options: Any) -> None:
        pipe(*args, **options)
        raise answer

    monkeypatch.setattr(store.fs, "pipe_file", lost)
    assert store.create("mark", b"mine"), "the object holds what this caller wrote"
    monkeypatch.setattr(store.fs, "pipe_file", pipe)
    assert not store.create("mark", b"another's")
    assert store.read("mark") == b"mine"


def test_two_at_the_same_moment_are_told_to_try_again(
    s3_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, tries = Store(f"s3://{BUCKET}/conflict", s3_options), []
    pipe = store.fs.pipe_file

    def conflict(*args: Any, **options: Any) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.EIO, "An error occurred (ConditionalRequestConflict) when calling PutObject")
        pipe(*args, **options)

    monkeypatch.setattr(store.fs, "pipe_file", conflict)
    assert store.create("mark", b"mine")
    assert len(tries) == 3


def test_a_temporary_file_that_is_swept_away_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept = []
    for name, write in (("replace", Store.write), ("link", Store.create)):
        place = getattr(os, name)

        def once(source: str, target: str, place: Callable = place, name: str = name) -> None:
            if name not in swept:
                swept.append(name)
                os.unlink(source)
            place(source, target)

        monkeypatch.setattr(os, name, once)
        store = Store(tmp_path)
        write(store, name, b"whole")
        assert store.read(name) == b"whole"
    assert swept == ["replace", "link"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "replace"]


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    store.write("x", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (store.write, store.create):
        with pytest.raises(RunError, match=r"cannot write the output; found No space left on device; make room or"):
            write("x" if write == store.write else "y", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert store.read("x") == b"old"


class UnreachableError(Exception):
    """As botocore's: of a class of its own, and with a secret in its text."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError("Access Denied"), "found Access Denied"),
        (PermissionError(13, "Permission denied"), "found Permission denied"),
        (OSError(5, "InternalError\nof the server"), "found InternalError;"),
        (
            UnreachableError(f"Could not connect as {SECRET}\nTraceback"),
            "found UnreachableError: Could not connect as …;",
        ),
        (TimeoutError(), "found TimeoutError;"),
    ],
)
def test_every_error_of_an_object_store_is_one_line_that_names_the_place(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    store = Store("memory://errors/out", {"token": SECRET})

    def refuse(*_: object, **__: object) -> None:
        raise error

    for method in ("pipe_file", "cat_file", "info", "ls", "rm_file", "rm"):
        monkeypatch.setattr(store.fs, method, refuse)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: store.write("a/b", b""), "/errors/out/a/b: cannot write the output; "),
        (lambda: store.create("a/b", b""), "/errors/out/a/b: cannot "),
        (lambda: store.remove("a/b"), "/errors/out/a/b: cannot write the output; "),
        (store.remove_all, "/errors/out: cannot write the output; "),
        (lambda: store.read("a/b"), "/errors/out/a/b: cannot read; "),
        (lambda: store.read_many(["a/b"]), "/errors/out/a/b: cannot read; "),
        (lambda: store.exists("a/b"), "/errors/out/a/b: cannot read; "),
        (lambda: store.names("a"), "/errors/out/a: cannot read; "),
        (lambda: store.sizes("a"), "/errors/out/a: cannot read; "),
    ]
    for call, place in calls:
        with pytest.raises(RunError) as caught:
            call()
        text = str(caught.value)
        assert text.startswith(place), text
        assert said in text
        assert "\n" not in text
        assert SECRET not in text


def test_a_bucket_that_is_not_there_and_a_server_that_is_gone(s3_options: dict[str, Any]) -> None:
    store = Store("s3://no-such-bucket/out", s3_options)
    assert (store.names("rows"), store.exists("rows")) == ([], False)
    with pytest.raises(RunError, match=r"^no-such-bucket/out/x: cannot write the output; .*bucket does not exist"):
        store.write("x", b"")
    options = {**s3_options, "endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 1}}}
    gone = Store(f"s3://{BUCKET}/gone", options)
    gone.fs.retries = 1
    with pytest.raises(RunError, match=r"gone/x: cannot write the output; found .*127.0.0.1:9"):
        gone.write("x", b"")
    with pytest.raises(RunError, match=r"gone/rows: cannot read; found "):
        gone.names("rows")
    with pytest.raises(AugengineError, match=r"rows.parquet: "):
        gone.parquet("rows.parquet")


def test_what_may_not_be_looked_at_is_not_taken_for_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write("_run.json", b"{}")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in ("stat", "scandir"):
        monkeypatch.setattr(os, name, denied)
    for call in (lambda: store.exists("_run.json"), lambda: store.names("")):
        with pytest.raises(RunError, match="cannot read; found Permission denied"):
            call()


def test_options_travel_with_a_store_and_stand_nowhere(s3_options: dict[str, Any]) -> None:
    store = Store(f"s3://{BUCKET}/travel", s3_options)
    store.folder("sub").write("x", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.read("sub/x") == b"1"
    assert store.folder("sub").parent() == store
    assert store.like(f"s3://{BUCKET}/other")._options == store._options
    assert store.like("memory://other")._options == {}
    assert Store.at(store) is store
    assert (repr(store), str(store)) == (f"Store('s3://{BUCKET}/travel')", f"s3://{BUCKET}/travel")
    assert len({store, again}) == 1
    assert store.uri_of("sub/x") == f"s3://{BUCKET}/travel/sub/x"


def test_the_configuration_of_fsspec_travels_too(s3_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", s3_options)
    here = Store(f"s3://{BUCKET}/configured")
    here.write("x", b"1")
    sent = pickle.dumps(here)
    monkeypatch.delitem(fsspec.config.conf, "s3")  # as in a process with another environment
    assert pickle.loads(sent).read("x") == b"1"
    monkeypatch.setitem(fsspec.config.conf, "s3", {**s3_options, "endpoint_url": "http://127.0.0.1:9"})
    assert Store(here.uri, s3_options).read("x") == b"1", "what is given counts more"


def test_uris_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="storage scheme is not available"):
        Store("nonsense://bucket/run")
    with pytest.raises(RunError, match=r"two slashes.*found s3:/bucket/run; write s3://bucket/run"):
        Store("s3:/bucket/run")
    with pytest.raises(RunError, match=r"a chain of URIs may read through a cache.*filecache::s3://bucket/run"):
        Store("filecache::s3://bucket/run")
    with pytest.raises(RunError, match=r"holds no password; found sftp://…@host;") as caught:
        Store(f"sftp://me:{SECRET}@host/run")
    assert SECRET not in str(caught.value)
    with pytest.raises(RunError, match=r"the storage cannot be opened; found KeyError.*FSSPEC_"):
        Store("s3://bucket/run", {"key": "a", "username": "b"})
    with pytest.raises(RunError, match=r"bucket/run: cannot read; found TypeError.*no_such_option"):
        Store("s3://bucket/run", {"no_such_option": 1}).exists()
    assert Store(tmp_path / "a" / ".." / "b").uri == str(tmp_path / "b")
    assert Store(f"file://{tmp_path}/c").uri_of("x") == str(tmp_path / "c" / "x")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:SECRET@bucket/run",
        "s3://AKIA:SEC/SECRET@bucket/run",  # secrets of S3 hold slashes
        "s3://AKIA:12/SECRET@bucket/run",
        "s3://AKIA:#SECRET@bucket/run",
        "s3://AKIA:?SECRET@bucket/run",
        "s3://AKIA:[SECRET@bucket/run",
        "s3://AKIA:a@SECRET@bucket/run",
        "s3://AKIA%3ASECRET@bucket/run",
        "S3://AKIA:SECRET@bucket/run",
        "s3:/AKIA:SECRET@bucket/run",
        "s3:///AKIA:SECRET@bucket/run",
        "filecache::s3://AKIA:SECRET@bucket/run",
        " s3://AKIA:SECRET@bucket/run",
        "sftp://me:SECRET@host:22/run",
        "https://host/run?a=1&X-Amz-Signature=SECRET",
        "https://host/run?access_token=SECRET",
        "az://bucket/run?sv=1&sig=SECRET",
        "https://host/run%3Fsig=SECRET",
    ],
)
def test_a_uri_that_holds_a_secret_is_refused_without_it(uri: str) -> None:
    with pytest.raises(RunError, match="holds no password") as caught:
        Store(uri)
    assert "SECRET" not in str(caught.value)
    assert "AKIA" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/run@site:1",
        "s3://bucket/signal=3/key",
        "sftp://me@host/run",
        "sftp://host:22/run@site",
        "abfss://box@account.dfs.core.windows.net/run",
        "file:///data/a:b@c?token=x",
        "/data/s3:a@b",
    ],
)
def test_a_uri_without_a_secret_passes(uri: str) -> None:
    check_uri(uri)


@pytest.mark.parametrize("damage", ["cut", "middle"])
def test_a_damaged_file_is_named_on_opening_and_on_reading(store: Store, damage: str) -> None:
    content = to_bytes(to_table([slice_sample(s) for s in range(4)]))
    middle = len(content) // 4
    broken = content[:-20] if damage == "cut" else content[:middle] + bytes(2000) + content[middle + 2000 :]
    store.write("rows.parquet", broken)
    with pytest.raises(DataError, match=r"rows.parquet: this is not a readable Parquet file; found .+") as caught:
        list(iter_samples(store, ["rows.parquet"]))
    assert "\n" not in str(caught.value)
