"""Names of files go in; images with the masks that their names give them come out, and reasons for the rest."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from augengine.io.pairing import Group, starred, stem

IMAGE_ENDINGS = ("_image",)
MASK_ENDINGS = (
    "_label",
    "_mask",
    "_seg",
    "_segmentation",
    "-label",
    "-mask",
    "-seg",
    "-segmentation",
    ".seg",
)
# Words that may end the name of an image, too: they make a mask where the image without them lies beside it.
LIKELY_MASK = re.compile(
    r"(.+?)[-_. ](labels|masks|lesions?|rois?|gt|dseg|segm|annotations?|ground[-_ ]?truth|tumou?r)", re.IGNORECASE
)
MASK_FOLDER = re.compile(
    r"(labels?|masks?|segs?|segmentations?|annotations?|ground[ _-]?truth|gt)([ _-]?(tr|ts|train|val|test))?", re.I
)


def by_name(paths: Sequence[str], mask_pattern: str | None) -> tuple[dict[tuple[str, str], Group], dict[str, str]]:
    """Groups by folder and key, of files of a whole tree: `p1` or `p1_image` with its mask; and reasons for the rest.

    A mask has a name that ends as one (`p1_seg`) and lies beside its image, or lies in a folder of masks (`labels/p1`)
    beside the folder of images; or it is called after an image beside it (`p1` and `p1_lesion`). A pattern chooses
    among the masks, or names files that look like none.
    """
    names = {path.rpartition("/")[0] + "/" + image_key(stem(path.rpartition("/")[2])).lower() for path in paths}
    images: dict[tuple[str, str], list[str]] = defaultdict(list)
    masks, reasons = [], {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        likely = LIKELY_MASK.fullmatch(stem(name))
        called_after = likely is not None and f"{folder}/{likely.group(1).lower()}" in names
        looks = without_mask_ending(stem(name)) is not None or _in_mask_folder(folder) or called_after
        if mask_pattern is not None and fnmatchcase(name, mask_pattern):
            masks.append(path)
        elif not looks:
            images[folder, image_key(stem(name))].append(path)
        elif mask_pattern is None:
            masks.append(path)
        else:
            reasons[path] = "named like a mask, but --mask asks for another"
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in masks:
        found[_place_of(path, images, mask_pattern)].append(path)
    groups = {place: _named(images.get(place, []), found.get(place, [])) for place in [*images, *found]}
    return groups, reasons


def _place_of(path: str, images: Mapping[tuple[str, str], object], mask_pattern: str | None) -> tuple[str, str]:
    """Folder and key of the image that a mask belongs to; its own where there is none."""
    folder, _, name = path.rpartition("/")
    text = stem(name)
    likely = LIKELY_MASK.fullmatch(text)
    keys = [
        without_mask_ending(text),
        text,
        starred(mask_pattern, name) if mask_pattern else None,
        likely.group(1) if likely else None,
    ]
    own = [key for key in keys if key]
    for key in own:
        same = [k for f, k in images if f == folder and k.lower() == key.lower()]
        if (folder, key) in images or len(same) == 1:
            return (folder, key) if (folder, key) in images else (folder, same[0])
    if _in_mask_folder(folder):
        above = folder.rpartition("/")[0]
        beside = [f for f in dict.fromkeys(f for f, _ in images) if f == above or f.rpartition("/")[0] == above]
        for key in own:
            places = [(f, key) for f in beside if (f, key) in images]
            if len(places) == 1:
                return places[0]
    alone = [place for place in images if place[0] == folder]
    if mask_pattern is not None and len(alone) == 1 and without_mask_ending(text) is None:
        return alone[0]
    return folder, own[0]


def _named(images: Sequence[str], masks: Sequence[str]) -> Group:
    group = Group(masked=bool(masks))
    endings = {path: _ending(path) for path in (*images, *masks)}
    if len(images) == 1:
        group.channels["image"] = images[0]
    elif images:
        group.error = f"two files would be one image: {_list(endings, images)}; leave one out, or use --channels"
    if len(masks) == 1:
        group.mask = masks[0]
    elif masks:
        group.error = f"one mask per image is needed; found {_list(endings, masks)}; choose with --mask PATTERN"
    group.spare = [path for path in (*images, *masks) if path not in (group.mask, group.channels.get("image"))]
    return group


def _list(endings: Mapping[str, str], paths: Sequence[str]) -> str:
    return " and ".join(sorted({f"'*{endings[path]}'" for path in paths}))


def _ending(path: str) -> str:
    """What a name has beyond its key: `p1_seg.nii.gz` -> `_seg.nii.gz`; it shows no subject."""
    name = path.rpartition("/")[2]
    text = stem(name)
    likely = LIKELY_MASK.fullmatch(text)
    key = without_mask_ending(text) or (likely.group(1) if likely else image_key(text))
    return name[len(key) :]


def _in_mask_folder(folder: str) -> bool:
    return MASK_FOLDER.fullmatch(folder.rpartition("/")[2]) is not None


def without_mask_ending(text: str) -> str | None:
    """`p1_seg` -> `p1`, `p1_label.seg` -> `p1`; None where a name does not end as that of a mask."""
    found = None
    while ending := next((e for e in MASK_ENDINGS if text.lower().endswith(e) and len(text) > len(e)), None):
        text = found = text[: -len(ending)]
    return found


def image_key(text: str) -> str:
    """`p1_image` -> `p1`; other stems as they are."""
    return next((text[: -len(e)] for e in IMAGE_ENDINGS if text.lower().endswith(e) and len(text) > len(e)), text)
