"""A folder of images in a known layout goes in; `samples/`, `volumes/`, `failed/` and a manifest come out.

Three passes: list (driver, names only), headers (workers), pixels (work units). The split needs every
subject's acquisition before the first shard is written, so the driver holds one small row per volume, never
pixels. Every volume found ends in `volumes/` (one ledger row, its samples in `samples/`) or in `failed/`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

import augengine
from augengine.errors import AugengineError, DataError, RunError
from augengine.io.dataset import finish, listed_files
from augengine.io.layouts import open_layout
from augengine.io.shards import SCHEMA, to_table
from augengine.io.sources import Entry, Reader, Source, SourceOptions, pseudonym
from augengine.io.store import Place, Store
from augengine.pipeline.units import Actors, Unit, run_units
from augengine.prepare import Preparation, prepare
from augengine.records import Acquisition, Sample
from augengine.rng import canonical_json, digest
from augengine.splits import DEFAULT_FRACTIONS, SPLITS, assign_splits, categories

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
VOLUMES_PER_UNIT = 4
Progress = Callable[[str, int, int, Mapping[str, int]], None]


def ingest(
    root: str | Path,
    out: Place,
    *,
    layout: str = "auto",
    options: SourceOptions | None = None,
    preparation: Preparation | None = None,
    split_seed: int = 0,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    actors: Actors = Actors(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Ingest a data set; the same call again does only what is missing.

    Args:
        root: local folder that all workers see.
        out: output folder: local path, fsspec URI, or a `Store` with storage options.
        fractions: of subjects in train, val, test.
        progress: called with stage (`headers`, `volumes`), done, total and row counts.

    Returns:
        The manifest, with `sources` (per volume: entry, source, subject_id, split, rows, reason), `made`,
        `skipped` and `seconds` added. Entries are paths, for the console; they are not written.

    Raises:
        DataError, ConfigError: the folder or the options as a whole cannot be used.
        RunError: the output folder holds another run, or counts do not reconcile.
    """
    options, preparation = options or SourceOptions(), preparation or Preparation()
    reader, entries = open_layout(Path(root).expanduser().resolve(), layout, options)
    sources = _unique(_scan(reader, entries, actors.inline, progress))
    splits = _splits(sources, options, split_seed, fractions)
    store = Store.at(out)
    settings = {
        "layout": reader.layout,
        "preparation": preparation.model_dump(),
        "options": options.identity(),
        "split": {"seed": split_seed, "fractions": list(fractions)},
    }
    fingerprint = {"stage": "ingest", **settings, "sources": digest([s.to_json() for s in sources])}
    summary = run_units(
        plan_units(sources, splits),
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
            "volumes found must equal volumes ingested plus failed", found=f"{len(sources)} found, {counts}",
            where=store.uri, next_step="ingest into an empty folder",
        )  # fmt: skip
    manifest = {
        "stage": "ingest",
        "engine_version": augengine.__version__,
        **settings,
        "found": {"volumes": len(sources), "subjects": len({s.subject_id for s in sources})},
        "counts": counts,
        "subjects_by_split": {name: sum(v == name for v in splits.values()) for name in SPLITS},
        "notes": dict(Counter(note for s in sources for note in s.notes)),
    }
    finish(store, manifest, {name: summary.files.get(name, []) for name in counts})
    added = {"made": summary.made, "skipped": summary.skipped, "seconds": summary.seconds}
    return {**manifest, **added, "sources": ledger(store, sources)}


def plan_units(sources: Sequence[Source], splits: Mapping[str, str]) -> list[Unit]:
    """A few volumes per unit, in the order of their ids; ids follow from the content."""
    units = []
    for n in range(0, len(sources), VOLUMES_PER_UNIT):
        chunk = sources[n : n + VOLUMES_PER_UNIT]
        items = [{"source": s.to_json(), "split": splits.get(s.subject_id)} for s in chunk]
        units.append(Unit(f"{n // VOLUMES_PER_UNIT:05d}-{digest(items, length=8)}", {"items": items}))
    return units


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
                volume, notes = self.reader.read(source)
                stage = "prepare"
                rows = prepare(self._stated(volume, item["split"]), self.preparation)
                samples.append(to_table(rows))
                volumes.append(
                    {
                        "source": source.volume_id, "subject_id": source.subject_id, "split": item["split"],
                        "rows": len(rows), "notes": [*source.notes, *notes],
                    }
                )  # fmt: skip
            except Exception as error:  # one bad volume must not stop the others; it is listed with its reason
                failed.append(
                    {
                        "source": source.volume_id, "subject_id": source.subject_id, "stage": stage,
                        "error": type(error).__name__, "reason": reason(error, source, self.reader.root),
                    }
                )  # fmt: skip
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

    def _stated(self, volume: Sample, split: str | None) -> Sample:
        options = self.reader.options
        acquisition = volume.acquisition.replace(**options.acquisition)
        return volume.replace(acquisition=acquisition, site=options.site, split=split)


