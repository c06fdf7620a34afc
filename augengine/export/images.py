"""A case in; one NIfTI file per channel and one of the labels, as several targets have them, out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from augengine.export.case import Case
from augengine.export.item import Item
from augengine.export.nifti import nifti_bytes
from augengine.export.target import About, File


def safe(channel: str) -> str:
    """A channel's name as a part of a file name: letters and digits.

    >>> safe("t1 post-Gd")
    't1postGd'
    """
    return re.sub(r"[^A-Za-z0-9]", "", channel) or "channel"


def image_names(case: Case, about: About) -> list[str]:
    """Names of a case's images, one per channel."""
    if len(about.channels) == 1:
        return [f"images/{case.name}.nii.gz"]
    found = [safe(channel) for channel in about.channels]
    unique = len({name.casefold() for name in found}) == len(found)
    parts = found if unique else [f"{n}{name}" for n, name in enumerate(found)]
    return [f"images/{case.name}_{part}.nii.gz" for part in parts]


def label_name(case: Case) -> str:
    """Name of a case's label map."""
    return f"labels/{case.name}.nii.gz"


def case_files(item: Item, about: About) -> Iterator[File]:
    """Images and, where there is one, the label map."""
    for name, channel in zip(image_names(item.case, about), item.image, strict=True):
        yield File(name, nifti_bytes(channel, item.affine, item.case.synthetic), (item.case.name,))
    if item.label is not None:
        yield File(label_name(item.case), nifti_bytes(item.label, item.affine, item.case.synthetic), (item.case.name,))


def labelled(case: Case, listed: Sequence[str]) -> bool:
    """True if a label map was written for a case."""
    return label_name(case) in listed
