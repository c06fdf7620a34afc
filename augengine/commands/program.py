"""A command in; it is run as the work of a process of its own, which Ctrl-C ends at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""


def run_program(command: Callable[[], object]) -> None:
    """Run a command that ends this process.

    After Ctrl-C everything is said and given back when the exit begins, and Ray's own would take seconds more: it ends
    its processes one after the other and waits for each. They end with this process anyway, as Ray has it for a
    driver that is killed: the kernel (or Ray's reaper, where it cannot) ends a local Ray, and a cluster ends the job.
    """
    try:
        command()
    except SystemExit as stopped:
        if stopped.code != STOPPED:
            raise
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(STOPPED)
