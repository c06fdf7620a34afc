"""A folder of images in a known layout goes in; `samples/`, `volumes/`, `failed/` and a manifest come out.

Three passes: list (driver, names only) and headers (workers), both in `ingest_plan`, then pixels (work units). Every
volume found ends in `volumes/` (one ledger row, its samples in `samples/`) or in `failed/`; every file
found is part of a volume or named with the reason why not. Both sums are checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

import augengine
from augengine.errors import AugengineError, DataError, RunError
from augengine.io.dataset import finish, listed_files
from augengine.io.deface import defaced
from augengine.io.layouts import READERS
from augengine.io.parts import Part
from augengine.io.shards import SCHEMA, to_table
from augengine.io.sources import Reader, Source, SourceOptions, Volume
from augengine.io.store import Place, Store
from augengine.label_loss import LabelWatch
from augengine.pipeline.ingest_plan import IngestPlan, plan_ingest
from augengine.pipeline.ingest_scan import Progress, reason
from augengine.pipeline.units import Actors, run_units
from augengine.pipeline.workers import Unit
from augengine.prepare import Preparation, prepare
from augengine.records import Sample
from augengine.rng import digest
from augengine.splits import DEFAULT_FRACTIONS, SPLITS

FAILED_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("source", "subject_id", "stage", "error", "reason")]
)  # `source` is the volume id: paths and file names may hold a patient's name
VOLUMES_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("subject_id", pa.string()),
        ("split", pa.string()),
        ("rows", pa.int32()),
        ("notes", pa.list_(pa.string())),
    ]
)
EMPTY_MASK = "the mask is empty: all of it is background"
VOLUMES_PER_UNIT = 4


def ingest(
    root: str | Path,
    out: Place,
    *,
    layout: str = "auto",
    options: SourceOptions | None = None,
    preparation: Preparation | None = None,
    split_seed: int = 0,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    labelled_fractions: Sequence[float] | None = None,
    licence: str | None = None,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    plan: IngestPlan | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Ingest a data set; the same call again does only what is missing.

    Args:
        root: local folder that all workers see.
        out: output folder: local path, fsspec URI, or a `Store` with storage options.
        fractions: of subjects in train, val, test.
        plan: what `plan_ingest` made of the same folder and options, if it has been called.
        labelled_fractions: the same of subjects with a mask, who are then split by themselves.
        licence: of the data, which what is made from them inherits; the same call with another one changes it.
        progress: called with stage (`headers`, `volumes`), done, total and row counts.

    Returns:
        The manifest, with `sources` (per volume: entry, source, subject_id, split, rows, reason), `unused` (files of
        no volume, with reasons), `hint` (what else the user should know, or None), `made`, `skipped` and `seconds`
        added. Paths are for the console; they are not written.

    Raises:
        DataError, ConfigError: the folder or the options as a whole cannot be used.
        RunError: the output folder holds another run, or counts do not reconcile.
    """
    options, preparation = options or SourceOptions(), preparation or Preparation()
    plan = plan or plan_ingest(
        root, layout, options, split_seed, fractions, actors.inline, progress, labelled_fractions=labelled_fractions
    )
    reader, sources, splits = plan.reader, plan.sources, plan.splits
    store = Store.at(out)
    settings: dict[str, Any] = {
        "layout": reader.layout,
        "preparation": preparation.model_dump(),
        "options": options.identity(),
        "split": {"seed": split_seed, "fractions": list(fractions)},
    }
    if made := READERS.made_by(reader.layout):
        settings["plugins"] = made
    if labelled_fractions is not None:
        settings["split"]["labelled_fractions"] = list(labelled_fractions)
    fingerprint = {"stage": "ingest", **settings, "sources": digest([s.to_json() for s in sources])}
    summary = run_units(
        plan_units(sources, splits, reader.root),
        IngestWorker,
        {"reader": reader, "preparation": preparation},
        store,
        fingerprint,
        actors=actors,
        progress=None if progress is None else lambda done, total, counts: progress("volumes", done, total, counts),
    )
    counts = {name: summary.counts.get(name, 0) for name in ("samples", "volumes", "failed")}
    if counts["volumes"] + counts["failed"] != len(sources):
        raise RunError(
            "volumes found must equal volumes ingested plus failed",
            found=f"{len(sources)} found, {counts}",
            where=store.uri,
            next_step="ingest into an empty folder",
        )
    lost = {row["source"] for row in _rows(store, summary.files.get("failed", []))}
    files = plan.files(lost)
    manifest = {
        "stage": "ingest",
        "engine_version": augengine.__version__,
        **settings,
        "found": {"volumes": len(sources), "subjects": len({s.subject_id for s in sources})},
        "counts": counts,
        "input_files": files,
        "subjects_by_split": {name: sum(v == name for v in splits.values()) for name in SPLITS},
        "notes": dict(Counter(note for s in sources for note in s.notes)),
        "licence": licence,
    }
    finish(store, manifest, {name: summary.files.get(name, []) for name in counts})
    added = {
        "made": summary.made,
        "skipped": summary.skipped,
        "seconds": summary.seconds,
        "unused": plan.unused,
        "hint": plan.hint,
    }
    return {**manifest, **added, "sources": ledger(store, sources)}


