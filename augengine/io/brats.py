"""BraTS folders of 2020, 2021, 2023 and 2024 go in; four-channel volumes with checked labels come out.

Channels get the same names in all years (t1, t1c, t2, flair), so that one model serves them all. The label
scheme is stated by the user, since code 4 changed its meaning; it is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from augengine.errors import ConfigError
from augengine.io.files import FileReader
from augengine.io.sources import Entry
from augengine.io.walk import visible_files


@dataclass(frozen=True)
class Year:
    """How a year names its folders and files, and the label schemes that may be stated for it."""

    folder: re.Pattern[str]
    separator: str
    suffixes: Mapping[str, str]
    schemes: tuple[str, ...]


_OLD = {"t1": "t1", "t1c": "t1ce", "t2": "t2", "flair": "flair"}
_NEW = {"t1": "t1n", "t1c": "t1c", "t2": "t2w", "flair": "t2f"}
_NEW_FOLDER = re.compile(r"BraTS-[A-Za-z]+-\d{5}-\d{3}")
YEARS = {
    "brats2020": Year(re.compile(r"BraTS20_(Training|Validation)_\d{3}"), "_", _OLD, ("brats2020", "brats2021")),
    "brats2021": Year(re.compile(r"BraTS2021_\d{5}"), "_", _OLD, ("brats2020", "brats2021")),
    "brats2023": Year(_NEW_FOLDER, "-", _NEW, ("brats2023",)),
    "brats2024-gli": Year(_NEW_FOLDER, "-", _NEW, ("brats2024-gli",)),
}


class BratsReader(FileReader):
    """One case per folder; case names are public and stay as subject ids."""

    year: Year

    def entries(self) -> list[Entry]:
        """Case folders, sorted by name."""
        self._check_scheme()
        folders = {(self.root / file).parent for file in visible_files(self.root)}
        folders = {folder for folder in folders if self.year.folder.fullmatch(folder.name)}
        return [self._entry(folder) for folder in sorted(folders)]

    def _check_scheme(self) -> None:
        options, schemes = self.options, self.year.schemes
        if options.labels is None or (options.scheme is not None and options.scheme not in schemes):
            raise ConfigError(
                f"layout {self.layout} needs a label scheme that belongs to it", found=options.scheme or "none",
                where="--labels", next_step=f"state --labels {schemes[-1]}",
            )  # fmt: skip

    def _entry(self, folder: Path) -> Entry:
        channels, missing = {}, []
        for name, suffix in self.year.suffixes.items():
            file = self._file(folder, suffix)
            if file is None:
                missing.append(name)
            else:
                channels[name] = file.relative_to(self.root).as_posix()
        mask = self._file(folder, "seg")
        if mask is None:
            # Case 355 of 2020: the mask is W39_1998.09.19_Segm.nii.
            others = [p for p in sorted(folder.glob("*")) if re.search(r"_segm?\.nii(\.gz)?$", p.name, re.IGNORECASE)]
            mask = others[0] if len(others) == 1 else None
        return {
            "name": folder.name,
            "entry": folder.relative_to(self.root).as_posix(),
            "public": True,
            "channels": channels,
            "mask": None if mask is None else mask.relative_to(self.root).as_posix(),
            "error": f"every channel must have its file; missing: {', '.join(missing)}" if missing else None,
        }

    def _file(self, folder: Path, suffix: str) -> Path | None:
        names = [f"{folder.name}{self.year.separator}{suffix}{end}" for end in (".nii.gz", ".nii")]
        return next((folder / name for name in names if (folder / name).is_file()), None)


class Brats2020(BratsReader):
    """`BraTS20_Training_001/…_t1ce.nii`."""

    layout, year = "brats2020", YEARS["brats2020"]


class Brats2021(BratsReader):
    """`BraTS2021_00000/…_t1ce.nii.gz`."""

    layout, year = "brats2021", YEARS["brats2021"]


class Brats2023(BratsReader):
    """`BraTS-GLI-00000-000/…-t1c.nii.gz` (GLI, MEN, MET, PED, SSA)."""

    layout, year = "brats2023", YEARS["brats2023"]


class Brats2024Gli(BratsReader):
    """Named as 2023; code 4 is the resection cavity."""

    layout, year = "brats2024-gli", YEARS["brats2024-gli"]
