"""NIfTI and NRRD files go in, one file per channel and mask; multi-channel volumes on one grid come out.

Base of the BraTS and BIDS readers, and the reader of any folder of such files.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import ClassVar

import numpy as np

from augengine.errors import ConfigError, DataError
from augengine.geometry import same_grid
from augengine.io import nifti, nrrd
from augengine.io.labels import mask_to_label
from augengine.io.sources import Entry, Listing, Scanned, Source, SourceOptions, Volume, subject_name
from augengine.io.walk import visible_files, walk
from augengine.records import Acquisition, Sample

IMAGE_ENDINGS = ("_image",)
MASK_ENDINGS = ("_label", "_mask", "_seg", "-label", "-mask", "-seg")


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Array `(I, J, K)` as stored, RAS affine, notes; by the file's suffix."""
    if path.name.lower().endswith(nrrd.SUFFIXES):
        data, affine, _ = nrrd.read_nrrd(path)
        return nifti.squeeze(data, path), affine, []
    return nifti.read_nifti(path)


def read_channels(
    root: Path, channels: Mapping[str, str], mask: str | None, labels: Mapping[str, int] | None, source: Source
) -> Volume:
    """Stack files (paths relative to `root`) as channels, and put the mask on their grid.

    Raises:
        DataError: a damaged or missing file, channels on different grids, or a mask that does not fit.
    """
    arrays: list[np.ndarray] = []
    notes: list[str] = []
    affine = np.eye(4)
    for name, file in channels.items():
        data, found, remarks = read_volume(root / file)
        notes += [f"{name}: {remark}" for remark in remarks]
        if not arrays:
            affine = found
        elif not same_grid(arrays[0].shape, affine, data.shape, found):
            raise DataError(
                "all channels must lie on one grid", found=f"'{name}' {data.shape} differs from the first channel",
                next_step="co-register and resample the channels, or ingest them one by one",
            )  # fmt: skip
        arrays.append(data.astype(np.float32))
    label = None
    if mask is not None:
        data, mask_affine, _ = read_volume(root / mask)
        label, remarks = mask_to_label(data, mask_affine, arrays[0].shape, affine, labels or {})
        notes += remarks
    sample = Sample(
        image=np.stack(arrays), affine=affine, channels=tuple(channels), label=label,
        labels=labels if labels and label is not None else {}, subject_id=source.subject_id,
        volume_id=source.volume_id, acquisition=source.acquisition,
    )  # fmt: skip
    return Volume(sample, notes)


class FileReader(ABC):
    """Common part: a source's `spec` holds `channels` (name to file) and `mask` (file or None)."""

    layout: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = nifti.SUFFIXES

    def __init__(self, root: Path, options: SourceOptions) -> None:
        self.root, self.options = root, options

    @abstractmethod
    def entries(self) -> list[Entry]:
        """Subjects by file name: `{name, entry, channels, mask, error}`."""

    def listing(self) -> Listing:
        """The entries, and every file that none of them takes."""
        entries = self.entries()
        taken = {file for entry in entries for file in self.files(entry)}
        rest = {f.path: f.problem or self.unused(f.path) for f in walk(self.root) if f.path not in taken}
        return Listing(entries, unused=rest)

    def files(self, entry: Entry) -> list[str]:
        """Channels and mask."""
        return [*entry["channels"].values(), *([entry["mask"]] if entry["mask"] else [])]

    def unused(self, path: str) -> str:
        """Why a visible file is part of no entry."""
        return "no image" if not path.lower().endswith(self.suffixes) else "matches no pattern of channels or mask"

    def scan(self, entry: Entry) -> Scanned:
        """One source; files without headers take their acquisition from the options only."""
        subject = subject_name(entry["name"], self.options, public=entry.get("public", False))
        spec = {"channels": entry["channels"], "mask": entry["mask"]}
        acquisition = Acquisition(**entry.get("acquisition", {}))
        volume = subject + entry.get("volume", "")
        name, error = entry["name"], entry.get("error")
        public = entry.get("public", False)
        source = Source(volume, subject, entry["entry"], spec, acquisition, error, participant=name, public=public)
        return Scanned([source])

    def read(self, source: Source) -> Volume:
        """Load all channels and the mask."""
        return read_channels(self.root, source.spec["channels"], source.spec["mask"], self.options.labels, source)

    def require_labels(self, entries: Iterable[Entry]) -> None:
        """Masks without a stated meaning of their codes are a `ConfigError`."""
        for entry in entries:
            if entry["mask"] and not self.options.labels:
                raise ConfigError(
                    "this data set has masks: the meaning of their codes must be stated", where=entry["entry"],
                    next_step="give --labels name=code,... or --labels SCHEME",
                )  # fmt: skip


