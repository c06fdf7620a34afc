"""One job per folder: a live holder is named, a dead one is succeeded, and one that was overtaken stops."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from augengine.errors import RunError
from augengine.io.store import Store
from augengine.pipeline.run_lock import LOCK, RunLock, _place


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}/lock")


def held(store: Store, pid: int, place: str | None, beats: int = 0) -> None:
    run = "0123456789abcdef"
    lock = {"pid": pid, "since": "2026-01-01T00:00:00+00:00", "run": run, "place": place or _place(run), "beats": beats}
    store.write(LOCK, json.dumps(lock).encode())


def test_a_second_job_is_refused_with_the_holder(store: Store) -> None:
    with RunLock(store):
        with pytest.raises(RunError, match=rf"another job is writing.*process {os.getpid()}, since 20\d\d-") as caught:
            RunLock(store).__enter__()
        assert "30 s after it dies" in str(caught.value)
        assert not re.search(os.uname().nodename, store.read(LOCK).decode())
    with RunLock(store):
        pass
    assert not store.exists(LOCK)


def test_a_dead_process_of_this_machine_is_succeeded_at_once(store: Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    held(store, dead.pid, None)
    started = time.monotonic()
    with RunLock(store) as lock:
        assert time.monotonic() - started < 1
        assert json.loads(store.read(LOCK))["run"] == lock.run


@pytest.mark.parametrize("content", [None, b""])
def test_a_silent_lock_from_elsewhere_expires(store: Store, content: bytes | None) -> None:
    held(store, os.getpid(), "elsewhere")
    if content is not None:
        store.write(LOCK, content)  # its writer died before the first byte
    started = time.monotonic()
    with RunLock(store, expiry_s=0.3):
        assert 0.3 <= time.monotonic() - started < 5


def test_a_beating_lock_from_elsewhere_is_respected(store: Store) -> None:
    held(store, 4711, "elsewhere")
    beat = threading.Timer(0.2, held, (store, 4711, "elsewhere", 1))
    beat.start()
    with pytest.raises(RunError, match="process 4711, since 2026-01-01"):
        RunLock(store, expiry_s=5).__enter__()
    beat.join()


def test_a_holder_that_was_overtaken_notices_and_leaves_the_lock_alone(store: Store) -> None:
    with RunLock(store, renew_s=0.05) as lock:
        time.sleep(0.3)
        lock.check()
        assert json.loads(store.read(LOCK))["beats"] > 0
        held(store, 4711, "elsewhere")
        time.sleep(0.3)
        with pytest.raises(RunError, match="another job took this output folder over"):
            lock.check()
    assert json.loads(store.read(LOCK))["pid"] == 4711
