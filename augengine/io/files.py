"""NIfTI and NRRD files go in, one file per channel and mask; multi-channel volumes on one grid come out.

Base of the readers whose volumes are made of such files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from augengine.errors import ConfigError, DataError
from augengine.geometry import grid_shift, same_grid
from augengine.io import nifti, nrrd
from augengine.io.labels import NOTED_SHIFT_VOXELS, MaskGrid, place_mask
from augengine.io.mask_files import read_mask
from augengine.io.sources import Entry, Listing, Scanned, Source, SourceOptions, Volume, subject_name
from augengine.io.walk import walk
from augengine.label_loss import LabelWatch
from augengine.records import Acquisition, Sample

OTHER_FORMATS = (".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mgz", ".mgh", ".mha", ".mhd", ".mnc", ".dcm")
CODES_AT_MOST = 16  # whole values of a file that is taken for a label map


@dataclass(frozen=True, eq=False)
class Image:
    """One file's array `(I, J, K)` as stored, RAS+ affine in mm, notes, and the axis of its slices (None: unknown)."""

    data: np.ndarray
    affine: np.ndarray
    notes: Sequence[str] = ()
    acquired_axis: int | None = None


def read_image(path: Path, within: Path | None = None) -> Image:
    """The image of a file, by the file's suffix; an NRRD header's data files lie `within`, or beside it.

    Raises DataError, also for a label map.
    """
    image = _read(path, within)
    _refuse_label_map(image.data)
    return image


def _read(path: Path, within: Path | None = None) -> Image:
    """The image or label map of a file."""
    if path.name.lower().endswith(nrrd.SUFFIXES):
        data, affine, _ = nrrd.read_nrrd(path, within)
        return Image(nifti.squeeze(data, path), affine)
    file = nifti.open_nifti(path)
    return Image(nifti.squeeze(file.values(), path), file.placed(), file.notes, file.acquired_axis)


