"""Names of files go in; which belong to one volume, as channels and mask, comes out.

Two files that claim one place are never chosen between in silence: their volume is refused, and the reason shows what
differs, with the subject's own part of the names left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase, translate

SUFFIX = re.compile(r"(\.nii(\.gz)?|\.hdr|\.nrrd|\.nhdr)$", re.IGNORECASE)
SEPARATORS = ("_", "-", ".", " ")


class Place(Enum):
    """Where a run of wildcards stands: a part of the name of its own, part of a word, or either right at the end."""

    PART, WORD, END, WORD_END = range(4)


@dataclass
class Group:
    """Files of one volume.

    Attributes:
        channels: channel name to file.
        mask: its mask.
        masked: it has a mask, or files that claim to be it.
        spare: files that claim a place which another one claims, too.
        error: why the volume is refused, free of the subject's name.
    """

    channels: dict[str, str] = field(default_factory=dict)
    mask: str | None = None
    masked: bool = False
    spare: list[str] = field(default_factory=list)
    error: str | None = None


def stem(name: str) -> str:
    """`p1_t1.nii.gz` -> `p1_t1`."""
    return SUFFIX.sub("", name)


def starred(pattern: str, name: str) -> str | None:
    """What the first wildcard of a pattern stands for in a name; None where the pattern has none.

    >>> starred("*_t1.nii.gz", "case7_t1.nii.gz")
    'case7'
    """
    wild = _wild(pattern, name)
    return wild[0][0] if wild else None


def by_pattern(patterns: Mapping[str, str], names: Sequence[str]) -> dict[str, Group]:
    """Groups by key, of the files of one folder; the pattern named `""` is that of the mask.

    One file per pattern at most: the folder is one volume, with the key `""`. Else the text under the first wildcard
    is the key. Where a pattern then matches two files of one key, they are two volumes if what differs is a part of
    the name of its own that stands before the last one (`*_??_T1.nii.gz`); else the pattern is too loose, and the
    volume is refused.
    """
    matches = {channel: [n for n in names if fnmatchcase(n, p)] for channel, p in patterns.items()}
    if all(len(found) <= 1 for found in matches.values()):
        return {"": _group(patterns, {c: found for c, found in matches.items() if found}, "")}
    keyed: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for channel, found in matches.items():
        for name in found:
            keyed[_key(patterns[channel], name)][channel].append(name)
    groups: dict[str, Group] = {}
    for key, files in keyed.items():
        apart = _apart(patterns, files) if any(len(found) > 1 for found in files.values()) else None
        for name, own in (apart or {key: files}).items():
            groups[name] = _group(patterns, own, name)
    return groups


def _key(pattern: str, name: str) -> str:
    """The text under the first wildcard; none if that only lengthens a word at the end of the name, as `t1*` does."""
    wild = _wild(pattern, name)
    if not wild:
        return ""
    text, place, _ = wild[0]
    text = stem(text)
    return "" if place is Place.WORD_END and not text.isdecimal() else text


def _group(patterns: Mapping[str, str], files: Mapping[str, Sequence[str]], key: str) -> Group:
    group = Group({c: found[0] for c, found in files.items() if c and len(found) == 1})
    group.mask = files[""][0] if len(files.get("", ())) == 1 else None
    group.masked = bool(files.get(""))
    chosen = [*group.channels.values(), *([group.mask] if group.mask else [])]
    if len(set(chosen)) < len(chosen):
        places = [f"'{c or 'mask'}'" for c, found in files.items() if chosen.count(found[0]) > 1]
        group.error = f"one file matches the patterns of {' and '.join(places)}; state tighter ones"
    for channel, found in files.items():
        if len(found) > 1:
            group.spare += found
            shown = " and ".join(f"'{anonymous(n, key)}'" for n in sorted(found)[:3])
            tight = anonymous(min(found, key=len), key).replace("…", "*")
            what, flag = (
                (f"channel '{channel}'", f"{channel}={tight}") if channel else ("the mask", f"--mask '{tight}'")
            )
            if len({stem(n) for n in found}) == 1:
                group.error = f"the file of {what} stands there twice: {shown}; leave one out"
            else:
                group.error = (
                    f"the pattern of {what} must match one file of a volume; found {shown}; "
                    f"state a tighter one, for example {flag}"
                )
    return group


def _apart(patterns: Mapping[str, str], files: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list[str]]] | None:
    """Files of one key as several volumes, by a longer key; None where the pattern is too loose for that."""
    longer: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for channel, found in files.items():
        for name in found:
            wild = _wild(patterns[channel], name)
            while (
                wild and wild[-1][1] is not Place.PART
            ):  # what differs at the end of a name, or within a word, is no key
                wild.pop()
            if not wild:
                return None
            longer[name[: wild[-1][2]]][channel].append(name)
    names = [channel for channel in patterns if channel]
    clash = any(len(found) > 1 for own in longer.values() for found in own.values())
    whole = any(all(channel in own for channel in names) for own in longer.values())
    return None if clash or not whole or len(longer) == 1 else longer


def _wild(pattern: str, name: str) -> list[tuple[str, Place, int]]:
    """Per run of wildcards in a pattern: its text in a name, how it stands there, and where it ends."""
    parts = re.split(r"((?:\*|\?|\[[^\]]+\])+)", pattern)
    match = re.fullmatch("".join(f"({_inner(p)})" if n % 2 else re.escape(p) for n, p in enumerate(parts)), name)
    found = []
    for n in range(1, len(parts), 2) if match else ():
        before, after, number = parts[n - 1], parts[n + 1], n // 2 + 1
        apart = (n == 1 and not before) or before.endswith(SEPARATORS)
        if after == "" or after.startswith(".") or stem(after) == "":
            place = Place.END if apart else Place.WORD_END
        else:
            place = Place.PART if apart and after.startswith(SEPARATORS) else Place.WORD
        assert match is not None  # else there was nothing to go through
        found.append((match.group(number), place, match.end(number)))
    return found


def _inner(wildcards: str) -> str:
    """A run of shell wildcards as a regular expression."""
    return re.sub(r"^\(\?s:(.*)\)(\\z|\\Z)$", r"\1", translate(wildcards))


def anonymous(name: str, key: str) -> str:
    """A file's name with the subject's part left out, for reasons that are written down."""
    return name.replace(key, "…", 1) if key and key in name else name