def reason(error: Exception, source: Source, root: Path) -> str:
    """What went wrong, without paths and file names: they may name a patient.

    The project's own errors keep places apart from their text (`where`); others are searched for names.
    """
    if isinstance(error, AugengineError):
        return str(type(error)(error.rule, found=error.found, next_step=error.next_step))
    text = f"{type(error).__name__}: {error}"
    names = {str(root), *root.parts, *Path(source.entry).parts, *re.findall(r"[^\"'/\\]+", canonical_json(source.spec))}
    for name in sorted((n for n in names if len(n) > 2), key=len, reverse=True):
        text = text.replace(name, "…")
    return text


def ledger(store: Store, sources: Sequence[Source]) -> list[dict[str, Any]]:
    """What became of each volume: entry, source, subject_id, split, rows, notes or reason."""
    found: dict[str, dict[str, Any]] = {}
    files = listed_files(store)
    for part in (*files["volumes"], *files["failed"]):
        found.update((row["source"], row) for row in store.parquet(part.name).read().to_pylist())
    empty: dict[str, Any] = {"split": None, "rows": 0, "notes": [], "stage": None, "reason": None}
    return [{"entry": s.entry, **empty, **found[s.volume_id]} for s in sources]


def _scan(reader: Reader, entries: Sequence[Entry], inline: bool, progress: Progress | None) -> list[Source]:
    sources: list[Source] = []
    for n, found in enumerate(_scanned(reader, entries, inline), 1):
        sources += found
        if progress:
            progress("headers", n, len(entries), {"volumes": len(sources)})
    return sorted(sources, key=lambda s: (s.volume_id, s.entry))


def _scanned(reader: Reader, entries: Sequence[Entry], inline: bool) -> Iterator[list[Source]]:
    if inline:
        for entry in entries:
            yield [Source.from_json(s) for s in scan_entry(reader, entry)]
        return
    import ray

    items = [{"entry": json.dumps(entry)} for entry in entries]
    dataset = ray.data.from_items(items, override_num_blocks=min(len(items), 200)).map(_scan_row, fn_args=(reader,))
    for row in dataset.iter_rows():
        yield [Source.from_json(s) for s in json.loads(row["sources"])]


def _scan_row(row: dict[str, Any], reader: Reader) -> dict[str, str]:
    return {"sources": json.dumps(scan_entry(reader, json.loads(row["entry"])))}


def scan_entry(reader: Reader, entry: Entry) -> list[dict[str, Any]]:
    """Sources of one entry as JSON; an entry that cannot be scanned is one source with an error."""
    try:
        return [s.to_json() for s in reader.scan(entry)]
    except Exception as error:  # one bad folder must not stop the others; it is listed with its reason
        subject = pseudonym(canonical_json(entry), reader.options.pseudonym_key)
        where = str(entry.get("folder") or entry.get("entry"))
        failed = Source(subject, subject, where)
        return [dataclasses.replace(failed, error=reason(error, failed, reader.root)).to_json()]


def _unique(sources: Sequence[Source]) -> list[Source]:
    """Let no volume id stand twice: all but the first are renamed and fail."""
    by_id: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        by_id[source.volume_id].append(source)
    unique = []
    for group in by_id.values():
        unique.append(group[0])
        for n, source in enumerate(group[1:], 2):
            error = source.error or "this volume stands in two folders; the first one was taken"
            unique.append(dataclasses.replace(source, volume_id=f"{source.volume_id}-copy{n}", error=error))
    return unique


def _splits(sources: Sequence[Source], options: SourceOptions, seed: int, fractions: Sequence[float]) -> dict[str, str]:
    """Split of every subject with a usable volume."""
    acquisitions: dict[str, list[Acquisition]] = defaultdict(list)
    for source in sources:
        if source.error is None:
            acquisitions[source.subject_id].append(source.acquisition.replace(**options.acquisition))
    return assign_splits({s: categories(a, options.site) for s, a in acquisitions.items()}, seed, fractions)
