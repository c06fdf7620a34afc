"""A run of two units that dies at every write boundary, again and again: every state of the folder that this can leave.

    python tests/pipeline/kill_boundaries.py FOLDER KILLS UNITS MARKS [STORAGE_OPTIONS EVERY]

UNITS are of `single` and `several`; MARKS are starts that were killed before, as `several.1`, or `none`. Each run is a
process that dies by `os._exit` before or after its n-th rename, link, PUT or removal. What it leaves is a state; states
that differ in process ids, random names and times alone are one. From every state that up to KILLS deaths lead to, a
run follows that nobody disturbs, and its rows are counted. On an object store states are not merged: each EVERY-th
boundary is tried, and further deaths follow at random ones.

The parent imports and forks, and does nothing else: a child of a process with threads may hang, and one of a large
process takes long to start.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from augengine.errors import AugengineError, DataError
from augengine.io import run_lock
from augengine.io.commits import ATTEMPTS, ROWS, committed_files
from augengine.io.dataset import finish, listed_files
from augengine.io.store import Store
from augengine.pipeline.units import INLINE, run_units
from augengine.pipeline.workers import Unit

OUTCOMES = {1: "accepted", 2: "accepted", 3: "rejected", 4: "failed"}
UNITS = {"single": [1], "several": [2, 3, 4]}
BY_NATURE, BY_DEATH = "by nature", "killed"
# A row that stands alone is quarantined by its fourth start, one of several by its sixth: two starts with the others.
ALLOWED_AFTER = {1: 3, 2: 5, 3: 5, 4: 5}
DEAD = 9


@dataclass(frozen=True)
class Case:
    """Units of the run, and starts that were killed before."""

    units: tuple[str, ...]
    marks: tuple[str, ...] = ()
    options: dict[str, Any] | None = None

    @property
    def values(self) -> set[int]:
        return {value for unit in self.units for value in UNITS[unit]}


class Rows:
    """Each value ends in the outcome that is its own."""

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        return self.encode(self.make(spec, self.read(spec)))

    def read(self, spec: dict[str, Any]) -> list[int]:
        return list(spec["values"])

    def make(self, spec: dict[str, Any], read: list[int]) -> list[int]:
        assert read == spec["values"]
        return read

    def encode(self, made: list[int]) -> dict[str, pa.Table]:
        return {
            folder: pa.table({"value": values, "reason": [BY_NATURE] * len(values)})
            for folder in ("accepted", "rejected", "failed")
            for values in [[v for v in made if OUTCOMES[v] == folder]]
        }

    def divide(self, spec: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"values": [v]} for v in spec["values"]]

    def quarantine(self, spec: dict[str, Any], why: AugengineError) -> dict[str, pa.Table]:
        return {"failed": pa.table({"value": spec["values"], "reason": [BY_DEATH] * len(spec["values"])})}


def job(store: Store, units: Sequence[str]) -> None:
    """What is killed: all units, then the manifest and the success mark."""
    work = [Unit(name, {"values": UNITS[name]}) for name in units]
    summary = run_units(work, Rows, {}, store, {"version": 1}, actors=INLINE)
    finish(store, {"counts": summary.counts}, summary.files)


def boundaries(store: Store, at: int | None) -> Iterator[int]:
    """Count every write of this process, before and after, and die at the `at`-th; yields nothing, tells the count."""
    seen = count(1)
    last = [0]

    def boundary() -> None:
        last[0] = next(seen)
        if last[0] == at:
            os._exit(DEAD)

    def watched(write: Callable[..., Any]) -> Callable[..., Any]:
        def writes(*args: Any, **options: Any) -> Any:
            boundary()
            result = write(*args, **options)
            boundary()
            return result

        return writes

    places = [(os, "replace"), (os, "link"), (os, "unlink")]
    for owner, name in places if store.local else [(store.fs, "pipe_file"), (store.fs, "rm_file")]:
        setattr(owner, name, watched(getattr(owner, name)))
    os.fsync = lambda descriptor: None  # type: ignore[assignment]  # no power is lost here, and it takes most of the time
    yield 0
    yield last[0]


def forked(work: Callable[[], Any]) -> Any:
    """What `work` returns in a process of its own, as JSON; None if that died at a boundary."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            result = work()
        except BaseException as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(write, "w") as pipe:
            pipe.write(json.dumps(result))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, DEAD), f"a run ended with {code}"
    result = json.loads(text) if text else None
    if isinstance(result, dict) and "error" in result:
        raise AssertionError(result["error"])
    return result


def dies(case: Case, uri: str, at: int) -> bool:
    """Run, and die at a boundary; False if the run ended before."""

    def work() -> int:
        store = Store(uri, case.options)
        next(boundaries(store, at))
        job(store, case.units)
        return 1

    return forked(work) is None


def undisturbed(case: Case, uri: str) -> tuple[dict[str, Any], dict[str, Any], int]:
    """What a reader finds before and after a run that nobody disturbs, and how many boundaries that had."""

    def work() -> tuple[dict[str, Any], dict[str, Any], int]:
        store = Store(uri, case.options)
        before = told(store)
        watch = boundaries(store, None)
        next(watch)
        job(store, case.units)
        seen = next(watch)
        return before, told(store), seen

    before, after, seen = forked(work)
    return before, after, seen


