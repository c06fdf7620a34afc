"""Work units in, committed Parquet files out: each unit exactly once, on Ray actors or in this process."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from augengine.errors import AugengineError, RunError
from augengine.io.commits import claim, commit_name, committed_units, part_name
from augengine.io.shards import to_bytes
from augengine.io.store import Store
from augengine.rng import canonical_json

Progress = Callable[[int, int, Mapping[str, int]], None]
MAX_BLOCKS = 2000


@dataclass(frozen=True)
class Unit:
    """A piece of work with an id from its content, so that a rerun knows it again; `spec` is plain JSON."""

    unit_id: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class Actors:
    """How units are spread over the cluster; never changes a row.

    `count` Ray actors with `num_cpus` logical CPUs and `num_gpus` GPUs each; or this process alone (`inline`).
    """

    count: int = 2
    num_cpus: float = 0.5
    num_gpus: float = 0
    inline: bool = False


INLINE = Actors(inline=True)


class Worker(Protocol):
    """Made once per actor; turns a unit's spec into tables by output folder. Bad rows are its own business."""

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Tables by folder name."""


@dataclass(frozen=True)
class Summary:
    """What a folder holds after a run: rows by folder, units made now and before, seconds, worker PIDs.

    `peak_rss_mib` is the largest resident memory of any worker that did work now; 0 where nothing was to do.
    """

    counts: Mapping[str, int]
    made: int
    skipped: int
    seconds: float
    pids: tuple[int, ...]
    peak_rss_mib: float


def run_units(
    units: Sequence[Unit],
    worker_class: Callable[..., Worker],
    worker_args: Mapping[str, Any],
    store: Store,
    fingerprint: Mapping[str, Any],
    *,
    actors: Actors = Actors(),
    progress: Progress | None = None,
) -> Summary:
    """Do every unit that is not committed yet.

    Raises:
        RunError: the folder holds a run with another fingerprint, the cluster cannot hold the actors, or units
            failed as a whole (all others are committed by then; the same command tries those again).
    """
    claim(store, fingerprint)
    done = committed_units(store)
    todo = [u for u in units if u.unit_id not in done]
    counts: Counter[str] = Counter()
    for unit in units:
        if unit.unit_id in done:
            counts.update(store.read_json(commit_name(unit.unit_id))["counts"])
    skipped, pids, errors, started = len(units) - len(todo), set(), [], time.monotonic()
    peak = 0.0
    if progress:
        progress(skipped, len(units), counts)
    run = _inline if actors.inline else _on_ray
    for n, result in enumerate(run(todo, _Work(worker_class, dict(worker_args), store.uri), actors), 1):
        counts.update(result["counts"])
        pids.add(result["pid"])
        peak = max(peak, result["peak_rss_mib"])
        if result["error"]:
            errors.append(result)
        if progress:
            progress(skipped + n, len(units), counts)
    if errors:
        raise RunError(
            f"{len(errors)} of {len(todo)} work units failed", found=errors[0]["error"], where=store.uri,
            next_step="mend the cause and run the same command again; the other units are committed",
        )  # fmt: skip
    return Summary(dict(counts), len(todo), skipped, time.monotonic() - started, tuple(sorted(pids)), peak)


@dataclass(frozen=True)
class _Work:
    """What an actor needs to make its worker."""

    worker_class: Callable[..., Worker]
    worker_args: Mapping[str, Any]
    uri: str


class _Committer:
    """Runs units with one worker and commits each: files by temporary name and rename, the commit record last."""

    def __init__(self, work: _Work) -> None:
        self.store = Store(work.uri)
        self.worker = work.worker_class(**work.worker_args)

    def do(self, unit: Unit) -> dict[str, Any]:
        started = time.monotonic()
        result: dict[str, Any] = {"unit_id": unit.unit_id, "pid": os.getpid(), "counts": {}, "error": ""}
        result["peak_rss_mib"] = 0.0
        try:
            tables = self.worker(unit.spec)
            for folder, table in tables.items():
                if table.num_rows:
                    self.store.write(part_name(folder, unit.unit_id), to_bytes(table))
            result["counts"] = {folder: table.num_rows for folder, table in tables.items()}
            result["peak_rss_mib"] = peak_rss_mib()
            self.store.write_json(
                commit_name(unit.unit_id), {**result, "seconds": round(time.monotonic() - started, 3)}
            )
        except Exception as error:  # a unit must not take the others down: it is reported and stays uncommitted
            result["counts"] = {}
            result["error"] = str(error) if isinstance(error, AugengineError) else f"{type(error).__name__}: {error}"
        return result

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Ray Data's calling convention: columns of JSON text in and out."""
        results = [self.do(Unit(**json.loads(text))) for text in batch["unit"]]
        return {"result": [canonical_json(r) for r in results]}


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _inline(todo: Sequence[Unit], work: _Work, actors: Actors) -> Iterator[dict[str, Any]]:
    committer: _Committer | None = None
    for unit in todo:
        committer = committer or _Committer(work)
        yield committer.do(unit)


def _on_ray(todo: Sequence[Unit], work: _Work, actors: Actors) -> Iterator[dict[str, Any]]:
    if not todo:
        return
    import ray

    free = ray.cluster_resources().get("CPU", 0)
    if actors.count * actors.num_cpus >= free:
        # Ray Data needs CPU for its own tasks; actors that hold every CPU hang silently.
        raise RunError(
            f"{actors.count} actors of {actors.num_cpus} CPU leave nothing for Ray's own tasks", found=f"{free:g} CPUs",
            next_step="use fewer --actors or a smaller --cpus-per-actor",
        )  # fmt: skip
    items = [{"unit": canonical_json({"unit_id": u.unit_id, "spec": u.spec})} for u in todo]
    count = min(actors.count, len(items))
    dataset = ray.data.from_items(items, override_num_blocks=min(len(items), MAX_BLOCKS)).map_batches(
        _Committer,
        fn_constructor_args=(work,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=count, max_size=count),
        num_cpus=actors.num_cpus,
        num_gpus=actors.num_gpus,
    )
    for row in dataset.iter_rows():
        yield json.loads(row["result"])
