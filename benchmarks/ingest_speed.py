"""Two checkouts in; volumes per second of an ingest by each, taken in turns in one run, and their ratio out.

    git worktree add /tmp/before COMMIT
    python benchmarks/ingest_speed.py --against /tmp/before

Inputs are phantoms in the layouts of Duke (DICOM) and BraTS (NIfTI, four channels), and the real glioma where
AUGENGINE_REAL_DATA or ../shared/data has it. Each ingest runs in a process of its own, on one core, without Ray, and
is timed from before the folder is listed to after the manifest is written; importing is not timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _record import record
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
TIMED = """
import sys, tempfile, time
import iterstrat.ml_stratifiers  # whichever of the two checkouts imports it when, it is read from disk before the clock
from augengine.io.labels import parse_labels
from augengine.io.sources import SourceOptions
from augengine.pipeline.ingest import ingest
from augengine.pipeline.units import INLINE
from augengine.prepare import Preparation
root, scheme, size, channels, mask = sys.argv[1:]
labels, name = parse_labels(scheme) if scheme else (None, None)
stated = dict(part.split("=") for part in channels.split(",") if part)
options = SourceOptions(labels=labels, scheme=name, channels=stated, mask=mask or None)
with tempfile.TemporaryDirectory() as out:
    started = time.perf_counter()
    summary = ingest(root, out, options=options, preparation=Preparation(size=int(size)), actors=INLINE)
    print(summary["counts"]["volumes"] / (time.perf_counter() - started))
"""
GLIOMA = "t1=*_t1_bet.*,t1c=*_t1c_bet.*,t2=*_t2_bet.*,flair=*_fla_bet.*"


def main() -> None:
    """Write the inputs, take turns, print the table and write the record."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--against", required=True, help="root of the other checkout")
    flags.add_argument("--rounds", type=int, default=5)
    given = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = {name: _turns(case, given.against, given.rounds) for name, case in _inputs(Path(folder)).items()}
    table = Table("input", "before, volumes/s", "now, volumes/s", "now / before")
    for name, row in figures.items():
        table.add_row(name, f"{row['before']:.2f}", f"{row['now']:.2f}", f"{row['ratio']:.2f}")
    Console().print(table)
    against = subprocess.run(
        ["git", "-C", given.against, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    record("ingest_speed", {"against": against, "rounds": given.rounds, "inputs": figures})


def _inputs(folder: Path) -> dict[str, list[str]]:
    """Input name to the arguments of `TIMED`."""
    for layout, more in (("duke-classic", ["--subjects", "8"]), ("brats2021", ["--subjects", "6"])):
        entry = "from augengine.cli import main; main()"
        command = [sys.executable, "-c", entry, "phantom", layout, *more, "--out", str(folder / layout)]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    found = {
        "Duke phantom, DICOM": [str(folder / "duke-classic"), "", "96", "", ""],
        "BraTS phantom, NIfTI": [str(folder / "brats2021"), "brats2021", "96", "", ""],
    }
    real = Path(os.environ.get("AUGENGINE_REAL_DATA", ROOT.parent / "shared" / "data"))
    if (real / "A1_brats21style_TCGA-FG-6692").is_dir():
        case = [str(real / "A1_brats21style_TCGA-FG-6692"), "brats2021", "128", GLIOMA, "seg_simple.nii.gz"]
        found["glioma, NIfTI, 240 x 240 x 155 x 4"] = case
    return found


def _turns(case: list[str], against: str, rounds: int) -> dict[str, Any]:
    """Medians of volumes per second, and of the ratio within each round."""
    speeds: dict[str, list[float]] = {"before": [], "now": []}
    for n in range(rounds):
        for name in ("before", "now") if n % 2 else ("now", "before"):
            root = against if name == "before" else str(ROOT)
            environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                [sys.executable, "-c", TIMED, *case],
                check=True,
                capture_output=True,
                text=True,
                cwd=root,
                env=environment,
            )
            speeds[name].append(float(done.stdout.split()[-1]))
    ratio = statistics.median(b / a for a, b in zip(speeds["before"], speeds["now"], strict=True))
    return {name: round(statistics.median(v), 3) for name, v in speeds.items()} | {
        "ratio": round(ratio, 3),
        "all": {k: [round(x, 3) for x in v] for k, v in speeds.items()},
    }


if __name__ == "__main__":
    main()
