"""One job per folder: a live holder is named, a dead one is succeeded, and one that was overtaken stops."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from augengine.errors import RunError
from augengine.io import run_lock
from augengine.io.run_lock import GONE, LOCK, RunLock, _place, process_start
from augengine.io.store import Store


def held(store: Store, pid: Any, place: str | None, beats: int = 0, **more: object) -> None:
    run = "0123456789abcdef"
    lock = {"pid": pid, "since": "2026-01-01T00:00:00+00:00", "run": run, "place": place or _place(run), "beats": beats}
    lock |= more
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
        assert time.monotonic() - started < run_lock.EXPIRY_S / 2
        assert json.loads(store.read(LOCK))["run"] == lock.run


def test_a_number_that_another_process_got_since_keeps_no_folder_closed(store: Store) -> None:
    held(store, os.getpid(), None, started="1")  # this process lives, but it started at another time
    started = time.monotonic()
    with RunLock(store) as lock:
        assert time.monotonic() - started < run_lock.EXPIRY_S / 2
        assert json.loads(store.read(LOCK))["run"] == lock.run
    held(store, os.getppid(), None, started=process_start(os.getppid()))
    with pytest.raises(RunError, match="another job is writing"):
        RunLock(store).__enter__()


def test_a_lock_that_this_process_left_on_a_lost_disk_is_void(store: Store) -> None:
    held(store, os.getpid(), None, started=process_start(os.getpid()))
    with RunLock(store) as lock:
        assert json.loads(store.read(LOCK))["run"] == lock.run
        with pytest.raises(RunError, match=f"another job is writing.*process {os.getpid()}"):
            RunLock(store).__enter__()


@pytest.mark.parametrize("pid", [None, "abc", 0, -1, True, 1.5, 10**30, [1], "4711"])
def test_a_lock_that_names_no_process_is_watched_and_taken_over(
    store: Store, pid: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-1 is every process and 0 the own group: both would live for ever."""
    held(store, pid, None)
    told: list[str] = []
    # A library that sets logging up by a table silences loggers that were there before.
    monkeypatch.setattr(run_lock.log, "warning", lambda text, *values: told.append(text % values))
    with RunLock(store, expiry_s=0.3) as lock:
        assert json.loads(store.read(LOCK))["run"] == lock.run
    assert len(told) == 1
    assert f"is locked by no process (_lock.json has the process id {pid!r}); watching" in told[0]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"[1]", b'{"place": NaN}'])
def test_a_lock_of_garbage_is_watched_and_taken_over(store: Store, content: bytes) -> None:
    store.write(LOCK, content)
    with RunLock(store, expiry_s=0.3) as lock:
        assert json.loads(store.read(LOCK))["run"] == lock.run


def test_a_lock_with_a_strange_process_id_that_beats_is_named(store: Store) -> None:
    beats = iter(range(10**6))
    store.write(LOCK, b"{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_lock, "_read", lambda store: json.dumps({"pid": "abc", "beats": next(beats)}).encode())
        with pytest.raises(RunError, match=r"found no process \(_lock.json has the process id 'abc'\), since None"):
            RunLock(store, expiry_s=1).__enter__()


def test_a_dead_process_that_nobody_has_asked_for_yet_is_succeeded(store: Store) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    while process_start(child) != GONE:  # a zombie: its number is taken, and a signal reaches it
        time.sleep(0.01)
    os.kill(child, 0)
    held(store, child, None, started="1")
    with RunLock(store) as lock:
        assert json.loads(store.read(LOCK))["run"] == lock.run
    os.waitpid(child, 0)


def test_where_the_start_is_not_known_the_lock_is_watched(store: Store) -> None:
    for started in (None, process_start(os.getpid())):
        held(store, os.getpid(), None, started=started)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_lock, "process_start", lambda pid: None)
            begun = time.monotonic()
            with RunLock(store, expiry_s=0.3):
                assert time.monotonic() - begun >= 0.3


def test_ps_tells_the_start_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("ps"):
        pytest.skip("no ps here")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    told = run_lock._told_by_ps(child.pid)
    assert told is not None
    assert told == run_lock._told_by_ps(child.pid)
    assert told != run_lock._told_by_ps(1)
    child.communicate(b"\n")
    assert run_lock._told_by_ps(child.pid) in (None, GONE)


@pytest.mark.parametrize("content", [None, b""])
def test_a_silent_lock_from_elsewhere_expires(store: Store, content: bytes | None) -> None:
    held(store, os.getpid(), "elsewhere")
    if content is not None:
        store.write(LOCK, content)  # its writer died before the first byte
    started = time.monotonic()
    with RunLock(store, expiry_s=0.3):
        assert 0.3 <= time.monotonic() - started < run_lock.EXPIRY_S / 2


def test_storage_that_writes_over_what_is_there_is_refused(
    storage: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server, or a package, that does not know conditional writes."""
    if storage == "local":
        pytest.skip("links do not depend on it")
    pipe = store.fs.pipe_file
    monkeypatch.setattr(store.fs, "pipe_file", lambda path, content, mode="overwrite": pipe(path, content))
    with pytest.raises(RunError, match="needs storage with conditional writes"):
        RunLock(store).__enter__()
    assert not store.exists(LOCK)


def until(reached: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that a thread brings about."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_beating_lock_from_elsewhere_is_respected(store: Store) -> None:
    held(store, 4711, "elsewhere")
    done = threading.Event()

    def beat() -> None:  # more than once: a slow store may show the first beat to whoever looks for the first time
        beats = 0
        while not done.wait(0.2):
            held(store, 4711, "elsewhere", beats := beats + 1)

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(RunError, match="process 4711, since 2026-01-01"):
            RunLock(store, expiry_s=5).__enter__()
    finally:
        done.set()
        heart.join()


def test_a_holder_that_was_overtaken_notices_and_leaves_the_lock_alone(store: Store) -> None:
    with RunLock(store, renew_s=0.05) as lock:
        until(lambda: json.loads(store.read(LOCK))["beats"] > 0)
        lock.check()

        def overtaken() -> bool:
            held(store, 4711, "elsewhere")  # again, where a renewal that had begun before replaced it
            return lock._lost.wait(0.3)

        until(overtaken)
        with pytest.raises(RunError, match="another job took this output folder over"):
            lock.check()
    assert json.loads(store.read(LOCK))["pid"] == 4711
