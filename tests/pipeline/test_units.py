"""Work units: committed once, resumed by the same command, refused in another run's folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from object_store import BUCKET

from augengine.errors import RunError
from augengine.io.commits import committed_files, read_records
from augengine.io.store import Store
from augengine.pipeline.committer import Committer, Work
from augengine.pipeline.units import INLINE, run_units
from augengine.pipeline.workers import Unit
from augengine.rng import canonical_json

UNITS = [Unit(f"u{n}", {"n": n}) for n in range(4)]


class Squares:
    """Writes n rows of n²; appends its calls to a log file and raises for the numbers in `broken`."""

    def __init__(self, log: str, broken: tuple[int, ...] = ()) -> None:
        self.log, self.broken = Path(log), broken

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        with self.log.open("a") as log:
            log.write(f"{spec['n']}\n")
        if spec["n"] in self.broken:
            raise ValueError("broken on purpose")
        return {"rows": pa.table({"square": [spec["n"] ** 2] * spec["n"]}), "none": pa.table({"x": []})}


def run(store: Store, log: Path, broken: tuple[int, ...] = (), fingerprint: str = "a", **kwargs: Any) -> Any:
    args = {"log": str(log), "broken": broken}
    return run_units(
        kwargs.pop("units", UNITS), Squares, args, store, {"version": fingerprint}, actors=INLINE, **kwargs
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def calls(log: Path) -> list[int]:
    return [int(n) for n in log.read_text().split()]


def names(summary: Any, folder: str = "rows") -> list[str]:
    return [part.name for part in summary.files[folder]]


def test_a_second_run_makes_nothing_and_tells_the_same(store: Store, log: Path) -> None:
    first, second = run(store, log), run(store, log)
    assert first.counts == second.counts == {"rows": 6, "none": 0}
    assert (first.made, second.made, second.skipped) == (4, 0, 4)
    assert calls(log) == [0, 1, 2, 3]
    assert first.files == second.files
    assert list(first.records) == [unit.unit_id for unit in UNITS]
    assert [store.parquet(n).read().num_rows for n in names(second)] == [1, 2, 3]
    assert names(second) == committed_files(store, "rows")
    assert first.busy_s == second.busy_s == sum(r.seconds for r in read_records(store).values())
    for part in first.files["rows"]:
        assert hashlib.sha256(store.read(part.name)).hexdigest() == part.sha256
        assert len(store.read(part.name)) == part.bytes


def test_a_failed_unit_leaves_the_others_committed_and_is_tried_again(store: Store, log: Path) -> None:
    with pytest.raises(RunError, match=r"1 of 4 work units failed.*broken on purpose"):
        run(store, log, broken=(2,))
    assert run(store, log).counts["rows"] == 6
    assert calls(log) == [0, 1, 2, 3, 2]


def test_what_a_crashed_attempt_left_is_not_listed_and_is_swept(store: Store, log: Path) -> None:
    run(store, log)
    store.remove("_commits/u3.json")
    store.write("rows/part-u3-0123456789ab.parquet", b"of a crashed attempt")
    assert [name.split("-")[1] for name in committed_files(store, "rows")] == ["u1", "u2"]
    again = run(store, log)
    assert calls(log) == [0, 1, 2, 3, 3]
    assert store.names("rows") == names(again)
    assert store.parquet(names(again)[-1]).read().num_rows == 3


def test_a_unit_that_is_done_is_not_made_again_in_a_block_that_is_started_anew(store: Store, log: Path) -> None:
    """Above `MAX_BLOCKS` units a block of Ray holds several; it is given to the next actor from its start."""
    work = Work(Squares, {"log": str(log)}, store, "job", None)
    batch = {"unit": [canonical_json(asdict(unit)) for unit in UNITS]}
    first = [json.loads(text) for text in Committer(work)(batch)["result"]]
    second = [json.loads(text) for text in Committer(work)(batch)["result"]]
    assert calls(log) == [0, 1, 2, 3]
    assert [r["record"] for r in first] == [r["record"] for r in second]
    assert run(store, log).counts["rows"] == 6


def test_records_are_read_once_in_a_run(store: Store, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(store, log)
    read: list[str] = []
    one = Store.read
    monkeypatch.setattr(Store, "read", lambda self, name: (read.append(name), one(self, name))[1])
    summary = run(store, log)
    assert sorted(name for name in read if name.startswith("_commits")) == [f"_commits/u{n}.json" for n in range(4)]
    assert summary.records["u3"].counts == {"rows": 3, "none": 0}


@pytest.mark.parametrize("harm", ["deleted", "halved", "flipped"])
def test_a_file_that_is_not_as_it_was_committed_is_made_again(
    storage: str, store: Store, log: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the same command, of a finished run; its neighbours are not."""
    first = run(store, log)
    lost = names(first)[1]
    content = bytearray(store.read(lost))
    content[len(content) // 2] ^= 1
    if harm == "deleted":
        store.remove(lost)
    else:
        store.write(lost, bytes(content[: len(content) // 2] if harm == "halved" else content))
    again = run(store, log)
    if harm == "flipped" and storage != "local":
        assert calls(log) == [0, 1, 2, 3], "an object store checks what it holds itself: sizes alone are compared"
        return
    assert again.files == first.files
    assert calls(log) == [0, 1, 2, 3, 2]
    assert "1 committed files are damaged" in capsys.readouterr().err
    assert hashlib.sha256(store.read(lost)).hexdigest() == first.files["rows"][1].sha256


def test_units_of_another_call_keep_their_files(store: Store, log: Path) -> None:
    """Views and predictions of an experiment share a folder, and each call brings other units."""
    first = run(store, log, units=UNITS[:2])
    second = run(store, log, units=UNITS[2:])
    assert run(store, log, units=UNITS[:2]).files == first.files
    assert store.names("rows") == [*names(first), *names(second)]


def test_another_run_in_the_same_folder_is_refused(store: Store, log: Path) -> None:
    run(store, log)
    with pytest.raises(RunError, match="holds a run with another version; found a"):
        run(store, log, fingerprint="b")


def test_progress_ends_at_the_total(store: Store, log: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(store, log, progress=lambda done, total, counts: seen.append((done, total)))
    assert seen == [(n, 4) for n in range(5)]


def test_options_stand_in_no_file_that_a_run_writes(log: Path, s3_options: dict[str, Any]) -> None:
    store = Store(f"s3://{BUCKET}/secret", s3_options)
    run(store, log)
    for folder in ("", "_commits", "rows"):
        for name in store.sizes(folder):
            content = store.read(name)
            for value in ("test-key", "test-secret", "127.0.0.1"):
                assert value.encode() not in content, name
