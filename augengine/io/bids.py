"""A BIDS-like folder goes in; anatomical volumes with acquisition from JSON sidecars (s, T) come out.

Images are `sub-*/[ses-*/]anat/*_<suffix>.nii[.gz]`. With channels (`t1=T1w,flair=FLAIR`) the suffixes of one
session are stacked, else every image is a volume of its own with its suffix as channel name. Masks are looked
for by `--mask` (default `*_{mask,dseg}.nii*`) beside the image and in `derivatives/*/sub-*/[ses-*/]anat`.
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from augengine.errors import DataError
from augengine.io.files import FileReader
from augengine.io.sources import Entry, Scanned, Source, shared_acquisition, subject_name
from augengine.records import Acquisition

MASKS = ("*_mask.nii", "*_mask.nii.gz", "*_dseg.nii", "*_dseg.nii.gz")
# Sidecar key -> (field, factor): BIDS counts seconds, we count milliseconds.
SIDECAR = {
    "RepetitionTime": ("repetition_time_ms", 1000.0),
    "EchoTime": ("echo_time_ms", 1000.0),
    "InversionTime": ("inversion_time_ms", 1000.0),
    "FlipAngle": ("flip_angle_deg", 1.0),
    "MagneticFieldStrength": ("field_strength_t", 1.0),
    "SliceThickness": ("slice_thickness_mm", 1.0),
}
SIDECAR_TEXT = {"Manufacturer": "manufacturer", "ManufacturersModelName": "model", "ScanOptions": "scan_options"}


class BidsReader(FileReader):
    """Sessions of one subject share its id; the session and, for single images, the suffix name the volume."""

    layout = "bids"

    def entries(self) -> list[Entry]:
        """One per volume."""
        entries = []
        for anat in sorted([*self.root.glob("sub-*/anat"), *self.root.glob("sub-*/ses-*/anat")]):
            parts = anat.relative_to(self.root).parts
            subject, session = parts[0], parts[1] if len(parts) == 3 else ""
            images = {
                _suffix(p): p
                for p in sorted(anat.glob("*_*.nii*"))
                if not any(fnmatch(p.name, m) for m in self._masks())
            }
            mask, error = self._mask(anat)
            wanted = [self.options.channels] if self.options.channels else [{s: s} for s in images]
            for channels in wanted:
                missing = [suffix for suffix in channels.values() if suffix not in images]
                if missing:
                    error = f"every channel must have its file; missing suffix: {', '.join(missing)}"
                tail = [session] if self.options.channels else [session, *channels]
                entries.append(
                    {
                        "name": subject,
                        "entry": anat.relative_to(self.root).as_posix(),
                        "volume": "".join(f"_{t}" for t in tail if t),
                        "channels": {
                            c: images[s].relative_to(self.root).as_posix() for c, s in channels.items() if s in images
                        },
                        "mask": mask,
                        "error": error,
                    }
                )
        self.require_labels(entries)
        return entries

    def scan(self, entry: Entry) -> Scanned:
        """Read the sidecars; one that cannot be read rules the volume out."""
        subject = subject_name(entry["name"], self.options)
        spec = {"channels": entry["channels"], "mask": entry["mask"]}
        acquisition, error = Acquisition(), entry["error"]
        try:
            parts = [self._acquisition(self.root / file) for file in entry["channels"].values()]
            acquisition = shared_acquisition(parts) if parts else acquisition
        except DataError as problem:
            error = error or str(problem)
        name = entry["name"]
        volume = subject + entry["volume"]
        return Scanned([Source(volume, subject, entry["entry"], spec, acquisition, error, participant=name)])

    def _masks(self) -> tuple[str, ...]:
        return (self.options.mask,) if self.options.mask else MASKS

    def _mask(self, anat: Path) -> tuple[str | None, str | None]:
        """The only mask of a session; several are an error."""
        places = [anat, *sorted(self.root.glob(f"derivatives/*/{anat.relative_to(self.root).as_posix()}"))]
        found = sorted({p for place in places for m in self._masks() for p in place.glob(m)})
        if len(found) > 1:
            return None, f"one mask per session is needed; found {len(found)}: choose with --mask PATTERN"
        return (found[0].relative_to(self.root).as_posix() if found else None), None

    def _acquisition(self, image: Path) -> Acquisition:
        """The sidecar beside the image over the one at the root (BIDS' inheritance, nearest wins)."""
        values: dict[str, Any] = {}
        for sidecar in (
            self.root / f"{_suffix(image)}.json",
            image.with_name(re.sub(r"\.nii(\.gz)?$", ".json", image.name)),
        ):
            if sidecar.is_file():
                try:
                    values |= json.loads(sidecar.read_text(encoding="utf-8"))
                except (ValueError, TypeError):
                    raise DataError("a JSON sidecar must hold a mapping of names to values") from None
        fields: dict[str, Any] = {}
        for key, (name, factor) in SIDECAR.items():
            if isinstance(values.get(key), int | float):
                fields[name] = round(values[key] * factor, 6)
        for key, name in SIDECAR_TEXT.items():
            value = values.get(key)
            if value:
                fields[name] = "\\".join(map(str, value)) if isinstance(value, list) else str(value)
        return Acquisition(**fields)


def _suffix(path: Path) -> str:
    """`sub-01_ses-1_T1w.nii.gz` -> `T1w`."""
    return path.name.split(".")[0].rsplit("_", 1)[-1]
