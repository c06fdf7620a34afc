"""A phantom cohort in; a data set in a public layout, or shards, out. Called again, both make what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from augengine.io.dataset import finish
from augengine.io.shards import to_table
from augengine.io.store import Place, Store
from augengine.phantom import write
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.pipeline.units import Actors, Progress, run_units
from augengine.pipeline.workers import Unit
from augengine.prepare import Preparation
from augengine.splits import DEFAULT_FRACTIONS, assign_splits, categories

AnyCohort = Cohort | BrainCohort


def write_cohort(
    cohort: AnyCohort,
    folder: str,
    layout: write.Layout,
    *,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
) -> None:
    """Write DICOM or NIfTI with masks to a folder that all workers see, and last `cohort.json`."""
    store = Store(f"{folder}/_progress")
    spec = cohort.model_dump(mode="json")
    units = [Unit(cohort.subject_id(i), {"index": i}) for i in range(cohort.subjects)]
    args = {"cohort": cohort, "folder": folder, "layout": layout}
    fingerprint = {"cohort": spec, "layout": layout}
    files = run_units(units, LayoutWorker, args, store, fingerprint, actors=actors, progress=progress).files["files"]
    rows = [row for part in files for row in store.parquet(part.name).read().to_pylist()]
    write.finish(cohort, Path(folder), rows)


def shard_cohort(
    cohort: AnyCohort,
    out: Place,
    preparation: Preparation,
    *,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
) -> None:
    """Straight to the data set `out`, as ingest of the written cohort would, but for the files in between.

    `fractions` of the subjects are for training, validation and test.
    """
    store = Store.at(out)
    scanned = {cohort.subject_id(i): _scanner(cohort, i) for i in range(cohort.subjects)}
    splits = assign_splits(scanned, 0, fractions)
    units = [Unit(s, {"index": i, "split": splits[s]}) for i, s in enumerate(scanned)]
    settings = {
        "stage": "phantom",
        "cohort": cohort.model_dump(mode="json"),
        "preparation": preparation.model_dump(),
        "fractions": list(fractions),
    }
    args = {"cohort": cohort, "preparation": preparation}
    summary = run_units(units, ShardWorker, args, store, settings, actors=actors, progress=progress)
    finish(store, {**settings, "counts": summary.counts}, summary.files)


def _scanner(cohort: AnyCohort, index: int) -> frozenset[str]:
    """What the split is stratified by: the breast's protocol or the brain's site."""
    return categories([cohort.acquisition(index)]) if isinstance(cohort, Cohort) else frozenset({cohort.site(index)})


class LayoutWorker:
    """Draws, scans and writes one subject."""

    def __init__(self, cohort: AnyCohort, folder: str, layout: write.Layout) -> None:
        self.cohort, self.folder, self.layout = cohort, Path(folder), layout

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """The subject's rows of Duke's mapping file."""
        return {
            "files": pa.Table.from_pylist(write.write_subject(self.cohort, spec["index"], self.folder, self.layout))
        }


class ShardWorker:
    """Draws, scans and prepares one subject."""

    def __init__(self, cohort: AnyCohort, preparation: Preparation) -> None:
        self.cohort, self.preparation = cohort, preparation

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """The subject's samples."""
        samples = write.prepared(self.cohort, spec["index"], self.preparation)
        return {"samples": to_table(s.replace(split=spec["split"]) for s in samples)}
