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
from augengine.io.commits import committed_files, committed_units
from augengine.io.store import Store
from augengine.pipeline.attempts import ATTEMPTS, attempt
from augengine.pipeline.run_lock import RunLock
from augengine.pipeline.units import INLINE, Actors, Unit, _deadline, run_units

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


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}/kill")


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
    assert committed_units(store) == {"a", "b", "c", *(f"b-row000{n}" for n in range(4))}
    assert not store.names(ATTEMPTS)


def test_two_lost_starts_of_a_unit_change_nothing(store: Store) -> None:
    marks(store, "a.1", "c.1", "c.2")
    assert run(store).counts == {"rows": 8}
    assert committed_units(store) == {"a", "b", "c"}


def test_a_divided_unit_stays_divided_when_its_marks_are_gone(store: Store) -> None:
    marks(store, "b.1", "b.2")
    run(store)
    store.remove("_commits/b.json")
    store.remove("_commits/b-row0002.json")
    assert run(store).counts == {"rows": 8}
    assert column(store, "rows") == list(range(1, 9))


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
        with _deadline(5):
            pass
        with _deadline(0.1):
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
    write, made = Store.write, []

    def full(self: Store, name: str, content: bytes) -> None:
        if name.startswith("rows/"):
            made.append(name)
            if len(made) == 2:
                raise error
        write(self, name, content)

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(RunError, match=r"cannot write the output; found .*; make room or make it writable and run"):
        run(store)
    assert made == ["rows/part-a.parquet", "rows/part-b.parquet"], "it must not go on to c"
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


@pytest.mark.slow
def test_ray_outlives_a_row_that_kills_its_actor(ray_session: None, tmp_path: Path) -> None:
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import test modules
    store = Store(str(tmp_path / "out"))
    summary = run(store, (5,), actors=Actors(1))
    assert summary.counts == {"rows": 7, "failed": 1}
    assert column(store, "rows") == [1, 2, 3, 4, 6, 7, 8]
