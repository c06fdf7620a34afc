"""Ingest, train, augment and export again and again on two nodes, with a fault a minute; what became of it, out.

    python benchmarks/soak.py --minutes 60

Needs root, for a small disk that is filled, made read-only and slowed down; without it these faults are left out.
DICOM series, of which every fiftieth patient has a file that is cut off, are ingested from there, a small generator is
trained, rows are made and exported, all by the commands that users type. Every fiftieth row that is augmented is
damaged in one of several ways: it must fail, for the same reason in every chain. A command that ends badly is typed
again. The first chain is undisturbed, and so is one after the last fault; all others must end with its rows, byte by
byte.

A fault's recovery is told twice. *Back*: the time from its end until the next unit, training step, exported file or
finished command. *Rate back*: the time until work goes on at half the undisturbed speed or more, held for `WINDOW_S`.
Work is counted in seconds of the undisturbed chain, so start-ups of commands count for what they took there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import pyarrow as pa
from _faults import Disk, Faults
from _pace import WINDOW_S, Pace
from _record import record
from _two_nodes import TwoNodes
from kill_matrix import rows
from mri_files import write_series

from augengine.io.commits import committed_files
from augengine.io.dataset import dataset_files, write_dataset
from augengine.io.shards import SCHEMA, iter_samples, read_group
from augengine.io.store import Store

RECIPE = """\
version: 1
name: soak
kind: acquisition
seed: 0
network: {body: compact, channels: [8, 16], head_channels: 8, norm_groups: 4, token_dim: 8}
diffusion: {parametrisation: x0, schedule: cosine, timesteps: 100}
data: {validation_rows: 8}
optimiser: {batch_size: 8, learning_rate: 1.0e-3, weight_decay: 0.0, warmup_steps: 0, ema_decay: 0.9}
checkpoint_minutes: 0.05
steps: STEPS
"""
POLICY = """\
version: 1
name: soak
edit: acquisition
params: {method: sdedit, target: {empirical: {from: samples}}}
sampler: {solver: ddim, steps: 25}
gates: [{name: changed, min: 0.0}]
output: {max_reject_rate: 1.0, max_fail_rate: 0.2, micro_batch: 4}
"""
PERIOD_S, ATTEMPTS = 60.0, 40
HEAD_CPUS, NODE_CPUS = 2, 2
POISON_EVERY = 50
WANTED_S = 60.0
PATIENCE_S = 120.0
STAGES = ("ingest", "train", "augment", "export", "check")
Values = dict[str, Any]


def _not_numbers(row: Values) -> Values:
    size = int(np.prod(row["image_shape"]))
    return {"image": np.full(size, np.nan, "<f4").tobytes(), "image_dtype": "<f4"}


POISONS: Sequence[Callable[[Values], Values]] = (
    lambda row: {"image": row["image"][:-2]},
    _not_numbers,
    lambda row: {"subject_id": None},
    lambda row: {"intensity_low": [high + 1 for high in row["intensity_high"]]},
    lambda row: {"acquisition": {**row["acquisition"], "flip_angle_deg": -1.0}},
)
"""What another tool, or memory that went bad, may have made of a row: the values that it changed."""


@dataclass
class Soak:
    """The cluster's address, the folders, and what happened so far."""

    address: str
    source: Path
    disk: Path
    logs: Path
    settings: Path
    process: subprocess.Popen[bytes] | None = None
    stage: str = "none"
    problem: str = ""
    pace: Pace = field(default_factory=lambda: Pace(STAGES))
    commands: list[dict[str, Any]] = field(default_factory=list)

    def chain(self, name: str) -> dict[str, Any]:
        """All four stages into a new folder; what it holds and how long it took."""
        out, poisoned, began = self.disk / name, self.settings / "poisoned", time.monotonic()
        self.pace.begin()
        watch = threading.Thread(target=self._watch, args=(out, over := threading.Event()), daemon=True)
        watch.start()
        data, model, run = str(out / "data"), str(out / "model"), str(out / "run")
        ingest = ["--layout", "dicom", "--size", "32", "--fractions", "0.9,0.05,0.05", "--actors", "2"]
        self.finish(name, "ingest", str(self.source), "--out", data, *ingest)
        self.finish(
            name, "train", str(self.settings / "recipe.yaml"), "--data", data, "--out", model, "--cpu", "--threads", "1"
        )
        policy, checkpoint = str(self.settings / "policy.yaml"), f"{model}/checkpoint"
        more = ["--policy", policy, "--checkpoint", checkpoint, "--actors", "2"]
        poisons = poison(data, poisoned)
        self.finish(name, "augment", "--data", str(poisoned), "--out", run, *more)
        shown = ["--unlabelled", "keep", "--actors", "2"]
        self.finish(
            name, "export", "webdataset", data, "--augmented", f"{run}/augmented", "--out", f"{out}/tars", *shown
        )
        self.finish(name, "check", data, f"{run}/augmented", "--deep")
        over.set()
        watch.join()
        found = {"seconds": round(time.monotonic() - began, 1), **contents(out, poisons)}
        shutil.rmtree(out)
        return found

    def finish(self, chain: str, stage: str, *arguments: str) -> None:
        """Type a command until it ends well."""
        for attempt in range(ATTEMPTS):
            log = self.logs / f"{chain}-{stage}-{attempt}.log"
            self.stage, began = stage, time.monotonic()
            with log.open("wb") as file:
                self.process = subprocess.Popen(
                    [str(Path(sys.executable).with_name("augengine")), stage, *arguments],
                    stdout=file,
                    stderr=file,
                    env={**os.environ, "RAY_ADDRESS": self.address},
                )
                code = self.process.wait()
            text = log.read_text(errors="replace")
            lines = [line for line in text.splitlines() if line.strip()]
            told = [line for line in lines if line.startswith("error: ")] or lines  # Ray may say more after it
            last = "".join(told[-1:]).replace(str(self.disk), "DISK")
            self.commands.append(
                {
                    "chain": chain,
                    "stage": stage,
                    "exit_code": code,
                    "seconds": round(time.monotonic() - began, 1),
                    "last_line": last[:400] if code else "",
                    "traceback": "Traceback" in text,
                }
            )
            if code == 0:
                self.pace.finish(stage)
                return
            time.sleep(2)
        raise RuntimeError(f"{stage} did not end well in {ATTEMPTS} attempts: {log}")

    def _watch(self, out: Path, over: threading.Event) -> None:
        """Note what stands in the folder."""
        patterns = {
            "ingest": ("data/_commits/*.json",),
            "augment": ("run/augmented/_commits/*.json",),
            "export": ("tars/.augengine/_commits/*.json", "tars/*.tar"),
        }
        while not over.wait(0.25):
            stage = self.stage
            if stage == "train":
                self.pace.done(stage, _step(out / "model"))
            elif stage in patterns:
                self.pace.done(stage, sum(len(list(out.glob(pattern))) for pattern in patterns[stage]))


