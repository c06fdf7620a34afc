"""While a unit is made the next is read and the last is written; outcomes and rows are those of one at a time."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from augengine.errors import RunError
from augengine.io.commits import ATTEMPTS, committed_units, read_records
from augengine.io.store import Store
from augengine.pipeline.committer import Committer, Work
from augengine.pipeline.units import INLINE, Actors, run_units
from augengine.pipeline.workers import Staged, Unit

NAMES = "abcdef"
UNITS = [Unit(name, {"name": name}) for name in NAMES]
WAIT_S = 5.0


class Told:
    """What the stages of one test's worker tell each other: events that come, and are waited for."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.threads: dict[str, set[str]] = {}
        self._changed = threading.Condition()

    def add(self, stage: str, name: str) -> None:
        with self._changed:
            self.order.append(f"{stage} {name}")
            self.threads.setdefault(stage.split()[0], set()).add(threading.current_thread().name)
            self._changed.notify_all()

    def wait(self, event: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: event in self.order, WAIT_S), f"{event} never came"


class Rows(list[str]):
    """What was read of a unit; a list that can be referred to weakly."""


class Stages:
    """Reads a unit's name, makes it twice, writes it; raises where `broken` names a stage of a unit."""

    def __init__(self, told: Told, broken: dict[str, BaseException] | None = None, together: bool = False) -> None:
        self.told, self.broken, self.together = told, broken or {}, together
        self.alive: list[weakref.ref[Rows]] = []
        self.most_alive = 0

    def _at(self, stage: str, name: str) -> None:
        self.told.add(stage, name)
        if f"{stage} {name}" in self.broken:
            raise self.broken[f"{stage} {name}"]

    def read(self, spec: dict[str, Any]) -> Rows:
        self._at("read", spec["name"])
        rows = Rows([spec["name"]])
        self.alive.append(weakref.ref(rows))
        gc.collect()
        self.most_alive = max(self.most_alive, sum(ref() is not None for ref in self.alive))
        return rows

    def make(self, spec: dict[str, Any], read: Rows) -> Rows:
        name = spec["name"]
        self._at("make", name)
        n = NAMES.index(name)
        if self.together and n + 1 < len(NAMES):
            self.told.wait(f"read {NAMES[n + 1]}")
        if self.together and n:
            self.told.wait(f"encode {NAMES[n - 1]}")
        self.told.add("made", name)
        return read

    def encode(self, made: Rows) -> dict[str, pa.Table]:
        if self.together and made[0] != NAMES[-1]:
            self.told.wait(f"make {NAMES[NAMES.index(made[0]) + 1]}")
        self._at("encode", made[0])
        return {"rows": pa.table({"name": [made[0]] * 2})}

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        return self.encode(self.make(spec, self.read(spec)))


@pytest.fixture
def told() -> Told:
    return Told()


def run(store: Store, told: Told, **args: Any) -> Any:
    return run_units(UNITS, Stages, {"told": told, **args}, store, {"version": 1}, actors=INLINE)


def results(store: Store, told: Told, **args: Any) -> Iterator[str]:
    return Committer(Work(Stages, {"told": told, **args}, store, "job", None)).results(UNITS)


def mark(store: Store, name: str) -> None:
    store.create(f"{ATTEMPTS}/{name}.1", b"of a process that died")


def test_three_units_are_in_hand_at_once(store: Store, told: Told) -> None:
    """Each stage waits for its neighbours' in this test: one at a time would never end."""
    assert isinstance(Stages(told), Staged)
    assert run(store, told, together=True).counts == {"rows": 2 * len(UNITS)}
    assert len(told.threads["make"] | told.threads["read"] | told.threads["encode"]) == 3
    assert told.threads["make"] == {threading.current_thread().name}
    assert not store.names(ATTEMPTS)


def test_no_more_than_one_is_read_ahead_and_one_written_behind(store: Store, told: Told) -> None:
    committer = Committer(Work(Stages, {"told": told}, store, "job", None))
    for text in committer.results(UNITS):
        time.sleep(0.02)  # whoever ran ahead would do it now
        name = json.loads(text)["unit_id"]
        begun = [event for event in told.order if event.startswith("read")]
        assert len(begun) <= NAMES.index(name) + 3
    assert committer.worker.most_alive <= 3  # type: ignore[attr-defined]


def test_files_are_those_of_one_at_a_time(store: Store, told: Told) -> None:
    whole = run(store, told)
    alone = store.folder("alone")
    for name in NAMES:
        mark(alone, name)
    assert run(alone, told).files == whole.files
    assert [record.unit_id for record in whole.records.values()] == list(NAMES)


def test_seconds_of_units_do_not_overlap(store: Store, told: Told) -> None:
    started = time.monotonic()
    summary = run(store, told, together=True)
    assert 0 < summary.busy_s <= time.monotonic() - started


