"""Ingest, train, augment and export again and again on two nodes, with a fault a minute; what became of it, out.

    python benchmarks/soak.py --minutes 60

Needs root, for a small disk that is filled, made read-only and slowed down; without it these faults are left out.
DICOM series, of which every fiftieth patient has a file that is cut off, are ingested from there, a small generator is
trained, rows are made and exported, all by the commands that users type. A command that ends badly is typed again. The
first chain is undisturbed; every later one must end with its rows, byte by byte. A fault's recovery is the time from
its end until the next unit, training state, exported file or finished command.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from _faults import Disk, Faults
from _record import record
from _two_nodes import TwoNodes
from kill_matrix import rows
from mri_files import write_series

from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
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
    pulse: float = 0.0
    problem: str = ""
    commands: list[dict[str, Any]] = field(default_factory=list)

    def chain(self, name: str) -> dict[str, Any]:
        """All four stages into a new folder; what it holds and how long it took."""
        out, began = self.disk / name, time.monotonic()
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
        self.finish(name, "augment", "--data", data, "--out", run, *more)
        shown = ["--unlabelled", "keep", "--actors", "2"]
        self.finish(
            name, "export", "webdataset", data, "--augmented", f"{run}/augmented", "--out", f"{out}/tars", *shown
        )
        self.finish(name, "check", data, f"{run}/augmented", "--deep")
        over.set()
        watch.join()
        found = {"seconds": round(time.monotonic() - began, 1), **contents(out)}
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
            last = "".join(text.strip().splitlines()[-1:]).replace(str(self.disk), "DISK")
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
                self.pulse = time.monotonic()
                return
            time.sleep(2)
        raise RuntimeError(f"{stage} did not end well in {ATTEMPTS} attempts: {log}")

    def _watch(self, out: Path, over: threading.Event) -> None:
        """Note when something new stands in the folder."""
        seen = 0
        while not over.wait(0.25):
            found = sum(
                len(list(out.glob(pattern)))
                for pattern in (
                    "data/_commits/*.json",
                    "run/augmented/_commits/*.json",
                    "tars/_commits/*",
                    "tars/*.tar",
                )
            )
            states = sorted(p.name for p in out.glob("model/state/checkpoint_*"))
            mark = hash((found, *states[-1:]))
            if mark != seen:
                seen, self.pulse = mark, time.monotonic()


def contents(out: Path) -> dict[str, Any]:
    """What a chain made: outcomes, hashes of rows, of the model and of the export."""
    data, run = Store(str(out / "data")), f"{out}/run/augmented"
    ingested = {
        s.sample_id: hashlib.sha256(s.image.tobytes()).hexdigest() for s in iter_samples(data, dataset_files(data))
    }
    made, twice = rows(run)
    manifest = json.loads((Path(run) / "manifest.json").read_text())
    counts = {"requested": manifest["requested"], **manifest["counts"]}
    tars = sorted((out / "tars").rglob("*.tar"))
    return {
        "counts": counts,
        "reconciles": counts["requested"] == len(made) == sum(v for k, v in counts.items() if k != "requested"),
        "twice": twice,
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
    flags.add_argument("--logs", type=Path, default=Path("runs/soak"), help="logs of all commands")
    given = flags.parse_args()
    given.logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        figures = _soaked(given, Path(scratch))
    if not given.no_record:
        record("soak", figures)
    print(json.dumps({k: v for k, v in figures.items() if k not in ("faults", "commands")}, indent=1))
    wrong = figures["chains_equal"] < figures["chains"] or figures["tracebacks"] or figures["slow_recoveries"]
    return int(bool(wrong))


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
        return _told(expected, chains, faults, soak.commands, time.monotonic() - began)
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
        while not (hit := strikes.strike(kind)):
            if over.wait(0.2):
                return
        fault: dict[str, Any] = {"kind": kind, "second": round(at - began, 1), "stage": soak.stage, "hit": hit}
        ended = time.monotonic()
        fault["seconds"] = round(ended - at, 1)
        while soak.pulse < ended and not over.wait(0.1):
            pass
        if soak.pulse >= ended:
            fault["back_after_s"] = round(soak.pulse - ended, 1)
        faults.append(fault)
        print(fault, flush=True)


def _told(
    expected: dict[str, Any],
    chains: list[dict[str, Any]],
    faults: list[dict[str, Any]],
    commands: list[dict[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    same = ("counts", "reconciles", "twice", "ingested", "model", "rows", "exported")
    kinds = {}
    for kind in sorted({fault["kind"] for fault in faults}):
        back = [f["back_after_s"] for f in faults if f["kind"] == kind and "back_after_s" in f]
        kinds[kind] = {"faults": sum(f["kind"] == kind for f in faults)}
        if back:
            kinds[kind] |= {"back_after_s": statistics.median(back), "slowest_s": max(back)}
    again = Counter(c["stage"] for c in commands if c["exit_code"])
    return {
        "minutes": round(seconds / 60, 1),
        "undisturbed": expected,
        "chains": len(chains),
        "chains_equal": sum(all(c[k] == expected[k] for k in same) for c in chains),
        "seconds_of_a_chain": round(statistics.median(c["seconds"] for c in chains), 1),
        "faults_by_kind": kinds,
        "slow_recoveries": sum(f.get("back_after_s", 0) > WANTED_S for f in faults),
        "commands": commands,
        "commands_typed_again": dict(again),
        "tracebacks": sum(c["traceback"] for c in commands),
        "faults": faults,
        "chain_results": chains,
    }


if __name__ == "__main__":
    sys.exit(main())