def _step(model: Path) -> float:
    """The last step that the metrics of a training tell."""
    try:
        lines = (model / "metrics.jsonl").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return 0.0
    return float(json.loads(lines[-1])["step"]) if lines else 0.0


def poison(data: str, folder: Path) -> dict[str, str]:
    """The same rows with every fiftieth of those to be augmented damaged: their ids, and by which of `POISONS`."""
    source, tables, found = Store(data), [], dict[str, str]()
    files = [source.parquet(name) for name in dataset_files(source)]
    groups = [read_group(file, n, SCHEMA.names).to_pylist() for file in files for n in range(file.num_row_groups)]
    ids = sorted(row["sample_id"] for rows_of_group in groups for row in rows_of_group if row["split"] == "train")
    chosen = {sample_id: n % len(POISONS) for n, sample_id in enumerate(ids[POISON_EVERY - 1 :: POISON_EVERY])}
    for rows_of_group in groups:
        for row in rows_of_group:
            if (which := chosen.get(row["sample_id"])) is not None:
                row |= POISONS[which](row)
                found[row["sample_id"]] = str(which)
        tables.append(pa.Table.from_pylist(rows_of_group, schema=SCHEMA))
    write_dataset(str(folder), tables)
    return found


def lost(run: str) -> dict[str, str]:
    """Rows that failed or were skipped, and why."""
    store = Store(run)
    tables = [store.parquet(name).read() for kind in ("failed", "skipped") for name in committed_files(store, kind)]
    return {row["sample_id"]: f"{row['stage']}: {row['reason']}" for table in tables for row in table.to_pylist()}


