"""What it gains to read the next unit and write the last one while a unit is made: rows per second beside a bare loop.

    python benchmarks/read_ahead.py [--rows 1024] [--rounds 3]

Slices of 224², 64 in a unit, through the worker and the commits of an actor, in this process. An edit computes for
about 5 ms a row on the CPU, or waits for 5 ms a row, which stands for a GPU: the processor is free meanwhile, as it is
while a GPU samples. The bare loop calls the edit alone on rows that are in memory. All ways are interleaved.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from _record import record
from scipy.ndimage import gaussian_filter

from augengine.edits import EDITS
from augengine.edits.base import Context, Drawing, Plan
from augengine.io.dataset import dataset_files, write_dataset
from augengine.io.shards import iter_samples, to_table
from augengine.io.store import Store
from augengine.load import LoadedPolicy, Mixture
from augengine.pipeline.augment import make_units
from augengine.pipeline.augment_worker import AugmentWorker
from augengine.pipeline.committer import Committer, Work
from augengine.pipeline.survey import survey
from augengine.pipeline.workers import Unit
from augengine.policy.spec import Sampler
from augengine.records import Sample
from augengine.yaml_config import Strict

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
ROW_S = 0.005


class Edit:
    """Smooths a slice again and again, or waits; the same in both is that the row differs from its source."""

    MODELS: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    class Params(Strict):
        """None."""

    def __init__(self, name: str, work: Callable[[np.ndarray], np.ndarray]) -> None:
        self.name, self.work = name, work

    def check(self, params: Any, sampler: Sampler, specs: Mapping[str, Any]) -> None:
        """Nothing can be wrong."""

    def plan(self, sample: Sample, params: Any, rng: np.random.Generator, context: Context) -> Drawing:
        """A shift of the brightness, so that no two rows are equal."""
        return Drawing({"shift": round(float(rng.uniform(1, 9)), 3)})

    def apply(
        self, samples: Sequence[Sample], plans: Sequence[Plan], models: Mapping[str, Any], params: Any, sampler: Sampler
    ) -> list[Sample]:
        """The work of each row, one by one."""
        return [
            s.replace(image=np.rint(self.work(s.image) + p.params["shift"]).astype(np.float32))
            for s, p in zip(samples, plans, strict=True)
        ]

    def apart(self, models: Mapping[str, Any], params: Any) -> bool:
        """Rows are made one by one."""
        return True

    def region(self, sample: Sample, plan: Plan) -> None:
        """Everything may change."""


def _computed(times: int) -> Callable[[np.ndarray], np.ndarray]:
    def work(image: np.ndarray) -> np.ndarray:
        for _ in range(times):
            image = gaussian_filter(image, (0, 1, 1))
        return image

    return work


def _waited(image: np.ndarray) -> np.ndarray:
    time.sleep(ROW_S)
    return image


def _times() -> int:
    """Smoothings of a slice in about `ROW_S` of CPU time."""
    image, started = np.ones((1, 224, 224), np.float32), time.process_time()
    _computed(50)(image)
    return max(1, round(ROW_S / ((time.process_time() - started) / 50)))


def _policy(edit: str) -> LoadedPolicy:
    return LoadedPolicy.from_dict(
        {
            "version": 1,
            "name": f"read-ahead-{edit}",
            "edit": edit,
            "params": {},
            "gates": [{"name": "duplicate", "max": 0}],
            "select": {"split": None},
            "output": {"micro_batch": 8},
        }
    )


def _committer(mixture: Mixture, data: Store, out: Store) -> tuple[Committer, list[Unit]]:
    found = survey(data, mixture)
    hashes: dict[str, dict[str, str]] = {member.name: {} for member in mixture.members}
    arguments = {
        "policy": mixture.to_dict(),
        "data": data,
        "models": hashes,
        "hashes": hashes,
        "donors": [asdict(donor) for donor in found.donors],
        "device": "cpu",
    }
    work = Work(AugmentWorker, arguments, out, "benchmark", None)
    return Committer(work), make_units(found, mixture, mixture.run_digest(hashes))


def _spent(act: Callable[[], object]) -> tuple[float, float]:
    """Seconds and CPU-seconds."""
    wall, cpu = time.monotonic(), time.process_time()
    act()
    return time.monotonic() - wall, time.process_time() - cpu


def measured(edit: str, data: Store, rows: int, rounds: int) -> dict[str, Any]:
    """Medians per row of each way, and what share of the bare loop's speed each has."""
    loaded = _policy(edit)
    mixture, step = Mixture((loaded,)), loaded.steps[0]
    samples = list(iter_samples(data, dataset_files(data)))
    plans = [Plan("", s.sample_id, 0, 0, n, {"shift": 1 + n % 8}) for n, s in enumerate(samples)]

    def bare() -> None:
        for n in range(0, rows, 8):
            step.apply(samples[n : n + 8], plans[n : n + 8], {})

    spent: dict[str, list[tuple[float, float]]] = {"bare loop": [], "one at a time": [], "read ahead": []}
    for _ in range(rounds):
        spent["bare loop"].append(_spent(bare))
        for way in ("one at a time", "read ahead"):
            with tempfile.TemporaryDirectory() as folder:
                committer, units = _committer(mixture, data, Store(folder))
                if way == "read ahead":
                    spent[way].append(_spent(lambda c=committer, u=units: list(c.results(u))))  # type: ignore[misc]
                else:
                    spent[way].append(_spent(lambda c=committer, u=units: [c.commit(unit) for unit in u]))  # type: ignore[misc]
    medians = {way: [statistics.median(of) / rows for of in zip(*found, strict=True)] for way, found in spent.items()}
    return {
        way: {
            "ms_per_row": round(1e3 * wall, 2),
            "cpu_ms_per_row": round(1e3 * cpu, 2),
            "of_bare_loop": round(medians["bare loop"][0] / wall, 3),
            "of_bare_loop_cpu": round(medians["bare loop"][1] / cpu, 3) if edit == "computes" else None,
        }
        for way, (wall, cpu) in medians.items()
    }


def main() -> None:
    """Measure, print and record."""
    from builders import slice_sample

    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    EDITS["computes"] = Edit("computes", _computed(_times()))
    EDITS["waits"] = Edit("waits", _waited)
    with tempfile.TemporaryDirectory() as folder:
        shards = (to_table(slice_sample(n, i, size=224) for i in range(64)) for n in range(asked.rows // 64))
        data = write_dataset(folder, shards)
        figures = {name: measured(name, data, asked.rows // 64 * 64, asked.rounds) for name in ("computes", "waits")}
    found = {"rows": asked.rows // 64 * 64, "rounds": asked.rounds, "edits": figures}
    print(found)
    print(record("read_ahead", found))


if __name__ == "__main__":
    main()