def plan_units(sources: Sequence[Source], splits: Mapping[str, str], root: Path) -> list[Unit]:
    """A few volumes per unit, in the order of their ids; ids follow from the content.

    A file of another size or date gives its unit another id, so that a mended mask is read again.
    """
    units = []
    for n in range(0, len(sources), VOLUMES_PER_UNIT):
        chunk = sources[n : n + VOLUMES_PER_UNIT]
        items = [{"source": s.to_json(), "split": splits.get(s.subject_id), "files": _dates(s, root)} for s in chunk]
        units.append(Unit(f"{n // VOLUMES_PER_UNIT:05d}-{digest(items, length=8)}", {"items": items}))
    return units


def _dates(source: Source, root: Path) -> str:
    """Digest of the sizes and dates of a volume's files."""
    found: list[tuple[int, int] | None] = []
    for name in source.files:
        try:
            state = (root / name).stat()
            found.append((state.st_size, state.st_mtime_ns))
        except OSError:
            found.append(None)
    return digest(found, length=16)


class IngestWorker:
    """Reads and prepares the volumes of a unit; one that cannot be used becomes a row of `failed`."""

    def __init__(self, reader: Reader, preparation: Preparation) -> None:
        self.reader, self.preparation = reader, preparation

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Tables `samples`, `volumes` and `failed`."""
        samples, volumes, failed = [SCHEMA.empty_table()], [], []
        for item in spec["items"]:
            source = Source.from_json(item["source"])
            stage = "headers"
            try:
                if source.error is not None:
                    raise DataError(source.error)
                stage = "read"
                volume = self.reader.read(source)
                sample = volume.sample
                removed: list[str] = []
                if self.reader.options.deface is not None:
                    stage = "deface"
                    sample, removed = defaced(sample, self.reader.options.deface)
                stage = "prepare"
                watch = self._watch(volume)
                lost = watch.notes if watch is not None else []
                label = volume.sample.label
                empty = [EMPTY_MASK] if label is not None and not label.any() else []
                stated = self._stated(sample, source, item["split"])
                rows = prepare(
                    stated,
                    self.preparation,
                    outside=volume.outside,
                    acquired_axis=volume.acquired_axis,
                    slice_by_slice=source.slice_by_slice,
                    watch=watch,
                )
                samples.append(to_table(rows))
                volumes.append(
                    {
                        "source": source.volume_id,
                        "subject_id": source.subject_id,
                        "split": item["split"],
                        "rows": len(rows),
                        "notes": [*source.notes, *volume.notes, *removed, *lost, *empty],
                    }
                )
            except Exception as error:  # one bad volume must not stop the others; it is listed with its reason
                failed.append(
                    {
                        "source": source.volume_id,
                        "subject_id": source.subject_id,
                        "stage": stage,
                        "error": type(error).__name__,
                        "reason": reason(error, source, self.reader.root),
                    }
                )
        return {
            "samples": pa.concat_tables(samples),
            "volumes": pa.Table.from_pylist(volumes, schema=VOLUMES_SCHEMA),
            "failed": pa.Table.from_pylist(failed, schema=FAILED_SCHEMA),
        }

    def divide(self, spec: dict[str, Any]) -> list[dict[str, Any]]:
        """One volume each."""
        return [{"items": [item]} for item in spec["items"]]

    def quarantine(self, spec: dict[str, Any], why: AugengineError) -> dict[str, pa.Table]:
        """Rows of `failed` for volumes that were not read."""
        items = [{**item, "source": {**item["source"], "error": str(why)}} for item in spec["items"]]
        return self({"items": items})

    def _watch(self, volume: Volume) -> LabelWatch | None:
        sample = volume.sample
        if volume.watch is not None or sample.label is None:
            return volume.watch
        return LabelWatch.of(sample.label, sample.affine, sample.labels, self.reader.options.max_label_loss)

    def _stated(self, volume: Sample, source: Source, split: str | None) -> Sample:
        acquisition = volume.acquisition.replace(**self.reader.options.acquisition)
        return volume.replace(acquisition=acquisition, site=source.site, split=split)


def ledger(store: Store, sources: Sequence[Source]) -> list[dict[str, Any]]:
    """What became of each volume: entry, source, subject_id, split, rows, notes or reason."""
    found: dict[str, dict[str, Any]] = {}
    files = listed_files(store)
    found.update((row["source"], row) for row in _rows(store, [*files["volumes"], *files["failed"]]))
    empty: dict[str, Any] = {"split": None, "rows": 0, "notes": [], "stage": None, "reason": None}
    return [{"entry": s.entry, **empty, **found[s.volume_id]} for s in sources]


def _rows(store: Store, parts: Sequence[Part]) -> list[dict[str, Any]]:
    return [row for part in parts for row in store.parquet(part.name).read().to_pylist()]
