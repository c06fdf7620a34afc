"""A folder of NIfTI or NRRD files of any arrangement goes in; volumes, by the names of files and folders, come out."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from augengine.errors import DataError
from augengine.io import nifti, nrrd, philips
from augengine.io.files import FileReader
from augengine.io.name_pairs import by_name
from augengine.io.pairing import Group, by_pattern, starred, stem
from augengine.io.sources import Entry, Listing, Scanned
from augengine.io.walk import visible_files, walk
from augengine.rng import digest


class GenericReader(FileReader):
    """A folder of NIfTI or NRRD files.

    With channel patterns, each folder that matches is a subject; where a pattern matches several files of one
    folder, the text under its first wildcard tells subjects apart. Without patterns, every file is a subject, and
    `X_label`, `X_mask` or `X_seg` beside it, or `X` in a folder of masks, is the mask of `X` or `X_image`.
    """

    def entries(self) -> list[Entry]:
        """Subjects by folder and name."""
        return self._entries()[0]

    def listing(self) -> Listing:
        """The entries, and every file that none of them takes."""
        entries, reasons = self._entries()
        taken = {file for entry in entries for file in self.files(entry)}
        rest = {f.path: f.problem or reasons.get(f.path) or self.unused(f.path) for f in walk(self.root)}
        return Listing(entries, unused={path: why for path, why in rest.items() if path not in taken})

    def _entries(self) -> tuple[list[Entry], dict[str, str]]:
        paths = visible_files(self.root, suffixes=self.suffixes)
        groups, reasons = self._patterns(paths) if self.options.channels else by_name(paths, self.options.mask)
        entries = _told_apart([self._entry(folder, key, group) for (folder, key), group in sorted(groups.items())])
        self.require_labels(entries)
        return entries, reasons

    def _patterns(self, paths: list[str]) -> tuple[dict[tuple[str, str], Group], dict[str, str]]:
        patterns = {**self.options.channels, **({"": self.options.mask} if self.options.mask else {})}
        folders: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            folder, _, name = path.rpartition("/")
            folders[folder].append(name)
        groups: dict[tuple[str, str], Group] = {}
        apart: list[tuple[str, str]] = []
        for folder, names in folders.items():
            found = by_pattern(patterns, names)
            if any(group.channels or group.error for group in found.values()):
                groups |= {(folder, key): _below(folder, group) for key, group in found.items()}
            else:
                apart += [(folder, group.mask) for group in found.values() if group.mask]
        for folder, name in apart:
            self._attach(groups, folder, name)
        return groups, {}

    def _attach(self, groups: Mapping[tuple[str, str], Group], folder: str, name: str) -> None:
        """Give a mask of a folder without images to the volume of its name in a folder beside."""
        above, keys = folder.rpartition("/")[0], (starred(self.options.mask or "", name), stem(name))
        places = [place for place in groups if place[1] in keys and place[0].rpartition("/")[0] == above]
        if len(places) == 1 and groups[places[0]].mask is None:
            groups[places[0]].mask = f"{folder}/{name}" if folder else name
            groups[places[0]].masked = True

    def _entry(self, folder: str, key: str, group: Group) -> Entry:
        where = "/".join(part for part in (folder, key) if part)
        channels = self.options.channels or ("image",)
        missing = [channel for channel in channels if channel not in group.channels]
        entry: Entry = {
            "name": (where or self.root.resolve().name).replace("/", "_"),
            "entry": where or self.root.resolve().name,
            "channels": {c: group.channels[c] for c in channels if c in group.channels},
            "mask": group.mask,
            "masked": group.masked,
            "spare": group.spare,
            "error": f"every channel must have its file; missing: {', '.join(missing)}" if missing else None,
        }
        sidecars, problem = self.sidecars(self.files(entry))
        return {**entry, "data_files": sidecars, "error": group.error or problem or entry["error"]}

    def sidecars(self, files: list[str]) -> tuple[list[str], str | None]:
        """Further files that hold the data of these, and why they cannot be used."""
        raise NotImplementedError


class NiftiReader(GenericReader):
    """`.nii`, `.nii.gz`, and pairs of `.hdr` and `.img`."""

    layout = "nifti"
    suffixes = (*nifti.SUFFIXES, ".hdr")

    def scan(self, entry: Entry) -> Scanned:
        """One source, brought to display values where a sidecar of dcm2niix tells how Philips' values are scaled."""
        (source,) = super().scan(entry).sources
        factors, notes, error = {}, [], source.error
        for channel, file in entry["channels"].items():
            try:
                path = philips.own_sidecar(self.root / file)
                factor, note = philips.display_factor(philips.read_sidecar(path) if path else {})
            except DataError as problem:
                error = error or str(problem)
                continue
            notes += [note] if note else []
            if factor != 1:
                factors[channel] = factor
        spec = {**source.spec, "factors": factors} if factors else source.spec
        return Scanned([replace(source, spec=spec, notes=(*source.notes, *notes), error=error)])

    def sidecars(self, files: list[str]) -> tuple[list[str], str | None]:
        """The `.img` of every `.hdr`, and JSON that says how Philips' values are scaled."""
        found, problem = [], None
        for file in files:
            if (own := philips.own_sidecar(self.root / file)) is not None:
                found.append(own.relative_to(self.root).as_posix())
            if file.lower().endswith(".hdr"):
                data = nifti.data_file(self.root / file)
                if data is None:
                    problem = "the .img of a .hdr is missing"
                else:
                    found.append(data.relative_to(self.root).as_posix())
        return found, problem


class NrrdReader(GenericReader):
    """`.nrrd`, and `.nhdr` with the files that it names."""

    layout = "nrrd"
    suffixes = nrrd.SUFFIXES

    def sidecars(self, files: list[str]) -> tuple[list[str], str | None]:
        """Data files that the headers name; one outside of the data set is not touched."""
        found: list[str] = []
        for file in files:
            path = self.root / file
            try:
                if nrrd.outside_files(path, self.root):
                    return found, "an NRRD header must name data files below the folder of the data set"
                parts = [part for part in nrrd.data_files(path) if part.is_file()]
            except (OSError, ValueError, DataError):
                continue  # a header that cannot be read fails its volume later, with the reason
            found += [_relative(part, self.root) for part in parts]
        return [part for part in dict.fromkeys(found) if part not in files], None


def _told_apart(entries: list[Entry]) -> list[Entry]:
    """The entries; those whose places give one name, as `a/b_c` and `a_b/c` do, get a digest of the place."""
    names = Counter(entry["name"] for entry in entries)
    return [
        {**e, "name": f"{e['name']}-{digest(e['entry'], length=6)}"} if names[e["name"]] > 1 else e for e in entries
    ]


def _below(folder: str, group: Group) -> Group:
    """The group with paths relative to the root."""
    top = f"{folder}/" if folder else ""
    channels = {channel: top + name for channel, name in group.channels.items()}
    spare = [top + name for name in group.spare]
    return Group(channels, group.mask and top + group.mask, group.masked, spare, group.error)


def _relative(path: Path, root: Path) -> str:
    """Relative to the root, without `..` in between; links stay."""
    return Path(os.path.normpath(path)).relative_to(os.path.normpath(root)).as_posix()
