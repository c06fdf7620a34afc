"""Nothing goes in; how many CPUs of this machine the process may use comes out.

A job of one CPU on a machine of 64 sees 64 of them: what a scheduler allots stands in the affinity (Slurm's task
plugins, taskset), in the control group's quota (containers, systemd), and in `SLURM_CPUS_PER_TASK`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

RAY_MESSAGES = "AUGENGINE_RAY_MESSAGES"
"""Environment variable; 1 shows what Ray and its workers print, as `--ray-messages` does."""


def usable_cpus() -> int:
    """CPUs that this process may use, at least 1; a share of one counts as one."""
    given = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    given += [math.ceil(quota) for quota in _quotas(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))]
    if (asked := os.environ.get("SLURM_CPUS_PER_TASK", "")).isdecimal():
        given.append(int(asked))
    return max(1, min(given))


def _quotas(own: Path, root: Path) -> Iterator[float]:
    """CPUs per quota of the process's control group (version 2, else 1) and of those above it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            for folder in _upward(root / group.lstrip("/"), root):
                yield from _ratio(folder / "cpu.max")
        elif "cpu" in controllers.split(","):
            for folder in _upward(root / "cpu" / group.lstrip("/"), root / "cpu"):
                yield from _ratio(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")


def _upward(folder: Path, root: Path) -> Iterator[Path]:
    yield folder
    while folder != root and root in folder.parents:
        folder = folder.parent
        yield folder


def _ratio(*files: Path) -> Iterator[float]:
    """Quota over period, from one file of both or from two; nothing where there is no limit."""
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        if int(quota) > 0 < int(period):
            yield int(quota) / int(period)
    except (OSError, ValueError):  # "max", or no such group
        return
