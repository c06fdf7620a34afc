"""A NIfTI file goes in; its array, its RAS+ affine in mm and what had to be decided on the way come out."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from augengine.errors import DataError
from augengine.geometry import spacing_mm
from augengine.io.nifti_header import header_affine, length_unit, slice_axis
from augengine.io.units import check_spacing
from augengine.io.unpack import Packing, check_declared, unpacked

SUFFIXES = (".nii", ".nii.gz")
# Header and data in two files; the data file is the header's sidecar.
PAIR_SUFFIXES = (".hdr", ".img")
PAIRS = {348: nib.Nifti1Pair, 540: nib.Nifti2Pair}
LENGTH = {348: (nib.Nifti1Header, nib.Nifti1Image), 540: (nib.Nifti2Header, nib.Nifti2Image)}


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """One opened file.

    Attributes:
        image: nibabel's image; its pixels are read by `values` and `stored`.
        affine: float64 `(4, 4)`, voxel index to RAS+ mm; None where the header states none, or none that is usable.
        notes: decisions, free of names.
        acquired_axis: array axis of the slices, by the header's `dim_info` or since there is one slice only; or None.
        declared: bytes of the header and of all voxels that it declares.
    """

    path: Path
    image: Any
    affine: np.ndarray | None
    notes: tuple[str, ...]
    acquired_axis: int | None
    declared: int = 0

    def placed(self) -> np.ndarray:
        """The affine. Raises DataError where there is none: left and right would be a guess."""
        if self.affine is None:
            raise DataError(
                "sform or qform must state where the voxels lie",
                found="no usable one",
                where=str(self.path),
                next_step="set the orientation with a tool that knows it, e.g. nibabel or fslorient",
            )
        return self.affine

    def values(self) -> np.ndarray:
        """The array after scl_slope and scl_inter; integers without a scale stay integers."""
        return self._read(np.asanyarray)

    def stored(self) -> tuple[np.ndarray, float, float]:
        """The array as stored, slope and intercept."""
        proxy = self.image.dataobj
        return self._read(lambda data: data.get_unscaled()), float(proxy.slope), float(proxy.inter)

    def _read(self, load: Callable[[Any], Any]) -> np.ndarray:
        try:
            return np.asanyarray(load(self._whole().dataobj))
        except DataError:
            raise
        except Exception as error:  # nibabel, gzip and zlib raise many unrelated classes for damaged files
            raise _damaged(error, self.path) from None

    def _whole(self) -> Any:
        """The image with its data at hand: of a compressed file read to the end, where its checksum stands.

        nibabel stops at the last voxel and so never sees it: a flipped bit would pass as other voxel values.
        """
        names = {str(holder.filename) for holder in self.image.file_map.values() if holder.filename is not None}
        packed = [name for name in names if name.lower().endswith(".gz")]
        if not packed:
            return self.image
        if len(names) > 1:
            for name in packed:
                unpacked(Path(name), "gzip", self.declared)
            return self.image
        return type(self.image).from_bytes(unpacked(Path(packed[0]), "gzip", self.declared))


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Array `(I, J, K)` after scl_slope/scl_inter (integers stay integers), affine, notes.

    Raises:
        DataError: as `open_nifti` does, more than one volume (4D, 5D), colour or complex voxels, or a header without
            orientation.
    """
    file = open_nifti(path)
    return squeeze(file.values(), path), file.placed(), list(file.notes)


def open_nifti(path: Path) -> NiftiFile:
    """A file with its geometry settled; pixels are not read yet.

    Raises:
        DataError: a missing, empty or damaged file, Analyze 7.5, more voxels than the file can hold, or voxels of a
            size that no scan has.
    """
    try:
        packed, head = _head(path)
        if len(head) == 0:
            raise DataError("this file is empty", where=str(path), next_step="fetch it again or leave it out")
        raw = _raw_header(head)
        if path.name.lower().endswith(".hdr") and raw is not None and raw["magic"].item()[:2] != b"ni":
            raise DataError(
                "Analyze 7.5 files state no orientation: left and right would be a guess",
                where=str(path),
                next_step="convert them to NIfTI with a tool that knows the orientation",
            )
        declared = _declared(raw, path, packed)
        image, renamed = _image(path, packed, raw, declared)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError("this file is missing", where=str(path)) from None
    except Exception as error:  # nibabel, gzip and zlib raise many unrelated classes for damaged files
        raise _damaged(error, path) from None
    shape, header, notes = image.shape, image.header, [renamed] if renamed else []
    affine, remarks = header_affine(header, raw, (*shape, 1, 1)[:3])
    if affine is not None:
        sizes = spacing_mm(affine)[: 2 if (*shape, 1, 1)[2] == 1 else 3]
        check_spacing(sizes, length_unit(header), "xyzt_units", str(path))
    single = [axis for axis, n in enumerate((*shape, 1, 1)[:3]) if n == 1]
    axis = single[0] if len(single) == 1 else slice_axis(header)
    return NiftiFile(path, image, affine, (*notes, *remarks), axis, declared)


