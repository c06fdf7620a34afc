"""One job per output folder: a lock file with a heartbeat in, a refusal that says who holds it since when out.

The lock keeps two jobs from doing the same work; it does not guard the rows, which are the same whoever makes them.
No clocks are compared: a lock is dead if its holder was a process of this machine that is gone, or if it shows no
sign of life for `EXPIRY_S` while somebody watches.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from augengine.errors import AugengineError, RunError
from augengine.io.commits import create
from augengine.io.store import Store
from augengine.rng import canonical_json, digest

LOCK = "_lock.json"
RENEW_S = 5.0
EXPIRY_S = 30.0
_POLL_S = 0.5
log = logging.getLogger(__name__)


class RunLock:
    """Holds a folder for the length of a `with` block.

    Attributes:
        run: random id of this job.
    """

    def __init__(self, store: Store, *, renew_s: float = RENEW_S, expiry_s: float = EXPIRY_S) -> None:
        self.store, self.renew_s, self.expiry_s = store, renew_s, expiry_s
        self.run = uuid.uuid4().hex[:16]
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._beats = 0
        self._stop, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew, name="augengine-lock", daemon=True)

    def __enter__(self) -> RunLock:
        """Take the lock.

        Raises:
            RunError: another job holds it, or the folder cannot be written.
        """
        while not create(self.store, LOCK, self._content()):
            self._clear_dead()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back, if it is still this job's."""
        self._stop.set()
        self._thread.join(timeout=self.renew_s)
        try:
            if _holder(_read(self.store)).get("run") == self.run:
                self.store.remove(LOCK)
        except (OSError, AugengineError) as problem:  # a lost disk has its own error; the lock expires
            log.warning("cannot give the lock of %s back: %s", self.store.uri, problem)

    def check(self) -> None:
        """Refuse to go on where another job has taken over, since this one was silent for too long."""
        if self._lost.is_set():
            raise RunError(
                f"another job took this output folder over, since this one showed no life for {self.expiry_s:g} s",
                where=self.store.uri, next_step="let it finish; every row that it needs is made once",
            )  # fmt: skip

    def _content(self) -> bytes:
        pid, beats = os.getpid(), self._beats
        held = {"pid": pid, "since": self._since, "run": self.run, "place": _place(self.run), "beats": beats}
        return canonical_json(held).encode()

    def _renew(self) -> None:
        while not self._stop.wait(self.renew_s):
            try:
                if _holder(_read(self.store)).get("run") != self.run:
                    self._lost.set()
                    return
                self._beats += 1
                self.store.write(LOCK, self._content())
            except (OSError, AugengineError) as error:  # the work itself reports a full or lost disk; this can wait
                log.warning("cannot renew the lock of %s: %s", self.store.uri, error)

    def _clear_dead(self) -> None:
        """Remove the lock of a job that is gone, at once or after watching it; refuse where the job lives."""
        seen = _read(self.store)
        if seen is None:
            return
        held = _holder(seen)
        if held.get("place") == _place(str(held.get("run"))):
            if _alive(int(held["pid"])):
                raise self._refusal(held)
        else:
            log.warning("%s is locked; watching for a sign of life for %g s", self.store.uri, self.expiry_s)
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
            found=f"process {held.get('pid')}, since {held.get('since')}", where=self.store.uri,
            next_step=f"wait for it or choose another --out; {self.expiry_s:g} s after it dies its lock is void",
        )  # fmt: skip


def _read(store: Store) -> bytes | None:
    try:
        store.fs.invalidate_cache()
        return store.read(LOCK)
    except FileNotFoundError:
        return None


def _holder(content: bytes | None) -> dict[str, Any]:
    """What a lock says; empty where there is none, or where its writer died in the middle of it."""
    try:
        held = json.loads(content or b"{}")
    except ValueError:
        return {}
    return held if isinstance(held, dict) else {}


def _place(salt: str) -> str:
    """A digest that only processes of this machine (and container) can make again; it names no host."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        if os.path.exists(path):
            parts.append(os.readlink(path) if os.path.islink(path) else Path(path).read_text())
    return digest(salt, parts, length=16)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
