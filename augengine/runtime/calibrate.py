"""Architectures and a runtime in; the rows per evaluation that cost a CPU least, measured within a bound, out.

Random weights of the same architecture are measured, so that no checkpoint is read; what was measured once on a
processor is kept in the user's cache folder and printed.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from augengine.diffusion.checkpoint import Generator, untrained
from augengine.diffusion.conditioning import Conditioning
from augengine.diffusion.spec import ModelSpec
from augengine.policy.runtime import Runtime
from augengine.records import Acquisition
from augengine.rng import digest
from augengine.runtime.cache import cache_folder
from augengine.runtime.network import evaluation

BUDGET_S = 60.0
"""CPU-seconds after which no further number of rows is tried."""
_NEAR = 1.03


def measured_batch(specs: Sequence[ModelSpec], runtime: Runtime, most: int) -> int:
    """The cheapest of 1, 2, 4, … `most` rows for the largest of the models, one thread; the fewer of equal ones."""
    largest = max((untrained(spec, 0) for spec in specs), key=_weights)
    runtime = runtime.model_copy(update={"network_batch": "whole"})
    spec = largest.spec
    key = digest(
        spec.network.model_dump(mode="json"),
        spec.condition_planes,
        spec.content_channels,
        spec.image_size,
        runtime.model_dump(mode="json"),
        most,
        _processor(),
        torch.__version__,
    )
    path = cache_folder("network_batch") / f"{key}.json"
    if path.exists():
        costs = {int(rows): cost for rows, cost in json.loads(path.read_text()).items()}
    else:
        evaluate = evaluation(largest.network, runtime)
        with one_thread():
            costs = measure(lambda rows: evaluate(*example(largest, rows)), most)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(costs))
        os.replace(part, path)
    chosen = cheapest(costs)
    told = ", ".join(f"{rows}: {cost:.3g}" for rows, cost in costs.items())
    text = f"runtime.network_batch {chosen} for {runtime.backend} {runtime.precision} (CPU-seconds per row at {told})"
    print(f"note: {text}; kept in {path}", file=sys.stderr)  # noqa: T201  (said once per run, as other notes)
    return chosen


def measure(
    evaluate: Callable[[int], object], most: int, clock: Callable[[], float] = time.process_time
) -> dict[int, float]:
    """Seconds per row of evaluations of 1, 2, 4, … rows, the better of two after one that is not counted.

    Ends where rows become dearer by a tenth than they were at best, or `BUDGET_S` are spent.
    """
    costs: dict[int, float] = {}
    began, rows = clock(), 1
    while rows <= most and clock() - began < BUDGET_S:
        evaluate(rows)
        taken = []
        for _ in range(2):
            started = clock()
            evaluate(rows)
            taken.append((clock() - started) / rows)
        costs[rows] = min(taken)
        if costs[rows] > 1.1 * min(costs.values()):
            break
        rows *= 2
    return costs


def cheapest(costs: dict[int, float]) -> int:
    """The fewest rows that cost within 3 % of the least.

    >>> cheapest({1: 1.02, 2: 1.0, 4: 1.3})
    1
    """
    return min(rows for rows, cost in costs.items() if cost <= _NEAR * min(costs.values()))


@torch.no_grad()
def example(generator: Generator, rows: int) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    """Arguments of `Generator.evaluate` in the sizes of training: noise, the middle of the chain, and conditions."""
    spec, autoencoder = generator.spec, generator.network.autoencoder
    shape = (spec.content_channels, *spec.image_size)
    if autoencoder is not None:
        shape = (autoencoder.latent_channels, *autoencoder.latent_size(spec.image_size))
    noise = torch.randn(rows, *shape, generator=torch.Generator().manual_seed(0))
    acquired = None if spec.vocabulary is None else spec.vocabulary.encode([Acquisition()] * rows)
    conditioning = Conditioning(
        torch.zeros(rows, spec.condition_planes, *spec.image_size) if spec.condition_planes else None,
        torch.ones(rows, dtype=torch.long) if spec.classes else None,
        acquired,
    )
    t_B = torch.full((rows,), generator.schedule.spec.timesteps // 2)
    return noise, t_B, generator.prepared(conditioning, rows)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, as in a CPU actor; afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _weights(generator: Generator) -> int:
    return sum(parameter.numel() for parameter in generator.network.parameters())


def _processor() -> str:
    """The model of the CPU, as Linux names it."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line for line in lines if line.startswith(("model name", "cpu family", "model\t"))][:3]
    return "; ".join(names) or platform.processor() or platform.machine()
