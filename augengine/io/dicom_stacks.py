"""A folder of DICOM files goes in; its stacks (what may be one volume each) and what its other files are come out.

Files are told apart by SeriesInstanceUID, never by name. How a series is divided stands in `dicom_split`, what is no
image to train with in `dicom_kinds`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from augengine.errors import DataError
from augengine.io.dicom_frames import EMPTY, NO_DICOM, Frame, NoSeriesError, read_frames
from augengine.io.dicom_geometry import normal
from augengine.io.dicom_kinds import LOCALISER
from augengine.io.dicom_split import FLOORS, geometry_error, same_value, split_series
from augengine.io.walk import visible_files
from augengine.records import ACQUISITION_CATEGORICAL, ACQUISITION_NUMERIC, Acquisition, incredible
from augengine.rng import digest

DICOM_NAMES = (".dcm", ".ima")
SAME_SETTING = 1e-2  # a value that differs by more from slice to slice is none of the volume
LOCALISER_SLICES = 20
TIMES = ("echo_time_ms", "repetition_time_ms")  # of a sequence, both are above 0; an inversion time of 0 means none


@dataclass(frozen=True)
class Stack:
    """Frames of one series that belong to one volume.

    Attributes:
        part: number of the stack among the usable ones of its series.
        error: why it cannot be a volume, from headers alone, or None.
        named: why it is no image to train with (phase, localiser, …), or None.
        notes: what is special about it, free of names.
    """

    frames: tuple[Frame, ...]
    part: int = 0
    error: str | None = None
    named: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Frame:
        """The frame that speaks for the stack."""
        return self.frames[0]

    @property
    def files(self) -> list[Path]:
        """Files that hold its frames, each once, sorted."""
        return sorted({f.path for f in self.frames})

    @property
    def indices(self) -> list[list[int] | None]:
        """For each of `files`, the numbers of its frames; None for a file of a single one."""
        of: dict[Path, list[int] | None] = {}
        for frame in self.frames:
            if frame.index is None:
                of[frame.path] = None
            else:
                of[frame.path] = [*(of.get(frame.path) or []), frame.index]
        return [of[path] for path in self.files]

    @property
    def slice_by_slice(self) -> bool:
        """See `Frame`."""
        return any(frame.slice_by_slice for frame in self.frames)

    @property
    def content(self) -> str:
        """Equal for copies of a stack: as many images at the same places."""
        return digest(sorted([round(v, 2) + 0.0 for v in f.position or ()] for f in self.frames), length=16)

    def acquisition(self) -> tuple[Acquisition, list[str]]:
        """Values of the whole stack, and notes on those that differ from slice to slice: they are left out."""
        values: dict[str, str | float | None] = {}
        notes = []
        for name in (*ACQUISITION_CATEGORICAL, *ACQUISITION_NUMERIC):
            found = Counter(getattr(f.acquisition, name) for f in self.frames)
            values[name] = found.most_common(1)[0][0]
            stated = [v for v in found if v is not None]
            if name in ACQUISITION_NUMERIC and len(stated) > 1:
                low, high = min(stated), max(stated)
                if not same_value(low, high, SAME_SETTING, FLOORS.get(name, 0.0)):
                    values[name] = None
                    notes.append(f"{name} differs from slice to slice ({low:g} to {high:g}) and is left out")
            value = values[name]
            if name in TIMES and value is not None and float(value) <= 0:
                values[name] = None
                notes.append(f"{name} is stated as {value:g}, which no sequence has, and is left out")
            elif name in ACQUISITION_NUMERIC and incredible(name, value):  # type: ignore[arg-type]
                values[name] = None
                notes.append(f"{name} is stated as {value:g}, which is beyond belief, and is left out")
        return Acquisition(**values), notes  # type: ignore[arg-type]


@dataclass(frozen=True)
class Found:
    """What lies below a folder.

    Attributes:
        stacks: of all MR images.
        unused: files that hold no MR image, or that spoil the series beside them, with reasons.
        broken: files that should hold a slice, cannot be read, and lie beside no series.
    """

    stacks: tuple[Stack, ...]
    unused: Mapping[Path, str]
    broken: tuple[tuple[Path, str], ...]


def find_stacks(folder: Path, allow_echo_planar: bool = False) -> Found:
    """Read all headers below `folder` and sort frames into stacks.

    A slice that cannot be read rules out every series in its own folder: it may be one of their slices.
    """
    frames: dict[str, list[Frame]] = defaultdict(list)
    unused: dict[Path, str] = {}
    broken: dict[Path, str] = {}
    nameless: dict[Path, tuple[float, ...] | None] = {}
    for path in map(folder.joinpath, visible_files(folder)):
        try:
            contents = read_frames(path, allow_echo_planar)
        except OSError as error:
            unused[path] = f"a file that cannot be opened ({error.strerror})"
            continue
        except DataError as error:
            broken[path] = str(error)
            if isinstance(error, NoSeriesError):
                nameless[path] = error.place
            continue
        if contents.reason is not None:
            unused[path] = contents.reason
        for frame in contents.frames:
            frames[frame.series].append(frame)
    for path, remark in _coinciding(nameless).items():
        broken[path] += remark
    for path in _lost_slices(unused, (f.path for series in frames.values() for f in series)):
        broken[path] = f"this file is named like DICOM but is {unused.pop(path)}"
    stacks = [stack for series in frames.values() for stack in _stacks(series)]
    spoilt: dict[Path, str] = {path.parent: reason for path, reason in sorted(broken.items(), reverse=True)}
    judged = [_judged(stack, spoilt) for stack in stacks]
    homes = {f.path.parent for s in judged if s.named is None for f in s.frames}
    for path in [p for p in broken if p.parent in homes]:
        unused[path] = f"it cannot be read, and may be a slice of a series beside it: {broken.pop(path)}"
    return Found(tuple(judged), unused, tuple(sorted(broken.items())))


def _coinciding(places: Mapping[Path, tuple[float, ...] | None]) -> dict[Path, str]:
    """Of images without a series, how many of a folder lie where another one does."""
    of: dict[Path, list[tuple[float, ...] | None]] = defaultdict(list)
    for path, place in places.items():
        of[path.parent].append(place)
    remarks = {}
    for folder, found in of.items():
        again = sum(n for place, n in Counter(found).items() if place is not None and n > 1)
        told = "two patients, or phases of one, lie together" if again else "slices of two patients may lie together"
        remarks[folder] = (
            f"; {again} of the {len(found)} such images of this folder share their position with another: {told}"
        )
    return {path: remarks[path.parent] for path in places}


def _lost_slices(unused: Mapping[Path, str], slices: Iterable[Path]) -> list[Path]:
    """Files without an image that are named as slices are: DICOM's own endings, or the names beside them."""
    names = {(path.parent, _skeleton(path)) for path in slices}
    doubtful = (p for p, why in unused.items() if why in (NO_DICOM, EMPTY) or why.startswith("a file that cannot"))
    return [p for p in doubtful if p.suffix.lower() in DICOM_NAMES or (p.parent, _skeleton(p)) in names]


