"""Units in; each made by one worker and committed once, while the next one is read and the last one is written.

Memory holds at most one unit that is read ahead and one that is being written, besides the one that is made. Whatever
ends a process leaves marks of the units beside it, too: so a unit that was started before is made alone.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

import pyarrow as pa

from augengine.errors import AugengineError, DataError, RunError
from augengine.io.commits import COMMITS, ROWS, Record, commit, find_record, record_name
from augengine.io.parts import Part, row_unit, write_part
from augengine.io.store import Store
from augengine.io.verify import damaged
from augengine.pipeline.attempts import ROW_STARTS, WHOLE_STARTS, attempt
from augengine.pipeline.ray_metrics import RayMetrics
from augengine.pipeline.retry import Retries, earlier_record, failed_samples, joined
from augengine.pipeline.workers import Divisible, Explains, Staged, Unit, Worker
from augengine.rng import canonical_json

Made = tuple[dict[str, int], dict[str, list[Part]], Mapping[str, Mapping[str, int]]]
"""Row counts, files, and reasons with their number of rows, by folder."""
Tables = Mapping[str, pa.Table]


@dataclass(frozen=True)
class Work:
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


class Committer:
    """Runs units with one worker and commits each: files first, the record that lists them last."""

    def __init__(self, work: Work) -> None:
        self.store, self.work = work.store, work
        self.worker = work.worker_class(**work.worker_args)
        self.metrics = RayMetrics(work.stage) if work.stage is not None else None
        self.busy_until = 0.0

    def results(self, units: Iterable[Unit]) -> Iterator[str]:
        """What became of every unit, in their order, as JSON, `error` and `fatal` included.

        A unit's result comes when it is committed. Who stops asking, or is stopped, leaves the unit in hand unmade.
        """
        ahead: Future[Any] | None = None
        behind: Future[str] | None = None
        job: _Job | None = None
        with ThreadPoolExecutor(1, "read-ahead") as reader, ThreadPoolExecutor(1, "write-behind") as writer:
            try:
                for unit, following in pairwise(chain(units, [None])):
                    assert unit is not None
                    job, read, ahead = _Job(self, unit), ahead, None
                    job.begin()
                    if job.alone and behind is not None:
                        yield behind.result()
                        behind = None
                    if following is not None and job.begun and not job.alone and self._reads_ahead(following):
                        ahead = reader.submit(self.worker.read, following.spec)  # type: ignore[attr-defined]
                    job.make(read)
                    if behind is not None:
                        yield behind.result()
                    behind, alone, job = writer.submit(job.finish), job.alone, None
                    if alone:
                        yield behind.result()
                        behind = None
                if behind is not None:
                    yield behind.result()
            finally:
                if job is not None:
                    job.drop()

    def _reads_ahead(self, unit: Unit) -> bool:
        return isinstance(self.worker, Staged) and unit.unit_id not in self.work.opened

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Ray Data's calling convention: columns of JSON text in and out."""
        return {"result": list(self.results(Unit(**json.loads(text)) for text in batch["unit"]))}

    def commit(self, unit: Unit, folder: str = COMMITS) -> Record:
        """Make and commit one unit, or row, and nothing beside it."""
        start = _Start(self, unit, folder)
        start.make(None)
        return start.finish()

    def row(self, row: Unit) -> Record:
        """The record of a row of a unit that is done row by row."""
        record = find_record(self.store, row.unit_id, ROWS)
        if record is not None:
            parts = [part for parts in record.files.values() for part in parts]
            if not damaged(self.store, parts, self.store.local):
                return record
            # Of an attempt that did not know that its unit was committed, whose files were then swept; or damaged.
            self.store.remove(record_name(row.unit_id, ROWS))
        return self.commit(row, ROWS)


class _Job:
    """One unit on its way; whatever goes wrong becomes its result, so that it does not take the others down."""

    def __init__(self, committer: Committer, unit: Unit) -> None:
        self.committer, self.unit = committer, unit
        self.start: _Start | None = None
        self.result: dict[str, Any] = {
            "unit_id": unit.unit_id,
            "pid": os.getpid(),
            "record": None,
            "error": "",
            "fatal": None,
        }

    @property
    def begun(self) -> bool:
        """True for a unit that is to be made."""
        return self.start is not None

    @property
    def alone(self) -> bool:
        """True for a unit that was started before and did not end: it or its neighbour may have killed the process."""
        return self.start is not None and self.start.number > 1

    def begin(self) -> None:
        """Note the start of the unit, unless it is committed."""
        with self._told():
            # Ray starts a block of many units anew when its actor dies; most of them may be done.
            record = find_record(self.committer.store, self.unit.unit_id)
            if record is not None:
                self.result["record"] = record.to_json()
            else:
                self.start = _Start(self.committer, self.unit)

    def make(self, read: Future[Any] | None) -> None:
        """Do the work, with what was read ahead."""
        with self._told():
            if self.start is not None:
                self.start.make(read)

    def finish(self) -> str:
        """Write and commit it, if it was made; what became of it."""
        with self._told():
            if self.start is not None:
                self.result["record"] = self.start.finish().to_json()
        return canonical_json(self.result)

    def drop(self) -> None:
        """Leave it unmade."""
        if self.start is not None:
            self.start.drop(RuntimeError("nobody asks for it any more"))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except RunError as error:  # the output cannot be written: no other unit would fare better
            found = None if error.found is None else str(error.found)
            self.start = None
            self.result["fatal"] = {
                "rule": error.rule,
                "found": found,
                "next_step": error.next_step,
                "where": error.where,
            }
        except Exception as error:  # it is reported and stays uncommitted
            self.start = None
            text = str(error) if isinstance(error, AugengineError) else f"{type(error).__name__}: {error}"
            self.result["error"] = text


