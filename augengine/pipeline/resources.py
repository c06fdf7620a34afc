"""What a job asks of a cluster and of a disk in; how many actors fit, or one line that says what is missing, out.

Ray waits without a word for what a cluster does not have, so everything is compared before the first stage.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from augengine.errors import ConfigError, RunError
from augengine.io.store import Place, Store

ACTOR_BYTES = 700 * 2**20
"""Memory of an actor without its models (`benchmarks/augment_memory.py`)."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster as Ray counts it: logical CPUs, GPUs, and bytes that tasks may use."""

    cpus: float
    gpus: float
    memory_bytes: float


def cluster_nodes() -> list[Node]:
    """The machines of the cluster that Ray is connected to."""
    import ray

    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(r.get("CPU", 0), r.get("GPU", 0), r.get("memory", 0)) for r in found]


def fit(
    count: int | None,
    num_cpus: float,
    num_gpus: float,
    nodes: Sequence[Node] | None = None,
    *,
    actor_bytes: float = ACTOR_BYTES,
) -> int:
    """How many actors work: `count`, if the cluster holds so many; None: as many as it holds, one per CPU or GPU share.

    Args:
        num_cpus, num_gpus: of each.
        nodes: the cluster's; default: those of the cluster that Ray is connected to.
        actor_bytes: memory of each.

    Raises:
        ConfigError: a share of GPUs that Ray cannot give.
        RunError: not even one fits, or fewer than `count` do.
    """
    if num_gpus > 1 and num_gpus != int(num_gpus):
        raise ConfigError("above 1, GPUs of an actor are whole", found=f"{num_gpus:g}", where="--gpus-per-actor")
    nodes = cluster_nodes() if nodes is None else nodes
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    if (count or 1) * num_cpus >= cpus:
        raise RunError(
            f"{count or 1} actors of {num_cpus:g} CPU leave nothing for Ray's own tasks",
            found=f"{cpus:g} CPUs",
            next_step="use fewer --actors or a smaller --cpus-per-actor",
        )
    held = [node for node in nodes if node.gpus >= num_gpus and node.cpus >= num_cpus]
    room = sum(min(_times(n.gpus, num_gpus), _times(n.cpus, num_cpus)) for n in held)
    if count is None and not num_gpus:  # each computes with one thread
        room = min(room, int(cpus))
    while room and room * num_cpus >= cpus:
        room -= 1
    if room < (count or 1):
        there = f"{cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} node{'s' if len(nodes) > 1 else ''}, room for {room}"
        raise RunError(
            f"{count or 1} actors need {num_cpus:g} CPU and {num_gpus:g} GPU each",
            found=there,
            next_step=f"use --actors {room}, or leave it out"
            if room
            else "lower --gpus-per-actor or --cpus-per-actor, or join a larger cluster (RAY_ADDRESS)",
        )
    memory = sum(node.memory_bytes for node in held)
    afforded = int(memory // actor_bytes)
    if afforded < (count or 1):
        raise RunError(
            f"{count or 1} actors take {_gib((count or 1) * actor_bytes)} GiB of memory at least",
            found=f"{_gib(memory)} GiB",
            next_step="use fewer --actors, or a larger machine",
        )
    return min(room, afforded) if count is None else count


def _times(there: float, each: float) -> int:
    """How often a share fits; a share of nothing always does. Sums of tenths are not exact."""
    return int(there / each + 1e-9) if each else 2**31


def waits_for(count: int, num_cpus: float, num_gpus: float) -> str | None:
    """What other jobs hold of that which the actors need, so that these wait for it; None: they can start."""
    import ray

    free = ray.available_resources()
    missing = [
        f"{count * each:g} {name}s, {free.get(name, 0):g} are free"
        for name, each in (("CPU", num_cpus), ("GPU", num_gpus))
        if free.get(name, 0) < count * each
    ]
    return "; ".join(missing) or None


def check_disk(place: Place, needed_bytes: float, what: str) -> None:
    """Refuse a local output folder whose disk has less free than `what` will take; object stores do not say.

    Raises:
        RunError: with both sizes.
    """
    free = free_bytes(place)
    if free is not None and free < needed_bytes:
        raise RunError(
            f"{what} takes about {_gib(needed_bytes)} GiB",
            found=f"{_gib(free)} GiB free",
            where=Store.at(place).uri,
            next_step="make room, or give another --out",
        )


def free_bytes(place: Place) -> int | None:
    """Free bytes of the disk that a local folder stands or will stand on; None of an object store."""
    store = Store.at(place)
    if not store.local:
        return None
    folder = Path(store.root)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g}"
