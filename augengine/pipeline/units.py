"""Work units in, committed Parquet files out: each unit exactly once, on Ray actors or in this process."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from augengine.errors import AugengineError, DataError, RunError
from augengine.io.commits import COMMITS, ROWS, Record, claim, commit, find_record, read_records, record_name
from augengine.io.dataset import begin
from augengine.io.parts import Part, row_unit, write_part
from augengine.io.run_lock import RunLock
from augengine.io.store import Store
from augengine.io.sweep import sweep
from augengine.io.verify import damaged
from augengine.pipeline.attempts import ROW_STARTS, WHOLE_STARTS, attempt, forgive
from augengine.pipeline.ray_metrics import RayMetrics
from augengine.pipeline.resources import fit, waits_for
from augengine.pipeline.retry import Retries, earlier_record, failed_samples, joined, set_aside, set_failed_aside
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

    `count` Ray actors with `num_cpus` logical CPUs and `num_gpus` GPUs each (None: as many as the cluster holds, see
    `augengine.pipeline.resources.fit`); or this process alone (`inline`).
    An actor that works on one unit for more than `unit_timeout_s` is killed, as if the unit had killed it; what runs in
    this process is never timed out.
    """

    count: int | None = 2
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


@runtime_checkable
class Explains(Protocol):
    """A worker that can say in short why rows came where they did."""

    def reasons(self, tables: Mapping[str, pa.Table]) -> dict[str, dict[str, int]]:
        """By folder, reasons with their number of rows; of unlike ones only the commonest."""


@dataclass(frozen=True)
class Summary:
    """What a folder holds after a run.

    Attributes:
        records: what every unit of the run committed, now or before, in the order of the units.
        made, skipped: units made now and before.
        pids, peak_rss_mib: workers that did work now, and the largest resident memory of any; 0 if none did.
    """

    records: Mapping[str, Record]
    made: int
    skipped: int
    seconds: float
    pids: tuple[int, ...]
    peak_rss_mib: float

    @property
    def counts(self) -> dict[str, int]:
        """Rows by folder."""
        return dict(_total(self.records.values()))

    @property
    def files(self) -> dict[str, list[Part]]:
        """Files by folder, those of each in the order of the units."""
        found: dict[str, list[Part]] = {folder: [] for folder in self.counts}
        for record in self.records.values():
            for folder, parts in record.files.items():
                found[folder] += parts
        return found

    @property
    def retried(self) -> dict[str, int]:
        """Rows that had failed and were tried again, now or by a former run, by folder in which they are now."""
        counts: Counter[str] = Counter()
        for record in self.records.values():
            counts.update(record.retried)
        return dict(counts)

    @property
    def busy_s(self) -> float:
        """The time that all units took, those of former runs included, without the start of actors."""
        return sum(record.seconds for record in self.records.values())


