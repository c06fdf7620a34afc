"""Write a benchmark's figures to `benchmarks/results/<name>.json` with the command, commit, date and machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = Path(os.environ.get("AUGENGINE_BENCHMARK_RESULTS", HERE / "results"))


def record(name: str, figures: Any) -> Path:
    """Write the figures; returns the file's path."""
    value = {
        "benchmark": name,
        "command": shlex.join(["python", os.path.relpath(sys.argv[0], HERE.parent), *map(_named, sys.argv[1:])]),
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "figures": figures,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(value, indent=1) + "\n")
    return path


def machine() -> dict[str, Any]:
    """Cores, CPU model, memory and versions; no host name."""
    import torch

    cpu = platform.processor() or platform.machine()
    memory = None
    if Path("/proc/cpuinfo").exists():
        models = [r.split(":")[1].strip() for r in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in r]
        cpu = models[0] if models else cpu
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": memory,
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _named(argument: str) -> str:
    """An absolute path by its last part alone: where a folder lies is this machine's business."""
    return Path(argument).name if os.path.isabs(argument) else argument


def _commit() -> str:
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")
