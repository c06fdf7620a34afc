"""Units that kill their process, disks that fill up: every good row is made once, every bad one ends in failed/."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from augengine.errors import AugengineError, RunError
from augengine.io.commits import ATTEMPTS, ROWS, committed_files, committed_units
from augengine.io.parts import write_part
from augengine.io.run_lock import RunLock
from augengine.io.store import Store
from augengine.pipeline.attempts import attempt, forgive
from augengine.pipeline.committer import Committer, Work, deadline
from augengine.pipeline.units import INLINE, Actors, run_units
from augengine.pipeline.workers import Unit

UNITS = [Unit("a", {"values": [1, 2, 3]}), Unit("b", {"values": [4, 5, 6, 7]}), Unit("c", {"values": [8]})]


class Rows:
    """One row per value, but for `deadly` ones, which kill the process."""

    def __init__(self, deadly: tuple[int, ...] = ()) -> None:
        self.deadly = deadly

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        if set(spec["values"]) & set(self.deadly):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"rows": pa.table({"value": spec["values"]})}

    def divide(self, spec: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"values": [v]} for v in spec["values"]]

    def quarantine(self, spec: dict[str, Any], why: AugengineError) -> dict[str, pa.Table]:
        return {"failed": pa.table({"value": spec["values"], "reason": [str(why)] * len(spec["values"])})}


class Indivisible(Rows):
    divide = None  # type: ignore[assignment]


def run(store: Store, deadly: tuple[int, ...] = (), worker: type = Rows, actors: Actors = INLINE) -> Any:
    return run_units(UNITS, worker, {"deadly": deadly}, store, {"version": 1}, actors=actors)


def until_done(store: Store, deadly: tuple[int, ...], worker: type = Rows) -> int:
    """Run the same job in new processes until one survives; how many died."""
    for deaths in range(20):
        child = os.fork()
        if not child:
            try:
                run(store, deadly, worker)
            finally:
                os._exit(0)
        if os.waitpid(child, 0)[1] != signal.SIGKILL:
            return deaths
    raise AssertionError("the job dies for ever")


def column(store: Store, folder: str, name: str = "value") -> list[Any]:
    return sorted(v for n in committed_files(store, folder) for v in store.parquet(n).read()[name].to_pylist())


def marks(store: Store, *names: str) -> None:
    """Starts of a former process that never ended."""
    for name in names:
        store.write(f"{ATTEMPTS}/{name}", b"another run")


@pytest.mark.parametrize(("deadly", "deaths"), [((5,), 2 + 3), ((4, 7), 2 + 3 + 3), ((8,), 3)])
def test_a_row_that_kills_is_quarantined_and_spares_the_others(
    tmp_path: Path, deadly: tuple[int, ...], deaths: int
) -> None:
    store = Store(str(tmp_path / "out"))
    assert until_done(store, deadly) == deaths
    assert column(store, "rows") == [v for v in range(1, 9) if v not in deadly]
    assert column(store, "failed") == list(deadly)
    assert column(store, "failed", "reason") == ["this work killed its process 3 times"] * len(deadly)
    again = run(store, deadly)
    assert (again.made, again.counts) == (0, {"rows": 8 - len(deadly), "failed": len(deadly)})
    assert not store.names(ATTEMPTS)


def test_the_third_start_takes_the_rows_one_by_one(store: Store) -> None:
    marks(store, "b.1", "b.2", "b-row0001.1", "b-row0001.2", "b-row0001.3")
    assert run(store).counts == {"rows": 7, "failed": 1}
    assert column(store, "failed") == [5]
    assert committed_units(store) == {"a", "b", "c"}
    assert not store.sizes(ATTEMPTS)
    assert not store.sizes(ROWS)


def test_two_lost_starts_of_a_unit_change_nothing(store: Store) -> None:
    marks(store, "a.1", "c.1", "c.2")
    assert run(store).counts == {"rows": 8}
    assert committed_units(store) == {"a", "b", "c"}


def committer(store: Store, worker: type = Rows) -> Committer:
    return Committer(Work(worker, {}, store, "job", None))


def test_a_divided_unit_goes_on_row_by_row_when_its_marks_are_gone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks(store, "b.1", "b.2")
    done: list[Any] = []

    def until_7(self: Rows, spec: dict[str, Any]) -> dict[str, pa.Table]:
        if spec["values"] == [7]:
            raise ValueError("planted")
        done.append(spec["values"])
        return {"rows": pa.table({"value": spec["values"]})}

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "__call__", until_7)
        with pytest.raises(RunError, match="1 of 3 work units failed; found ValueError: planted"):
            run(store)
    assert done == [[1, 2, 3], [4], [5], [6], [8]]
    assert len(store.names(ROWS)) == 3
    for name in store.sizes(ATTEMPTS):
        store.remove(name)
    done.clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            Rows,
            "__call__",
            lambda self, spec: (done.append(spec["values"]), {"rows": pa.table({"value": spec["values"]})})[1],
        )
        assert run(store).counts == {"rows": 8}
    assert done == [[7]]
    assert column(store, "rows") == list(range(1, 9))


def test_a_row_whose_files_were_swept_is_made_again(store: Store) -> None:
    """An attempt that was taken for dead commits a row after its unit was done and swept."""
    marks(store, "b.1", "b.2")
    late = committer(store)
    run(store)
    late.row(Unit("b-row0001", {"values": [5]}))
    store.remove(next(n for n in store.names("rows") if "b-row0001" in n))
    store.remove("_commits/b.json")
    assert run(store).counts == {"rows": 8}
    assert column(store, "rows") == list(range(1, 9))
    assert not store.sizes(ROWS)


def test_an_attempt_that_was_taken_for_dead_changes_nothing(store: Store) -> None:
    """It writes its files before, during and after the other attempt's commit and the sweep: whole and row by row."""

    class Other(Rows):
        def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
            return {"rows": pa.table({"value": [v * 100 for v in spec["values"]]})}

    zombie = committer(store, Other)
    write_part(store, "rows", "b", pa.table({"value": [999]}))
    first = run(store)
    assert first.counts == {"rows": 8}
    assert sorted(p.name for p in first.files["rows"]) == store.names("rows")
    # It is in mid-unit: its record comes too late.
    assert zombie.commit(UNITS[1]).files == first.records["b"].files
    marks(store, "b.1", "b.2")
    assert zombie.commit(UNITS[1]).files == first.records["b"].files
    assert column(store, "rows") == list(range(1, 9))
    assert len(store.names("rows")) > 3
    again = run(store)
    assert (again.made, again.files) == (0, first.files)
    assert sorted(p.name for p in again.files["rows"]) == store.names("rows")
    assert not store.sizes(ROWS)
    assert not store.sizes(ATTEMPTS)