def _total(records: Iterable[Record]) -> Counter[str]:
    """Rows by folder; those of folders that got none, too."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record.counts)
    return counts


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
    watch: Callable[[Record], None] | None = None,
    retry_failed: bool = False,
) -> Summary:
    """Do every unit that is not committed yet.

    Args:
        files: small texts by name that are written into the folder before the work starts.
        watch: is shown every record, first those of former runs; what it raises ends the run.
        retry_failed: try failed rows of committed units again, if the worker is one of `Retries`.

    Raises:
        RunError: the folder holds a run with another fingerprint, another job works there, it cannot be written, the
            cluster cannot hold the actors, or units failed as a whole (all others are committed by then; the same
            command tries those again).
    """
    with RunLock(store) as lock:
        claim(store, fingerprint)
        for name, text in (files or {}).items():
            store.write(name, text.encode())
        done = _intact(store, read_records(store, {unit.unit_id for unit in units}))
        if len(done) < len(units) or (retry_failed and any(record.counts.get("failed") for record in done.values())):
            begin(store)
        if retry_failed:
            done = set_failed_aside(store, done)
        opened = set_aside(store) if len(done) < len(units) else frozenset()
        stage = str(fingerprint.get("stage", "augment"))
        work = _Work(worker_class, dict(worker_args), store, lock.run, actors.unit_timeout_s, opened, stage)
        try:
            summary = _run(units, done, work, lock, actors, progress, watch)
        except BaseException:  # actors are killed in mid-unit when the driver ends, through no fault of the unit
            with suppress(AugengineError):  # a lost disk has its own error
                forgive(store, lock.run)
            raise
        lock.check()
        sweep(store, summary.records)
        return summary


def _intact(store: Store, done: Mapping[str, Record]) -> dict[str, Record]:
    """The records whose files are as they were written; others go, so that their units are made again.

    On object stores, which check what they hold themselves, sizes alone are compared.
    """
    parts = [(unit_id, part) for unit_id, record in done.items() for of in record.files.values() for part in of]
    wrong = damaged(store, (part for _, part in parts), deep=store.local)
    lost = {unit_id for unit_id, part in parts if part.name in wrong}
    for unit_id in sorted(lost):
        store.remove(record_name(unit_id))
    if wrong:
        name, problem = next(iter(sorted(wrong.items())))
        text = f"{len(wrong)} committed files are damaged ({name}: {problem}): {len(lost)} work units are made again"
        print(f"note: {store.uri}: {text}", file=sys.stderr)  # noqa: T201  (Ray silences loggers of others)
    return {unit_id: record for unit_id, record in done.items() if unit_id not in lost}


def _run(
    units: Sequence[Unit],
    done: Mapping[str, Record],
    work: _Work,
    lock: RunLock,
    actors: Actors,
    progress: Progress | None,
    watch: Callable[[Record], None] | None,
) -> Summary:
    for unit in units:
        if watch and unit.unit_id in done:
            watch(done[unit.unit_id])
    todo = [u for u in units if u.unit_id not in done]
    counts = _total(done.values())
    made: dict[str, Record] = {}
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
        pids.add(result["pid"])
        if result["error"]:
            errors.append(result)
        else:
            record = made[result["unit_id"]] = Record.from_json(result["record"])
            counts.update(record.counts)
            peak = max(peak, record.peak_rss_mib)
            if watch:
                watch(record)
        if progress:
            progress(skipped + n, len(units), counts)
    if errors:
        raise RunError(
            f"{len(errors)} of {len(todo)} work units failed",
            found=errors[0]["error"],
            where=work.store.uri,
            next_step="mend the cause and run the same command again; the other units are committed",
        )
    found = {**done, **made}
    seconds = time.monotonic() - started
    records = {unit.unit_id: found[unit.unit_id] for unit in units}
    return Summary(records, len(todo), skipped, seconds, tuple(sorted(pids)), peak)


Made = tuple[dict[str, int], dict[str, list[Part]], Mapping[str, Mapping[str, int]]]
"""Row counts, files, and reasons with their number of rows, by folder."""


@dataclass(frozen=True)
class _Work:
    """What an actor needs to make its worker and to commit."""

    worker_class: Callable[..., Worker]
    worker_args: Mapping[str, Any]
    store: Store
    run: str
    timeout_s: float | None
    opened: frozenset[str] = frozenset()
    """Units of which only the failed rows are to be made."""
    stage: str | None = None
    """Name under which actors count what they commit; None counts nothing."""


class _Committer:
    """Runs units with one worker and commits each: files first, the record that lists them last."""

    def __init__(self, work: _Work) -> None:
        self.store, self.work = work.store, work
        self.worker = work.worker_class(**work.worker_args)
        self.metrics = RayMetrics(work.stage) if work.stage is not None else None

    def do(self, unit: Unit) -> str:
        """Do and commit one unit; what became of it as JSON, `error` and `fatal` included."""
        result: dict[str, Any] = {
            "unit_id": unit.unit_id,
            "pid": os.getpid(),
            "record": None,
            "error": "",
            "fatal": None,
        }
        try:
            # Ray starts a block of many units anew when its actor dies; most of them may be done.
            record = find_record(self.store, unit.unit_id) or self._commit(unit)
            result["record"] = record.to_json()
        except RunError as error:  # the output cannot be written: no other unit would fare better
            found = None if error.found is None else str(error.found)
            result["fatal"] = {"rule": error.rule, "found": found, "next_step": error.next_step, "where": error.where}
        except Exception as error:  # a unit must not take the others down: it is reported and stays uncommitted
            result["error"] = str(error) if isinstance(error, AugengineError) else f"{type(error).__name__}: {error}"
        return canonical_json(result)

    def _commit(self, unit: Unit, folder: str = COMMITS) -> Record:
        started = time.monotonic()
        with attempt(self.store, unit.unit_id, self.work.run) as start:
            earlier = None
            if unit.unit_id in self.work.opened and isinstance(worker := self.worker, Retries):
                earlier = earlier_record(self.store, unit.unit_id)
                if earlier:
                    unit = replace(unit, spec=worker.again(unit.spec, failed_samples(self.store, earlier)))
            counts, files, reasons = self._make(unit, start)
            seconds = round(time.monotonic() - started, 3)
            record = Record(unit.unit_id, counts, files, seconds, os.getpid(), peak_rss_mib(), reasons)
            committed = commit(self.store, joined(earlier, record) if earlier else record, folder)
            if self.metrics is not None and folder == COMMITS:  # a unit's rows are counted with it
                self.metrics.count(record)
            return committed

    def _make(self, unit: Unit, start: int) -> Made:
        """Write the unit's files, whole or row by row or as quarantined."""
        if rows := self._rows(unit, start):
            return _together([self._row(row) for row in rows])
        if start > ROW_STARTS:
            limit = f", or ran for more than {self.work.timeout_s:g} s," if self.work.timeout_s else ""
            why = DataError(f"this work killed its process{limit} {ROW_STARTS} times")
            if not isinstance(self.worker, Divisible):
                raise why
            tables = self.worker.quarantine(unit.spec, why)
        else:
            with _deadline(self.work.timeout_s):
                tables = self.worker(unit.spec)
        files = {
            folder: [write_part(self.store, folder, unit.unit_id, table)]
            for folder, table in tables.items()
            if table.num_rows
        }
        reasons = self.worker.reasons(tables) if isinstance(self.worker, Explains) else {}
        return {folder: table.num_rows for folder, table in tables.items()}, files, reasons

    def _rows(self, unit: Unit, start: int) -> list[Unit]:
        """One unit per row, if this one is to be divided; each has files, attempts and a record of its own, so that
        none is made again when the next one dies.
        """
        begun = record_name(row_unit(unit.unit_id, 0), ROWS)
        if not isinstance(self.worker, Divisible) or (start <= WHOLE_STARTS and not self.store.exists(begun)):
            return []
        rows = self.worker.divide(unit.spec)
        return [Unit(row_unit(unit.unit_id, n), spec) for n, spec in enumerate(rows)] if len(rows) > 1 else []

    def _row(self, row: Unit) -> Record:
        record = find_record(self.store, row.unit_id, ROWS)
        if record is not None:
            parts = [part for parts in record.files.values() for part in parts]
            if not damaged(self.store, parts, self.store.local):
                return record
            # Of an attempt that did not know that its unit was committed, whose files were then swept; or damaged.
            self.store.remove(record_name(row.unit_id, ROWS))
        return self._commit(row, ROWS)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Ray Data's calling convention: columns of JSON text in and out."""
        return {"result": [self.do(Unit(**json.loads(text))) for text in batch["unit"]]}


