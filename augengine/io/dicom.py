"""A folder of DICOM files goes in; one volume per series, stacked by position along the slice normal, comes out.

A mixed series becomes several volumes (echoes, phases, stacks, slabs; see `dicom_split`). What is no image to train
with is named (`dicom_kinds`); what should be a volume and cannot be read fails with its reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from augengine.errors import ConfigError, DataError
from augengine.io.bids_masks import NO_MASKS
from augengine.io.dicom_frames import read_frames
from augengine.io.dicom_header import looks_like_dicom
from augengine.io.dicom_masks import Masks
from augengine.io.dicom_seg import read_segmentation
from augengine.io.dicom_stacks import Found, Stack, find_stacks
from augengine.io.dicom_subjects import Person, person, settle
from augengine.io.dicom_volume import SLICE_AXIS, load_stack
from augengine.io.labels import place_mask
from augengine.io.sources import (
    Entry,
    Listing,
    Scanned,
    Source,
    SourceOptions,
    Volume,
    grouped,
    pseudonym,
    subject_name,
)
from augengine.io.walk import is_hidden, visible_folders, walk
from augengine.records import Sample

__all__ = ["DicomReader", "looks_like_dicom"]


class DicomReader:
    """Any folder of DICOM: every sub-folder is scanned on its own, and every series in it is a volume.

    Subject ids are pseudonyms of PatientID, unless ids are public; `dicom_subjects` tells what stands for an empty one.
    """

    layout: ClassVar[str] = "dicom"

    def __init__(self, root: Path, options: SourceOptions) -> None:
        self.root, self.options = root, options

    def listing(self) -> Listing:
        """One entry per sub-folder with files, or a single one where slices lie right in the root."""
        loose: dict[str, str] = {}
        for file in walk(self.root):
            if "/" not in file.path and not is_hidden(file.path):
                reason = file.problem or _no_slice(self.root / file.path)
                if reason is None:
                    return Listing([{"folder": ".", "alone": True}])
                loose[file.path] = reason
        taken, hidden = {p.name for p in visible_folders(self.root)}, {}
        for file in walk(self.root):
            top, below, _ = file.path.partition("/")
            if (below and top not in taken) or (not below and is_hidden(top)):
                hidden[file.path] = file.problem or "hidden"
        names = [p.name for p in visible_folders(self.root) if next(walk(self.root, p.name), None)]
        entries = [{"folder": name, "alone": len(names) == 1} for name in names]
        return Listing(entries, unused=hidden | loose)

    def files(self, entry: Entry) -> list[str]:
        """All below the folder."""
        return [f.path for f in walk(self.root, entry["folder"])]

    def scan(self, entry: Entry) -> Scanned:
        """Stacks of one sub-folder."""
        found = find_stacks(self.root / entry["folder"], self.options.allow_echo_planar)
        usable = [s for s in found.stacks if s.named is None]
        people = self._people(usable, entry)
        masks = Masks.of(found.unused, usable, self.options)
        sources = [self._source(stack, whose, entry) for stack, whose in zip(usable, people, strict=True)]
        sources = [self._masked(source, masks, n) for n, source in enumerate(sources)]
        for path, reason in [*found.broken, *masks.refused]:
            name = path.relative_to(self.root).as_posix()
            subject = subject_name(entry["folder"], self.options)
            sources.append(Source(f"{subject}_{self._id(name)}", subject, name, {"files": [name]}, error=reason))
        used = {file for source in sources for file in source.files}
        reasons = {self._name(path): reason for path, reason in unused_files(found).items()}
        below = walk(self.root, entry["folder"])
        return Scanned(sources, grouped({f.path: f.problem or reasons[f.path] for f in below if f.path not in used}))

    def read(self, source: Source) -> Volume:
        """Load one stack."""
        spec = source.spec
        loaded = load_stack([self.root / name for name in spec["files"]], spec["frames"])
        sample = Sample(
            image=loaded.image[None],
            affine=loaded.affine,
            channels=(next(iter(self.options.channels), "mr"),),
            subject_id=source.subject_id,
            volume_id=source.volume_id,
            acquisition=source.acquisition,
        )
        labels = self.options.labels
        if not spec.get("mask") or not labels:
            return Volume(sample, loaded.notes, loaded.outside, SLICE_AXIS)
        mask = read_segmentation(self.root / spec["mask"], labels, loaded.image.shape, loaded.affine)
        label, watch = place_mask(mask, loaded.image.shape, loaded.affine, labels, self.options.max_label_loss)
        notes, watch.notes = [*loaded.notes, *watch.notes], []
        return Volume(sample.replace(label=label, labels=labels), notes, loaded.outside, SLICE_AXIS, watch)

    def settle(self, sources: Sequence[Source]) -> list[Source]:
        """What only all entries together tell: torn series, one PatientID in several folders, labels without masks.

        Raises:
            ConfigError: labels are stated, and there is no DICOM Segmentation.
        """
        if self._wants_masks and sources and not any(source.labelled or source.error for source in sources):
            raise ConfigError(
                "--labels is stated, but no volume of this data set has a DICOM Segmentation",
                where=str(self.root),
                next_step="check the path, or leave --labels out",
            )
        return settle(sources)

    def _masked(self, source: Source, masks: Masks, stack: int) -> Source:
        """The source with the mask that was made on its images, or with the reason why it has none."""
        path = masks.of_stack.get(stack)
        spec = {**source.spec, "mask": self._name(path)} if path is not None else source.spec
        error = source.error or masks.errors.get(stack)
        missing = self._wants_masks and path is None and error is None
        notes = (*source.notes, "no mask was found") if missing else source.notes
        return replace(source, spec=spec, error=error, notes=notes)

    def _people(self, stacks: Sequence[Stack], entry: Entry) -> list[Person]:
        whose = [person(s.first.patient, entry["folder"], [s.first.study], False) for s in stacks]
        nameless = {s.first.series: s.first.study for s, p in zip(stacks, whose, strict=True) if p.note}
        alone = entry["alone"] and not self._asked
        return [
            person(s.first.patient, entry["folder"], [s.first.study, *_without(nameless, s.first.series)], alone)
            if p.note
            else p
            for s, p in zip(stacks, whose, strict=True)
        ]

    @property
    def _wants_masks(self) -> bool:
        return bool(self.options.labels) and self.options.mask != NO_MASKS

    @property
    def _asked(self) -> bool:
        """The user says who is who."""
        return self.options.subject is not None or self.options.subject_column is not None

    def _source(self, stack: Stack, whose: Person, entry: Entry) -> Source:
        frame = stack.first
        subject = subject_name(whose.name, self.options)
        files = [self._name(path) for path in stack.files]
        part = f"-{stack.part}" if stack.part else ""
        acquisition, remarks = stack.acquisition()
        spec = {
            "files": files,
            "frames": stack.indices,
            "content": stack.content,
            "series": self._id(frame.series),
            "study": self._id(frame.study),
            "folder": entry["folder"],
        }
        notes = (*stack.notes, *remarks, *([whose.note] if whose.note and not self._asked else []))
        return Source(
            f"{subject}_{self._id(frame.series)}{part}",
            subject,
            files[0],
            spec,
            acquisition,
            stack.error or whose.error,
            notes,
            participant=whose.name,
            slice_by_slice=stack.slice_by_slice,
        )

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _id(self, raw: str) -> str:
        return pseudonym(raw, self.options.pseudonym_key, "vol")


def _without(studies: Mapping[str, str], series: str) -> list[str]:
    return [study for other, study in studies.items() if other != series]


def unused_files(found: Found) -> dict[Path, str]:
    """Why each file below a folder that is part of no usable stack is left alone.

    Where several series share a folder, the number of the series is named.
    """
    series: dict[Path, set[str]] = defaultdict(set)
    for stack in found.stacks:
        for path in stack.files:
            series[path.parent].add(stack.first.series)
    reasons: dict[Path, str] = dict(found.unused)
    for stack in found.stacks:
        for path in stack.files if stack.named else ():
            number = f"series {stack.first.series_number:g}: " if len(series[path.parent]) > 1 else ""
            reasons[path] = f"{number}{stack.named}"
    return reasons


def _no_slice(path: Path) -> str | None:
    """Why a file right in the root is no slice, so that sub-folders hold the subjects; None if it may be one."""
    aside = "lies beside the subjects' folders"
    if not looks_like_dicom(path):
        return aside
    try:
        return read_frames(path).reason
    except (OSError, DataError):
        return None
