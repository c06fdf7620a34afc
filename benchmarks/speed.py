"""What a row costs, and what the engine adds to it, as ratios measured in one run on one thread.

    python benchmarks/speed.py [--rounds 3] [--rows 204800] [--parts networks,startup,plan]

Weights are random: they do not change the time. A network is measured per evaluation and row, all ways interleaved, in
CPU-seconds; a row of an edit is that times its evaluations. `make pages` shows the record in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _record import RESULTS, record

from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.conditions import Vocabulary
from augengine.diffusion.spec import ModelSpec
from augengine.phantom.protocols import duke_protocols
from augengine.policy.runtime import Runtime
from augengine.runtime.calibrate import example
from augengine.runtime.capabilities import openvino_precisions
from augengine.runtime.network import under
from augengine.train.config import read_recipe

ROOT = Path(__file__).parents[1]
LABELS = ("fat", "fibroglandular")
PLAIN = Runtime()


@dataclass(frozen=True)
class Way:
    """A network at a size under a runtime, `rows` at once; a row of the edit takes so many `evaluations` of it."""

    name: str
    against: str | None
    recipe: str
    size: int
    evaluations: int
    runtime: Runtime = PLAIN
    rows: int = 1


def ways() -> list[Way]:
    """Paper 004's network and this project's at 224², paper 000's at 128² × 4."""
    loop = "paper loop: two fp32 evaluations at batch 1, 50 steps"
    chain = "DDPM-1000 fp32, whole frame"
    found = [
        Way(loop, None, "cddgm", 224, 100),
        Way("default runtime, both estimates of a row at once", loop, "cddgm", 224, 100, rows=2),
        Way("own network (cddgm_small), 15 steps of 2 views", loop, "cddgm_small", 224, 30),
        Way(chain, None, "pcf_unet", 128, 1000),
        Way("50 steps of a 64² box", chain, "pcf_unet", 64, 50),
    ]
    if has_bf16():
        half = Runtime(precision="bf16", channels_last=True)
        found += [
            Way("bf16, channels_last, network_batch 1", loop, "cddgm", 224, 100, half),
            Way("bf16, channels_last, dpmpp_2m 10 steps", loop, "cddgm", 224, 20, half),
            Way("own network, bf16", loop, "cddgm_small", 224, 30, half),
            Way("50 steps of a 64² box, bf16", chain, "pcf_unet", 64, 50, half),
        ]
    for precision in sorted(openvino_precisions()):
        fast = Runtime(backend="openvino", precision=precision)  # type: ignore[arg-type]
        found += [
            Way(f"OpenVINO {precision}, 50 steps", loop, "cddgm", 224, 100, fast),
            Way(f"OpenVINO {precision}, dpmpp_2m 10 steps", loop, "cddgm", 224, 20, fast),
            Way(f"own network, OpenVINO {precision}", loop, "cddgm_small", 224, 30, fast),
            Way(f"50 steps of a 64² box, OpenVINO {precision}", chain, "pcf_unet", 64, 50, fast),
        ]
    return found


def has_bf16() -> bool:
    """True for a processor with bfloat16 arithmetic; others imitate it, many times slower than float32."""
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def networks(rounds: int) -> dict[str, Any]:
    """CPU-seconds per row, and how many times less than the loop that it is compared with."""
    torch.set_num_threads(1)
    calls: dict[tuple[str, int, str, int], Callable[[], object]] = {}
    for way in (chosen := ways()):
        if _key(way) not in calls:
            fast = under(_generator(way.recipe, way.size), way.runtime)
            assert isinstance(fast, Generator)
            arguments = example(fast, way.rows)
            calls[_key(way)] = lambda fast=fast, arguments=arguments: fast.evaluate(*arguments)  # type: ignore[misc]
    spent: dict[Any, list[float]] = {key: [] for key in calls}
    for number in range(rounds + 1):  # the first warms up and converts
        for key, call in calls.items():
            started = time.process_time()
            with torch.no_grad():
                call()
            if number:
                spent[key].append((time.process_time() - started) / key[-1])
    per_row = {w.name: statistics.median(spent[_key(w)]) * w.evaluations for w in chosen}
    return {
        w.name: {
            "recipe": w.recipe,
            "size": w.size,
            "evaluations": w.evaluations,
            "cpu_s_per_evaluation": float(f"{statistics.median(spent[_key(w)]):.3g}"),
            "cpu_s_per_row": float(f"{per_row[w.name]:.3g}"),
            "times_faster": None if w.against is None else float(f"{per_row[w.against] / per_row[w.name]:.3g}"),
        }
        for w in chosen
    }


