"""A finished evaluation of a segmenter that samples in; its quality by the number of samples out.

Paper 002 (3.2) takes 30 samples and says that more do not help. Here each test row is sampled as often as the largest
ensemble asks, whose first samples are the smaller ensembles, so that all sizes cost what the largest does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from augengine.downstream.inventory import Inventory, take_inventory
from augengine.downstream.measures import MeasureWorker
from augengine.downstream.predictions import MAPS, PREDICTION_SCHEMA, TRUTH, Chunk, images_of, map_rows, test_chunks
from augengine.downstream.protocols import Protocol
from augengine.downstream.results import Measured, Plan, one_of, prediction_id, scores_of, stored_maps
from augengine.downstream.segmenters.ldm_seg import LdmSeg
from augengine.errors import ConfigError, DataError
from augengine.io.store import Store
from augengine.metrics.intervals import Interval, bootstrap_interval, paired_interval
from augengine.metrics.statistics import BySeed, seed_means
from augengine.pipeline.units import Actors, Progress, run_units
from augengine.pipeline.workers import Unit
from augengine.rng import digest, generator

FOLDER = "ensembles"
ARM = "real"
Trained = tuple[str, str]
"""A training and a chunk of test subjects, by their ids."""


@dataclass(frozen=True)
class BySize:
    """What ensembles of a size reach in a cell.

    Attributes:
        cell: what the arm `real` was trained on and tested on.
        metric, of: what is measured, and of which class (or the mean of the classes).
        value: mean over patients, each the mean of its trainings.
        to_largest: the largest ensemble less this one, on the same patients.
    """

    cell: str
    samples: int
    metric: str
    of: str
    value: Interval
    to_largest: Interval


class EnsembleWorker:
    """Segments the images of a chunk by ensembles of several sizes; labels are never read."""

    def __init__(self, data: str, protocol: Protocol, device: str, sizes: Sequence[int]) -> None:
        self.data, self.protocol, self.device, self.sizes = data, protocol, device, tuple(sizes)

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Rows of `PREDICTION_SCHEMA`, in a folder for each size."""
        segmenter = LdmSeg.load(spec["segmenter"], device=self.device)
        found: dict[int, list[dict[str, Any]]] = {n: [] for n in self.sizes}
        for batch, images in images_of(Chunk.from_dict(spec["chunk"]), self.data, self.protocol, segmenter):
            for n, mean in segmenter.predict_by_size(images, self.sizes).items():
                found[n] += map_rows(batch, mean, segmenter.regions, self.protocol)
        return {maps_of(n): pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA) for n, rows in found.items()}


def maps_of(samples: int) -> str:
    """The folder of the class maps of ensembles of a size."""
    return f"{MAPS}_{samples}"


def by_size(
    out: str, data: str, sizes: Sequence[int], *, actors: Actors, progress: Progress | None = None
) -> list[BySize]:
    """Predict and measure with ensembles of some sizes; the same call again makes what is missing.

    Args:
        out: folder of a finished evaluation, which `ensembles/` is added to.
        data: the real rows that it tested on.
        sizes: from 1 on, in any order.

    Raises:
        ConfigError: fewer than two sizes, or one below 1; a segmenter that draws no samples.
        DataError: other rows than the evaluation's.
        RunError: no evaluation, or one that did not end.
    """
    sizes = check_sizes(sizes)
    plan, store = sampled(out), Store(out)
    trials = [t for t in plan.trials if (t["arm"], t.get("subjects", 0)) == (ARM, plan.sizes[0])]
    tested = {
        str(cell): [(trial, chunk["chunk_id"]) for trial in trials for chunk in plan.tested(trial, cell)]
        for cell in plan.protocol.cells
    }
    pairs = [(trial["trial_id"], chunk) for found in tested.values() for trial, chunk in found]
    chunks = _chunks(take_inventory(data, plan.protocol), plan, store)
    predicted = _predicted(plan, store, Store(data).uri, chunks, pairs, sizes, actors, progress)
    scores = _measured(plan, store, predicted, actors)
    found = []
    for cell, of_cell in tested.items():
        by_n: dict[int, dict[Measured, dict[int, dict[str, float]]]] = {n: {} for n in sizes}
        for trial, chunk in of_cell:
            for n in sizes:
                for key, subject, value in scores[(trial["trial_id"], chunk), n]:
                    by_n[n].setdefault(key, {}).setdefault(trial["seed"], {})[subject] = value
        found += [
            figure for key in by_n[sizes[-1]] for figure in _compared(cell, key, {n: by_n[n][key] for n in sizes})
        ]
    return found


