"""CPUs that a process may use, where the machine has more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from augengine.machine import _quotas, usable_cpus
from augengine.pipeline import cluster


def test_affinity_counts_and_not_the_machine() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); from augengine.machine import usable_cpus as n; print(n())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize(("asked", "found"), [("1", 1), ("4096", None), ("", None), ("x", None)])
def test_slurm_says_how_many_a_task_has(monkeypatch: pytest.MonkeyPatch, asked: str, found: int | None) -> None:
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    free = usable_cpus()
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", asked)
    assert usable_cpus() == (found or free)


def test_quotas_of_control_groups(tmp_path: Path) -> None:
    """A group of version 2 below one with a smaller quota, and one of version 1."""
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "job/step").mkdir(parents=True)
    (root / "cpu/task").mkdir(parents=True)
    (root / "job/step/cpu.max").write_text("max 100000\n")
    (root / "job/cpu.max").write_text("150000 100000\n")
    own.write_text("0::/job/step\n")
    assert list(_quotas(own, root)) == [1.5]
    (root / "cpu/task/cpu.cfs_quota_us").write_text("400000\n")
    (root / "cpu/task/cpu.cfs_period_us").write_text("100000\n")
    (root / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (root / "cpu/cpu.cfs_period_us").write_text("100000\n")
    own.write_text("3:cpu,cpuacct:/task\n2:memory:/task\n")
    assert list(_quotas(own, root)) == [4]
    assert list(_quotas(tmp_path / "none", root)) == []


def test_ray_on_this_machine_gets_what_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    asked: dict[str, object] = {}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: asked.update(options))
    monkeypatch.setattr(cluster, "usable_cpus", lambda: 7)
    cluster.connect()
    assert asked["num_cpus"] == 7
