"""A folder of images in a known layout goes in; `samples/`, `volumes/`, `failed/` and a manifest come out.

Three passes: list (driver, names only), headers (workers), pixels (work units). The split needs every
subject's acquisition before the first shard is written, so the driver holds one small row per volume, never
pixels. Every volume found ends in `volumes/` (one ledger row, its samples in `samples/`) or in `failed/`; every file
found is part of a volume or named with the reason why not. Both sums are checked.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

import augengine
from augengine.errors import AugengineError, DataError, RunError
from augengine.io.dataset import finish, listed_files
from augengine.io.layouts import open_layout
from augengine.io.participants import Participants
from augengine.io.parts import Part
from augengine.io.shards import SCHEMA, to_table
from augengine.io.sources import (
    Entry,
    Listing,
    Reader,
    Settles,
    Source,
    SourceOptions,
    Unused,
    Volume,
    grouped,
    matched,
    pseudonym,
    subject_name,
)
from augengine.io.store import Place, Store
from augengine.io.time_points import time_points
from augengine.io.walk import walk
from augengine.label_loss import LabelWatch
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
EMPTY_MASK = "the mask is empty: all of it is background"
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
            "volumes found must equal volumes ingested plus failed", found=f"{len(sources)} found, {counts}",
            where=store.uri, next_step="ingest into an empty folder",
        )  # fmt: skip
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
        "made": summary.made, "skipped": summary.skipped, "seconds": summary.seconds, "unused": plan.unused,
        "hint": plan.hint,
    }  # fmt: skip
    return {**manifest, **added, "sources": ledger(store, sources)}


@dataclass(frozen=True, eq=False)
class IngestPlan:
    """What names and headers alone tell of a data set: all but the pixels.

    Attributes:
        splits: of every subject with a usable volume.
        shared: files that volumes of several entries use.
        unused: files of no volume, with reasons.
        found: files below the root, counted on their own.
        hint: what the user should know about subjects; None if nothing.
    """

    reader: Reader
    sources: Sequence[Source]
    splits: Mapping[str, str]
    shared: Sequence[str]
    unused: Sequence[Unused]
    found: int
    hint: str | None = None

    def files(self, lost: Collection[str] = ()) -> dict[str, Any]:
        """Counts of files: found = used + failed + unused.

        Args:
            lost: ids of the volumes that cannot be ingested.

        Raises:
            RunError: the sum is not right.
        """
        used = {*self.shared, *(f for s in self.sources if s.volume_id not in lost for f in s.files)}
        failed = {f for s in self.sources if s.volume_id in lost for f in s.files} - used
        reasons: Counter[str] = Counter()
        for item in self.unused:
            reasons[item.reason] += item.files
        if len(used) + len(failed) + reasons.total() != self.found:
            raise RunError(
                "files found must equal files used plus files of failed volumes plus files named as unused",
                found=f"{self.found} found, {len(used)} + {len(failed)} + {reasons.total()}",
                where=str(self.reader.root),
                next_step="report this layout; nothing says which file was passed over",
            )
        return {"found": self.found, "used": len(used), "failed": len(failed), "unused": dict(sorted(reasons.items()))}


def plan_ingest(
    root: str | Path,
    layout: str,
    options: SourceOptions,
    split_seed: int = 0,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    inline: bool = False,
    progress: Progress | None = None,
    *,
    labelled_fractions: Sequence[float] | None = None,
) -> IngestPlan:
    """List a folder, read all headers, name subjects and sites, and split; reads no pixels and writes nothing.

    Raises:
        DataError, ConfigError: the folder or the options as a whole cannot be used.
    """
    reader, listing = open_layout(Path(root).expanduser().resolve(), layout, options)
    found, unused = _scan(reader, listing, inline, progress)
    if not found:
        raise _nothing(reader, unused)
    found = reader.settle(found) if isinstance(reader, Settles) else found
    participants = Participants.of(reader.root, options)
    sources = _unique([_identified(source, options, participants) for source in found])
    shared = [*listing.shared, *participants.files(reader.root)]
    rest = {path: why for path, why in listing.unused.items() if path not in shared}
    named = [*grouped(rest), *unused]
    count = sum(1 for folder in _roots(reader) for _ in walk(folder))
    points = time_points(sources, options)
    splits = _splits(sources, options, split_seed, (fractions, labelled_fractions), points.patients)
    return IngestPlan(reader, sources, splits, shared, named, count, points.hint)


def _nothing(reader: Reader, unused: Sequence[Unused]) -> DataError:
    reasons: Counter[str] = Counter()
    for item in unused:
        reasons[item.reason] += item.files
    return DataError(
        f"a folder of layout '{reader.layout}' must hold a volume",
        found=", ".join(f"{n} × {why}" for why, n in reasons.most_common(5)) or "no file",
        where=str(reader.root),
    )


def _roots(reader: Reader) -> list[Path]:
    """The root, and a folder of masks that lies outside of it."""
    masks = reader.options.masks_root
    outside = masks is not None and not masks.resolve().is_relative_to(reader.root)
    return [reader.root, *([masks.resolve()] if masks is not None and outside else [])]


def _identified(source: Source, options: SourceOptions, participants: Participants) -> Source:
    """The source with the subject and the site that patterns and tables state; one that they leave out fails."""
    path = next(iter(source.files), source.entry)
    try:
        changes: dict[str, Any] = {"site": options.site}
        if options.subject is not None:
            person = matched(options.subject, path)
            if person is None:
                raise DataError("--subject must match the path of every volume", next_step="mend the pattern")
            changes["subject_id"] = subject_name(person, options, public=source.public)
        elif (person := participants.subject(source)) is not None:
            changes["subject_id"] = subject_name(person, options, public=source.public)
        if options.site_pattern is not None:
            changes["site"] = matched(options.site_pattern, path)
            if changes["site"] is None:
                raise DataError("--site-pattern must match the path of every volume", next_step="mend the pattern")
        elif (site := participants.site(source)) is not None:
            changes["site"] = site
        return dataclasses.replace(source, **changes)
    except DataError as error:
        return dataclasses.replace(source, error=source.error or str(error))


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
                stage = "prepare"
                watch = self._watch(volume)
                lost = watch.notes if watch is not None else []
                label = volume.sample.label
                empty = [EMPTY_MASK] if label is not None and not label.any() else []
                stated = self._stated(volume.sample, source, item["split"])
                rows = prepare(
                    stated, self.preparation, outside=volume.outside, acquired_axis=volume.acquired_axis, watch=watch
                )
                samples.append(to_table(rows))
                volumes.append(
                    {
                        "source": source.volume_id, "subject_id": source.subject_id, "split": item["split"],
                        "rows": len(rows), "notes": [*source.notes, *volume.notes, *lost, *empty],
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

    def _watch(self, volume: Volume) -> LabelWatch | None:
        sample = volume.sample
        if volume.watch is not None or sample.label is None:
            return volume.watch
        return LabelWatch.of(sample.label, sample.affine, sample.labels, self.reader.options.max_label_loss)

    def _stated(self, volume: Sample, source: Source, split: str | None) -> Sample:
        acquisition = volume.acquisition.replace(**self.reader.options.acquisition)
        return volume.replace(acquisition=acquisition, site=source.site, split=split)


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
    found.update((row["source"], row) for row in _rows(store, [*files["volumes"], *files["failed"]]))
    empty: dict[str, Any] = {"split": None, "rows": 0, "notes": [], "stage": None, "reason": None}
    return [{"entry": s.entry, **empty, **found[s.volume_id]} for s in sources]


def _rows(store: Store, parts: Sequence[Part]) -> list[dict[str, Any]]:
    return [row for part in parts for row in store.parquet(part.name).read().to_pylist()]


def _scan(
    reader: Reader, listing: Listing, inline: bool, progress: Progress | None
) -> tuple[list[Source], list[Unused]]:
    sources: list[Source] = []
    unused: list[Unused] = []
    for n, found in enumerate(_scanned(reader, listing.entries, inline), 1):
        sources += [Source.from_json(s) for s in found["sources"]]
        unused += [Unused(**u) for u in found["unused"]]
        if progress:
            progress("headers", n, len(listing.entries), {"volumes": len(sources)})
    return sorted(sources, key=lambda s: (s.volume_id, s.entry)), sorted(unused, key=lambda u: u.path)


def _scanned(reader: Reader, entries: Sequence[Entry], inline: bool) -> Iterator[dict[str, Any]]:
    if inline:
        yield from (scan_entry(reader, entry) for entry in entries)
        return
    import ray

    items = [{"entry": json.dumps(entry)} for entry in entries]
    dataset = ray.data.from_items(items, override_num_blocks=min(len(items), 200)).map(_scan_row, fn_args=(reader,))
    for row in dataset.iter_rows():
        yield json.loads(row["found"])


def _scan_row(row: dict[str, Any], reader: Reader) -> dict[str, str]:
    return {"found": json.dumps(scan_entry(reader, json.loads(row["entry"])))}


def scan_entry(reader: Reader, entry: Entry) -> dict[str, Any]:
    """`sources` and `unused` of one entry as JSON; an entry that cannot be scanned is one source with an error.

    A file of the entry that the reader neither used nor named is a fault of the reader, and fails the entry.
    """
    try:
        found = reader.scan(entry)
        used = {file for source in found.sources for file in source.files}
        passed_over = len(set(reader.files(entry)) - used) - sum(item.files for item in found.unused)
        if passed_over:
            raise DataError("every file must be used or named", found=f"{passed_over} of this folder are neither")
        return {
            "sources": [s.to_json() for s in found.sources],
            "unused": [dataclasses.asdict(u) for u in found.unused],
        }
    except Exception as error:  # one bad folder must not stop the others; it is listed with its reason
        subject = pseudonym(canonical_json(entry), reader.options.pseudonym_key)
        where = str(entry.get("folder") or entry.get("entry"))
        failed = Source(subject, subject, where, {"files": reader.files(entry)})
        text = reason(error, Source(subject, subject, where), reader.root)
        return {"sources": [dataclasses.replace(failed, error=text).to_json()], "unused": []}


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


def _splits(
    sources: Sequence[Source],
    options: SourceOptions,
    seed: int,
    fractions: tuple[Sequence[float], Sequence[float] | None],
    patients: Mapping[str, str],
) -> dict[str, str]:
    """Split of every subject with a usable volume; subjects of one patient share it.

    A patient with an image that the data set itself puts into a split goes there whole. `fractions` are those of all
    patients, and those of patients with a mask where these are split by themselves.
    """
    acquisitions: dict[str, list[Acquisition]] = defaultdict(list)
    sites: dict[str, str | None] = {}
    fixed: dict[str, str] = {}
    subjects: dict[str, str] = {}
    labelled: dict[str, bool] = {}
    for source in sources:
        if source.error is None:
            patient = subjects[source.subject_id] = patients.get(source.subject_id, source.subject_id)
            sites.setdefault(patient, source.site)
            labelled[patient] = labelled.get(patient, False) or source.labelled
            acquisitions[patient].append(source.acquisition.replace(**options.acquisition))
            if source.split is not None:
                fixed[patient] = source.split
    mixed = len(set(labelled.values())) > 1
    free = {
        p: categories(a, sites[p], labelled[p] if mixed else None) for p, a in acquisitions.items() if p not in fixed
    }
    of_all, of_labelled = fractions
    if of_labelled is None:
        found = {**assign_splits(free, seed, of_all), **fixed}
    else:
        parts = (({p: c for p, c in free.items() if labelled[p] == there}, there) for there in (True, False))
        found = dict(fixed)
        for part, there in parts:
            found |= assign_splits(part, seed, of_labelled if there else of_all)
    return {subject: found[patient] for subject, patient in subjects.items()}
