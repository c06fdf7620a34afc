"""The output folder: the first record of a unit stands, versions stand side by side, and only orphans are swept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from augengine.errors import RunError
from augengine.io.commits import (
    Record,
    claim,
    commit,
    committed_files,
    committed_units,
    find_record,
    read_records,
    version,
)
from augengine.io.parts import Part, write_part
from augengine.io.store import Store
from augengine.io.sweep import sweep


def part(store: Store, unit_id: str, *values: int, folder: str = "rows") -> Part:
    return write_part(store, folder, unit_id, pa.table({"value": values}))


def record(unit_id: str, *parts: Part) -> Record:
    return Record(unit_id, {"rows": sum(p.rows or 0 for p in parts)}, {"rows": list(parts)}, 1.5, 7, 100.0)


def plain(found: Record | None) -> object:
    return found and found.to_json()


def test_another_attempt_replaces_no_file_with_other_bytes(store: Store) -> None:
    first, other, same = part(store, "u", 1), part(store, "u", 2), part(store, "u", 1)
    assert (first == same, first.name == other.name) == (True, False)
    assert [store.parquet(p.name).read()["value"].to_pylist() for p in (first, other)] == [[1], [2]]
    assert store.sizes("rows") == {p.name: p.bytes for p in (first, other)}


def test_the_first_record_stands_and_the_second_attempt_gets_it(store: Store) -> None:
    first, second = record("u", part(store, "u", 1)), record("u", part(store, "u", 2))
    assert plain(commit(store, first)) == plain(first)
    assert plain(commit(store, second)) == plain(first)
    assert plain(find_record(store, "u")) == plain(first)
    assert find_record(store, "v") is None
    commit(store, record("v", part(store, "v", 3)))
    assert {u: plain(r) for u, r in read_records(store, {"u", "w"}).items()} == {"u": plain(first)}
    assert set(read_records(store)) == committed_units(store) == {"u", "v"}
    assert committed_files(store, "rows") == [first.files["rows"][0].name, part(store, "v", 3).name]


def test_a_record_that_cannot_be_read_is_named_and_never_taken_for_none(store: Store) -> None:
    commit(store, record("u", part(store, "u", 1)))
    for content, said in (
        (b"", "no commit record"),
        (b'{"unit_id": "u"}', "no commit record"),
        (b"[]", "no commit"),
        (b'{"unit_id": "u", "counts": {"rows": 1}}', "an older version began this run"),
    ):
        store.write("_commits/u.json", content)
        for read in (lambda: read_records(store), lambda: find_record(store, "u"), lambda: commit(store, record("u"))):
            with pytest.raises(RunError, match=rf"_commits/u.json: .*{said}"):
                read()
    assert len(store.sizes("rows")) == 1


def test_a_changed_fingerprint_is_refused_or_gets_a_version(store: Store) -> None:
    claim(version(store, {"policy": "a", "source": 1}), {"policy": "a", "source": 1})
    with pytest.raises(RunError, match=r"another source; found 1; choose another --out \(this run has 2\)"):
        claim(store, {"policy": "a", "source": 2})
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


def test_the_sweep_takes_what_no_record_lists_of_its_own_units_and_nothing_else(store: Store) -> None:
    kept, rows = part(store, "u", 1), [part(store, f"w-row000{n}", n) for n in range(2)]
    orphans = [
        part(store, "u", 2),
        part(store, "u", 3, folder="failed"),
        part(store, "w", 4),
        part(store, "w-row0001", 5),
    ]
    foreign = [part(store, name, 6) for name in ("x", "x-row0000", "u2", "w-row1")]
    others = [
        "rows/notes.txt",
        "rows/part-u.parquet",
        "rows/part-u-0123.parquet",
        "rows/.tmp-notes",
        "picture.png",
        "rows/.tmp-part-x-0123456789ab.parquet-1-01234567",
        "_commits/.tmp-x.json-1-01234567",
        "_attempts/x.1",
        "_rows/x-row0000.json",
        "deep/er/part-u-0123456789ab.parquet",
        "_other/part-u-0123456789ab.parquet",
        "v2/rows/part-u-0123456789ab.parquet",
        "_lock.json",
    ]
    left = [
        "rows/.tmp-part-u-0123456789ab.parquet-1-01234567",
        "_commits/.tmp-u.json-1-01234567",
        "_attempts/u.1",
        "_attempts/w-row0001.2",
        "_attempts/.tmp-u.1-1-01234567",
        "_rows/w-row0001.json",
        ".tmp-_lock.json-1-01234567",
        "rows/.tmp-part-w-row0001-0123456789ab.parquet-12-89abcdef",
    ]
    for name in (*others, *left):
        store.write(name, b"x")
    store.folder("v2").write("_attempts/u.1", b"x")
    done = {"u": record("u", kept), "w": record("w", *rows)}
    assert sweep(store, done) == len(orphans) + len(left)
    assert [n for n in (*(p.name for p in orphans), *left) if store.exists(n)] == []
    assert [n for n in (*(p.name for p in (kept, *rows, *foreign)), *others) if not store.exists(n)] == []
    assert store.folder("v2").exists("_attempts/u.1")
    assert sweep(store, done) == 0


def test_nothing_is_swept_where_a_listed_file_is_missing_or_damaged(store: Store) -> None:
    kept, orphan = part(store, "u", 1), part(store, "u", 2)
    for told in (replace(kept, bytes=kept.bytes + 1), replace(kept, name="rows/part-u-ffffffffffff.parquet")):
        with pytest.raises(RunError, match=rf"{told.name}: a committed file is missing.*_commits/u.json and run"):
            sweep(store, {"u": record("u", told)})
        assert store.exists(orphan.name)


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/_lock.json: cannot write the output; found File exists"):
        Store(str(tmp_path / "file")).create("_lock.json")