def sampled(out: str) -> Plan:
    """The plan of an evaluation of a segmenter that draws samples; raises as `by_size` does."""
    plan = Plan.read(out)
    if plan.segmenter != LdmSeg.name:
        raise ConfigError(
            f"the segmenter {LdmSeg.name} draws samples",
            found=plan.segmenter,
            where=out,
            next_step=f"evaluate with --segmenter {LdmSeg.name} first",
        )
    if plan.nets > 1:
        raise ConfigError(
            "ensembles by size are of one network per training",
            found=f"{plan.nets}",
            where=out,
            next_step="evaluate with --nets 1 first",
        )
    return plan


def check_sizes(sizes: Sequence[int]) -> list[int]:
    """The sizes in order, each once; a `ConfigError` where there is nothing to compare."""
    found = sorted(set(sizes))
    if len(found) < 2 or found[0] < 1:
        raise ConfigError(
            "ensembles are compared by size: two numbers or more, from 1 on",
            found=list(sizes),
            where="--samples",
            next_step="for example --samples 1,5,10,20,30,40",
        )
    return found


def plateau(figures: Sequence[BySize], tolerance: float) -> int:
    """The least size from which on the largest ensemble is better by less than `tolerance`, at 95 %.

    Args:
        figures: one metric (higher is better) of one cell, by size.
        tolerance: in the metric's unit.
    """
    short = [figure.samples for figure in figures if figure.to_largest.high >= tolerance]
    return min(figure.samples for figure in figures if not short or figure.samples > max(short))


def _chunks(data: Inventory, plan: Plan, store: Store) -> dict[str, Chunk]:
    """The evaluation's chunks of test subjects, by id."""
    chunks = {chunk.digest(data, plan.protocol): chunk for chunk in test_chunks(data, plan.protocol)}
    if {chunk["chunk_id"] for chunk in plan.chunks} != chunks.keys():
        raise DataError(
            "the rows are those that the evaluation tested on",
            found="others",
            where=data.uri,
            next_step=f"give the --data that {store.uri} was made of",
        )
    return chunks


def _predicted(
    plan: Plan,
    store: Store,
    data: str,
    chunks: Mapping[str, Chunk],
    pairs: Sequence[Trained],
    sizes: Sequence[int],
    actors: Actors,
    progress: Progress | None,
) -> dict[tuple[Trained, int], str]:
    """File of the class maps of every training, chunk and size."""
    units = {}
    for trial, chunk in pairs:
        spec = {"segmenter": f"{store.uri}/segmenters/{trial}", "chunk": chunks[chunk].to_dict()}
        drawn = digest(sizes, LdmSeg.settings()["sampling"], length=8)
        units[trial, chunk] = Unit(f"{prediction_id(trial, chunk)}-{drawn}", spec)
    args = {"data": data, "protocol": plan.protocol, "device": "cuda" if actors.num_gpus else "cpu", "sizes": sizes}
    folder = store.folder(f"{FOLDER}/predictions")
    done = run_units(
        list(units.values()), EnsembleWorker, args, folder, {"stage": FOLDER}, actors=actors, progress=progress
    )
    files = {pair: done.records[unit.unit_id].files for pair, unit in units.items()}
    return {(pair, n): of[maps_of(n)][0].name for pair, of in files.items() for n in sizes}


def _measured(
    plan: Plan, store: Store, predicted: Mapping[tuple[Trained, int], str], actors: Actors
) -> dict[tuple[Trained, int], list[tuple[Measured, str, float]]]:
    """Scores of every training, chunk and size."""
    truths, folder, units = stored_maps(store.folder(TRUTH)), store.folder(f"{FOLDER}/measures"), {}
    for ((trial, chunk), n), name in predicted.items():
        truth = one_of(truths, chunk, store)
        spec = {"predictions": f"{FOLDER}/predictions/{name}", "truth": f"{TRUTH}/{truth.name}"}
        units[(trial, chunk), n] = Unit(digest(plan.protocol.metrics, name, truth.sha256, length=16), spec)
    done = run_units(
        list(units.values()),
        MeasureWorker,
        {"out": store, "protocol": plan.protocol},
        folder,
        {"stage": f"{FOLDER}, measured"},
        actors=replace(actors, num_gpus=0),
    )
    return {key: scores_of(folder, done.records[unit.unit_id]) for key, unit in units.items()}


def _compared(cell: str, measured: Measured, values: Mapping[int, BySeed]) -> list[BySize]:
    """One metric and class of a cell, by size; nothing where no patient has the class."""
    means = {n: seed_means(by_seed) for n, by_seed in values.items()}
    largest = means[max(means)]
    return [
        BySize(
            cell,
            n,
            *measured,
            value=bootstrap_interval(found, rng=generator("ensembles", cell, *measured)),
            to_largest=paired_interval(largest, found, rng=generator("ensembles", cell, *measured)),
        )
        for n, found in means.items()
    ]
