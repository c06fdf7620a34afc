"""Is every row made exactly once whatever dies? SIGKILL of actors, workers, drivers and nodes at random moments.

    python benchmarks/kill_matrix.py --moments 20

On a local cluster of two nodes a small augmentation (an untrained generator) is run undisturbed, then again and again
into new folders while something is killed; then the same command follows. Ids and image hashes must be those of the
undisturbed run. Other numbers of actors, shuffled rows and other shard sizes must not change a hash either.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from _record import RESULTS, record
from _two_nodes import TwoNodes
from builders import slice_sample, write_checkpoint, write_samples

from augengine.io.commits import committed_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.load import load_policy
from augengine.pipeline.augment import OUTCOMES, augment
from augengine.pipeline.cluster import connect
from augengine.pipeline.units import Actors

POLICY = """\
version: 1
name: kill-matrix
edit: acquisition
params: {target: {empirical: {from: duke_protocols}}}
sampler: {steps: STEPS}
gates: [{name: changed, min: 0.0}]
output: {micro_batch: 2}
"""
ROWS_PER_UNIT = 2
KINDS = ("actor", "worker", "driver", "node")
# Two actors need one node each: Ray fills a node to a half before it takes the next. One node holds both if need be.
HEAD_CPUS, NODE_CPUS, ACTOR_CPUS = 1, 2, 0.4
TIMEOUT_S = 600.0
Rows = dict[str, str]


def drive(policy: str, data: str, checkpoint: str, out: str, actors: int) -> None:
    """The command that is run, killed and run again."""
    connect()
    spread = Actors(actors, num_cpus=ACTOR_CPUS)
    summary = augment(load_policy(policy), data, out, {"generator": checkpoint}, actors=spread)
    said = {"made": summary.run.made, "seconds": summary.run.seconds, "busy_s": summary.run.busy_s}
    print(json.dumps(said))


def rows(out: str) -> tuple[Rows, int]:
    """Output id to hash of the image (or to the outcome, without one), and how many ids stand there twice."""
    store, found, seen = Store(out), {}, 0
    for outcome in OUTCOMES:
        names = committed_files(store, outcome)
        if outcome in ("accepted", "rejected"):
            made = [(s.sample_id, hashlib.sha256(s.image.tobytes()).hexdigest()) for s in iter_samples(store, names)]
        else:
            made = [(i, outcome) for n in names for i in store.parquet(n).read()["output_id"].to_pylist()]
        found.update(made)
        seen += len(made)
    return found, seen - len(found)


def committed(out: str) -> int:
    """Units that are done."""
    return len(list((Path(out) / "_commits").glob("*.json")))


class Bench:
    """A cluster of two nodes, the inputs, and the undisturbed run."""

    def __init__(self, folder: Path, subjects: int, steps: int) -> None:
        self.folder = folder
        self.samples = [slice_sample(s, i) for s in range(subjects) for i in range(8)]
        (folder / "policy.yaml").write_text(POLICY.replace("STEPS", str(steps)))
        self.data = write_samples(folder / "data", self.samples, per_file=ROWS_PER_UNIT)
        self.checkpoint = write_checkpoint(folder / "model")
        self.cluster = TwoNodes(HEAD_CPUS, NODE_CPUS)

    def start(self, out: str, data: str | None = None, actors: int = 2) -> subprocess.Popen[str]:
        """Start the command as a process of its own."""
        command = [
            sys.executable,
            __file__,
            "--drive",
            str(self.folder / "policy.yaml"),
            data or self.data,
            self.checkpoint,
            out,
            str(actors),
        ]
        environment = {**os.environ, "RAY_ADDRESS": self.cluster.address}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def finish(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """What the command says when it ends well; anything else ends the benchmark."""
        output, errors = process.communicate(timeout=TIMEOUT_S)
        if process.returncode:
            raise RuntimeError(f"the command ended with {process.returncode}: {errors[-2000:]}")
        said: dict[str, Any] = json.loads(next(line for line in output.splitlines() if line.startswith('{"made"')))
        return said  # Ray may have printed that it lost an actor, too

    def run(self, out: str, **options: Any) -> dict[str, Any]:
        """The command, undisturbed."""
        return self.finish(self.start(out, **options))

    def kill(self, kind: str, process: subprocess.Popen[str], pick: random.Random) -> str:
        """SIGKILL one thing of a kind; returns what it was, empty where there is none."""
        if process.poll() is not None:
            return ""
        if kind == "driver":
            process.kill()
        elif kind == "node":
            self.cluster.lose_node()
        else:
            found = [
                (pid, title) for pid, title in self.cluster.workers() if ("MapWorker" in title) == (kind == "actor")
            ]
            if not found:
                return ""
            pid, kind = pick.choice(found)
            os.kill(pid, signal.SIGKILL)
        return kind

    def disturbed(self, kind: str, n: int, moment: float, unit_s: float, expected: Rows) -> dict[str, Any]:
        """Run, kill at a moment of the work (0 claim, 1 end), let it end or start it again; compare."""
        out, pick = str(self.folder / f"{kind}-{n}"), random.Random(f"{kind}{n}")
        started = time.monotonic()
        process = self.start(out)
        wanted = int(moment * len(expected) / ROWS_PER_UNIT)
        # Before the first commit anything may be under way: the claim, the start of actors, the first units.
        while process.poll() is None and (committed(out) < wanted or not (Path(out) / "_run.json").exists()):
            time.sleep(0.01)
        time.sleep(pick.uniform(0, unit_s))
        while not (killed := self.kill(kind, process, pick)) and process.poll() is None:
            time.sleep(0.01)
        done = committed(out)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        again = self.run(out)
        if kind == "node" and killed:
            self.cluster.add_node()
        found, duplicates = rows(out)
        return {
            "moment": round(moment, 3),
            "killed": killed,
            "exit_code": process.returncode,
            "units_done_at_kill": done,
            "made_by_rerun": again["made"],
            "missing": len(expected.keys() - found.keys()),
            "duplicates": duplicates,
            "other": len(found.keys() - expected.keys()),
            "equal": found == expected,
            "left_behind": len(list(Path(out).rglob(".tmp-*"))) + len(list(Path(out).glob("_attempts/*"))),
            "stderr": errors.strip().splitlines()[-1:] if process.returncode > 0 else [],
            "seconds": round(time.monotonic() - started, 1),
        }

    def layouts(self, expected: Rows) -> dict[str, bool]:
        """Whether other actor counts, row orders and shard sizes give the same hash for every id."""
        shuffled = random.Random(0).sample(self.samples, len(self.samples))
        variants: dict[str, dict[str, Any]] = {
            "1 actor": {"actors": 1},
            "4 actors": {"actors": 4},
            "shuffled": {"data": write_samples(self.folder / "shuffled", shuffled, per_file=ROWS_PER_UNIT)},
            "3 rows per shard": {"data": write_samples(self.folder / "three", self.samples, per_file=3)},
            "all rows in one shard": {"data": write_samples(self.folder / "one", self.samples, per_file=10**6)},
        }
        equal = {}
        for name, options in variants.items():
            out = str(self.folder / name.replace(" ", "-"))
            self.run(out, **options)
            equal[name] = rows(out) == (expected, 0)
            print(f"{name}: {'equal' if equal[name] else 'NOT EQUAL'}", flush=True)
        return equal


def main() -> None:
    """Record the matrix; exit code 1 if any run was not exactly that of the undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20, help="random moments per kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subjects", type=int, default=4, help="of 8 rows each, two rows per unit")
    parser.add_argument("--steps", type=int, default=6, help="sampler steps: how long a unit takes")
    parser.add_argument("--no-layouts", action="store_true")
    parser.add_argument("--only-layouts", action="store_true", help="kill nothing; writes kill_matrix_layouts.json")
    parser.add_argument("--no-record", action="store_true", help="try it out without touching results/")
    parser.add_argument("--drive", nargs=5, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.drive:
        *paths, actors = flags.drive
        drive(*paths, int(actors))
        return
    moments = {kind: random.Random(f"{flags.seed}{kind}") for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), flags.subjects, flags.steps)
        try:
            undisturbed = bench.run(f"{folder}/undisturbed")
            expected, duplicates = rows(f"{folder}/undisturbed")
            assert not duplicates
            unit_s = undisturbed["busy_s"] / len(expected) * ROWS_PER_UNIT
            print(f"undisturbed: {len(expected)} rows, {unit_s:.2f} s per unit: {undisturbed}", flush=True)
            figures: dict[str, Any] = _before(expected)
            figures |= {"rows": len(expected), "units": len(expected) // ROWS_PER_UNIT, "undisturbed": undisturbed}
            if not flags.no_layouts:
                figures["layouts_equal"] = bench.layouts(expected)
            if flags.only_layouts:
                record("kill_matrix_layouts", {"rows": len(expected), "layouts_equal": figures["layouts_equal"]})
                return
            for kind in flags.kinds:
                runs: list[dict[str, Any]] = []
                for n in range(flags.moments):
                    moment = moments[kind].uniform(0, 0.95)
                    runs.append(bench.disturbed(kind, n, moment, unit_s, expected))
                    print(f"{kind} {n + 1}/{flags.moments}: {runs[-1]}", flush=True)
                exact = sum(r["equal"] and not r["duplicates"] for r in runs)
                figures["killed"][kind] = sum(bool(r["killed"]) for r in runs)
                figures["equal"][kind] = f"{exact} of {len(runs)}"
                figures["runs"][kind] = runs
                if not flags.no_record:
                    record("kill_matrix", figures)  # after each kind: the whole takes most of an hour
        finally:
            bench.cluster.shutdown()
    print(json.dumps({k: v for k, v in figures.items() if k != "runs"}, indent=1))
    bad = [r for found in figures["runs"].values() for r in found if not r["equal"] or r["duplicates"]]
    sys.exit(1 if bad or not all(figures["layouts_equal"].values()) else 0)


def _before(expected: Rows) -> dict[str, Any]:
    """What earlier calls found for the same rows; kinds that this one does not repeat stay."""
    identity = hashlib.sha256(json.dumps(sorted(expected.items())).encode()).hexdigest()
    none: dict[str, Any] = {"identity": identity, "killed": {}, "equal": {}, "layouts_equal": {}, "runs": {}}
    earlier = RESULTS / "kill_matrix.json"
    found = json.loads(earlier.read_text())["figures"] if earlier.exists() else none
    return found if found["identity"] == identity else none


if __name__ == "__main__":
    main()
