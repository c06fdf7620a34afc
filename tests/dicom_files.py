"""DICOM files as scanners, archives and anonymisers really leave them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from mri_files import block, header
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MediaStorageDirectoryStorage
from reading import scanned

from augengine.io.dicom import DicomReader
from augengine.io.sources import Source, SourceOptions, Volume

AXIAL, SAGITTAL, CORONAL = (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)


def write_slices(
    folder: Path,
    pixels: np.ndarray,
    *,
    series: str = "1.2.826.0.1.77",
    orientation: Sequence[float] = AXIAL,
    step_mm: float = 3.0,
    positions: Sequence[Sequence[object]] | None = None,
    per_slice: Callable[[int], Mapping[str, Any]] = lambda k: {},
    name: str = "s{:03d}.dcm",
    **tags: Any,
) -> list[Path]:
    """One classic file for each slice of `(columns, rows, slices)`; `per_slice(k)` changes tags of slice k."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    paths = []
    for k in range(pixels.shape[2]):
        ds = header(series, StudyInstanceUID="1.2.826.9", PatientID="P1")
        ds.Rows, ds.Columns, ds.PixelSpacing, ds.InstanceNumber = pixels.shape[1], pixels.shape[0], [1, 1], k + 1
        ds.ImageOrientationPatient = [f"{v:.9g}" for v in orientation]
        place = normal * step_mm * k if positions is None else positions[k]
        ds.ImagePositionPatient = [v if isinstance(v, str) else f"{v:.9g}" for v in place]
        ds.PixelData = np.ascontiguousarray(pixels[:, :, k].T).tobytes()
        for tag, value in {**tags, **per_slice(k)}.items():
            setattr(ds, tag, value)
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        paths.append(folder / name.format(k))
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def item(**tags: Any) -> Dataset:
    """A sequence's item."""
    ds = Dataset()
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def write_frames(
    path: Path,
    frames: Sequence[np.ndarray],
    groups: Sequence[Dataset],
    shared: Mapping[str, Any] | None = None,
    **tags: Any,
) -> None:
    """One Enhanced file of frames `(columns, rows)`; positions and timing stand in the functional groups given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = header("1.2.826.0.1.99", StudyInstanceUID="1.2.826.9", PatientID="P1")
    for name in ("RepetitionTime", "EchoTime", "FlipAngle", "SliceThickness", "ScanOptions", "ScanningSequence"):
        delattr(ds, name)
    ds.SOPClassUID = EnhancedMRImageStorage
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.Columns, ds.Rows, ds.NumberOfFrames = *frames[0].shape, len(frames)
    ds.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=3)],
            PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            **(shared or {}),
        )
    ]
    ds.PerFrameFunctionalGroupsSequence = list(groups)
    ds.PixelData = b"".join(np.ascontiguousarray(f.T).tobytes() for f in frames)
    for name, value in tags.items():
        setattr(ds, name, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.save_as(path, enforce_file_format=True)


def at(z: float, **macros: Any) -> Dataset:
    """A frame's functional groups: its position, and more."""
    return item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])], **macros)


def write_dicomdir(path: Path) -> None:
    """The directory of a medium, without records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = Dataset()
    ds.file_meta = header("1.2").file_meta
    ds.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    ds.FileSetID, ds.FileSetConsistencyFlag, ds.DirectoryRecordSequence = "EXPORT", 0, []
    ds.save_as(path, enforce_file_format=True)


def without(path: Path, what: str) -> None:
    """Take the preamble, the file meta information or both from a file."""
    raw = path.read_bytes()
    meta = 132 + 12 + pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength
    path.write_bytes({"preamble": raw[132:], "meta": raw[:132] + raw[meta:], "both": raw[meta:]}[what])


def found(root: Path, **options: Any) -> tuple[DicomReader, list[Source]]:
    """The reader and its sources, settled; every file is used or named."""
    reader = DicomReader(root, SourceOptions(**options))
    return reader, reader.settle(scanned(reader))


def volumes(root: Path, **options: Any) -> list[Volume]:
    """All volumes with pixels; none may fail."""
    reader, sources = found(root, **options)
    assert [s.error for s in sources] == [None] * len(sources)
    return [reader.read(s) for s in sources]


def images(root: Path, **options: Any) -> list[np.ndarray]:
    """Their pixels, `(columns, rows, slices)`."""
    return [v.sample.image[0] for v in volumes(root, **options)]


def errors(root: Path, **options: Any) -> list[str | None]:
    """Of all volumes."""
    return [s.error for s in found(root, **options)[1]]


def unused(root: Path, **options: Any) -> dict[str, str]:
    """Reasons by path of files, or folders of files, that no volume uses."""
    reader = DicomReader(root, SourceOptions(**options))
    listing = reader.listing()
    reasons = dict(listing.unused)
    for item_ in (i for entry in listing.entries for i in reader.scan(entry).unused):
        reasons[item_.path] = "; ".join([*([reasons[item_.path]] if item_.path in reasons else []), item_.reason])
    return reasons


__all__ = [
    "AXIAL",
    "CORONAL",
    "SAGITTAL",
    "at",
    "block",
    "errors",
    "found",
    "images",
    "item",
    "unused",
    "volumes",
    "without",
    "write_dicomdir",
    "write_frames",
    "write_slices",
]