def told(store: Store) -> dict[str, Any]:
    """What a reader finds in a folder: rows by outcome and reason, or that it is no data set yet."""
    try:
        files = listed_files(store)
    except DataError as error:
        return {"unfinished": str(error)}
    found, listed = [], set()
    for kind, parts in files.items():
        assert sorted(part.name for part in parts) == committed_files(store, kind)
        for part in parts:
            listed.add(part.name)
            content = store.read(part.name)
            assert (len(content), hashlib.sha256(content).hexdigest()) == (part.bytes, part.sha256)
            rows = store.parquet(part.name).read().to_pylist()
            assert len(rows) == part.rows
            found += [[row["value"], kind, row["reason"]] for row in rows]
    there = {name for folder in ("accepted", "rejected", "failed") for name in store.sizes(folder)}
    left = [*(there - listed), *store.sizes(ATTEMPTS), *store.sizes(ROWS)]
    left += [name for folder in ("", "_commits") for name in store.sizes(folder) if ".tmp-" in name]
    left += ["_lock.json"] if store.exists("_lock.json") else []
    return {"rows": found, "left": left}


class NoPandas:
    """Pyarrow would import it, in every child."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ImportError(name)


class Tally:
    """What was found so far; anything lost or doubled stays in `bad` with the deaths that led there."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.counts: Counter[str] = Counter()
        self.bad: list[str] = []

    def check(self, found: dict[str, Any], deaths: tuple[int, ...], *, finished: bool) -> None:
        """A folder after some deaths and, if `finished`, an undisturbed run."""
        if "unfinished" in found:
            if finished:
                self.bad.append(f"{deaths}: {found}")
            self.counts["states that readers refuse"] += 1
            return
        values = Counter(value for value, _, _ in found["rows"])
        lost, doubled = self.case.values - set(values), {v for v, n in values.items() if n > 1}
        wrong = [r for r in found["rows"] if not self._right(*r, len(self.case.marks) + len(deaths))]
        self.counts["lost"] += len(lost)
        self.counts["doubled"] += len(doubled)
        self.counts["quarantined"] += sum(reason == BY_DEATH for _, _, reason in found["rows"])
        self.counts["undisturbed runs" if finished else "states that are data sets"] += 1
        if lost or doubled or wrong or (finished and found["left"]):
            self.bad.append(f"{deaths}: {found}")

    @staticmethod
    def _right(value: int, kind: str, reason: str, deaths: int) -> bool:
        if reason == BY_NATURE:
            return kind == OUTCOMES[value]
        return kind == "failed" and deaths >= ALLOWED_AFTER[value]


def state(folder: Path) -> str:
    """Digest of what lies in a folder, but for process ids, random names and times."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=_name):
        if path.is_file():
            content = path.read_bytes()
            if path.parent.name == ATTEMPTS or path.name == "_lock.json" or path.name.startswith(".tmp-"):
                content = b""
            elif path.parent.name in ("_commits", ROWS):
                values = json.loads(content)
                content = json.dumps([values["counts"], values["files"]]).encode()
            digest.update(f"{path.parent.name}/{_name(path)}:{len(content)}:".encode() + content)
    return digest.hexdigest()


def _name(path: Path) -> str:
    return f"{path.parent.name}/{re.sub(r'-[0-9]+-[0-9a-f]{8}$', '', path.name)}"


def local(case: Case, folder: Path, kills: int) -> Tally:
    """Every state that up to `kills` deaths lead to."""
    tally, known = Tally(case), {""}
    begun, work = folder / "begun", folder / "work"
    (begun / "0" / ATTEMPTS).mkdir(parents=True)
    for mark in case.marks:
        (begun / "0" / ATTEMPTS / mark).touch()
    frontier: list[tuple[Path, tuple[int, ...]]] = [(begun / "0", ())]
    while frontier:
        start, deaths = frontier.pop(0)
        before, after, total = undisturbed(case, str(_restored(start, work)))
        tally.check(before, deaths, finished=False)
        tally.check(after, deaths, finished=True)
        for at in range(1, total + 1) if len(deaths) < kills else ():
            assert dies(case, str(_restored(start, work)), at)
            tally.counts["deaths"] += 1
            if (found := state(work)) not in known:
                known.add(found)
                frontier.append((_restored(work, begun / str(len(known))), (*deaths, at)))
    tally.counts["states"] = len(known)
    return tally


def _restored(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


def remote(case: Case, uri: str, kills: int, every: int) -> Tally:
    """Each `every`-th boundary of a first run; in every third such folder, further deaths at random boundaries."""
    tally, pick = Tally(case), random.Random(0)
    for n, first in enumerate(count(1, every)):
        place, deaths = f"{uri}/{first}", (first,)
        forked(lambda place=place: [Store(place, case.options).write(f"{ATTEMPTS}/{m}", b"") for m in case.marks])
        if not dies(case, place, first):
            return tally
        tally.counts["deaths"] += 1
        while n % 3 == 0 and len(deaths) < kills and dies(case, place, at := pick.randint(1, 12)):
            tally.counts["deaths"] += 1
            deaths = (*deaths, at)
        before, after, _ = undisturbed(case, place)
        tally.check(before, deaths, finished=False)
        tally.check(after, deaths, finished=True)
    raise AssertionError("a run ends")


def main() -> None:
    """Print the counts, and what was wrong, as JSON."""
    place, kills, units, marks, *rest = sys.argv[1:]
    run_lock.RENEW_S = 3600.0  # no heartbeat
    sys.meta_path.insert(0, NoPandas)  # type: ignore[arg-type]
    options, every = (json.loads(rest[0]), int(rest[1])) if rest else (None, 1)
    if options:
        import s3fs  # noqa: F401  # once for all children
    before = () if marks == "none" else tuple(marks.split(","))
    case = Case(tuple(units.split(",")), before, options)
    tally = remote(case, place, int(kills), every) if options else local(case, Path(place), int(kills))
    sys.stdout.write(json.dumps({"counts": dict(tally.counts), "bad": tally.bad}) + "\n")


if __name__ == "__main__":
    main()