def contents(out: Path, poisons: dict[str, str]) -> dict[str, Any]:
    """What a chain made: outcomes, hashes of rows, of the model and of the export; whether the poisoned rows failed."""
    data, run = Store(str(out / "data")), f"{out}/run/augmented"
    ingested = {
        s.sample_id: hashlib.sha256(s.image.tobytes()).hexdigest() for s in iter_samples(data, dataset_files(data))
    }
    made, twice = rows(run)
    manifest = json.loads((Path(run) / "manifest.json").read_text())
    counts = {"requested": manifest["requested"], **manifest["counts"]}
    reasons = lost(run)
    tars = sorted((out / "tars").rglob("*.tar"))
    return {
        "counts": counts,
        "reconciles": counts["requested"] == len(made) == sum(v for k, v in counts.items() if k != "requested"),
        "twice": twice,
        "poisoned": len(poisons),
        "poisoned_failed": len(poisons.keys() & reasons.keys()),
        "failed_unpoisoned": len(reasons.keys() - poisons.keys()),
        "reasons": _digest(reasons),
        "ingested": _digest(ingested),
        "model": hashlib.sha256((out / "model/checkpoint/model.safetensors").read_bytes()).hexdigest(),
        "rows": _digest(made),
        "exported": _digest({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tars}),
    }


