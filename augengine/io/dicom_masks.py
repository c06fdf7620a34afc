"""Stacks of a DICOM folder and the label objects beside them go in; which mask is whose, and what is refused, come out.

A mask belongs to the images that it names by their UIDs. Anonymisers give images new UIDs and may leave a mask's
references as they were; readers then return an empty mask without a word. Such a mask is refused.
"""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from augengine.errors import DataError
from augengine.io.bids_masks import NO_MASKS
from augengine.io.dicom_kinds import SEGMENTATION, STRUCTURES
from augengine.io.dicom_seg import image_uids, need_highdicom
from augengine.io.dicom_stacks import Stack
from augengine.io.sources import SourceOptions

_LOOSE = (
    "the images that a DICOM Segmentation was made on must lie in its study; found none of the {count} that it names: "
    "UIDs were replaced in the images and not in it, or the images lie in another folder of the data set; de-identify "
    "both together, put both below one folder, or --mask none to ingest images only"
)
_SEVERAL = "one of several DICOM Segmentations of one image would be a guess; found {names}; choose with --mask PATTERN"
_CONTOURS = (
    "masks are read from DICOM Segmentations; found an RT Structure Set of these images; convert it, for example with "
    "plastimatch or 3D Slicer (SlicerRT), or --mask none to ingest images only"
)


@dataclass(frozen=True)
class Masks:
    """What was found.

    Attributes:
        of_stack: the mask's file, by the number of the stack.
        errors: why a stack has none, though there is one.
        refused: files that belong to no stack, with reasons.
    """

    of_stack: Mapping[int, Path]
    errors: Mapping[int, str]
    refused: Sequence[tuple[Path, str]]

    @classmethod
    def of(cls, unused: Mapping[Path, str], stacks: Sequence[Stack], options: SourceOptions) -> Masks:
        """Masks among the files that hold no image; none where no labels are stated."""
        if not options.labels or options.mask == NO_MASKS:
            return cls({}, {}, ())
        files = sorted(path for path, why in unused.items() if why in (SEGMENTATION, STRUCTURES))
        pattern = (options.mask or "*").lower()
        files = [path for path in files if fnmatch.fnmatch(path.name.lower(), pattern)]
        if any(unused[path] == SEGMENTATION for path in files):
            need_highdicom()
        uids = [frozenset(f.uid.partition("#")[0] for f in stack.frames) for stack in stacks]
        found: dict[int, list[Path]] = defaultdict(list)
        errors: dict[int, str] = {}
        refused: list[tuple[Path, str]] = []
        for path in files:
            try:
                named = image_uids(path)
            except DataError as error:
                refused.append((path, str(error)))
                continue
            whose = [n for n, own in enumerate(uids) if own & named]
            if unused[path] == STRUCTURES:
                errors |= dict.fromkeys(whose or range(len(stacks)), _CONTOURS)
            elif not whose:
                refused.append((path, _LOOSE.format(count=len(named))))
            for n in whose if unused[path] == SEGMENTATION else ():
                found[n].append(path)
        for n, several in found.items():
            errors.pop(n, None)  # a Segmentation serves where contours lie beside it
            if len(several) > 1:
                errors[n] = _SEVERAL.format(names=f"{len(several)}")
        return cls({n: paths[0] for n, paths in found.items() if len(paths) == 1}, errors, refused)