class _Start:
    """One start of a unit or row, which counts (`augengine.pipeline.attempts`) unless it ends by an error."""

    def __init__(self, committer: Committer, unit: Unit, folder: str = COMMITS) -> None:
        self.committer, self.unit, self.folder = committer, unit, folder
        self.begun = time.monotonic()
        self.earlier: Record | None = None
        self._mark = ExitStack()
        self.number = self._mark.enter_context(attempt(committer.store, unit.unit_id, committer.work.run))

    def drop(self, error: BaseException) -> None:
        """This start ends by an error, or by nobody's wish."""
        self._mark.__exit__(type(error), error, error.__traceback__)

    @contextmanager
    def _unless_it_raises(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.drop(error)
            raise

    def make(self, read: Future[Any] | None) -> None:
        """Do all that needs the worker's models."""
        committer = self.committer
        with self._unless_it_raises():
            if self.unit.unit_id in committer.work.opened and isinstance(worker := committer.worker, Retries):
                self.earlier = earlier_record(committer.store, self.unit.unit_id)
                if self.earlier:
                    failed = failed_samples(committer.store, self.earlier)
                    self.unit, read = replace(self.unit, spec=worker.again(self.unit.spec, failed)), None
            self._made = self._make(read)

    def _make(self, read: Future[Any] | None) -> Callable[[], Made]:
        """Make the unit whole or row by row or as quarantined; what writes its files comes back."""
        worker, timeout_s, spec = self.committer.worker, self.committer.work.timeout_s, self.unit.spec
        if rows := self._rows():
            made = _together([self.committer.row(row) for row in rows])
            return lambda: made
        if self.number > ROW_STARTS:
            limit = f", or ran for more than {timeout_s:g} s," if timeout_s else ""
            why = DataError(f"this work killed its process{limit} {ROW_STARTS} times")
            if not isinstance(worker, Divisible):
                raise why
            tables = worker.quarantine(spec, why)
            return lambda: self._written(tables)
        with deadline(timeout_s):
            if not isinstance(worker, Staged):
                found = worker(spec)
                return lambda: self._written(found)
            staged = worker
            unencoded = staged.make(spec, staged.read(spec) if read is None else read.result())
        return lambda: self._written(staged.encode(unencoded))

    def _rows(self) -> list[Unit]:
        """One unit per row, if this one is to be divided; each has files, attempts and a record of its own, so that
        none is made again when the next one dies.
        """
        worker, unit = self.committer.worker, self.unit
        begun = record_name(row_unit(unit.unit_id, 0), ROWS)
        if not isinstance(worker, Divisible):
            return []
        if self.number <= WHOLE_STARTS and not self.committer.store.exists(begun):
            return []
        rows = worker.divide(unit.spec)
        return [Unit(row_unit(unit.unit_id, n), spec) for n, spec in enumerate(rows)] if len(rows) > 1 else []

    def _written(self, tables: Tables) -> Made:
        store, worker = self.committer.store, self.committer.worker
        files = {
            folder: [write_part(store, folder, self.unit.unit_id, table)]
            for folder, table in tables.items()
            if table.num_rows
        }
        reasons = worker.reasons(tables) if isinstance(worker, Explains) else {}
        return {folder: table.num_rows for folder, table in tables.items()}, files, reasons

    def finish(self) -> Record:
        """Write the files, then the record that lists them."""
        committer = self.committer
        with self._unless_it_raises():
            counts, files, reasons = self._made()
            del self._made  # and the rows with it
            now = time.monotonic()
            seconds = round(now - max(self.begun, committer.busy_until), 3)  # no second counts for two units
            if self.folder == COMMITS:
                committer.busy_until = now
            record = Record(self.unit.unit_id, counts, files, seconds, os.getpid(), peak_rss_mib(), reasons)
            whole = joined(self.earlier, record) if self.earlier else record
            committed = commit(committer.store, whole, self.folder)
            if committer.metrics is not None and self.folder == COMMITS:  # a unit's rows are counted with it
                committer.metrics.count(record)
            self._mark.close()
            return committed


def _together(records: Sequence[Record]) -> Made:
    """Counts, files and reasons of a unit from those of its rows."""
    counts: Counter[str] = Counter()
    files: dict[str, list[Part]] = {}
    reasons: dict[str, Counter[str]] = {}
    for record in records:
        counts.update(record.counts)
        for folder, parts in record.files.items():
            files.setdefault(folder, []).extend(parts)
        for folder, found in record.reasons.items():
            reasons.setdefault(folder, Counter()).update(found)
    return dict(counts), files, reasons


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
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
