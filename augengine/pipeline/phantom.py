"""A phantom cohort in, a folder in Duke's layout out, subjects in parallel; called again, it writes what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from augengine.io.commits import committed_files
from augengine.io.store import Store
from augengine.phantom.cohort import Cohort
from augengine.phantom.write_duke import finish_duke, write_duke_subject
from augengine.pipeline.units import Actors, Progress, Unit, run_units


def write_cohort(
    cohort: Cohort,
    folder: str,
    *,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
) -> None:
    """Write DICOM series, masks, the mapping file and `cohort.json` to a folder that all workers see."""
    store = Store(f"{folder}/_progress")
    spec = cohort.model_dump(mode="json")
    units = [Unit(cohort.subject_id(i), {"index": i}) for i in range(cohort.subjects)]
    args = {"cohort": spec, "folder": folder}
    run_units(
        units, PhantomWorker, args, store, {"cohort": spec},
        actors=actors, progress=progress,
    )  # fmt: skip
    rows = [row for name in committed_files(store, "files") for row in store.parquet(name).read().to_pylist()]
    finish_duke(cohort, Path(folder), rows)


class PhantomWorker:
    """Draws, scans and writes one subject."""

    def __init__(self, cohort: dict[str, Any], folder: str) -> None:
        self.cohort, self.folder = Cohort.model_validate(cohort), Path(folder)

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """The subject's rows of Duke's mapping file."""
        return {"files": pa.Table.from_pylist(write_duke_subject(self.cohort, int(spec["index"]), self.folder))}
