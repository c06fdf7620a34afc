"""Are rows equal for one and two actors, and for other micro-batches? And how fast is the engine beside a bare loop?

    python benchmarks/augment_actors.py --run runs/duke_phantom

Uses the data, model and policy of a finished `jobs/augment_duke.py` run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import numpy as np
import torch
from _record import record

from augengine.diffusion.checkpoint import load_generator
from augengine.edits.base import Plan
from augengine.io.commits import committed_files
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.load import LoadedPolicy, load_policy
from augengine.pipeline.augment import augment
from augengine.pipeline.cluster import connect
from augengine.pipeline.units import Actors
from augengine.records import Sample

Rows = dict[tuple[str, int], Sample]


def rows(out: str) -> Rows:
    """Edited rows by parent and replicate: output ids differ where the policy does."""
    store = Store(out)
    found = {}
    for folder in ("accepted", "rejected"):
        for sample in iter_samples(store, committed_files(store, folder)):
            assert sample.provenance is not None
            found[sample.provenance.parent_id, sample.provenance.plan["replicate"]] = sample
    return found


def bare_loop(loaded: LoadedPolicy, data: str, checkpoint: str, like: Rows, size: int) -> tuple[float, Rows]:
    """Seconds of `apply` alone for the same rows and plans, in batches of `size`: one process, one thread."""
    torch.set_num_threads(1)
    store = Store(data)
    samples = [s for s in iter_samples(store, dataset_files(store)) if (s.sample_id, 0) in like]
    plans = [Plan.from_dict(like[s.sample_id, 0].provenance.plan) for s in samples]  # type: ignore[union-attr]
    models = {"generator": load_generator(checkpoint)}
    started, made = time.monotonic(), []
    for n in range(0, len(samples), size):
        chunk, planned = samples[n : n + size], plans[n : n + size]
        made += loaded.steps[0].apply(chunk, planned, models)
    return time.monotonic() - started, {(s.sample_id, 0): m for s, m in zip(samples, made, strict=True)}


def main() -> None:
    """Run the engine with one and two actors and the bare loop with batches of 8 and 1; record equality and speed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="runs/duke_phantom")
    parser.add_argument("--policy", default="duke_acquisition")
    flags = parser.parse_args()
    data, checkpoint, loaded = f"{flags.run}/data", f"{flags.run}/model/checkpoint", load_policy(flags.policy)
    connect(num_cpus=4)
    runs: dict[int, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for actors in (1, 2):
            summary = augment(loaded, data, f"{folder}/{actors}", {"generator": checkpoint}, actors=Actors(actors))
            runs[actors] = (rows(f"{folder}/{actors}"), summary.run)
    one, two = runs[1][0], runs[2][0]
    first = {k: s for k, s in one.items() if s.provenance and s.provenance.plan["attempt"] == 0}
    batch = loaded.policy.output.micro_batch
    batched_s, batched = bare_loop(loaded, data, checkpoint, first, batch)
    _, single = bare_loop(loaded, data, checkpoint, first, 1)
    differences = [float(np.abs(batched[k].image - single[k].image).max()) for k in first]
    figures = {
        "rows": len(one),
        "actors_seen": {actors: len(run.pids) for actors, (_, run) in runs.items()},
        "equal_bytes_one_and_two_actors": sum(one[k].image.tobytes() == two[k].image.tobytes() for k in one),
        f"batches_of_{batch}_against_1": {
            "rows": len(first),
            "equal_bytes": sum(d == 0 for d in differences),
            "largest_difference_grey_levels": max(differences),
            "intensity_range_grey_levels": float(
                np.median([np.ptp(s.intensity_range, axis=1).max() for s in one.values()])
            ),
        },
        "seconds": {
            **{f"engine, {actors} actors": round(run.seconds, 1) for actors, (_, run) in runs.items()},
            f"bare loop, one thread, {len(first)} rows": round(batched_s, 1),
        },
    }
    print(figures)
    print(record("augment_actors", figures))


if __name__ == "__main__":
    main()
