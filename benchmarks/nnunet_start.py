"""From a finished run to a training nnU-Net: the commands that a user types, timed.

    .venv-integrations/nnunet/bin/python benchmarks/nnunet_start.py

Runs in an environment with nnU-Net (`make test-integrations` makes that one). Slices of the breast phantom and an
augmented row of each for training are what `augengine ingest` and `augengine augment` leave. The three commands of
docs/export.md follow, as processes of their own, with 2d and without worker processes; the third is timed until nnU-Net
has done the first epoch of a trainer with three steps an epoch. Every command imports torch anew, which is in its time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _record import HERE, record
from rich.console import Console

NAME = "Dataset501_Phantom"
# What the commands run; the module lets torchvision's wheel of PyPI be imported beside a torch for CPUs alone.
EXPORT = "import cpu_torchvision; from augengine.cli import main; main()"
TRAIN = "import cpu_torchvision; from nnunetv2.run.run_training import run_training_entry; run_training_entry()"


def main() -> None:
    """Write the data, run the commands, write the record."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--subjects", type=int, default=8)
    flags.add_argument("--slices", type=int, default=6, help="of a subject")
    flags.add_argument("--matrix", type=int, default=64)
    asked = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = _write(Path(folder), asked)
        figures = _run(Path(folder)) | {"rows": rows, "matrix": asked.matrix, "nnunetv2": version("nnunetv2")}
    Console().print(figures)
    Console().print(record("nnunet_start", figures))


def _run(root: Path) -> dict[str, Any]:
    raw = root / "raw" / NAME
    places = {f"nnUNet_{kind}": str(root / kind) for kind in ("raw", "preprocessed", "results")}
    paths = [str(HERE.parent), str(HERE.parent / "tests/integrations")]
    environment = {
        **os.environ,
        **places,
        "nnUNet_extTrainer": str(raw / "augengine"),
        "nnUNet_n_proc_DA": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }
    commands = {
        "augengine export nnunet DATA --augmented RUN --out $nnUNet_raw/Dataset501_Phantom": [
            "-c",
            EXPORT,
            "export",
            "nnunet",
            root / "data",
            "--augmented",
            root / "run",
            "--out",
            raw,
            "--inline",
        ],
        "python $nnUNet_raw/Dataset501_Phantom/augengine/prepare.py -c 2d": [
            raw / "augengine/prepare.py",
            "-c",
            "2d",
            "-np",
            "1",
        ],
        "nnUNetv2_train 501 2d 0 -tr AugengineTrainerShort -device cpu": [
            "-c",
            TRAIN,
            "501",
            "2d",
            "0",
            "-tr",
            "AugengineTrainerShort",
            "-device",
            "cpu",
        ],
    }
    seconds: dict[str, float] = {}
    for name, words in commands.items():
        if name.startswith("nnUNetv2_train"):
            environment["nnUNet_n_proc_DA"] = "0"
        seconds[name] = _timed(words, environment, until="train_loss" if name.startswith("nnUNetv2_train") else None)
        Console().print(name, f"{seconds[name]:.1f} s")
    return {"commands": len(commands), "seconds": seconds, "seconds_together": round(sum(seconds.values()), 1)}


def _timed(words: list[Any], environment: dict[str, str], until: str | None) -> float:
    """Seconds of a command, or until it prints a text, upon which it is ended."""
    started, said = time.perf_counter(), []
    with subprocess.Popen(
        [sys.executable, *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if until is not None and until in line:
                seconds = time.perf_counter() - started
                process.kill()
                return round(seconds, 1)
    if process.returncode or until is not None:
        raise SystemExit("".join(said[-30:]))
    return round(time.perf_counter() - started, 1)


def _write(folder: Path, asked: Any) -> dict[str, int]:
    """Real slices, and for training augmented ones that name them as their source; returns how many."""
    from augengine.io.dataset import dataset_files, write_dataset
    from augengine.io.shards import iter_samples, to_table
    from augengine.io.store import Store
    from augengine.phantom.cohort import Cohort
    from augengine.pipeline.phantom import shard_cohort
    from augengine.pipeline.units import INLINE
    from augengine.prepare import Preparation
    from augengine.records import Provenance
    from augengine.rng import digest

    cohort = Cohort(subjects=asked.subjects, matrix=asked.matrix, slices=asked.slices)
    shard_cohort(cohort, str(folder / "data"), Preparation(), actors=INLINE)
    store, real, made = Store(str(folder / "data")), 0, []
    for sample in iter_samples(store, dataset_files(store)):
        real += 1
        if sample.split == "train":
            output_id = digest("benchmark", sample.sample_id, length=24)
            plan = {"output_id": output_id, "sample_id": sample.sample_id, "replicate": 0, "donors": []}
            provenance = Provenance(output_id, sample.sample_id, "brighter", "0" * 32, "acquisition", plan)
            made.append(sample.replace(image=sample.image + 7, provenance=provenance))
    write_dataset(str(folder / "run"), [to_table(made)], kind="accepted")
    for kind in ("preprocessed", "results"):
        (folder / kind).mkdir()
    return {"real": real, "augmented": len(made)}


if __name__ == "__main__":
    main()