def test_only_the_marks_of_a_job_are_forgiven_with_it(store: Store) -> None:
    with suppress(KeyboardInterrupt), attempt(store, "u", "job"), attempt(store, "w", "other"):
        forgive(store, "job")
        assert store.names(ATTEMPTS) == [f"{ATTEMPTS}/w.1"]
        raise KeyboardInterrupt
    assert not store.names(ATTEMPTS)


def test_a_unit_that_cannot_be_divided_is_an_error_not_a_loop(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    assert until_done(store, (5,), Indivisible) == 3
    assert committed_units(store) == {"a", "c"}
    marks(store, "b.1", "b.2", "b.3")
    with pytest.raises(RunError, match=r"1 of 1 work units failed; found this work killed its process 3 times"):
        run(store, worker=Indivisible)


def test_a_start_that_raises_does_not_count_and_one_that_ends_clears_up(store: Store) -> None:
    marks(store, "u.1")
    starts = []
    for _ in range(3):
        with suppress(ValueError), attempt(store, "u", "run") as start:
            starts.append(start)
            raise ValueError("planted")
    assert starts == [2, 2, 2]
    with attempt(store, "u", "run"):
        pass
    assert not store.names(ATTEMPTS)


def test_a_unit_over_its_time_ends_its_process() -> None:
    child = os.fork()
    if not child:
        with deadline(5):
            pass
        with deadline(0.1):
            time.sleep(20)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_a_second_job_is_refused_while_the_first_one_runs(store: Store) -> None:
    with RunLock(store), pytest.raises(RunError, match=f"another job is writing.*process {os.getpid()}"):
        run(store)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), PermissionError(13, "denied")])
