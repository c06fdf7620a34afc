"""BraTS folders of 2020, 2021, 2023 and 2024 go in; volumes with checked labels, under their patients, come out.

Channels get the same names in all years (t1, t1c, t2, flair), so that one model serves them all. The label
scheme is stated by the user, since codes changed their meaning; it is never guessed, and must be that of the task
in a case's name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from augengine.errors import ConfigError
from augengine.io.files import FileReader
from augengine.io.sources import Entry, Listing, Scanned, Source, Volume
from augengine.io.tissue import TissueMap, with_tissue
from augengine.io.walk import visible_files, walk
from augengine.yaml_config import unknown_name


@dataclass(frozen=True)
class Task:
    """How the files of a task are named, and the label schemes that may be stated for it."""

    schemes: tuple[str, ...]
    channels: Mapping[str, str]
    separator: str = "-"
    mask: str = "seg"


@dataclass(frozen=True)
class Year:
    """How a year names its cases, and its tasks; a year of one task names it `""`.

    `case` has the groups `patient`, and `task` and `time` where names tell them.
    """

    case: re.Pattern[str]
    tasks: Mapping[str, Task]


_OLD = {"t1": "t1", "t1c": "t1ce", "t2": "t2", "flair": "flair"}
_NEW = {"t1": "t1n", "t1c": "t1c", "t2": "t2w", "flair": "t2f"}
# BraTS-GLI-00005-101 is the second scan of patient BraTS-GLI-00005; BraTS-MEN-RT-0001-1 has fewer digits.
_CASE = re.compile(r"(?P<patient>BraTS-(?P<task>[A-Za-z]+(?:-[A-Za-z]+)*)-\d{4,5})-(?P<time>\d{1,3})")
_GLIOMA = Task(("brats2020", "brats2021"), _OLD, "_")
_ADULT = Task(("brats2023",), _NEW)
YEARS = {
    "brats2020": Year(re.compile(r"(?P<patient>BraTS20_(?:Training|Validation)_\d{3})"), {"": _GLIOMA}),
    "brats2021": Year(re.compile(r"(?P<patient>BraTS2021_\d{5})"), {"": _GLIOMA}),
    "brats2023": Year(
        _CASE, {"GLI": _ADULT, "MEN": _ADULT, "MET": _ADULT, "SSA": _ADULT, "PED": Task(("brats2023-ped",), _NEW)}
    ),
    "brats2024": Year(
        _CASE,
        {
            "GLI": Task(("brats2024-gli",), _NEW),
            "MET": Task(("brats2024-met",), _NEW),
            "SSA": Task(("brats2024-ssa",), _NEW),
            "PED": Task(("brats2024-ped",), _NEW),
            "MEN-RT": Task(("brats2024-men-rt",), {"t1c": "t1c"}, "_", "gtv"),
        },
    ),
}


class BratsReader(FileReader):
    """A case per folder; its public name tells the patient, who is the subject: time points stay together.

    `--channels flair` takes FLAIR alone; `--tissue` joins a map of tissues to the mask of the tumour.
    """

    year: Year

    def entries(self) -> list[Entry]:
        """Cases, sorted by name."""
        return list(self.listing().entries)

    def listing(self) -> Listing:
        """Cases by their folders' names, and every file that none of them takes."""
        folders: dict[str, list[str]] = defaultdict(list)
        for path in visible_files(self.root, suffixes=self.suffixes):
            folder, _, name = path.rpartition("/")
            if self.year.case.fullmatch(folder.rpartition("/")[2]):
                folders[folder].append(name)
        entries: list[Entry] = []
        reasons: dict[str, str] = {}
        for folder, names in sorted(folders.items()):
            entry, why = self._entry(folder, names)
            entries.append(entry)
            reasons |= why
        if entries:
            masked = any(entry["masked"] for entry in entries)
            self._check_scheme({self._task(folder) for folder in folders}, masked)
        self.require_labels(entries)
        self._check_asked(entries)
        taken = {file for entry in entries for file in self.files(entry)}
        rest = {f.path: f.problem or reasons.get(f.path) or self.unused(f.path) for f in walk(self.root)}
        return Listing(entries, unused={path: why for path, why in rest.items() if path not in taken})

    def unused(self, path: str) -> str:
        """Why a visible file is part of no case."""
        image = path.lower().endswith(self.suffixes)
        return "lies in no folder that is named as a case of this layout" if image else super().unused(path)

    def _task(self, folder: str) -> str:
        match = self.year.case.fullmatch(folder.rpartition("/")[2])
        return "" if match is None or "task" not in match.groupdict() else match["task"].upper()

    def _check_scheme(self, tasks: Iterable[str], masked: bool) -> None:
        """The stated scheme must belong to one of the tasks; codes of the user's own may stand for any."""
        options, names = self.options, sorted(tasks)
        schemes = sorted({s for name in names if (task := self.year.tasks.get(name)) for s in task.schemes})
        stated = options.scheme in schemes if options.scheme else bool(options.labels) or not masked
        if stated:
            return
        where = f"layout {self.layout}" + (f", task {', '.join(names)}," if names != [""] else "")
        raise ConfigError(
            f"{where} needs a label scheme that belongs to it",
            found=options.scheme or "none",
            where="--labels",
            next_step=f"state --labels {' or '.join(schemes)}"
            if schemes
            else "none is known here: state its codes with --labels name=code,...",
        )

    @cached_property
    def _tissue(self) -> TissueMap | None:
        return None if self.options.tissue is None else TissueMap.parse(self.options.tissue)

    def _channels(self, task: Task) -> dict[str, str]:
        """Those of the task, or of them those that `--channels` names, in that order."""
        asked = self.options.channels
        for name in asked:
            if name not in task.channels:
                raise unknown_name("channel", name, list(task.channels), "--channels")
        return {name: task.channels[name] for name in asked or task.channels}

    def _check_asked(self, entries: Sequence[Entry]) -> None:
        """A tissue map that no case has was misspelt."""
        if entries and self._tissue is not None and not any(entry["tissue"] for entry in entries):
            raise ConfigError(
                "--tissue must match a file in the folder of a case",
                where=str(self.root),
                found=f"'{self._tissue.pattern}', and no such file",
                next_step="mend the pattern",
            )

    def files(self, entry: Entry) -> list[str]:
        """As of every reader, and the map of tissues."""
        return [*super().files(entry), *([entry["tissue"]] if entry["tissue"] else [])]

    def scan(self, entry: Entry) -> Scanned:
        """One source, with its map of tissues."""
        found = super().scan(entry)
        if entry["tissue"] is None:
            return found
        return Scanned([replace(s, spec={**s.spec, "tissue": entry["tissue"]}) for s in found.sources], found.unused)

    def read(self, source: Source) -> Volume:
        """Channels and mask, and the tissues where they are asked for."""
        volume, file = super().read(source), source.spec.get("tissue")
        if file is None or self._tissue is None:
            return volume
        return with_tissue(volume, self._tissue.read(self.root / file), self.options.mask_grid)

    def _entry(self, folder: str, names: Sequence[str]) -> tuple[Entry, dict[str, str]]:
        """One case, and reasons for the files of its folder that it does not use."""
        case = folder.rpartition("/")[2]
        match = self.year.case.fullmatch(case)
        assert match is not None  # the folder was chosen by it
        name = self._task(folder)
        task = self.year.tasks.get(name, Task((), _NEW))
        found = {c: _named(names, case, task.separator, suffix) for c, suffix in self._channels(task).items()}
        masks = _named(names, case, task.separator, task.mask)
        if not masks:  # case 355 of 2020: the mask is W39_1998.09.19_Segm.nii
            masks = [n for n in names if re.search(r"_segm?\.nii(\.gz)?$", n, re.IGNORECASE)]
        tissues = [n for n in names if self._tissue is not None and self._tissue.matches(n)]
        missing = [c for c, files in found.items() if not files]
        twice = [c for c, files in [*found.items(), ("the mask", masks)] if len(files) > 1]
        error = None
        if self.options.scheme is not None and self.options.scheme not in task.schemes:
            own = f"state --labels {' or '.join(task.schemes)}" if task.schemes else "its codes are not known here"
            error = f"task {name} has other codes than the stated scheme; ingest it apart: {own}"
        elif missing:
            error = f"every channel must have its file; missing: {', '.join(missing)}"
        elif self._tissue is not None and len(tissues) != 1:
            error = f"every case has one file '{self._tissue.pattern}'; found {len(tissues)}"
        elif twice:
            error = f"a file stands there twice, e.g. as .nii and .nii.gz: {', '.join(twice)}; leave one out"
        mask = masks[0] if len(masks) == 1 else None
        spare = [n for files in (*found.values(), masks) if len(files) > 1 for n in files]
        entry: Entry = {
            "name": match["patient"],
            "volume": case.removeprefix(match["patient"]),
            "entry": folder,
            "public": True,
            "channels": {c: f"{folder}/{files[0]}" for c, files in found.items() if len(files) == 1},
            "mask": None if mask is None else f"{folder}/{mask}",
            "masked": bool(masks),
            "tissue": f"{folder}/{tissues[0]}" if len(tissues) == 1 else None,
            "spare": [f"{folder}/{n}" for n in spare],
            "error": error,
        }
        taken = {n for files in (*found.values(), masks, tissues) for n in files}
        others = {n for c, suffix in task.channels.items() for n in _named(names, case, task.separator, suffix)}
        return entry, {
            f"{folder}/{n}": "a channel that --channels does not name"
            if n in others
            else "no channel or mask of this layout"
            for n in names
            if n not in taken
        }


def _named(names: Sequence[str], case: str, separator: str, suffix: str) -> list[str]:
    """Files of a case with one suffix; upper and lower case count as one."""
    wanted = f"{case}{separator}{suffix}".lower()
    return [name for name in names if name.lower() in (f"{wanted}.nii.gz", f"{wanted}.nii")]


class Brats2020(BratsReader):
    """`BraTS20_Training_001/…_t1ce.nii`."""

    layout, year = "brats2020", YEARS["brats2020"]


class Brats2021(BratsReader):
    """`BraTS2021_00000/…_t1ce.nii.gz`."""

    layout, year = "brats2021", YEARS["brats2021"]


class Brats2023(BratsReader):
    """`BraTS-GLI-00000-000/…-t1c.nii.gz` (GLI, MEN, MET, PED, SSA)."""

    layout, year = "brats2023", YEARS["brats2023"]


class Brats2024(BratsReader):
    """Named as 2023 (GLI, MET, PED, SSA), and `BraTS-MEN-RT-0000-1/…_t1c.nii.gz`."""

    layout, year = "brats2024", YEARS["brats2024"]
