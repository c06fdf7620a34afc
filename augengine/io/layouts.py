"""A folder and a layout's name (or `auto`) go in; the reader for it comes out."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from augengine.errors import ConfigError, DataError
from augengine.io.bids import BidsReader
from augengine.io.brats import YEARS, Brats2020, Brats2021, Brats2023, Brats2024
from augengine.io.dicom import DicomReader, looks_like_dicom
from augengine.io.duke import PATIENT, DukeReader
from augengine.io.folders import NiftiReader, NrrdReader
from augengine.io.nnunet import DecathlonReader, NnunetReader, detect_images_tr
from augengine.io.sources import Listing, Reader, SourceOptions
from augengine.io.walk import walk
from augengine.plugins import Registry, named, with_methods
from augengine.yaml_config import unknown_name


def _reader(name: str, cls: Any) -> Callable[[Path, SourceOptions], Reader]:
    """A reader's class from what an entry point names."""
    found: Callable[[Path, SourceOptions], Reader] = with_methods(Reader, named(name, cls, "layout"))
    return found


READERS: Registry[Callable[[Path, SourceOptions], Reader]] = Registry(
    "layout",
    {
        r.layout: r
        for r in (
            DicomReader,
            DukeReader,
            NiftiReader,
            NrrdReader,
            NnunetReader,
            DecathlonReader,
            Brats2020,
            Brats2021,
            Brats2023,
            Brats2024,
            BidsReader,
        )
    },
    _reader,
)
LAYOUTS = ("auto", *READERS)
LOOK_AT_PATHS = 20_000


def open_layout(root: Path, layout: str, options: SourceOptions) -> tuple[Reader, Listing]:
    """The reader of a folder, and what it lists.

    Raises:
        ConfigError: an unknown layout, or options that the layout cannot obey.
        DataError: no such folder, or nothing of this layout in it.
    """
    check_root(root, layout)
    name = detect(root, options) if layout == "auto" else layout
    reader = READERS[name](root, options)
    listing = reader.listing()
    if not listing.entries:
        raise DataError(
            f"no subject of layout '{name}' in this folder",
            where=str(root),
            next_step=f"check the path, or state another --layout ({', '.join(READERS)})",
        )
    return reader, listing


def check_root(root: Path, layout: str) -> None:
    """Refuse what is known before anything is listed: an unknown layout, no such folder."""
    if layout not in ("auto", *READERS):
        raise unknown_name("layout", layout, ("auto", *READERS), "--layout")
    if not root.is_dir():
        raise DataError("the data must be a folder", where=str(root), next_step="check the path")


def detect(root: Path, options: SourceOptions) -> str:
    """The layout of a folder by the names in it; an ambiguous folder is a `ConfigError`."""
    visible = (Path(f.path) for f in walk(root) if f.problem is None)
    paths = list(islice(visible, LOOK_AT_PATHS))
    names = {part for path in paths for part in path.parts}
    years = [year for year, rule in YEARS.items() if any(rule.case.fullmatch(n) for n in names)]
    if "brats2023" in years:  # 2023 and 2024 share their names; the stated scheme tells them apart
        stated = (options.scheme or "").partition("-")[0]
        if stated not in ("brats2023", "brats2024"):
            schemes = sorted({s for y in years for task in YEARS[y].tasks.values() for s in task.schemes})
            raise ConfigError(
                "these folders are named alike in BraTS 2023 and 2024",
                where=str(root),
                next_step=f"state --labels ({', '.join(schemes)}), or --layout brats2023 or brats2024",
            )
        return stated
    if years:
        return years[0]
    if any(PATIENT.fullmatch(n) for n in names):
        return "duke"
    if any("anat" in p.parts and any(part.startswith("sub-") for part in p.parts) for p in paths):
        return "bids"
    kind = detect_images_tr(p.as_posix() for p in paths)
    if kind is not None:
        return kind
    found: list[str] = [
        name
        for name, ending in (("nifti", r"\.nii(\.gz)?$"), ("nrrd", r"\.(nrrd|nhdr)$"))
        if any(re.search(ending, p.name, re.IGNORECASE) for p in paths)
    ]
    if any(looks_like_dicom(root / p) for p in paths):
        found.append("dicom")
    if not found and any(p.name.lower().endswith(".hdr") for p in paths):
        return "nifti"
    if len(found) == 1:
        return found[0]
    raise ConfigError(
        "the layout of this folder is not clear",
        found=" and ".join(found) or "no known file",
        where=str(root),
        next_step=f"check the path, or state --layout ({', '.join(READERS)})",
    )
