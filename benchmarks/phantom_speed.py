"""Time to make phantom subjects in one process: draw, scan and prepare. `python benchmarks/phantom_speed.py`."""

from __future__ import annotations

import argparse
import time

import torch
from _record import record

from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.phantom.write import prepared
from augengine.prepare import Preparation


def timed(cohort: Cohort | BrainCohort) -> dict[str, float | int]:
    """Seconds for the whole cohort, wall clock and processor."""
    prepared(cohort, 0, Preparation())  # warm caches and imports, as any longer run has them
    fresh = cohort.model_copy(update={"seed": cohort.seed + 1})
    wall, cpu = time.perf_counter(), time.process_time()
    slices = sum(len(prepared(fresh, i, Preparation())) for i in range(fresh.subjects))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "subjects": cohort.subjects,
        "slices": slices,
        "matrix": cohort.matrix,
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "wall_s_per_subject": round(wall / cohort.subjects, 3),
    }


def main() -> None:
    """Measure and write `benchmarks/results/phantom_speed.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=50)
    subjects = parser.parse_args().subjects
    torch.set_num_threads(1)
    figures = {
        "breast": timed(Cohort(subjects=subjects, matrix=128, slices=24)),
        "brain": timed(BrainCohort(subjects=max(1, subjects // 5), matrix=128, slices=48)),
        "processes": 1,
    }
    print(figures)
    print(f"written to {record('phantom_speed', figures)}")


if __name__ == "__main__":
    main()
