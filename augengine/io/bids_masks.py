"""Masks and the images of volumes go in; which mask belongs to which volume comes out, by the entities of their names.

A mask's name holds the entities of the image that it was made from (BIDS, derivatives): run, acquisition, contrast
agent, … must be equal. Where it names the image's suffix, too (`…_T2w_label-lesion_mask`), that must be equal as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from augengine.errors import AugengineError
from augengine.io.bids_names import BidsName, schema
from augengine.io.tables import records, table_rows

SUFFIXES = ("mask", "dseg")
OWN_SPACE = ("orig", "scanner")
BRAIN = {"brain", "brainmask"}
NO_MASKS = "none"
UNFIT = "a mask of no image that is used"


@dataclass(frozen=True)
class Found:
    """What the masks are.

    Attributes:
        masks: by number of the volume; several are for the user to choose from.
        notes: by number of the volume.
        reasons: why masks are not used, by path.
    """

    masks: Mapping[int, Sequence[BidsName]]
    notes: Mapping[int, Sequence[str]]
    reasons: Mapping[str, str]


def is_mask(name: BidsName, pattern: str | None) -> bool:
    """True for a file that matches the pattern; without one, for BIDS' suffixes, but not for masks of the brain.

    A pattern with `/` is one of the path, another one of the name, with or without its ending. `none` matches nothing.
    """
    if pattern is not None:
        whole = name.path if "/" in pattern else name.path.rpartition("/")[2]
        return pattern != NO_MASKS and (fnmatchcase(whole, pattern) or fnmatchcase(name.stem, pattern))
    return name.suffix in SUFFIXES and not _of_brain(name)


def no_mask(name: BidsName, pattern: str | None) -> str:
    """Why a file that was made from an image is no mask."""
    if name.suffix == "probseg":
        return "a map of probabilities"
    if name.suffix in SUFFIXES:
        return "a mask that --mask does not ask for" if pattern else "a mask of the brain; --mask PATTERN takes it"
    return (
        "made from an image, and not asked for by --mask" if pattern else "made from an image; --mask PATTERN takes it"
    )


def match(masks: Sequence[BidsName], volumes: Mapping[int, Sequence[BidsName]]) -> Found:
    """Give each mask to the volumes that one of its images is of; `volumes` holds the images of each, by number.

    A mask with fewer entities than any image goes to the only image that it can be of. One of several images is named.
    """
    by_subject: dict[str, list[int]] = defaultdict(list)
    for n, images in volumes.items():
        by_subject[images[0].subject].append(n)
    found: dict[int, list[BidsName]] = defaultdict(list)
    notes: dict[int, list[str]] = defaultdict(list)
    reasons: dict[str, str] = {}
    for mask in masks:
        here = {n: volumes[n] for n in by_subject.get(mask.subject, [])}
        in_space = {n: [i for i in images if _suits(mask, i)] for n, images in here.items()}
        named = [n for n, images in in_space.items() if any(_continues(mask, i) for i in images)]
        exact = named or [n for n, images in in_space.items() if any(_told(mask, i) == i.acquired for i in images)]
        loose = [n for n, images in in_space.items() if any(_within(mask, i) for i in images)]
        if exact:
            taken = exact
            if len(taken) > 1:
                for n in taken:
                    notes[n].append(f"its mask names no suffix and was taken for {len(taken)} images")
        elif len(loose) == 1:
            taken = loose
            notes[loose[0]].append("its mask has fewer entities; it was taken since it can be of no other image")
        else:
            taken = []
            reasons[mask.path] = "a mask that may be of several images" if loose else _unfit(mask, here)
        for n in taken:
            found[n].append(mask)
    return Found(found, notes, reasons)


def several(masks: Sequence[BidsName]) -> str:
    """The error of a volume with more than one mask; what tells them apart stands in it."""
    common = set.intersection(*(set(mask.stem.split("_")) for mask in masks))
    names = ["_".join(p for p in mask.stem.split("_") if p not in common) or mask.suffix for mask in masks]
    places = {mask.path.rpartition("/")[0] for mask in masks}
    where = f" in {len(places)} folders" if len(places) > 1 else ""
    found = ", ".join(sorted(set(names))) if len(set(names)) > 1 else f"{len(masks)} of one name{where}"
    choose = "choose with --mask PATTERN (of the name, or of the path if it holds /)"
    return f"an image must have one mask; found {found}; {choose}"


def stated_codes(mask: BidsName, tables: Sequence[BidsName], root: Path) -> str | None:
    """`name=code,...` from the nearest `dseg.tsv` that applies to a mask; None if there is none to read."""
    folder = mask.path.rpartition("/")[0]
    for table in sorted(tables, key=lambda t: (-t.path.count("/"), -len(t.entities))):
        place = table.path.rpartition("/")[0]
        below = place == "" or folder == place or folder.startswith(f"{place}/")
        if not below or table.suffix != mask.suffix or not table.entities.items() <= mask.entities.items():
            continue
        try:
            rows = records(table_rows(root / table.path))
        except AugengineError:
            return None
        pairs = [(row.get("name", ""), row.get("index", "")) for row in rows]
        codes = [f"{name.replace(' ', '_').replace(',', '')}={index}" for name, index in pairs if name and index != "0"]
        return ",".join(codes) if codes and all(index.isdecimal() for _, index in pairs) else None
    return None


def _suits(mask: BidsName, image: BidsName) -> bool:
    """The suffix that the mask names, and its space, are the image's."""
    if mask.source is not None and mask.source != image.suffix:
        return False
    space, own = mask.entities.get("space"), image.entities.get("space")
    return space == own or (own is None and space in (*OWN_SPACE, image.suffix))


def _told(mask: BidsName, image: BidsName) -> dict[str, str]:
    """What the mask tells of its image; entities that neither BIDS nor the image knows (`rater`) are the mask's own."""
    known = {*schema().entities, *image.entities}
    return {key: value for key, value in mask.acquired.items() if key in known}


def _continues(mask: BidsName, image: BidsName) -> bool:
    """The mask's name is the image's with something behind it."""
    return mask.stem.startswith(f"{image.stem}_") and image.acquired.items() <= mask.acquired.items()


def _within(mask: BidsName, image: BidsName) -> bool:
    return _told(mask, image).items() <= image.acquired.items()


def _of_brain(name: BidsName) -> bool:
    return bool(BRAIN & set(name.stem.lower().replace("-", "_").split("_")[1:]))


def _unfit(mask: BidsName, here: Mapping[int, Sequence[BidsName]]) -> str:
    spaces = [image.entities.get("space") for images in here.values() for image in images]
    if spaces and "space" in mask.entities and mask.entities["space"] not in spaces:
        return "a mask in another space"
    return UNFIT
