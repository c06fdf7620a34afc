"""Exports that are killed at random moments: does the finished folder equal that of an undisturbed export?

    python benchmarks/export_kill.py --kills 20

Slices of the brain phantom, and an augmented row of each for training, are exported to every target that needs no tool
of its own. Each export runs in a process that is killed (SIGKILL) at a moment drawn from its undisturbed duration, and
is started again until it ends; where it ends before it is killed, the next one goes to a new folder. In the end every
folder is compared with the undisturbed one, file by file and byte by byte.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _record import record
from rich.console import Console

from augengine.export import TARGETS
from augengine.export.run import export
from augengine.io.dataset import dataset_files, write_dataset
from augengine.io.shards import iter_samples, to_table
from augengine.io.store import Store
from augengine.phantom.brain_cohort import BrainCohort
from augengine.pipeline.phantom import shard_cohort
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation
from augengine.records import Provenance
from augengine.rng import digest
from augengine.selection import Request

NAMES = {name: "Dataset501_Phantom" if name == "nnunet" else "out" for name in TARGETS if name != "dicom-seg"}


def main() -> None:
    """Export, kill, compare, write the record."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--kills", type=int, default=20, help="of each target")
    flags.add_argument("--seed", type=int, default=0)
    asked = flags.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        # What reads or writes files runs in processes of its own: a process that has threads must not be forked.
        _ends(_forked(lambda: _write(Path(folder))))
        for name in NAMES:
            figures[name] = _killed(Path(folder), name, asked.kills, random.Random(asked.seed))
            Console().print(name, figures[name])
    Console().print(record("export_kill", figures))
    if any(found["equal_folders"] < found["folders"] for found in figures.values()):
        raise SystemExit("a folder differs from the undisturbed one")


def _killed(folder: Path, name: str, kills: int, draw: random.Random) -> dict[str, Any]:
    whole = folder / name / "whole" / NAMES[name]
    seconds = _ends(_forked(lambda: _export(folder, name, whole)))
    assert seconds is not None
    done, folders, resumed, moments, undisturbed = 0, 1, 0, [], [seconds]
    while True:
        out = folder / name / str(folders) / NAMES[name]
        if (out / "export.json").exists():
            if done == kills:
                break
            folders += 1
            continue
        begun = out.exists()
        resumed += begun
        # Up to what an undisturbed export took lately: other work on the machine comes and goes.
        moment = draw.uniform(0, undisturbed[-1]) if done < kills else None
        seconds = _ends(_forked(lambda out=out: _export(folder, name, out)), moment)
        if seconds is None:
            done += 1
            moments.append(moment)
        elif not begun:
            undisturbed.append(seconds)
    expected = _content(whole)
    equal = sum(_content(folder / name / str(n) / NAMES[name]) == expected for n in range(1, folders + 1))
    return {
        "kills": done,
        "folders": folders,
        "equal_folders": equal,
        "files": len(expected),
        "resumed": resumed,
        "seconds_undisturbed": round(statistics.median(undisturbed), 2),
        "median_moment_of_death_s": round(statistics.median(moments), 2),
    }


def _content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _forked(act: Callable[[], object]) -> int:
    """Start a process that does something and ends; returns its id."""
    process = os.fork()
    if process:
        return process
    try:
        act()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


def _ends(process: int, kill_after_s: float | None = None) -> float | None:
    """Seconds until a process ends; None if it was killed after so many."""
    started = time.perf_counter()
    killed = False
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        seconds = time.perf_counter() - started
        if found:
            break
        if kill_after_s is not None and seconds > kill_after_s and not killed:
            os.kill(process, signal.SIGKILL)
            killed = True
        time.sleep(0.002)
    if killed and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    if status:
        raise SystemExit("an export failed")
    return seconds


def _export(folder: Path, name: str, out: Path) -> None:
    request = Request.of(str(folder / "data"), str(folder / "run"), split=("train", "val", "test"))
    export(TARGETS[name](), request, Store(str(out)), actors=INLINE)  # type: ignore[arg-type]


def _write(folder: Path) -> None:
    """Real slices, and for training augmented ones that name them as their source."""
    cohort = BrainCohort(subjects=8, matrix=48, slices=6)
    shard_cohort(cohort, str(folder / "data"), Preparation(), actors=INLINE)
    store, made = Store(str(folder / "data")), []
    for sample in iter_samples(store, dataset_files(store)):
        if sample.split == "train":
            output_id = digest("benchmark", sample.sample_id, length=24)
            plan = {"output_id": output_id, "sample_id": sample.sample_id, "replicate": 0, "donors": []}
            provenance = Provenance(output_id, sample.sample_id, "brighter", "0" * 32, "acquisition", plan)
            made.append(sample.replace(image=sample.image + 7, provenance=provenance))
    tables = [to_table(made[n : n + 8]) for n in range(0, len(made), 8)]
    write_dataset(str(folder / "run"), tables, kind="accepted")


if __name__ == "__main__":
    main()