def test_a_full_or_read_only_disk_stops_the_run_and_is_resumed(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    made: list[str] = []

    def full(write: Any) -> Any:
        def writes(target: str, *rest: Any, **options: Any) -> None:
            path = str(rest[0]) if store.local else target
            if "/rows/" in path:
                made.append(path.split("/")[-1][:6])
                if len(made) == 2:
                    raise error
            write(target, *rest, **options)

        return writes

    with monkeypatch.context() as patch:
        if store.local:
            patch.setattr(os, "replace", full(os.replace))
        else:
            patch.setattr(store.fs, "pipe_file", full(store.fs.pipe_file))
        with pytest.raises(RunError, match=r"cannot write the output; found .*; make room or make it writable and run"):
            run(store)
    assert made == ["part-a", "part-b"], "it must not go on to c"
    assert committed_units(store) == {"a"}
    assert not store.names(ATTEMPTS)
    assert not store.exists("_lock.json")
    assert run(store).counts == {"rows": 8}


def test_a_small_tmpfs_fills_up_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """A real full disk: a tmpfs in a mount name space of its own, which ends with the process."""
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no mount name spaces here")
    script = (
        "import os, sys\n"
        "from test_units_that_kill import Store, RunError, column, run\n"
        "out, ballast = sys.argv[1] + '/out', sys.argv[1] + '/ballast'\n"
        "run_store = Store(out)\n"
        "with open(ballast, 'wb') as file:\n"
        "    try:\n"
        "        [file.write(bytes(4096)) or file.flush() for _ in range(15)]\n"
        "    except OSError: pass\n"
        "try:\n"
        "    run(run_store)\n"
        "except RunError as error:\n"
        "    print(error)\n"
        "os.unlink(ballast)\n"
        "print(run(run_store).counts, column(run_store, 'rows'))\n"
    )
    mount = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", mount, str(tmp_path), sys.executable, "-c", script, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "cannot write the output; found No space left on device" in first
    assert second == "{'rows': 8} [1, 2, 3, 4, 5, 6, 7, 8]"


def test_a_disk_that_becomes_read_only_stops_the_run_with_one_line(tmp_path: Path) -> None:
    """A tmpfs that is mounted anew, without the right to write, in mid-unit; and the same call when it is back."""
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no mount name spaces here")
    script = (
        "import subprocess, sys, time\n"
        "from test_units_that_kill import Rows, Store, column, run\n"
        "from augengine.io import run_lock\n"
        "from augengine.pipeline.cluster import user_errors\n"
        "run_lock.RENEW_S, folder = 0.1, sys.argv[1]\n"
        "def mount(how): subprocess.run(['mount', '-o', 'remount,' + how, folder], check=True)\n"
        "class Remounts(Rows):\n"
        "    def __call__(self, spec):\n"
        "        if spec['values'] == [4, 5, 6, 7]:\n"
        "            mount('ro')\n"
        "            time.sleep(0.5)\n"
        "        return super().__call__(spec)\n"
        "store = Store(folder + '/out')\n"
        "try:\n"
        "    with user_errors(): run(store, worker=Remounts)\n"
        "except SystemExit as stopped:\n"
        "    print(stopped.code)\n"
        "mount('rw')\n"
        "print(store.exists('_lock.json'), run(store).counts, column(store, 'rows'))\n"
    )
    command = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [*command, sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.stdout.splitlines() == ["2", "True {'rows': 8} [1, 2, 3, 4, 5, 6, 7, 8]"], done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, "the lock, which cannot be renewed either, says nothing beside it"
    assert lines[0].startswith(f"error: {tmp_path}/out/rows/part-b-")
    assert "cannot write the output; found Read-only file system; make room or make it writable" in lines[0]


@pytest.mark.slow
def test_ray_outlives_a_row_that_kills_its_actor(ray_session: None, tmp_path: Path) -> None:
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import test modules
    store = Store(str(tmp_path / "out"))
    summary = run(store, (5,), actors=Actors(1))
    assert summary.counts == {"rows": 7, "failed": 1}
    assert column(store, "rows") == [1, 2, 3, 4, 6, 7, 8]
