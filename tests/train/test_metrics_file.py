"""Metrics of a run: as many bytes as there are lines, whole after any crash, and each step once after any restart."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from augengine.errors import DataError, RunError
from augengine.io.store import Store
from augengine.train import metrics_file
from augengine.train.metrics_file import CHUNK_BYTES, METRICS, MetricsFile, MetricsTail, read_metrics
from augengine.train.state import Metrics, Progress

KINDS = ("local", "object store")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(tmp_path / "run" if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def line(step: int) -> dict[str, Any]:
    return {"step": step, "elapsed_s": 2.0 * step, "loss": 0.125, "grad_norm": 1.5, "steps_per_s": 0.5}


def written(store: Store, count: int, first: int = 1, resumed: int = 0) -> list[dict[str, Any]]:
    file, lines = MetricsFile(store, resumed), [line(first + n) for n in range(count)]
    for one in lines:
        file.append([one])
    return lines


class Bytes:
    """Counts what goes to the storage."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total, append, write = 0, metrics_file._append, Store.write

        def count_append(path: str, content: bytes) -> None:
            self.total += len(content)
            append(path, content)

        def count_write(store: Store, name: str, content: bytes) -> None:
            self.total += len(content)
            write(store, name, content)

        monkeypatch.setattr(metrics_file, "_append", count_append)
        monkeypatch.setattr(Store, "write", count_write)


def test_bytes_grow_with_the_lines_and_not_with_their_square(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, totals = Bytes(monkeypatch), {}
    for count in (1000, 2000, 4000):
        folder = Store(f"{store.uri}/{count}")
        before = counted.total
        lines = written(folder, count)
        totals[count] = counted.total - before
        assert read_metrics(folder) == lines
    assert totals[2000] / totals[1000] < 2.1  # rewritten as a whole, 4
    assert totals[4000] / totals[2000] < 2.1
    size = len(json.dumps(line(1))) + 1
    share = 1 if store.local else CHUNK_BYTES / size  # of what stands there in the end
    assert totals[4000] <= 4000 * (size + 8) * share  # as a whole, 2000 times it


def test_the_lines_of_a_run_are_written_when_it_is_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 1))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    metrics = Metrics(store, 0, every_s=4.0)
    told = [metrics.add(Progress(step, step / 2), {"total": 1.0, "mse": 0.5}, 0.25, 0.5) for step in range(1, 20)]
    metrics.add_validation(Progress(19, 9.5), 0.75, 12)
    before = read_metrics(store)
    assert [m["step"] for m in before] == [step for step, yes in enumerate(told, 1) if yes]
    assert 3 < len(before) < 10
    metrics.flush()
    assert read_metrics(store) == [*before, {"step": 19, "elapsed_s": 9.5, "validation_loss": 0.75, "best_step": 12}]
    assert {"loss", "grad_norm", "steps_per_s", "eta_s", "loss_mse"} <= set(before[0])


def test_half_a_last_line_is_not_there_yet_and_goes_with_the_next_start(tmp_path: Path) -> None:
    """What a kill leaves: any beginning of a line."""
    whole = (json.dumps(line(4)) + "\n").encode()
    for length in range(len(whole)):
        store = Store(tmp_path / str(length))
        lines = written(store, 3)
        with open(store.path(METRICS), "ab") as file:
            file.write(whole[:length])
        complete = [line(4)] if length == len(whole) - 1 else []
        assert read_metrics(store) == [*lines, *complete] == MetricsTail(store).lines()
        written(store, 1, first=4, resumed=3)
        assert read_metrics(store) == [*lines, line(4)]


def test_a_broken_line_before_the_last_is_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(METRICS, b'{"step": 1}\n{"step": 2\n{"step": 3}\n')
    with pytest.raises(DataError, match=rf"{METRICS}:2: a line of metrics must be JSON"):
        read_metrics(store)


PER_CHUNK = -(-CHUNK_BYTES // (len(json.dumps(line(100))) + 1))


@pytest.mark.parametrize("resumed", [0, 1, PER_CHUNK - 1, PER_CHUNK, PER_CHUNK + 1, 2 * PER_CHUNK, 400])
def test_a_restart_repeats_no_step(store: Store, resumed: int) -> None:
    written(store, 400)
    again = written(store, 30, first=resumed + 1, resumed=resumed)
    assert read_metrics(store) == [*(line(step) for step in range(1, resumed + 1)), *again]
    left = 1 if store.local else -(-(resumed + 30) // PER_CHUNK)
    assert left <= len(store.names("", ".jsonl")) <= left + (not store.local)


def test_a_crash_at_any_moment_of_a_restart_loses_no_kept_line_and_keeps_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class CrashError(Exception):
        pass

    wanted = [line(step) for step in range(1, PER_CHUNK)]
    for survived in range(100):
        store = Store(f"memory://{uuid.uuid4().hex}")
        written(store, 4 * PER_CHUNK)
        chunks, done = len(store.names("", ".jsonl")), 0

        def dies(call: Any, allowed: int = survived) -> Any:
            def counted(*args: Any) -> None:
                nonlocal done
                if done == allowed:
                    raise CrashError
                done += 1
                call(*args)

            return counted

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", dies(Store.write))
            patch.setattr(Store, "remove", dies(Store.remove))
            try:
                MetricsFile(store, PER_CHUNK - 1)
                crashed = False
            except CrashError:
                crashed = True
        assert [m for m in read_metrics(store) if m["step"] < PER_CHUNK] == wanted
        again = written(store, PER_CHUNK + 10, first=PER_CHUNK, resumed=PER_CHUNK - 1)
        assert read_metrics(store) == [*wanted, *again]  # with nothing that stood beyond a gap
        if not crashed:
            break
    assert survived == chunks > 3  # all later ones gone, one cut


def test_a_file_that_older_versions_wrote_as_a_whole_is_read_and_continued(store: Store) -> None:
    old = [line(step) for step in range(1, 1001)]
    store.write(METRICS, "".join(json.dumps(one) + "\n" for one in old).encode())
    new = written(store, 10, first=1001, resumed=1000)
    assert read_metrics(store) == [*old, *new]


def test_following_a_long_run_reads_its_end_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, tail = written(store, 2000), MetricsTail(store)
    assert tail.lines()[-1] == lines[-1]
    read = 0
    cat_file = store.fs.cat_file

    def counted(path: str, **options: Any) -> bytes:
        nonlocal read
        content: bytes = cat_file(path, **options)
        read += len(content)
        return content

    monkeypatch.setattr(store.fs, "cat_file", counted)
    file = MetricsFile(store, 2000)
    read = 0
    for step in range(2001, 2101):
        file.append([line(step)])
        assert tail.lines()[-1] == line(step)
    assert read / 100 < 3 * CHUNK_BYTES
    written(store, 5, first=11, resumed=10)  # a restart cuts chunks off
    assert tail.lines()[-1] == line(15)
    assert MetricsTail(Store(f"{store.uri}/nowhere")).lines() == []


def test_a_disk_that_takes_nothing_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunError, match="cannot write the metrics"):
        metrics_file._append(str(tmp_path / "file" / METRICS), b"")