def _digest(value: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_source(folder: Path, patients: int, slices: int) -> None:
    """Small DICOM series; every fiftieth patient has a file that is cut off."""
    rng = np.random.default_rng(0)
    for n in range(patients):
        pixels = rng.integers(1, 900, (32, 32, slices)).astype(np.uint16)
        tags = {"PatientID": f"P{n:04d}", "StudyInstanceUID": f"1.2.3.{n}.1", "EchoTime": f"{1.5 + n % 7 / 10:.1f}"}
        paths = write_series(folder / f"P{n:04d}", pixels, series=f"1.2.3.{n}", spacing=(2, 2), **tags)
        if n % POISON_EVERY == 7:
            paths[0].write_bytes(paths[0].read_bytes()[:-500])


def main() -> int:
    """Run the chains and the faults, write the record; 1 if a row is not right or a recovery too slow."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument(
        "--minutes", type=float, default=60, help="of disturbed work; the last chain is brought to its end"
    )
    flags.add_argument("--patients", type=int, default=100)
    flags.add_argument("--slices", type=int, default=6, help="of each patient")
    flags.add_argument("--steps", type=int, default=150, help="of training")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--no-record", action="store_true", help="try it out without touching results/")
    flags.add_argument("--scratch", type=Path, help="folder for the small disk and the data")
    flags.add_argument("--logs", type=Path, default=Path("runs/soak"), help="logs of all commands")
    given = flags.parse_args()
    given.logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-", dir=given.scratch) as scratch:
        figures = _soaked(given, Path(scratch))
    if not given.no_record:
        record("soak", figures)
    print(json.dumps({k: v for k, v in figures.items() if k not in ("faults", "commands")}, indent=1))
    wrong = [
        figures["chains_equal"] < figures["chains"],
        not _as_poisoned(figures["undisturbed"]),
        figures["tracebacks"],
        figures["slow_recoveries"],
        figures["slow_rates"],
    ]
    return int(any(wrong))


def _as_poisoned(chain: dict[str, Any]) -> bool:
    """True if the poisoned rows failed, and no other."""
    return bool(0 < chain["poisoned"] == chain["poisoned_failed"] and not chain["failed_unpoisoned"])


def _soaked(given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    (scratch / "settings").mkdir()
    (scratch / "settings/recipe.yaml").write_text(RECIPE.replace("STEPS", str(given.steps)))
    (scratch / "settings/policy.yaml").write_text(POLICY)
    write_source(scratch / "source", given.patients, given.slices)
    root = os.geteuid() == 0
    disk = Disk(scratch / "disk.img", scratch / "disk", 512) if root else None
    (scratch / "disk").mkdir(exist_ok=True)
    nodes = TwoNodes(HEAD_CPUS, NODE_CPUS)
    soak = Soak(nodes.address, scratch / "source", scratch / "disk", given.logs, scratch / "settings")
    over = threading.Event()
    try:
        expected = soak.chain("undisturbed")
        print(f"undisturbed: {expected}", flush=True)
        began = time.monotonic()
        faults: list[dict[str, Any]] = []
        strikes = Faults(nodes, disk, lambda: soak.process, given.seed)
        chains: list[dict[str, Any]] = []
        work = threading.Thread(target=_chains, args=(soak, chains, began + 60 * given.minutes, over), daemon=True)
        work.start()
        _strike(soak, strikes, faults, began, over)  # Ray starts nodes in the main thread alone
        work.join()
        if soak.problem:
            raise SystemExit(soak.problem)
        seconds = time.monotonic() - began
        after = soak.chain("undisturbed-after")
        print(f"undisturbed, after: {after}", flush=True)
        _rates(soak.pace, faults)
        return _told(expected, after, chains, faults, soak.commands, seconds)
    finally:
        over.set()
        nodes.shutdown()
        if disk:
            disk.close()


def _chains(soak: Soak, chains: list[dict[str, Any]], until: float, over: threading.Event) -> None:
    """One chain after another; none begins after `until`."""
    try:
        while time.monotonic() < until:
            chains.append(soak.chain(f"chain-{len(chains)}"))
            print(f"chain {len(chains)}: {chains[-1]}", flush=True)
    except BaseException as error:
        soak.problem = repr(error)
        raise
    finally:
        over.set()


def _strike(soak: Soak, strikes: Faults, faults: list[dict[str, Any]], began: float, over: threading.Event) -> None:
    """A fault a minute, every kind as often, in an order that is drawn; and when work went on after it."""
    pick, left = random.Random(f"{strikes.kinds}"), list[str]()
    for n in range(10**6):
        if over.wait(max(0.0, began + (n + 0.5) * PERIOD_S - time.monotonic())):
            return
        left = left or pick.sample(strikes.kinds, len(strikes.kinds))
        kind, at = left.pop(), time.monotonic()
        while not (hit := strikes.strike(kind)):  # nothing of the kind is there yet
            if over.wait(0.2):
                return
            at = time.monotonic()
        load = round(os.getloadavg()[0], 1)
        fault: dict[str, Any] = {"kind": kind, "second": round(at - began, 1), "stage": soak.stage, "hit": hit}
        fault["load"] = load
        ended = time.monotonic()
        fault["seconds"] = round(ended - at, 1)
        fault |= {"at": at, "ended": ended}
        while soak.pace.marks[-1].at < ended and not over.wait(0.1):
            pass
        if (pulse := soak.pace.marks[-1].at) >= ended:
            fault["back_after_s"] = round(pulse - ended, 1)
        faults.append(fault)
        while soak.pace.back(ended) is None and time.monotonic() < ended + PATIENCE_S and not over.wait(0.5):
            pass
        print({**fault, "rate_back": soak.pace.back(ended)}, flush=True)


def _rates(pace: Pace, faults: Sequence[dict[str, Any]]) -> None:
    """Add to every fault how fast the work went before and after it, and when it was back; moments become seconds."""
    for fault, following in zip(faults, [*faults[1:], None], strict=True):
        at, ended, back = fault["at"], fault["ended"], pace.back(fault["ended"])
        before = pace.speed(at - WINDOW_S, at)
        fault["speed_before"] = None if before is None else round(before, 2)
        if back is None:
            continue
        fault["rate_back_after_s"] = round(back - ended, 1)
        until = max(back + WINDOW_S, following["at"] if following else 0.0)
        after = pace.speed(back, until)
        fault["speed_after"] = None if after is None else round(after, 2)
    for fault in faults:
        del fault["at"], fault["ended"]


def _told(
    expected: dict[str, Any],
    after: dict[str, Any],
    chains: list[dict[str, Any]],
    faults: list[dict[str, Any]],
    commands: list[dict[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    same = [key for key in expected if key != "seconds"]
    kinds = {}
    for kind in sorted({fault["kind"] for fault in faults}):
        own = [fault for fault in faults if fault["kind"] == kind]
        kinds[kind] = {"faults": len(own)}
        for key, slowest in (("back_after_s", "slowest_s"), ("rate_back_after_s", "slowest_rate_s")):
            if found := [fault[key] for fault in own if key in fault]:
                kinds[kind] |= {key: statistics.median(found), slowest: max(found)}
        for key in ("speed_before", "speed_after"):
            if speeds := [fault[key] for fault in own if fault.get(key) is not None]:
                kinds[kind][key] = round(statistics.median(speeds), 2)
    again = Counter(c["stage"] for c in commands if c["exit_code"])
    return {
        "minutes": round(seconds / 60, 1),
        "undisturbed": expected,
        "undisturbed_after": after,
        "window_s": WINDOW_S,
        "faults_struck": len(faults),
        "chains": len(chains),
        "chains_equal": sum(all(c[k] == expected[k] for k in same) for c in chains),
        "after_equal": all(after[k] == expected[k] for k in same),
        "seconds_of_a_chain": round(statistics.median(c["seconds"] for c in chains), 1),
        "load": round(statistics.median(fault["load"] for fault in faults), 1),
        "faults_by_kind": kinds,
        "slow_recoveries": sum(f.get("back_after_s", 0) > WANTED_S for f in faults),
        "slow_rates": sum(f.get("rate_back_after_s", 0) > WANTED_S for f in faults),
        "commands": commands,
        "commands_typed_again": dict(again),
        "tracebacks": sum(c["traceback"] for c in commands),
        "faults": faults,
        "chain_results": chains,
    }


if __name__ == "__main__":
    sys.exit(main())
