"""A mask's file goes in, NIfTI or NRRD; its codes as uint8 and its affine come out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from augengine.io import nifti, nrrd
from augengine.io.codes import check_codes
from augengine.io.labels import Mask
from augengine.io.segments import named_mask, segment_numbers


def read_mask(path: Path, labels: Mapping[str, int], within: Path | None = None) -> Mask:
    """A mask with the stated codes; segments that the file names are taken by their names.

    Args:
        within: the folder that an NRRD header's data files must lie below; that of the header by default.

    Raises:
        DataError: a damaged or missing file, more than one volume, or values that are no stated codes.
    """
    if path.name.lower().endswith(nrrd.SUFFIXES):
        data, affine, header = nrrd.read_nrrd(path, within)
        if segment_numbers(header):
            return named_mask(data, affine, header, labels, path)
        label, notes = check_codes(nifti.squeeze(data, path), labels)
        return Mask(label, affine, notes=notes)
    file = nifti.open_nifti(path)
    stored, slope, inter = file.stored()
    label, notes = check_codes(nifti.squeeze(stored, path), labels, slope, inter)
    return Mask(label, file.affine, notes=[*(f"mask: {note}" for note in file.notes), *notes])
