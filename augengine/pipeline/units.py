"""Work units in, committed Parquet files out: each unit exactly once, on Ray actors or in this process."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from augengine.errors import AugengineError, DataError, RunError
from augengine.io.commits import claim, commit_name, committed_units, part_name, sweep, writing
from augengine.io.shards import to_bytes
from augengine.io.store import Store
from augengine.pipeline.attempts import ROW_STARTS, WHOLE_STARTS, attempt, drop_done, forgive
from augengine.pipeline.run_lock import RunLock
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
    An actor that works on one unit for more than `unit_timeout_s` is killed, as if the unit had killed it; what runs in
    this process is never timed out.
    """

    count: int = 2
    num_cpus: float = 0.5
    num_gpus: float = 0
    inline: bool = False
    unit_timeout_s: float | None = None


INLINE = Actors(inline=True)


class Worker(Protocol):
    """Made once per actor; turns a unit's spec into tables by output folder. Bad rows are its own business."""

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Tables by folder name."""


@runtime_checkable
class Divisible(Protocol):
    """A worker whose units can be done row by row, so that the one that kills its process can be told."""

    def divide(self, spec: dict[str, Any]) -> list[dict[str, Any]]:
        """Specs of units of one row each, in an order that is always the same."""

    def quarantine(self, spec: dict[str, Any], why: AugengineError) -> dict[str, pa.Table]:
        """The tables of a unit that cannot be done, without doing it."""


@dataclass(frozen=True)
class Summary:
    """What a folder holds after a run: rows by folder, units made now and before, seconds, worker PIDs.

    `busy_s` is the time that all units took, those of former runs included, without the start of actors.
    `peak_rss_mib` is the largest resident memory of any worker that did work now; 0 where nothing was to do.
    """

    counts: Mapping[str, int]
    made: int
    skipped: int
    seconds: float
    pids: tuple[int, ...]
    peak_rss_mib: float
    busy_s: float


def run_units(
    units: Sequence[Unit],
    worker_class: Callable[..., Worker],
    worker_args: Mapping[str, Any],
    store: Store,
    fingerprint: Mapping[str, Any],
    *,
    files: Mapping[str, str] | None = None,
    actors: Actors = Actors(),
    progress: Progress | None = None,
) -> Summary:
    """Do every unit that is not committed yet.

    Args:
        files: small texts by name that are written into the folder before the work starts.

    Raises:
        RunError: the folder holds a run with another fingerprint, another job works there, it cannot be written, the
            cluster cannot hold the actors, or units failed as a whole (all others are committed by then; the same
            command tries those again).
    """
    with RunLock(store) as lock:
        claim(store, fingerprint)
        for name, text in (files or {}).items():
            store.write(name, text.encode())
        done = committed_units(store)
        drop_done(store, done)
        sweep(store)
        work = _Work(worker_class, dict(worker_args), store.uri, lock.run, actors.unit_timeout_s)
        try:
            summary = _run(units, done, work, store, lock, actors, progress)
        except BaseException:  # actors are killed in mid-unit when the driver ends, through no fault of the unit
            forgive(store, lock.run)
            raise
        sweep(store, 0)  # every unit is committed, so whoever may still write is making what is there
        return summary


def _run(
    units: Sequence[Unit],
    done: set[str],
    work: _Work,
    store: Store,
    lock: RunLock,
    actors: Actors,
    progress: Progress | None,
) -> Summary:
    todo = [u for u in units if u.unit_id not in done]
    counts: Counter[str] = Counter()
    busy = 0.0
    for unit in units:
        if unit.unit_id in done:
            record = store.read_json(commit_name(unit.unit_id))
            counts.update(record["counts"])
            busy += record["seconds"]
    skipped, pids, errors, started = len(units) - len(todo), set(), [], time.monotonic()
    peak = 0.0
    if progress:
        progress(skipped, len(units), counts)
    run = _inline if actors.inline else _on_ray
    for n, text in enumerate(run(todo, work, actors), 1):
        result = json.loads(text)
        lock.check()
        if result["fatal"]:
            raise RunError(**result["fatal"])
        counts.update(result["counts"])
        busy += result["seconds"]
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
    seconds = time.monotonic() - started
    return Summary(dict(counts), len(todo), skipped, seconds, tuple(sorted(pids)), peak, busy)


@dataclass(frozen=True)
class _Work:
    """What an actor needs to make its worker and to commit."""

    worker_class: Callable[..., Worker]
    worker_args: Mapping[str, Any]
    uri: str
    run: str
    timeout_s: float | None


class _Committer:
    """Runs units with one worker and commits each: files by temporary name and rename, the commit record last."""

    def __init__(self, work: _Work) -> None:
        self.store, self.work = Store(work.uri), work
        self.worker = work.worker_class(**work.worker_args)

    def do(self, unit: Unit) -> str:
        """Do and commit one unit; what became of it as JSON, `error` and `fatal` included."""
        result: dict[str, Any] = {
            "unit_id": unit.unit_id, "pid": os.getpid(), "counts": {}, "seconds": 0.0, "peak_rss_mib": 0.0,
            "error": "", "fatal": None,
        }  # fmt: skip
        try:
            result |= self._commit(unit)
        except RunError as error:  # the output cannot be written: no other unit would fare better
            found = None if error.found is None else str(error.found)
            result["fatal"] = {
                "rule": error.rule, "found": found, "next_step": error.next_step, "where": error.where
            }  # fmt: skip
        except Exception as error:  # a unit must not take the others down: it is reported and stays uncommitted
            result["error"] = str(error) if isinstance(error, AugengineError) else f"{type(error).__name__}: {error}"
        return canonical_json(result)

    def _commit(self, unit: Unit) -> dict[str, Any]:
        started = time.monotonic()
        with attempt(self.store, unit.unit_id, self.work.run) as start:
            counts = self._make(unit, start)
            record = {
                "unit_id": unit.unit_id, "pid": os.getpid(), "counts": counts, "peak_rss_mib": peak_rss_mib(),
                "seconds": round(time.monotonic() - started, 3),
            }  # fmt: skip
            self._write(commit_name(unit.unit_id), (canonical_json(record) + "\n").encode())
        return record

    def _make(self, unit: Unit, start: int) -> dict[str, int]:
        """Write the unit's files, whole or row by row or as quarantined; row counts by folder."""
        if parts := self._parts(unit, start):
            return dict(sum((Counter(self._part(part)) for part in parts), Counter()))
        if start > ROW_STARTS:
            limit = f", or ran for more than {self.work.timeout_s:g} s," if self.work.timeout_s else ""
            why = DataError(f"this work killed its process{limit} {ROW_STARTS} times")
            if not isinstance(self.worker, Divisible):
                raise why
            tables = self.worker.quarantine(unit.spec, why)
        else:
            with _deadline(self.work.timeout_s):
                tables = self.worker(unit.spec)
        for folder, table in tables.items():
            if table.num_rows:
                self._write(part_name(folder, unit.unit_id), to_bytes(table))
        return {folder: table.num_rows for folder, table in tables.items()}

    def _parts(self, unit: Unit, start: int) -> list[Unit]:
        """One unit per row, if this one is to be divided; each has files, attempts and a commit of its own, so that
        none is made again when the next one dies.
        """
        first = commit_name(_row_id(unit.unit_id, 0))
        if not isinstance(self.worker, Divisible) or (start <= WHOLE_STARTS and not self.store.exists(first)):
            return []
        rows = self.worker.divide(unit.spec)
        return [Unit(_row_id(unit.unit_id, n), spec) for n, spec in enumerate(rows)] if len(rows) > 1 else []

    def _part(self, part: Unit) -> dict[str, int]:
        name = commit_name(part.unit_id)
        record = self.store.read_json(name) if self.store.exists(name) else self._commit(part)
        counts: dict[str, int] = record["counts"]
        return counts

    def _write(self, name: str, content: bytes) -> None:
        with writing(self.store, name):
            self.store.write(name, content)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Ray Data's calling convention: columns of JSON text in and out."""
        return {"result": [self.do(Unit(**json.loads(text))) for text in batch["unit"]]}


