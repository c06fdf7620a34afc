"""A command in; it is run as the work of a process of its own, which Ctrl-C ends at once, with all that it started."""

from __future__ import annotations

import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""


def run_program(command: Callable[[], object]) -> None:
    """Run a command that ends this process.

    After Ctrl-C everything is said and given back when the exit begins, and Ray's own would take seconds more: it ends
    the processes of a local Ray one after the other and waits for each. They are killed together instead. On a cluster
    there are none below this process, and Ray ends the job of a driver that is gone.
    """
    try:
        command()
    except SystemExit as stopped:
        if stopped.code != STOPPED:
            raise
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        for pid in descendants(os.getpid()):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        os._exit(STOPPED)


def descendants(pid: int) -> list[int]:
    """Numbers of the processes below one, parents before their children; none where there is no /proc."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended since
            children[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
    found = [pid]
    for parent in found:
        found += children[parent]
    return found[1:]
