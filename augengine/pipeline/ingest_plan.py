"""A folder of images goes in; who and what its names and headers show, and everyone's split, come out.

The split needs every subject's acquisition before the first shard is written, so the driver holds one small row per
volume, never pixels. Every file found is part of a volume or named with the reason why not; the sum is checked.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augengine.errors import DataError, RunError
from augengine.io.layouts import open_layout
from augengine.io.participants import Participants
from augengine.io.sources import Reader, Settles, Source, SourceOptions, Unused, grouped, matched, subject_name
from augengine.io.time_points import time_points
from augengine.io.walk import walk
from augengine.pipeline.ingest_scan import Progress, scan
from augengine.records import Acquisition
from augengine.splits import DEFAULT_FRACTIONS, assign_splits, categories


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
    found, unused = scan(reader, listing, inline, progress)
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