def _row_id(unit_id: str, n: int) -> str:
    return f"{unit_id}-row{n:04d}"


@contextmanager
def _deadline(seconds: float | None) -> Iterator[None]:
    """End this process if the block takes longer: compiled code that hangs cannot be stopped in any other way."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _inline(todo: Sequence[Unit], work: _Work, actors: Actors) -> Iterator[str]:
    committer: _Committer | None = None
    for unit in todo:
        committer = committer or _Committer(replace(work, timeout_s=None))
        yield committer.do(unit)


def _on_ray(todo: Sequence[Unit], work: _Work, actors: Actors) -> Iterator[str]:
    items = [{"unit": canonical_json(asdict(u))} for u in todo]
    for row in on_actors(items, _Committer, work, actors):
        yield row["result"]


def on_actors(
    items: Sequence[Mapping[str, Any]], worker: Callable[..., Any], argument: Any, actors: Actors
) -> Iterator[dict[str, Any]]:
    """What `worker(argument)`, made once per Ray Data actor, returns for each item alone; in no certain order.

    Raises:
        RunError: the actors would leave no CPU for Ray's own tasks; then Ray Data hangs silently.
    """
    if not items:
        return
    import ray

    free = ray.cluster_resources().get("CPU", 0)
    if actors.count * actors.num_cpus >= free:
        raise RunError(
            f"{actors.count} actors of {actors.num_cpus} CPU leave nothing for Ray's own tasks", found=f"{free:g} CPUs",
            next_step="use fewer --actors or a smaller --cpus-per-actor",
        )  # fmt: skip
    count = min(actors.count, len(items))
    dataset = ray.data.from_items(list(items), override_num_blocks=min(len(items), MAX_BLOCKS)).map_batches(
        worker,
        fn_constructor_args=(argument,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=count, max_size=count),
        num_cpus=actors.num_cpus,
        num_gpus=actors.num_gpus,
    )
    yield from dataset.iter_rows()