def _together(records: Sequence[Record]) -> Made:
    """Counts, files and reasons of a unit from those of its rows."""
    files: dict[str, list[Part]] = {}
    reasons: dict[str, Counter[str]] = {}
    for record in records:
        for folder, parts in record.files.items():
            files.setdefault(folder, []).extend(parts)
        for folder, found in record.reasons.items():
            reasons.setdefault(folder, Counter()).update(found)
    return dict(_total(records)), files, reasons


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
        committer = committer or _Committer(replace(work, timeout_s=None, stage=None))
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
        RunError: the cluster does not hold the actors, or does not start them; Ray Data alone would hang silently.
    """
    if not items:
        return
    import ray
    from ray.exceptions import GetTimeoutError

    count = min(fit(actors.count, actors.num_cpus, actors.num_gpus), len(items))
    dataset = ray.data.from_items(list(items), override_num_blocks=min(len(items), MAX_BLOCKS)).map_batches(
        worker,
        fn_constructor_args=(argument,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=count, max_size=count),
        num_cpus=actors.num_cpus,
        num_gpus=actors.num_gpus,
    )
    try:
        yield from dataset.iter_rows()
    except GetTimeoutError:
        raise RunError(
            f"{count} actors must start within {ray.data.DataContext.get_current().wait_for_min_actors_s} s",
            found=f"waiting for {waits_for(count, actors.num_cpus, actors.num_gpus) or 'them to load their models'}",
            next_step="run the same command again when other jobs have ended, or with fewer --actors",
        ) from None
