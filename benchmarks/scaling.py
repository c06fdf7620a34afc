"""How far actors help: stage times are measured here, rows per second at 1 to 512 actors follow from a simulation.

    python benchmarks/scaling.py [--units 96]

Measured: the survey of a row group; what a unit costs its actor besides its rows, and what it costs the driver, on
Ray with workers that only wait. Simulated: actors that take the next call when they are free, and a driver that takes
their results one after the other. The simulation is compared with runs of 1, 2 and 8 such actors on Ray; more do not
fit here. A run makes at most 2,000 calls, so that those of long runs hold many units: cheaper for the driver, measured
too, and coarser at the end.
"""

from __future__ import annotations

import argparse
import heapq
import json
import tempfile
import time
from typing import Any
from unittest.mock import patch

import pyarrow as pa
from _record import RESULTS, record
from speed import _write

from augengine.io.store import Store
from augengine.load import load_mixture
from augengine.pipeline import units as run
from augengine.pipeline.cluster import connect
from augengine.pipeline.survey import survey
from augengine.pipeline.units import Actors, run_units
from augengine.pipeline.workers import Unit
from augengine.rng import generator

UNIT_ROWS = 64
ACTORS = (1, 2, 8, 64, 512)
TRIED = (1, 2, 8)
AT_ONCE = 32
MANY = 1_000_000
"""Volumes of one unit each, 64 slices: what a large run is told for."""
UNIT_S = 0.32
"""Seconds that a unit waits where simulation and Ray are compared: 64 rows of 5 ms."""


class Waits:
    """Takes its time and leaves one row."""

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """The row."""
        time.sleep(spec["seconds"])
        return {"accepted": pa.table({"n": [spec["n"]]})}


def on_ray(actors: int, units: int, seconds: float, at_once: int = 1) -> tuple[float, float]:
    """Seconds between results, and CPU-seconds of the driver per unit, once all actors are there.

    Args:
        at_once: units that are handed to an actor together, as in long runs.
    """
    came: list[tuple[float, float]] = []
    work = [Unit(f"u{n:06d}", {"n": n, "seconds": seconds}) for n in range(units)]
    with tempfile.TemporaryDirectory() as folder, patch.object(run, "MAX_BLOCKS", units // at_once):
        run_units(
            work,
            Waits,
            {},
            Store(folder),
            {"stage": "scaling"},
            actors=Actors(actors, num_cpus=0.1),
            progress=lambda done, of, counts: came.append((time.monotonic(), time.process_time())),
        )
    start = actors * at_once  # one call of each, or nearly so
    (wall, cpu), (end, cpu_end) = came[start], came[-1]
    return (end - wall) / (units - start), (cpu_end - cpu) / (units - start)


def survey_s(rows: int = 32_768) -> float:
    """CPU-seconds per row group."""
    with tempfile.TemporaryDirectory() as folder:
        _write(folder, rows)
        mixture, store = load_mixture("duke_acquisition_paper"), Store(folder)
        spent = []
        for _ in range(3):
            started = time.process_time()
            groups = len(survey(store, mixture).groups)
            spent.append((time.process_time() - started) / groups)
    return min(spent)


def simulated(actors: int, units: int, unit_s: float, driver_s: float) -> float:
    """Seconds until the driver has all results; a unit takes a tenth more or less than another."""
    together = -(-units // run.MAX_BLOCKS)
    calls = -(-units // together)
    lasts = generator("scaling", actors).uniform(0.9, 1.1, (calls, together)).sum(axis=1) * unit_s
    driver_s *= together
    free, driver = [0.0] * min(actors, calls), 0.0
    results: list[float] = []
    for last in lasts.tolist():
        done = free[0] + last
        heapq.heapreplace(free, done)
        heapq.heappush(results, done)
        if len(results) > 4 * actors:  # nobody can be done before these any more
            driver = max(driver, heapq.heappop(results)) + driver_s
    while results:
        driver = max(driver, heapq.heappop(results)) + driver_s
    return driver


def main() -> None:
    """Measure, simulate, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--units", type=int, default=96)
    asked = parser.parse_args()
    connect(num_cpus=4)
    group_s = survey_s()
    alone_s, driver_s = on_ray(1, asked.units, 0.0)
    _, together_s = on_ray(1, 4 * asked.units, 0.0, AT_ONCE)
    tried = {}
    for actors in TRIED:
        found, _ = on_ray(actors, asked.units, UNIT_S)
        told = simulated(actors, asked.units, UNIT_S + alone_s, driver_s) / asked.units
        tried[actors] = {"units_per_s": round(1 / found, 3), "simulated": round(1 / told, 3)}
    network = json.loads((RESULTS / "speed.json").read_text())["figures"]["networks"]
    own = next(f["cpu_s_per_row"] for name, f in network.items() if name.startswith("own network (cddgm_small)"))
    rows = {}
    for name, row_s in (("5 ms a row", 0.005), ("200 ms a row", 0.2), (f"{own:g} s a row", own)):
        unit_s = UNIT_ROWS * row_s + alone_s
        of_one = 0.0
        rows[name] = {"bend_actors": round(unit_s / together_s), "actors": {}}
        for actors in ACTORS:
            seconds = simulated(actors, MANY, unit_s, together_s)
            per_s = MANY * UNIT_ROWS / seconds
            of_one = of_one or per_s
            rows[name]["actors"][str(actors)] = {
                "rows_per_s": float(f"{per_s:.4g}"),
                "efficiency": round(per_s / of_one / actors, 3),
                "hours_of_a_million": float(f"{(seconds + MANY * group_s) / 3600:.3g}"),
            }
    figures = {
        "unit_rows": UNIT_ROWS,
        "survey_ms_per_group": round(1e3 * group_s, 3),
        "unit_overhead_ms": round(1e3 * alone_s, 2),
        "driver_ms_per_unit": round(1e3 * driver_s, 2),
        "at_once": AT_ONCE,
        "driver_ms_per_unit_at_once": round(1e3 * together_s, 2),
        "tried": {str(actors): found for actors, found in tried.items()},
        "rows": rows,
    }
    print(json.dumps(figures, indent=1))
    print(record("scaling", figures))


if __name__ == "__main__":
    main()
