"""A folder of DICOM files goes in; one volume per series, stacked by position along the slice normal, comes out.

Files are told apart by SeriesInstanceUID, never by name. A mixed series is split into its stacks (orientation,
matrix, spacing, image type, temporal position, TE, TI, flip angle). What is refused stands in `dicom_frames`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from augengine.errors import DataError
from augengine.geometry import LPS_TO_RAS
from augengine.io.dicom_frames import Frame, read_frames, read_pixels
from augengine.io.sources import (
    Entry,
    Listing,
    Scanned,
    Source,
    SourceOptions,
    Unused,
    Volume,
    grouped,
    pseudonym,
    subject_name,
)
from augengine.io.walk import is_hidden, visible_files, visible_folders, walk
from augengine.records import Sample
from augengine.rng import digest

SAME_POSITION_MM = 0.01
DICOM_NAMES = (".dcm", ".ima")


@dataclass(frozen=True)
class Stack:
    """Frames of one series that belong to one volume, and the reason to refuse them, if any."""

    frames: tuple[Frame, ...]
    part: int
    error: str | None

    @property
    def first(self) -> Frame:
        """The frame that speaks for the stack."""
        return self.frames[0]

    @property
    def key(self) -> str:
        """Short name of the stack key; free of names and UIDs."""
        return digest([str(v) for v in self.first.stack_key], length=16)


@dataclass(frozen=True)
class Found:
    """Stacks below a folder, and files named like DICOM that cannot be read."""

    stacks: tuple[Stack, ...]
    broken: tuple[tuple[Path, str], ...]


def find_stacks(folder: Path, allow_echo_planar: bool = False) -> Found:
    """Read all headers below `folder` and sort frames into stacks.

    A file that cannot be read rules out every series in its own folder: it may be one of their slices.
    """
    frames: dict[str, list[Frame]] = defaultdict(list)
    broken: list[tuple[Path, str]] = []
    for path in map(folder.joinpath, visible_files(folder)):
        try:
            found = read_frames(path, allow_echo_planar)
        except DataError as error:
            broken.append((path, str(error)))
            continue
        if found is None and path.suffix.lower() in DICOM_NAMES:
            broken.append((path, "this file is named like DICOM but is none"))
        for frame in found or []:
            frames[frame.series].append(frame)
    stacks = []
    for series in frames.values():
        parts: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
        for frame in series:
            parts[frame.stack_key].append(frame)
        folders = {f.path.parent for f in series}
        spoilt = next((reason for path, reason in broken if path.parent in folders), None)
        for n, key in enumerate(sorted(parts, key=str)):
            beside = f"a file in the folder of this series cannot be read: {spoilt}" if spoilt else None
            stacks.append(Stack(tuple(parts[key]), n, parts[key][0].refusal or beside))
    homeless = [b for b in broken if not any(b[0].parent == f.path.parent for s in stacks for f in s.frames)]
    return Found(tuple(stacks), tuple(homeless))


def load_stack(paths: Sequence[Path], key: str, allow_echo_planar: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pixels of one stack as float32 `(I, J, K)` (i along rows' columns, j down the rows), RAS affine, notes."""
    images: list[tuple[Frame, np.ndarray]] = []
    for path in paths:
        for frame, pixels in read_pixels(path, allow_echo_planar):
            if Stack((frame,), 0, None).key == key:
                images.append(
                    (frame, pixels.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept))
                )
    return assemble(images)


