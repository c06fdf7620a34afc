"""Every small recipe on two Ray Train workers, undisturbed and with one worker killed at a random moment.

    python benchmarks/train_recovery.py

Rows, noise and data order of a step follow from the recipe's seed and the step alone, so the killed run must end where
the undisturbed one does. Models that a recipe is built on are trained first, for as few steps.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import psutil
import torch
from _generators import MODELS, RECIPES, Trained, data, flags
from _record import RESULTS, record

from augengine.io.store import Store
from augengine.pipeline.cluster import connect
from augengine.report.console import stage, table
from augengine.train.config import read_recipe
from augengine.train.metrics_file import read_metrics
from augengine.train.run import train

TOLERANCE = 0.02
KILL_AFTER, KILL_BEFORE = 0.2, 0.9  # shares of the run between which the worker dies


def main() -> None:
    """Train everything twice, compare and record."""
    parser = flags(__doc__)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=list(MODELS))
    given = parser.parse_args()
    root = Path(given.root, "recovery").resolve()
    shutil.rmtree(root, ignore_errors=True)
    connect()
    before = RESULTS / "train_recovery.json"  # the whole takes a while: what another call measured stays
    figures = json.loads(before.read_text())["figures"]["models"] if before.exists() else {}
    rows = []
    with stage("recovery") as report:
        for n, name in enumerate(given.only):
            report(n, len(given.only), {"model": name})
            # A short run may end before it can be killed; then it is made longer.
            for steps in (given.steps, 4 * given.steps, 16 * given.steps):
                undisturbed = _run(given, root, name, steps, None)
                killed = _run(given, root, name, steps, random.Random(name))
                if killed["killed_at_step"]:
                    break
            difference = abs(killed["validation_loss"] / undisturbed["validation_loss"] - 1)
            figures[name] = {
                "steps": steps,
                "undisturbed": undisturbed,
                "killed": killed,
                "relative_difference": difference,
            }
            rows.append(
                [
                    name,
                    steps,
                    undisturbed["validation_loss"],
                    killed["validation_loss"],
                    f"{difference:.1e}",
                    killed["killed_at_step"],
                    killed["went_on_from_step"],
                    "yes" if difference <= TOLERANCE else "NO",
                ]
            )
            met = all(f["relative_difference"] <= TOLERANCE and f["killed"]["killed_at_step"] for f in figures.values())
            record("train_recovery", {"models": figures, "all_recovered": met})  # after each: the whole takes a while
    columns = ["model", "steps", "undisturbed", "killed", "difference", "killed at step", "went on from", "within 2 %"]
    table("Validation loss after a run on 2 workers", columns, rows)


def _run(
    given: argparse.Namespace, root: Path, name: str, steps: int, moment: random.Random | None
) -> dict[str, float | None]:
    how: Trained = MODELS[name]
    out = root / ("undisturbed" if moment is None else "killed") / name
    shutil.rmtree(out, ignore_errors=True)
    settings = (
        *how.overrides,
        f"steps={steps}",
        "pictures_every=0",
        "validate_every=1000",
        f"optimiser.batch_size={given.batch_size}",
        "checkpoint_minutes=0.04",
        "data.validation_rows=16",
    )
    recipe = read_recipe(str(RECIPES / f"{how.recipe}.yaml"), settings)
    parts = {role: str(root / "undisturbed" / part / "checkpoint") for role, part in how.parts.items()}
    killer = _Killer(out, steps, moment) if moment is not None else None
    train(
        recipe,
        data(given.root, how.data),
        str(out),
        parts=parts,
        num_workers=2,
        threads_per_worker=1,
        progress=lambda _: None,
    )
    lines = read_metrics(Store(out))
    found = {"validation_loss": lines[-1]["validation_loss"], "seconds": lines[-1]["elapsed_s"]}
    if killer is None:
        return found
    killer.over = True
    killer.thread.join()
    return {**found, "killed_at_step": killer.step, "went_on_from_step": killer.resumable}


class _Killer:
    """SIGKILLs one of this process's training workers once a checkpoint stands that Ray can go on from."""

    def __init__(self, out: Path, steps: int, moment: random.Random) -> None:
        self.out, self.step, self.resumable, self.over = out, None, None, False
        self.earliest = steps * moment.uniform(KILL_AFTER, KILL_BEFORE)
        self.steps, self.pick = steps, moment.random()
        self.thread = threading.Thread(target=self._wait, daemon=True)
        self.thread.start()

    def _wait(self) -> None:
        while not self.over and self.step is None:
            time.sleep(0.05)
            texts = [path.read_text() for path in self.out.glob("state/checkpoint_*/progress.json")]
            done = sorted(json.loads(text)["progress"]["step"] for text in texts if text.endswith("}"))
            # The newest folder may be unfinished; the one before it is a checkpoint that Ray knows.
            if len(done) > 1 and min(self.earliest, self.steps * KILL_AFTER) <= done[-1] < self.steps:
                workers = [p for p in psutil.Process().children(recursive=True) if _trains(p)]
                if workers:
                    self.step, self.resumable = done[-1], done[-2]
                    os.kill(workers[int(self.pick * len(workers))].pid, signal.SIGKILL)


def _trains(process: psutil.Process) -> bool:
    try:
        title = process.cmdline()[:1]
    except psutil.Error:
        return False
    return bool(title) and title[0].startswith("ray::RayTrainWorker")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
