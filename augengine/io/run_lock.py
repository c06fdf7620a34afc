"""One job per output folder: a lock file with a heartbeat in, a refusal that says who holds it since when out.

The lock keeps two jobs from doing the same work; it does not guard the rows, which are the same whoever makes them.
No clocks are compared: a lock is dead if its holder was a process of this machine that is gone (another one may have
got its number since), or if it shows no sign of life for `EXPIRY_S` while somebody watches.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeGuard

from augengine.errors import AugengineError, RunError
from augengine.io.store import Store
from augengine.rng import canonical_json, digest

LOCK = "_lock.json"
RENEW_S = 5.0
EXPIRY_S = 30.0
GONE = "gone"
_POLL_S = 0.5
_LARGEST_PID = 2**31 - 1
_mine: set[str] = set()
"""Runs of this process that hold a lock or ask for one: a lock of any other run of it was left on a lost disk."""
log = logging.getLogger(__name__)


class RunLock:
    """Holds a folder for the length of a `with` block.

    Attributes:
        run: random id of this job.
    """

    def __init__(self, store: Store, *, renew_s: float | None = None, expiry_s: float = EXPIRY_S) -> None:
        self.store, self.renew_s, self.expiry_s = store, RENEW_S if renew_s is None else renew_s, expiry_s
        self.run = uuid.uuid4().hex[:16]
        self._started = process_start(os.getpid())
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._beats = 0
        self._stop, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew, name="augengine-lock", daemon=True)

    def __enter__(self) -> RunLock:
        """Take the lock.

        Raises:
            RunError: another job holds it, the folder cannot be written, or its storage cannot keep a file from being
                written twice.
        """
        _mine.add(self.run)
        try:
            self._take()
        except BaseException:
            _mine.discard(self.run)
            raise
        return self

    def _take(self) -> None:
        while not self.store.create(LOCK, self._content()):
            self._clear_dead()
        if not self.store.local and self.store.create(LOCK, self._content() + b" "):
            self.store.remove(LOCK)
            raise RunError(
                "an output folder needs storage with conditional writes",
                found="one that writes over what is there",
                where=self.store.uri,
                next_step="choose another --out, or a newer server and fsspec package",
            )
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back, if it is still this job's."""
        self._stop.set()
        self._thread.join(timeout=self.renew_s)
        try:
            if _holder(_read(self.store)).get("run") == self.run:
                self.store.remove(LOCK)
        except AugengineError as problem:  # a lost disk has its own error; the lock of a process that is gone is void
            log.info("cannot give the lock of %s back: %s", self.store.uri, problem)
        finally:
            _mine.discard(self.run)

    def check(self) -> None:
        """Refuse to go on where another job has taken over, since this one was silent for too long."""
        if self._lost.is_set():
            raise RunError(
                f"another job took this output folder over, since this one showed no life for {self.expiry_s:g} s",
                where=self.store.uri,
                next_step="let it finish; every row that it needs is made once",
            )

    def _content(self) -> bytes:
        pid, beats = os.getpid(), self._beats
        held = {
            "pid": pid,
            "started": self._started,
            "since": self._since,
            "run": self.run,
            "place": _place(self.run),
            "beats": beats,
        }
        return canonical_json(held).encode()

    def _renew(self) -> None:
        while not self._stop.wait(self.renew_s):
            try:
                if _holder(_read(self.store)).get("run") != self.run:
                    self._lost.set()
                    return
                self._beats += 1
                self.store.write(LOCK, self._content())
            except AugengineError as error:  # the work itself reports a full or lost disk; this can wait
                log.info("cannot renew the lock of %s: %s", self.store.uri, error)

    def _clear_dead(self) -> None:
        """Remove the lock of a job that is gone, at once or after watching it; refuse where the job lives."""
        seen = _read(self.store)
        if seen is None:
            return
        held = _holder(seen)
        alive = _lives(held)
        if alive:
            raise self._refusal(held)
        if alive is None:
            text = "%s is locked by %s; watching for a sign of life for %g s"
            log.warning(text, self.store.uri, _named(held), self.expiry_s)
            end = time.monotonic() + self.expiry_s
            while time.monotonic() < end:
                time.sleep(min(_POLL_S, self.expiry_s / 4))
                found = _read(self.store)
                if found is None:
                    return
                if found != seen:
                    raise self._refusal(_holder(found))
        if _read(self.store) == seen:
            self.store.remove(LOCK)

    def _refusal(self, held: dict[str, Any]) -> RunError:
        return RunError(
            "another job is writing to this output folder",
            found=f"{_named(held)}, since {held.get('since')}",
            where=self.store.uri,
            next_step=f"wait for it or choose another --out; {self.expiry_s:g} s after it dies its lock is void",
        )


def _read(store: Store) -> bytes | None:
    try:
        return store.read(LOCK)
    except FileNotFoundError:
        return None


def _holder(content: bytes | None) -> dict[str, Any]:
    """What a lock says; empty where there is none, or where its writer died in the middle of it."""
    try:
        held = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def _lives(held: Mapping[str, Any]) -> bool | None:
    """Whether the holder of a lock lives; None where it is not of this machine, or names no process."""
    pid, run, started = held.get("pid"), str(held.get("run")), held.get("started")
    if held.get("place") != _place(run) or not _is_pid(pid):
        return None
    if pid == os.getpid() and started is not None and started == process_start(pid) and run not in _mine:
        return False
    return _alive(pid, started if isinstance(started, str) else None)


def _is_pid(pid: object) -> TypeGuard[int]:
    """True for the number of one process: 0 and negative ones name groups."""
    return type(pid) is int and 0 < pid <= _LARGEST_PID


def _named(held: Mapping[str, Any]) -> str:
    pid = held.get("pid")
    return f"process {pid}" if _is_pid(pid) else f"no process ({LOCK} has the process id {pid!r})"


def _place(salt: str) -> str:
    """A digest that only processes of this machine (and container) can make again; it names no host."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        if os.path.exists(path):
            parts.append(os.readlink(path) if os.path.islink(path) else Path(path).read_text())
    return digest(salt, parts, length=16)


def _alive(pid: int, started: str | None) -> bool | None:
    """Whether the process that started then under this number lives; None where that cannot be told."""
    now, hidden = process_start(pid), False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        hidden = now == GONE  # another user's, of whom /proc may say nothing
    if now == GONE:
        return None if hidden else False
    return None if now is None or started is None else now == started


def process_start(pid: int) -> str | None:
    """When a process of this machine started, in no certain unit; `GONE` if it has ended, None where nobody says."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except ProcessLookupError:
        return GONE
    except FileNotFoundError:
        return GONE if os.path.exists("/proc/self/stat") else _told_by_ps(pid)
    except OSError:
        return None
    return GONE if fields[0] in "ZX" else fields[19]  # a zombie only waits for its parent to ask for it


def _told_by_ps(pid: int) -> str | None:
    try:
        told = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    state, _, start = told.stdout.strip().partition(" ")
    return None if not state else GONE if state.startswith("Z") else start.strip()