def squeeze(data: np.ndarray, path: Path) -> np.ndarray:
    """Drop trailing axes of length 1, give a flat image a third axis, and insist on one volume of real numbers."""
    shape = data.shape
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim == 2:
        data = data[..., None]
    if data.ndim != 3:
        raise DataError(
            "one file must hold one 3D volume",
            found=f"shape {shape}",
            where=str(path),
            next_step="split time series and multi-channel files first",
        )
    if data.dtype.kind not in "iuf":
        raise DataError("voxels must be real numbers", found=str(data.dtype), where=str(path))
    return data


def data_file(header: Path) -> Path | None:
    """The `.img` of a `.hdr`, in whatever case it is written; None where there is none."""
    names = [header.name[:-4] + end for end in (".img", ".IMG", ".img.gz")]
    return next((header.with_name(name) for name in names if header.with_name(name).is_file()), None)


def _head(path: Path) -> tuple[bool, bytes]:
    """Whether a file is gzip-compressed, and its first 540 bytes after decompression."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as content:
        return packed, content.read(540)


def _raw_header(head: bytes) -> Any:
    """The header as it is written, before nibabel mends it; None where it is no NIfTI header."""
    for size, (kind, _) in LENGTH.items():
        for order in "<>":
            if len(head) >= size and np.frombuffer(head[:4], f"{order}i4")[0] == size:
                return kind(head[:size], endianness=order, check=False)
    return None


def _declared(raw: Any, path: Path, packed: bool) -> int:
    """Bytes up to the end of the voxels, as the header declares them; more than the file can hold is a DataError."""
    if raw is None:
        sizes = " or ".join(map(str, LENGTH))
        rule = f"this NIfTI file is damaged: a header begins with its own size, {sizes}"
        raise DataError(rule, found="another number", where=str(path))
    axes, *shape = (int(n) for n in raw["dim"])
    shape = shape[:axes] if 1 <= axes <= 7 else [0]
    if min(shape) < 1:
        raise DataError(
            "a NIfTI header must declare 1 to 7 axes, each of 1 or more voxels",
            found=raw["dim"].tolist(),
            where=str(path),
        )
    begin = float(raw["vox_offset"])
    if not 0 <= begin < 2**31:
        raise DataError("vox_offset says where the voxels begin", found=begin, where=str(path))
    own = path if not path.name.lower().endswith(".hdr") else data_file(path) or path
    declared = int(begin) + math.prod(shape) * int(raw.get_data_dtype().itemsize)
    packing: Packing = "gzip" if own.name.lower().endswith(".gz") or (packed and own == path) else "raw"
    check_declared(declared, own.stat().st_size, packing, str(path))
    return declared


def _image(path: Path, packed: bool, raw: Any, declared: int) -> tuple[Any, str | None]:
    """nibabel's image, which trusts the name, and a note where the name does not tell how the file is packed."""
    if path.name.lower().endswith(".hdr"):
        files = nib.Nifti1Pair.make_file_map({"header": str(path), "image": str(data_file(path) or path)})
        return PAIRS[int(raw["sizeof_hdr"])].from_file_map(files), None
    named = path.name.lower().endswith(".gz")
    if raw["magic"].item()[:2] != b"n+":
        return nib.load(path), None
    kind = LENGTH[int(raw["sizeof_hdr"])][1]
    if packed == named:
        return kind.from_filename(path), None
    image = kind.from_bytes(unpacked(path, "gzip" if packed else "raw", declared))
    return image, "gzip-compressed under the name .nii" if packed else "not compressed, though named .gz"


def _damaged(error: Exception, path: Path) -> DataError:
    return DataError("this NIfTI file is damaged", found=type(error).__name__, where=str(path))
