"""A cluster of two nodes and a small disk in; one fault of a kind after another, until it is over, out.

Kills are SIGKILL. The disk is an ext4 image on a loop device: it is filled to the last byte, mounted read-only, or
frozen for seconds at a time, as a slow disk looks from above. That needs root.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from _two_nodes import TwoNodes

KILLS = ("actor", "worker", "driver", "node")
DISK = ("full disk", "read-only", "slow disk")
DISK_S = 20.0
FROZEN_S, THAWED_S = 2.0, 0.5
"""A slow disk: no write ends for so long, then all may for so long."""


class Disk:
    """An ext4 file system of its own, mounted on `folder`."""

    def __init__(self, image: Path, folder: Path, megabytes: int) -> None:
        self.image, self.folder = image, folder
        with image.open("wb") as file:
            file.truncate(megabytes * 2**20)
        _run("mkfs.ext4", "-q", "-m", "0", str(image))
        folder.mkdir()
        _run("mount", "-o", "loop", str(image), str(folder))

    def full(self, seconds: float) -> None:
        """No byte is free meanwhile."""
        ballast = self.folder / "ballast"
        until = time.monotonic() + seconds
        with ballast.open("ab") as file:
            while time.monotonic() < until:
                free = os.statvfs(self.folder)
                # What is left for less than a block stays; what others free meanwhile is taken, too.
                taken = free.f_bavail * free.f_frsize
                if taken:
                    try:
                        os.posix_fallocate(file.fileno(), file.tell(), taken)
                        file.seek(0, os.SEEK_END)
                    except OSError:
                        pass  # somebody else was faster
                time.sleep(0.1)
        ballast.unlink()

    def read_only(self, seconds: float) -> None:
        """Every write is refused meanwhile."""
        while _code("mount", "-o", "remount,ro", str(self.folder)):  # refused while a file is open for writing
            time.sleep(0.05)
        time.sleep(seconds)
        _run("mount", "-o", "remount,rw", str(self.folder))

    def slow(self, seconds: float) -> None:
        """Writes wait for seconds at a time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            _run("fsfreeze", "--freeze", str(self.folder))
            try:
                time.sleep(FROZEN_S)
            finally:
                _run("fsfreeze", "--unfreeze", str(self.folder))
            time.sleep(THAWED_S)

    def close(self) -> None:
        """Unmount it; what held it has a moment to end."""
        for _ in range(20):
            if not _code("umount", str(self.folder)):
                break
            time.sleep(0.5)
        self.image.unlink()


class Faults:
    """What can go wrong, by name.

    Args:
        cluster: whose processes are killed.
        disk: that is disturbed; None without root.
        driver: the process of the command that works now.
        seed: of which process is chosen.
    """

    def __init__(
        self, cluster: TwoNodes, disk: Disk | None, driver: Callable[[], subprocess.Popen[bytes] | None], seed: int
    ) -> None:
        self.cluster, self.disk, self.driver = cluster, disk, driver
        self.pick = random.Random(seed)
        self.kinds = KILLS + (DISK if disk else ())

    def strike(self, kind: str) -> str:
        """Let a fault of `kind` happen, and wait until it is over; returns what was hit, empty where nothing was."""
        if kind in DISK:
            assert self.disk is not None
            {"full disk": self.disk.full, "read-only": self.disk.read_only, "slow disk": self.disk.slow}[kind](DISK_S)
            return f"{DISK_S:g} s"
        if kind == "node":
            self.cluster.lose_node()
            self.cluster.add_node()
            return "the second node, replaced at once"
        if kind == "driver":
            process = self.driver()
            if process is None or process.poll() is not None:
                return ""
            process.kill()
            return "the command"
        found = [(pid, title) for pid, title in self.cluster.workers() if _does_work(title) == (kind == "actor")]
        if not found:
            return ""
        pid, title = self.pick.choice(found)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return ""
        return title


def _does_work(title: str) -> bool:
    """Actors of Ray Data and training workers; all else are Ray's helpers and idle processes."""
    return "MapWorker" in title or "RayTrainWorker" in title


def _code(*command: str) -> int:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