def _key(way: Way) -> tuple[str, int, str, int]:
    return way.recipe, way.size, way.runtime.model_dump_json(), way.rows


def _generator(recipe: str, size: int) -> Generator:
    """A network of a recipe's architecture, as its model would be described."""
    read = read_recipe(recipe)
    acquisitions = [p.acquisition(0.5) for p in duke_protocols()]
    painter = read.kind == "counterfactual"
    spec = ModelSpec(
        kind=read.kind,
        network=read.network,
        diffusion=read.diffusion,
        vocabulary=None if painter else Vocabulary.fit(acquisitions),
        classes=("healthy", "unhealthy") if painter else (),
        channels=("flair", "t1", "t1c", "t2") if painter else ("t1",),
        labels=LABELS if getattr(read.network, "structure", False) else (),
        image_size=(size, size),
        spacing_mm=(1.5, 1.5),
    )
    return untrained(spec, seed=0)


def startup() -> dict[str, float]:
    """CPU-seconds of the command line's first answer and of the import, medians of five."""
    asked = {
        "augengine --help": [sys.executable, "-c", "from augengine.cli import main; main()", "--help"],
        "import augengine": [sys.executable, "-c", "import augengine"],
        "python alone": [sys.executable, "-c", "pass"],
    }
    return {name: round(statistics.median(cpu_s(command) for _ in range(5)), 3) for name, command in asked.items()}


def plan(rows: int) -> dict[str, Any]:
    """CPU-seconds and peak memory of `augengine plan` on so many rows of 64 slices each volume."""
    with tempfile.TemporaryDirectory() as folder:
        _write(folder, rows)
        code = (
            "import resource, sys; from augengine.cli import main\n"
            "try: main()\n"
            "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
        )
        command = [sys.executable, "-c", code, "plan", "duke_acquisition_paper", folder]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        bare = cpu_s([sys.executable, "-c", "import augengine.pipeline.forecast"])
    total = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
    peak_mib = int(done.stderr.split()[-1]) / 1024
    return {
        "rows": rows,
        "cpu_s": round(total, 2),
        "of_which_imports_s": round(bare, 2),
        "peak_mib": round(peak_mib, 1),
    }


def cpu_s(command: list[str]) -> float:
    """User and system time of a command that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _write(folder: str, rows: int) -> None:
    """A data set of tiny slices: 64 of a volume, 1,024 rows in a shard, two vendors."""
    import pyarrow as pa

    sys.path.insert(0, str(ROOT / "tests"))
    from builders import slice_sample

    from augengine.io.dataset import write_dataset
    from augengine.io.shards import SCHEMA, to_row

    shown: list[dict[str, Any]] = [{}, {"label": None, "labels": {}}]  # Siemens' donors have no masks
    bases = [
        pa.Table.from_pylist([to_row(slice_sample(n, i, size=8, **more)) for i in range(64)], SCHEMA)
        for n, more in enumerate(shown)
    ]

    def volume(number: int) -> pa.Table:
        base, name = bases[number % 2], f"S{number:06d}"
        changed = {
            "sample_id": [f"{name}#{n:04d}" for n in range(64)],
            "subject_id": [name] * 64,
            "volume_id": [name] * 64,
        }
        for column, values in changed.items():
            base = base.set_column(base.schema.get_field_index(column), SCHEMA.field(column), pa.array(values))
        return base

    volumes = rows // 64
    shards = (
        pa.concat_tables([volume(n) for n in range(start, min(start + 16, volumes))]) for start in range(0, volumes, 16)
    )
    write_dataset(folder, shards)


def main() -> None:
    """Measure what is asked for, keep what was measured before of the rest, and write JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[204_800])
    parser.add_argument("--parts", default="networks,startup,plan")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    path = RESULTS / "speed.json"
    figures = json.loads(path.read_text())["figures"] if path.exists() else {}
    parts = asked.parts.split(",")
    if "startup" in parts:
        figures["startup"] = startup()
    if "plan" in parts:
        figures["plan"] = [plan(rows) for rows in asked.rows]
    if "networks" in parts:
        figures |= {"networks": networks(asked.rounds), "rounds": asked.rounds, "threads": 1, "weights": "random"}
    print(record("speed", figures))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
