"""What every reader of a data set shares: options and ids go in, `Source` items (one per volume) come out.

A reader works in three steps, so that a large data set never stands on one machine: `listing` lists folders
or files (driver, names only), `scan` reads headers (workers), `read` loads pixels (workers). Every file below the
root is used by a volume or named as unused, with a reason; ingest checks the sum.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import Field, field_validator

from augengine.acquisition_terms import same
from augengine.errors import ConfigError
from augengine.label_loss import LabelWatch
from augengine.records import ACQUISITION_CATEGORICAL, ACQUISITION_NUMERIC, CREDIBLE, Acquisition, Sample, incredible
from augengine.yaml_config import Strict, unknown_name, unset

Entry = dict[str, Any]
_TABLES = ("masks_root", "mapping", "clinical", "boxes", "participants")


class SourceOptions(Strict):
    """What a user states about a data set.

    Attributes:
        labels: label name to code, or None where masks are absent.
        scheme: name of the scheme that `labels` came from, e.g. `brats2021`.
        channels: channel name to file pattern (NIfTI, NRRD) or to suffix, with entities before it (BIDS).
        tissue: `SCHEME=PATTERN` of a map of brain tissues in each case's folder (BraTS), see `augengine.io.tissue`.
        mask: file pattern of the mask; `none` (BIDS) leaves masks out.
        mask_grid: `image` lays a mask of the image's shape on the image's voxels, whatever its header says; `header`
            believes headers; `auto` does so, too, but refuses one that looks lost.
        acquisition: values for files without headers; they win over headers.
        site: written to every sample.
        subject, site_pattern: regular expressions, searched for in the path of a volume's first file, relative to the
            root: the first group (the whole match, if there is none) is the subject, or the site.
        participants: table with a column `participant_id`; BIDS' `participants.tsv` in the root is found by itself.
        subject_column, site_column: columns of that table that name the person and the site of a participant.
        max_label_loss: share of the labelled volume that a mask may lose on its way into a shard, 0 to 1.
        public_ids: keep the data set's own names as subject ids; otherwise they are hashed.
        pseudonym_key: secret key of that hash, see `augengine.io.pseudonym_key`; the commands always give one.
        allow_echo_planar: ingest echo-planar DICOM series, too.
        deface: command of a tool that removes faces, see `augengine.io.deface`.
        masks_root, mapping, clinical, boxes: Duke's optional folder of masks and tables.
    """

    labels: dict[str, int] | None = None
    scheme: str | None = None
    channels: dict[str, str] = Field(default_factory=dict)
    tissue: str | None = Field(default=None, exclude_if=unset)
    mask: str | None = None
    mask_grid: Literal["auto", "header", "image"] = "auto"
    acquisition: dict[str, str | float] = Field(default_factory=dict)
    site: str | None = None
    subject: str | None = None
    site_pattern: str | None = None
    participants: Path | None = None
    subject_column: str | None = None
    site_column: str | None = None
    max_label_loss: float = Field(default=0.1, ge=0, le=1)
    public_ids: bool = False
    pseudonym_key: str = Field(default="", max_length=64, repr=False)
    allow_echo_planar: bool = False
    deface: str | None = None
    masks_root: Path | None = None
    mapping: Path | None = None
    clinical: Path | None = None
    boxes: Path | None = None

    @field_validator("labels")
    @classmethod
    def _codes(cls, labels: dict[str, int] | None) -> dict[str, int] | None:
        codes = list((labels or {}).values())
        if len(set(codes)) != len(codes) or any(not 1 <= c <= 255 for c in codes):
            raise ValueError("label codes must be different numbers of 1 to 255")
        return labels

    @field_validator("acquisition")
    @classmethod
    def _acquisition(cls, values: dict[str, str | float]) -> dict[str, str | float]:
        return {name: acquisition_value(name, value) for name, value in values.items()}

    @field_validator("subject", "site_pattern")
    @classmethod
    def _pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"a pattern must be a regular expression ({error})") from None
        return pattern

    def identity(self) -> dict[str, Any]:
        """JSON that changes with whatever changes the samples; holds neither the key nor a path."""
        values = self.model_dump(exclude={"pseudonym_key", "deface", *_TABLES})
        if self.deface is not None:  # a command may hold a path
            values["deface"] = hashlib.blake2b(self.deface.encode(), digest_size=4).hexdigest()
        key = hashlib.blake2b(self.pseudonym_key.encode(), digest_size=4, person=b"augengine-key").hexdigest()
        tables = [name for name in _TABLES if getattr(self, name)]
        return {**values, "pseudonyms": key if self.pseudonym_key else "without a key", "tables": tables}


def acquisition_value(name: str, value: str | float) -> str | float:
    """A value of `Acquisition` given as text, checked: `("echo_time_ms", "2.4")` is 2.4."""
    if name in ACQUISITION_CATEGORICAL:
        return str(value)
    if name not in ACQUISITION_NUMERIC:
        raise unknown_name("acquisition parameter", name, [*ACQUISITION_CATEGORICAL, *ACQUISITION_NUMERIC], None)
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if incredible(name, number):
        raise ConfigError(f"{name} must be a number of 0 to {CREDIBLE[name]:g}", found=value)
    return number


@dataclass(frozen=True)
class Source:
    """One volume to ingest.

    Attributes:
        volume_id, subject_id: as they will stand in the shards.
        entry: path relative to the root, for messages on the console; never written to a shard.
        spec: what `read` needs: `files`, `channels` (name to file), `mask`, `masks` and `sidecars` hold paths relative
            to the root; plain JSON.
        acquisition: from headers, for the stratified split.
        error: why the headers alone rule the volume out, or None.
        notes: decisions worth recording, free of names.
        participant: the data set's own name of the patient, to look up in a table; never written to a shard.
        public: the data set's own names are public, so that ids are no pseudonyms.
        site: of this volume, where a table or a pattern tells.
        split: where the data set itself says so, as of its test images; or None.
        slice_by_slice: its slices were excited one by one (MRAcquisitionType 2D): no slab has an end.
    """

    volume_id: str
    subject_id: str
    entry: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    acquisition: Acquisition = field(default_factory=Acquisition)
    error: str | None = None
    notes: tuple[str, ...] = ()
    participant: str | None = None
    public: bool = False
    site: str | None = None
    split: str | None = None
    slice_by_slice: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the volume is made of, relative to the root, each once."""
        spec = self.spec
        channels, mask = spec.get("channels") or {}, spec.get("mask")
        several = [*(spec.get("files") or ()), *channels.values(), *(spec.get("masks") or ())]
        several += [spec["tissue"]] if spec.get("tissue") else []
        return tuple(dict.fromkeys([*several, *([mask] if mask else []), *(spec.get("sidecars") or ())]))

    @property
    def labelled(self) -> bool:
        """True if a mask or a map of tissues belongs to it."""
        return bool(self.spec.get("mask") or self.spec.get("masks") or self.spec.get("tissue"))

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Source:
        """Inverse of `to_json`."""
        acquisition = Acquisition(**values["acquisition"])
        return cls(**{**values, "acquisition": acquisition, "notes": tuple(values["notes"])})


