"""What every reader of a data set shares: options and ids go in, `Source` items (one per volume) come out.

A reader works in three steps, so that a large data set never stands on one machine: `entries` lists folders
or files (driver, names only), `scan` reads headers (workers), `read` loads pixels (workers).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import Field, field_validator

from augengine.acquisition_terms import same
from augengine.errors import ConfigError
from augengine.records import ACQUISITION_CATEGORICAL, ACQUISITION_NUMERIC, Acquisition, Sample
from augengine.yaml_config import Strict, unknown_name

Entry = dict[str, Any]


class SourceOptions(Strict):
    """What a user states about a data set.

    Attributes:
        labels: label name to code, or None where masks are absent.
        scheme: name of the scheme that `labels` came from, e.g. `brats2021`.
        channels: channel name to file pattern (NIfTI, NRRD) or suffix (BIDS).
        mask: file pattern of the mask, within the folder of a subject.
        acquisition: values for files without headers; they win over headers.
        site: written to every sample.
        public_ids: keep the data set's own names as subject ids; otherwise they are hashed.
        pseudonym_key: secret key of that hash.
        allow_echo_planar: ingest echo-planar DICOM series, too.
        masks_root, mapping, clinical, boxes: Duke's optional folder of masks and tables.
    """

    labels: dict[str, int] | None = None
    scheme: str | None = None
    channels: dict[str, str] = Field(default_factory=dict)
    mask: str | None = None
    acquisition: dict[str, str | float] = Field(default_factory=dict)
    site: str | None = None
    public_ids: bool = False
    pseudonym_key: str = Field(default="", max_length=64, repr=False)
    allow_echo_planar: bool = False
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

    def identity(self) -> dict[str, Any]:
        """JSON that changes with whatever changes the samples; holds neither the key nor a path."""
        values = self.model_dump(exclude={"pseudonym_key", "masks_root", "mapping", "clinical", "boxes"})
        key = hashlib.blake2b(self.pseudonym_key.encode(), digest_size=4, person=b"augengine-key").hexdigest()
        tables = [name for name in ("masks_root", "mapping", "clinical", "boxes") if getattr(self, name)]
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
    if not 0 <= number < 1e6:
        raise ConfigError(f"{name} must be a number of 0 or more", found=value)
    return number


@dataclass(frozen=True)
class Source:
    """One volume to ingest.

    Attributes:
        volume_id, subject_id: as they will stand in the shards.
        entry: path relative to the root, for messages on the console; never written to a shard.
        spec: what `read` needs (relative paths); plain JSON.
        acquisition: from headers, for the stratified split.
        error: why the headers alone rule the volume out, or None.
        notes: decisions worth recording, free of names.
    """

    volume_id: str
    subject_id: str
    entry: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    acquisition: Acquisition = field(default_factory=Acquisition)
    error: str | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Source:
        """Inverse of `to_json`."""
        acquisition = Acquisition(**values["acquisition"])
        return cls(**{**values, "acquisition": acquisition, "notes": tuple(values["notes"])})


class Reader(Protocol):
    """Reads one layout; made on the driver with small tables only, and sent to the workers."""

    layout: ClassVar[str]
    root: Path
    options: SourceOptions

    def entries(self) -> list[Entry]:
        """What to scan, in a fixed order; touches names only."""

    def scan(self, entry: Entry) -> list[Source]:
        """Volumes of one entry, from headers only; unusable ones carry an `error`."""

    def read(self, source: Source) -> tuple[Sample, list[str]]:
        """The volume with pixels, and notes on what was done to it. Raises DataError."""


def pseudonym(raw: str, key: str, prefix: str = "sub") -> str:
    """A stable id that does not show `raw`: `sub-` and 10 hex digits of a keyed blake2b.

    Without a key, a person who knows a patient's id can find out which pseudonym belongs to it.
    """
    return f"{prefix}-{hashlib.blake2b(raw.encode(), key=key.encode()[:64], digest_size=5).hexdigest()}"


def subject_name(raw: str, options: SourceOptions, public: bool = False) -> str:
    """`raw` itself if the data set's ids are public (or declared so), else its pseudonym."""
    return raw if public or options.public_ids else pseudonym(raw, options.pseudonym_key)


def shared_acquisition(parts: Sequence[Acquisition]) -> Acquisition:
    """The fields on which all channels agree; the others are None."""
    first = parts[0].to_dict()
    return Acquisition(**{n: v if all(same(n, p.to_dict()[n], v) for p in parts) else None for n, v in first.items()})  # type: ignore[arg-type]


def visible_files(folder: Path, suffixes: tuple[str, ...] = ("",)) -> list[Path]:
    """All files below a folder with one of the suffixes, sorted; hidden files and folders are left out."""
    found = [
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(suffixes)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    return sorted(found)
