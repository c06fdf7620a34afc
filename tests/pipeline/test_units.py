"""Work units: committed once, resumed by the same command, refused in another run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from augengine.errors import RunError
from augengine.io.commits import committed_files
from augengine.io.store import Store
from augengine.pipeline.units import INLINE, Unit, run_units

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


def run(tmp_path: Path, broken: tuple[int, ...] = (), fingerprint: str = "a", **kwargs: Any) -> Any:
    args = {"log": str(tmp_path / "log"), "broken": broken}
    store = Store(str(tmp_path / "out"))
    return run_units(UNITS, Squares, args, store, {"version": fingerprint}, actors=INLINE, **kwargs)


def calls(tmp_path: Path) -> list[int]:
    return [int(n) for n in (tmp_path / "log").read_text().split()]


def test_a_second_run_makes_nothing_and_counts_the_same(tmp_path: Path) -> None:
    first, second = run(tmp_path), run(tmp_path)
    assert first.counts == second.counts == {"rows": 6, "none": 0}
    assert (first.made, second.made, second.skipped) == (4, 0, 4)
    assert calls(tmp_path) == [0, 1, 2, 3]


def test_a_failed_unit_leaves_the_others_committed_and_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"1 of 4 work units failed.*broken on purpose"):
        run(tmp_path, broken=(2,))
    assert run(tmp_path).counts["rows"] == 6
    assert calls(tmp_path) == [0, 1, 2, 3, 2]


def test_an_uncommitted_file_is_not_listed_and_is_replaced(tmp_path: Path) -> None:
    run(tmp_path)
    store = Store(str(tmp_path / "out"))
    store.remove("_commits/u3.json")
    store.write("rows/part-u3.parquet", b"half a file of a crashed attempt")
    assert committed_files(store, "rows") == ["rows/part-u1.parquet", "rows/part-u2.parquet"]
    run(tmp_path)
    assert calls(tmp_path) == [0, 1, 2, 3, 3]
    assert store.parquet("rows/part-u3.parquet").read().num_rows == 3


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(RunError, match="holds a run with another version; found a"):
        run(tmp_path, fingerprint="b")


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(tmp_path, progress=lambda done, total, counts: seen.append((done, total)))
    assert seen == [(n, 4) for n in range(5)]