@dataclass(frozen=True)
class Unused:
    """A file that no volume uses, or all files of a folder with one reason. `path` is for the console only."""

    path: str
    reason: str
    files: int = 1


@dataclass(frozen=True)
class Listing:
    """What the names alone tell.

    Attributes:
        entries: what to scan.
        shared: files that volumes of several entries use, e.g. a table of participants.
        unused: files that belong to no entry, with the reason.
    """

    entries: Sequence[Entry]
    shared: Sequence[str] = ()
    unused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scanned:
    """What the headers of one entry tell: its volumes, and the entry's files that none of them uses."""

    sources: Sequence[Source]
    unused: Sequence[Unused] = ()


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume with pixels.

    Attributes:
        sample: image `(C, I, J, K)` as the files state it.
        notes: what was done to it, free of names.
        outside: bool `(I, J, K)`, voxels that the scanner did not measure (padding); None: all are measured.
        acquired_axis: array axis along which the slices were acquired; None where the file does not tell.
        watch: follows the labels from the mask's file on; None where there is no label, or its reader has none.
    """

    sample: Sample
    notes: Sequence[str] = ()
    outside: np.ndarray | None = None
    acquired_axis: int | None = None
    watch: LabelWatch | None = None


class Reader(Protocol):
    """Reads one layout; made on the driver with small tables only, and sent to the workers."""

    layout: ClassVar[str]
    root: Path
    options: SourceOptions

    def listing(self) -> Listing:
        """What to scan, in a fixed order, and every file outside of it; touches names only."""

    def files(self, entry: Entry) -> list[str]:
        """Every file that the entry answers for, relative to the root."""

    def scan(self, entry: Entry) -> Scanned:
        """Volumes of one entry, from headers only; unusable ones carry an `error`."""

    def read(self, source: Source) -> Volume:
        """The volume with pixels. Raises DataError."""


@runtime_checkable
class Settles(Protocol):
    """A reader that has something to say when all entries are scanned."""

    def settle(self, sources: Sequence[Source]) -> list[Source]:
        """The same sources, with errors and notes that only all of them together tell."""


def grouped(reasons: Mapping[str, str], at_least: int = 4) -> list[Unused]:
    """Unused files by path and reason; many of one folder with one reason become one item.

    >>> grouped({"a/1": "no image", "b/1": "text", "b/2": "text", "b/3": "text", "b/4": "text"})
    [Unused(path='a/1', reason='no image', files=1), Unused(path='b/', reason='text', files=4)]
    """
    folders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, reason in sorted(reasons.items()):
        folders[path.rpartition("/")[0], reason].append(path)
    found: list[Unused] = []
    for (folder, reason), paths in folders.items():
        if len(paths) < at_least:
            found += [Unused(path, reason) for path in paths]
        else:
            found.append(Unused(f"{folder or '.'}/", reason, len(paths)))
    return found


def matched(pattern: str, path: str) -> str | None:
    """The first group of a pattern in a path (the whole match, if it has none); None where it matches nothing at all.

    >>> matched(r"case(\\d+)", "site_b/case12_t1.nii.gz")
    '12'
    """
    match = re.search(pattern, path)
    if match is None:
        return None
    return (match.group(1) if match.re.groups else match.group()) or None


def pseudonym(raw: str, key: str, prefix: str = "sub") -> str:
    """A stable id that does not show `raw`: `sub-` and 24 hex digits (96 bits) of a keyed blake2b.

    Without a key, a person who knows a patient's id can find out which pseudonym belongs to it.
    """
    return f"{prefix}-{hashlib.blake2b(raw.encode(), key=key.encode()[:64], digest_size=12).hexdigest()}"


def subject_name(raw: str, options: SourceOptions, public: bool = False) -> str:
    """`raw` itself if the data set's ids are public (or declared so), else its pseudonym."""
    return raw if public or options.public_ids else pseudonym(raw, options.pseudonym_key)


def shared_acquisition(parts: Sequence[Acquisition]) -> Acquisition:
    """The fields on which all channels agree; the others are None."""
    first = parts[0].to_dict()
    return Acquisition(**{n: v if all(same(n, p.to_dict()[n], v) for p in parts) else None for n, v in first.items()})  # type: ignore[arg-type]