class GenericReader(FileReader):
    """A folder of NIfTI or NRRD files.

    With channel patterns, each folder that matches is a subject; where a pattern matches several files of one
    folder, the text under its first `*` tells subjects apart. Without patterns, every file is a subject, and
    `X_label`, `X_mask` or `X_seg` is the mask of `X` or `X_image`.
    """

    def entries(self) -> list[Entry]:
        """Subjects by folder and name."""
        options = self.options
        if options.mask and not options.channels:
            raise ConfigError("--mask needs --channels", found=options.mask, next_step="add --channels t1=PATTERN")
        folders: dict[Path, list[Path]] = defaultdict(list)
        for path in map(self.root.joinpath, visible_files(self.root, suffixes=self.suffixes)):
            folders[path.parent].append(path)
        entries: list[Entry] = []
        for folder, files in sorted(folders.items()):
            entries += self._by_pattern(folder, files) if options.channels else self._by_name(folder, files)
        self.require_labels(entries)
        return entries

    def _by_pattern(self, folder: Path, files: list[Path]) -> list[Entry]:
        patterns = {**self.options.channels, **({"": self.options.mask} if self.options.mask else {})}
        matches = {name: [f for f in files if fnmatch(f.name, pattern)] for name, pattern in patterns.items()}
        if not any(matches[name] for name in self.options.channels):
            return []
        if all(len(found) <= 1 for found in matches.values()):
            return [self._entry(folder, "", {name: found[0] for name, found in matches.items() if found})]
        groups: dict[str, dict[str, Path]] = defaultdict(dict)
        for name, pattern in patterns.items():
            for file in matches[name]:
                groups[_starred(pattern, file.name)][name] = file
        return [self._entry(folder, key, found) for key, found in sorted(groups.items())]

    def _by_name(self, folder: Path, files: list[Path]) -> list[Entry]:
        images: dict[str, Path] = {}
        masks: dict[str, Path] = {}
        for file in files:
            stem = _stem(file)
            ending = next((e for e in MASK_ENDINGS if stem.lower().endswith(e)), None)
            if ending:
                masks[stem[: -len(ending)]] = file
            else:
                key = next((stem[: -len(e)] for e in IMAGE_ENDINGS if stem.lower().endswith(e)), stem)
                if key in images:
                    raise ConfigError(
                        "two images would be one subject", found=f"{images[key].name}, {file.name}", where=str(folder),
                        next_step="tell channels apart with --channels",
                    )  # fmt: skip
                images[key] = file
        entries = []
        for key in sorted(images.keys() | masks.keys()):
            found = {"image": images[key]} if key in images else {}
            entries.append(self._entry(folder, key, found | ({"": masks[key]} if key in masks else {}), ["image"]))
        return entries

    def _entry(self, folder: Path, key: str, found: Mapping[str, Path], names: Iterable[str] = ()) -> Entry:
        where = folder.relative_to(self.root).as_posix()
        name = "/".join(p for p in (where if where != "." else "", key) if p) or self.root.resolve().name
        files = {channel: file.relative_to(self.root).as_posix() for channel, file in found.items()}
        mask = files.pop("", None)
        missing = [c for c in (self.options.channels or names) if c not in files]
        return {
            "name": name.replace("/", "_"),
            "entry": "/".join(p for p in (where if where != "." else "", key) if p) or name,
            "channels": {c: files[c] for c in self.options.channels or names if c in files},
            "mask": mask,
            "error": f"every channel must have its file; missing: {', '.join(missing)}" if missing else None,
        }


class NiftiReader(GenericReader):
    """`.nii` and `.nii.gz` files."""

    layout = "nifti"


class NrrdReader(GenericReader):
    """`.nrrd` and `.nhdr` files."""

    layout = "nrrd"
    suffixes = nrrd.SUFFIXES


def _stem(path: Path) -> str:
    return re.sub(r"(\.nii(\.gz)?|\.nrrd|\.nhdr)$", "", path.name, flags=re.IGNORECASE)


def _starred(pattern: str, name: str) -> str:
    """What the first `*` of a pattern stands for in a name.

    >>> _starred("*_t1.nii.gz", "case7_t1.nii.gz")
    'case7'
    """
    parts = [re.escape(p).replace(r"\?", ".") for p in pattern.split("*")]
    match = re.fullmatch("(.*)".join(parts), name, re.IGNORECASE)
    return match.group(1) if match and match.groups() else name
