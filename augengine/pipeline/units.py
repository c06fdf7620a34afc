"""Work units in, committed Parquet files out: each unit exactly once, on Ray actors or in this process."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from augengine.errors import AugengineError, RunError
from augengine.io.commits import Record, claim, read_records, record_name
from augengine.io.dataset import begin
from augengine.io.parts import Part
from augengine.io.run_lock import RunLock
from augengine.io.store import Store
from augengine.io.sweep import sweep
from augengine.io.verify import damaged
from augengine.pipeline.attempts import forgive
from augengine.pipeline.committer import Committer, Work
from augengine.pipeline.resources import fit, waits_for
from augengine.pipeline.retry import set_aside, set_failed_aside
from augengine.pipeline.workers import Staged, Unit, Worker
from augengine.rng import canonical_json

Progress = Callable[[int, int, Mapping[str, int]], None]
MAX_BLOCKS = 2000
MOST_TOGETHER, LEAST_CALLS = 8, 8
"""Units that an actor gets at once, of which it reads one ahead and writes one behind; calls that each actor gets."""


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
        work = Work(worker_class, dict(worker_args), store, lock.run, actors.unit_timeout_s, opened, stage)
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
    work: Work,
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


def _inline(todo: Sequence[Unit], work: Work, actors: Actors) -> Iterator[str]:
    if todo:
        yield from Committer(replace(work, timeout_s=None, stage=None)).results(todo)


def _on_ray(todo: Sequence[Unit], work: Work, actors: Actors) -> Iterator[str]:
    items = [{"unit": canonical_json(asdict(u))} for u in todo]
    staged = isinstance(work.worker_class, type) and issubclass(work.worker_class, Staged)
    for row in on_actors(items, Committer, work, actors, MOST_TOGETHER if staged else 1):
        yield row["result"]


def on_actors(
    items: Sequence[Mapping[str, Any]], worker: Callable[..., Any], argument: Any, actors: Actors, most: int = 1
) -> Iterator[dict[str, Any]]:
    """What `worker(argument)`, made once per Ray Data actor, returns for its items; in no certain order.

    Args:
        most: items that an actor may get at once; it gets fewer where actors would else run out of work early.

    Raises:
        RunError: the cluster does not hold the actors, or does not start them; Ray Data alone would hang silently.
    """
    if not items:
        return
    import ray
    from ray.exceptions import GetTimeoutError

    count = min(fit(actors.count, actors.num_cpus, actors.num_gpus), len(items))
    together = max(1, min(most, len(items) // (LEAST_CALLS * count)))
    blocks = min(-(-len(items) // together), MAX_BLOCKS)
    dataset = ray.data.from_items(list(items), override_num_blocks=blocks).map_batches(
        worker,
        fn_constructor_args=(argument,),
        batch_size=together,
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