def assemble(images: Sequence[tuple[Frame, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Sort by position along the normal, drop exact duplicates, insist on even spacing.

    Raises:
        DataError: different images at one position, a gap (with the positions beside it), slices that are not
            in one line, or fewer than two positions.
    """
    orientation = np.array(images[0][0].orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    depth = np.array([normal @ np.array(frame.position) for frame, _ in images])
    order = np.argsort(depth, kind="stable")
    kept: list[int] = []
    duplicates = 0
    for n in order.tolist():
        if not kept or depth[n] - depth[kept[-1]] > SAME_POSITION_MM:
            kept.append(n)
        elif np.array_equal(images[n][1], images[kept[-1]][1]):
            duplicates += 1
        else:
            raise DataError(
                "a series must hold one image per position", found=f"different images at {depth[n]:.2f} mm",
                next_step="split dynamic or multi-echo series into one folder per volume",
            )  # fmt: skip
    if len(kept) < 2:
        raise DataError("a volume needs at least two slices", found=f"{len(kept)} position")
    positions = np.array([images[n][0].position for n in kept])
    step = _even_step(depth[kept], positions)
    frame = images[kept[0]][0]
    assert frame.spacing is not None  # frames without spacing were refused
    affine = np.eye(4)
    # DICOM C.7.6.2.1: the first spacing is between rows, the first direction runs along a row.
    affine[:3, 0] = orientation[:3] * frame.spacing[1]
    affine[:3, 1] = orientation[3:] * frame.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    volume = np.stack([images[n][1].T for n in kept], axis=-1)
    return volume, LPS_TO_RAS @ affine, [f"{duplicates} exact duplicates dropped"] if duplicates else []


def _even_step(depth: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The vector from slice to slice, LPS mm; a gap or a bend is a `DataError`."""
    gaps = np.diff(depth)
    usual = float(np.median(gaps))
    tolerance = max(0.02 * usual, SAME_POSITION_MM)
    for n in np.flatnonzero(np.abs(gaps - usual) > tolerance).tolist():
        missing = round(gaps[n] / usual) - 1
        guess = f" (about {missing} missing)" if missing > 0 else ""
        raise DataError(
            "slices must be evenly spaced",
            found=f"{gaps[n]:.2f} mm between {depth[n]:.2f} and {depth[n + 1]:.2f} mm instead of {usual:.2f}{guess}",
            next_step="find the missing files of this series",
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    bend = np.abs(positions - (positions[0] + np.arange(len(positions))[:, None] * step)).max()
    if bend > max(0.1 * usual, 0.1):
        raise DataError("slices must lie in one line", found=f"{bend:.2f} mm off")
    return np.asarray(step)


class DicomReader:
    """Any folder of DICOM: every sub-folder is scanned on its own, and every series in it is a volume.

    Subject ids are pseudonyms of PatientID (of the folder where that is empty), unless ids are public.
    """

    layout: ClassVar[str] = "dicom"

    def __init__(self, root: Path, options: SourceOptions) -> None:
        self.root, self.options = root, options

    def listing(self) -> Listing:
        """One entry per sub-folder with files, or a single one where slices lie right in the root."""
        here = sorted(p for p in self.root.iterdir() if not p.is_dir())
        if any(p.is_file() and looks_like_dicom(p) for p in here):
            return Listing([{"folder": "."}])
        hidden = {f.path: "hidden" for f in walk(self.root) if is_hidden(f.path.split("/")[0])}
        loose = {p.name: "lies beside the subjects' folders" for p in here if not is_hidden(p.name)}
        entries = [{"folder": p.name} for p in visible_folders(self.root) if next(walk(self.root, p.name), None)]
        return Listing(entries, unused=hidden | loose)

    def files(self, entry: Entry) -> list[str]:
        """All below the folder."""
        return [f.path for f in walk(self.root, entry["folder"])]

    def scan(self, entry: Entry) -> Scanned:
        """Stacks of one sub-folder."""
        found = find_stacks(self.root / entry["folder"], self.options.allow_echo_planar)
        sources = [self._source(stack, entry["folder"]) for stack in found.stacks]
        for path, reason in found.broken:
            name = path.relative_to(self.root).as_posix()
            subject = subject_name(entry["folder"], self.options)
            sources.append(Source(f"{subject}_{self._id(name)}", subject, name, {"files": [name]}, error=reason))
        return Scanned(sources, self._unused(entry, sources))

    def _unused(self, entry: Entry, sources: Sequence[Source]) -> list[Unused]:
        used = {file for source in sources for file in source.files}
        below = walk(self.root, entry["folder"])
        return grouped({f.path: f.problem or "no DICOM image" for f in below if f.path not in used})

    def read(self, source: Source) -> Volume:
        """Load one stack."""
        paths = [self.root / name for name in source.spec["files"]]
        image, affine, notes = load_stack(paths, source.spec["stack"], self.options.allow_echo_planar)
        sample = Sample(
            image=image[None], affine=affine, channels=(next(iter(self.options.channels), "mr"),),
            subject_id=source.subject_id, volume_id=source.volume_id, acquisition=source.acquisition,
        )  # fmt: skip
        return Volume(sample, notes)

    def _source(self, stack: Stack, folder: str) -> Source:
        frame = stack.first
        subject = subject_name(frame.patient or folder, self.options)
        files = sorted({str(f.path.relative_to(self.root)) for f in stack.frames})
        part = f"-{stack.part}" if stack.part else ""
        return Source(
            f"{subject}_{self._id(frame.series)}{part}", subject, files[0],
            {"files": files, "stack": stack.key}, frame.acquisition, stack.error,
            participant=frame.patient or folder,
        )  # fmt: skip

    def _id(self, raw: str) -> str:
        return pseudonym(raw, self.options.pseudonym_key, "vol")


def looks_like_dicom(path: Path) -> bool:
    """True if the file starts as DICOM Part 10 says; reads 132 bytes."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