def _refuse_label_map(data: np.ndarray) -> None:
    """A mask whose name does not show it would become an image of its own."""
    few = np.unique(data.ravel(order="K")[::61])
    if len(few) <= CODES_AT_MOST and data.size > CODES_AT_MOST**2:
        values = np.unique(data)
        if 1 < len(values) <= CODES_AT_MOST and (values >= 0).all() and (values == np.rint(values)).all():
            raise DataError(
                "an image must hold more than a few whole values, as label maps do",
                found=f"{len(values)} values",
                next_step="name a mask with --mask PATTERN; leave the file out if it is none",
            )


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Array `(I, J, K)` of an image or a label map, RAS affine, notes."""
    image = _read(path)
    return image.data, image.affine, list(image.notes)


def read_channels(
    root: Path,
    channels: Mapping[str, str],
    mask: str | None,
    labels: Mapping[str, int] | None,
    source: Source,
    max_label_loss: float = 0.1,
    mask_grid: MaskGrid = "auto",
) -> Volume:
    """Stack files (paths relative to `root`) as channels, and put the mask on their grid.

    `factors` in the source's spec are what the voxels of a channel are multiplied by.

    Raises:
        DataError: a damaged or missing file, channels on different grids, or a mask that does not fit.
    """
    images = {name: read_image(root / file, root) for name, file in channels.items()}
    for name, factor in source.spec.get("factors", {}).items():
        images[name] = replace(images[name], data=images[name].data * factor)
    place = None if mask is None else root / mask
    return stack_channels(images, place, labels, source, max_label_loss, mask_grid, root)


def stack_channels(
    images: Mapping[str, Image],
    mask: Path | None,
    labels: Mapping[str, int] | None,
    source: Source,
    max_label_loss: float = 0.1,
    mask_grid: MaskGrid = "auto",
    within: Path | None = None,
) -> Volume:
    """Images of one grid as the channels of one volume, with the mask on that grid. Raises as `read_channels` does."""
    first = next(iter(images.values()))
    notes: list[str] = []
    for name, image in images.items():
        notes += [f"{name}: {remark}" for remark in image.notes]
        if not same_grid(first.data.shape, first.affine, image.data.shape, image.affine):
            raise DataError(
                "all channels must lie on one grid",
                found=f"'{name}' {image.data.shape} differs from the first channel",
                next_step="co-register and resample the channels, or ingest them one by one",
            )
        shift = grid_shift(first.data.shape, first.affine, image.affine)
        if shift > NOTED_SHIFT_VOXELS:
            notes.append(f"{name}: grid taken as the first channel's; they differ by {shift:.2f} voxels at most")
    label, watch = None, None
    if mask is not None:
        held = read_mask(mask, labels or {}, within)
        label, watch = place_mask(held, first.data.shape, first.affine, labels or {}, max_label_loss, mask_grid)
        notes += _moved(watch)
    axes = {image.acquired_axis for image in images.values()}
    sample = Sample(
        image=np.stack([image.data.astype(np.float32, copy=False) for image in images.values()]),
        affine=first.affine,
        channels=tuple(images),
        label=label,
        labels=labels if labels and label is not None else {},
        subject_id=source.subject_id,
        volume_id=source.volume_id,
        acquisition=source.acquisition,
    )
    return Volume(sample, notes, acquired_axis=axes.pop() if len(axes) == 1 else None, watch=watch)


def _moved(watch: LabelWatch) -> list[str]:
    """The notes so far; the watch starts a new list for what follows."""
    notes, watch.notes = watch.notes, []
    return notes


class FileReader(ABC):
    """Common part: a source's `spec` holds `channels` (name to file) and `mask` (file or None).

    An entry may also hold `spare` (files that claim a place which another one claims, too), `masked` (one of them is
    a mask) and `data_files` (further files of its data).
    """

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
        """Channels, mask, and what else the entry names."""
        masks = [entry["mask"]] if entry["mask"] else []
        several = [*entry["channels"].values(), *masks, *entry.get("spare", ()), *entry.get("data_files", ())]
        return list(dict.fromkeys(several))

    def unused(self, path: str) -> str:
        """Why a visible file is part of no entry."""
        name = path.lower()
        if name.endswith(self.suffixes):
            return "matches no pattern of channels or mask"
        if name.endswith(".img"):
            return "data without their header .hdr"
        return "an image of another format" if name.endswith(OTHER_FORMATS) else "no image"

    def scan(self, entry: Entry) -> Scanned:
        """One source; files without headers take their acquisition from the options only."""
        name, error, public = entry["name"], entry.get("error"), entry.get("public", False)
        subject = subject_name(name, self.options, public=public)
        spec = {"channels": entry["channels"], "mask": entry["mask"]}
        spec |= {"files": entry["spare"]} if entry.get("spare") else {}
        spec |= {"sidecars": entry["data_files"]} if entry.get("data_files") else {}
        notes = list(entry.get("notes", ()))
        if self.options.labels and not entry["mask"] and error is None:
            notes.append("no mask was found")
        acquisition = Acquisition(**entry.get("acquisition", {}))
        volume = subject + entry.get("volume", "")
        source = Source(
            volume,
            subject,
            entry["entry"],
            spec,
            acquisition,
            error,
            tuple(notes),
            participant=name,
            public=public,
            split=entry.get("split"),
        )
        return Scanned([source])

    def read(self, source: Source) -> Volume:
        """Load all channels and the mask."""
        options, spec = self.options, source.spec
        return read_channels(
            self.root, spec["channels"], spec["mask"], options.labels, source, options.max_label_loss, options.mask_grid
        )

    def require_labels(self, entries: Iterable[Entry]) -> None:
        """Check what was stated about masks against what was found.

        Raises:
            ConfigError: masks without a stated meaning of their codes, or labels or a pattern of masks that no file
                answers to.
        """
        found = list(entries)
        masked = [e for e in found if e["mask"] or e.get("masked") or "mask" in (e.get("error") or "")]
        if masked and not self.options.labels:
            raise ConfigError(
                "this data set has masks: the meaning of their codes must be stated",
                where=masked[0]["entry"],
                next_step="give --labels name=code,... or --labels SCHEME",
            )
        if found and not masked and self.options.mask:
            raise ConfigError(
                "--mask must match the mask of a volume",
                found=f"'{self.options.mask}', and no such file",
                where=str(self.root),
                next_step="mend the pattern, or leave --mask and --labels out",
            )
        if found and not masked and self.options.labels:
            raise ConfigError(
                "--labels is stated, but no volume of this data set has a mask",
                where=str(self.root),
                next_step="check the path, name the masks with --mask PATTERN, or leave --labels out",
            )