def _skeleton(path: Path) -> str:
    """A file's name with its numbers taken out: IM0001 and IM0002 are alike."""
    return re.sub(r"\d+", "#", path.name)


def _stacks(series: list[Frame]) -> list[Stack]:
    groups = split_series(series)
    used = [g for g, _ in groups if g[0].named is None]
    named = LOCALISER if _is_localiser(used) else None
    left_out = Counter(f.path for f in series if f.named is not None)
    stacks, part = [], 0
    for group, note in groups:
        first = group[0]
        if first.named or named:
            stacks.append(Stack(tuple(group), named=first.named or named))
            continue
        notes = [note] if note else []
        others = sum(left_out[path] for path in {f.path for f in group})
        if others:
            reasons = sorted({f.named for f in series if f.named is not None})
            notes.append(f"{others} other frames of its files are not used: {', '.join(reasons)}")
        stacks.append(Stack(tuple(group), part, first.refusal, notes=tuple(notes)))
        part += 1
    return stacks


def _is_localiser(groups: Sequence[list[Frame]]) -> bool:
    """True for a few slices in each of three planes that are about perpendicular."""
    if len(groups) < 3 or any(g[0].refusal or len(g) > LOCALISER_SLICES for g in groups):
        return False
    planes: list[np.ndarray] = []
    for group in groups:
        across = normal(group[0])
        if all(abs(across @ plane) < 0.5 for plane in planes):
            planes.append(across)
    return len(planes) == 3


def _judged(stack: Stack, spoilt: Mapping[Path, str]) -> Stack:
    """The stack with the reason why it cannot be a volume, if headers alone tell one."""
    if stack.named or stack.error:
        return stack
    reason = next((spoilt[f.path.parent] for f in stack.frames if f.path.parent in spoilt), None)
    if reason is not None:
        return replace(stack, error=f"a file in the folder of this series cannot be read: {reason}")
    return replace(stack, error=geometry_error(stack.frames))
