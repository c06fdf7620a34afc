"""Recall of planted defects and false rejects on real rows: phantom scans of the brain and the breast, and a glioma.

    python benchmarks/planted_defects.py --data ../shared/data

The gates are those that need no trained model, under bounds that hold for both organs of the phantom (`given`) and
under the ones that calibration proposes from other subjects of the same cohort (`proposed`). The glioma (A1, real
scans of one patient) is calibrated on one half of its slices and measured on the other. Target: each defect's recall
≥ 0.95 at ≤ 5% false rejects.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from _glioma import ingest_glioma
from _record import record

from augengine.commands.calibrate import show
from augengine.gates import Gates
from augengine.gates.calibration import Calibration, calibrate
from augengine.gates.real_rows import RealRow, read_real_rows
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.pipeline.phantom import shard_cohort
from augengine.pipeline.units import INLINE
from augengine.policy.spec import GateSpec, Select
from augengine.prepare import Preparation

COHORTS: dict[str, tuple[BrainCohort | Cohort, Preparation]] = {
    "brain": (BrainCohort(subjects=40, seed=5, matrix=64, slices=12, labels="tissue"), Preparation(drop_end_slices=2)),
    "breast": (
        Cohort(subjects=40, seed=5, matrix=96, slices=8, slice_spacing_mm=6, siemens_fraction=0.5),
        Preparation(drop_end_slices=1),
    ),
}
GATES = [
    GateSpec(name="structure_ssim", min=0.7),
    GateSpec(name="changed", min=0.003),
    GateSpec(name="out_of_range", max=0.01),
    GateSpec(name="void_fraction", max=0.003),
    GateSpec(name="sharpness", min=0.1, max=5),
    GateSpec(name="checkerboard", max=0.1),
    GateSpec(name="duplicate", max=0),
    GateSpec(name="label_agreement", min=0.98),
    GateSpec(name="label_swap", max=0.7),
    GateSpec(name="intensity_distance", max=1),
]
RECALL, FALSE_REJECTS = 0.95, 0.05


def main() -> None:
    """Make the cohorts, calibrate, compare with the target, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=120, help="of each cohort; half of the subjects propose bounds")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="holds A1; left out where it does not"
    )
    flags = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as out:
        for name, (cohort, preparation) in COHORTS.items():
            shard_cohort(cohort, f"{out}/{name}", preparation, actors=INLINE)
            figures[name] = {"cohort": cohort.model_dump(mode="json")}
        if flags.data.exists():
            ingest_glioma(flags.data, f"{out}/glioma")
            figures["glioma"] = {"cohort": "A1, one patient"}
        for name, figure in figures.items():
            rows = [r for r in read_real_rows(f"{out}/{name}", Select(split=None), flags.rows) if _labelled(r)]
            found = calibrate(Gates(GATES), rows, per_defect=20, rate=FALSE_REJECTS)
            show(found, name)
            figure |= {"met": met(found), **found.to_dict()}
    print(json.dumps({name: f["met"] for name, f in figures.items()}))
    print(record("planted_defects", {"target": {"recall": RECALL, "false_rejects": FALSE_REJECTS}, **figures}))


def _labelled(row: RealRow) -> bool:
    """Slices beside the lesion show none of the defects of labels."""
    return row.row.label is not None and bool(row.row.label.any())


def met(found: Calibration) -> dict[str, bool]:
    """Whether the target is met under both sets of bounds."""
    return {
        "given": found.false_rejects <= FALSE_REJECTS and min(found.recall.values()) >= RECALL,
        "proposed": found.proposed_false_rejects <= FALSE_REJECTS and min(found.proposed_recall.values()) >= RECALL,
    }


if __name__ == "__main__":
    main()