@pytest.mark.parametrize("stage", ["read", "make", "encode"])
@pytest.mark.parametrize("name", ["a", "c", "f"])
def test_an_error_is_of_its_unit_alone(store: Store, told: Told, stage: str, name: str) -> None:
    with pytest.raises(RunError, match=r"1 of 6 work units failed; found ValueError: planted"):
        run(store, told, broken={f"{stage} {name}": ValueError("planted")})
    assert committed_units(store) == set(NAMES) - {name}
    assert not store.names(ATTEMPTS)
    assert run(store, Told()).counts == {"rows": 12}


@pytest.mark.parametrize("stage", ["read", "make", "encode"])
def test_an_output_that_cannot_be_written_stops_the_run(store: Store, told: Told, stage: str) -> None:
    with pytest.raises(RunError, match="the disk is full"):
        run(store, told, broken={f"{stage} c": RunError("the disk is full")})
    assert {"a", "b"} <= committed_units(store) <= set("abd")
    assert "make e" not in told.order
    assert not store.names(ATTEMPTS)


@pytest.mark.parametrize("stage", ["read", "make", "encode"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_who_stops_it_keeps_what_was_written_and_no_mark(
    store: Store, told: Told, stage: str, kind: type[BaseException]
) -> None:
    with pytest.raises(kind):
        run(store, told, broken={f"{stage} c": kind()})
    assert {"a", "b"} <= committed_units(store) <= set("abd")
    assert not store.names(ATTEMPTS)
    assert run(store, Told()).counts == {"rows": 12}


def test_who_stops_asking_leaves_the_unit_in_hand_unmade(store: Store, told: Told) -> None:
    asked = results(store, told)
    assert json.loads(next(asked))["unit_id"] == "a"
    asked.close()  # type: ignore[attr-defined]
    assert committed_units(store) == {"a"}
    assert not store.names(ATTEMPTS)


def test_a_unit_that_was_started_before_has_nothing_beside_it(store: Store, told: Told) -> None:
    mark(store, "c")
    run(store, told)
    order = [event for event in told.order if event[-1] in "bcd"]
    assert order.index("encode b") < order.index("make c")
    assert order[order.index("make c") :][:4] == ["make c", "made c", "encode c", "read d"]
    assert not store.names(ATTEMPTS)


def test_units_that_are_committed_are_neither_read_nor_made(store: Store, told: Told) -> None:
    run(store, told)
    again = Told()
    found = [json.loads(text) for text in results(store, again)]
    assert not again.order
    assert {result["unit_id"]: result["record"]["counts"] for result in found} == {
        name: dict(record.counts) for name, record in read_records(store).items()
    }


class Hangs(Stages):
    """Never comes to an end of reading one unit."""

    def read(self, spec: dict[str, Any]) -> Rows:
        if spec["name"] == "b":
            time.sleep(60)
        return super().read(spec)


def test_a_reading_that_hangs_ends_its_process_in_its_own_unit(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from test_read_ahead import UNITS, Committer, Hangs, Store, Told, Work\n"
        "work = Work(Hangs, {'told': Told()}, Store(sys.argv[1]), 'job', 3.0)\n"
        "list(Committer(work).results(UNITS[:3]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (1, b"")
    assert committed_units(Store(tmp_path)) <= {"a"}  # which a slow machine may still be writing
    assert set(Store(tmp_path).names(ATTEMPTS)) - {f"{ATTEMPTS}/a.1"} == {f"{ATTEMPTS}/b.1"}


class Dies:
    """A staged worker that ends its process once in each of some units: in reading, making or encoding."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def _dies_once(self, stage: str, n: int) -> None:
        if {3: "read", 9: "make", 14: "encode"}.get(n) == stage and not (self.folder / f"died{n}").exists():
            (self.folder / f"died{n}").touch()
            os._exit(1)

    def read(self, spec: dict[str, Any]) -> int:
        with (self.folder / "threads").open("a") as file:
            file.write(f"{threading.current_thread().name}\n")
        self._dies_once("read", spec["n"])
        return int(spec["n"])

    def make(self, spec: dict[str, Any], read: int) -> int:
        self._dies_once("make", read)
        return read

    def encode(self, made: int) -> dict[str, pa.Table]:
        self._dies_once("encode", made)
        return {"rows": pa.table({"n": [made] * 3})}

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        return self.encode(self.make(spec, self.read(spec)))


@pytest.mark.slow
def test_an_actor_that_dies_with_several_units_in_hand_loses_none(ray_session: None, tmp_path: Path) -> None:
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import test modules
    units, store = [Unit(f"u{n:02d}", {"n": n}) for n in range(24)], Store(tmp_path / "out")
    summary = run_units(units, Dies, {"folder": str(tmp_path)}, store, {"version": 1}, actors=Actors(1))
    assert summary.counts == {"rows": 3 * 24}
    assert len(summary.pids) >= 2, "the actor died, and another one went on"
    rows = [store.parquet(part.name).read()["n"].to_pylist() for part in summary.files["rows"]]
    assert rows == [[n] * 3 for n in range(24)]
    assert "read-ahead" in (tmp_path / "threads").read_text(), "an actor gets several units at once"
    assert {path.name for path in tmp_path.glob("died*")} == {"died3", "died9", "died14"}
    assert not store.names(ATTEMPTS)
