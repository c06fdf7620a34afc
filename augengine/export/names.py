"""Ids of samples in; names of cases that every tool takes, and a table back to the ids, out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from augengine.errors import DataError
from augengine.rng import digest

SYNTHETIC = "syn-"
"""What the name of every synthetic case starts with."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST = 100


def case_names(samples: Iterable[tuple[str, bool]]) -> dict[str, str]:
    """A name of `[A-Za-z0-9_-]` for every sample id, given with whether it is synthetic; no two are one on any disk.

    What is safe stays readable; other characters become `-`. Where that makes two ids one, also for disks that do not
    tell capital letters, all of these get a digest of their id.

    Raises:
        DataError: an id that stands there twice.

    >>> case_names([("S001#0012", False), ("0af3", True)])
    {'S001#0012': 'S001-0012', '0af3': 'syn-0af3'}
    """
    wanted: dict[str, str] = {}
    for sample_id, synthetic in samples:
        if sample_id in wanted:
            raise DataError(
                "a sample id must stand for one row",
                found=sample_id,
                next_step="export data sets that were ingested apart from each other one by one",
            )
        wanted[sample_id] = (SYNTHETIC if synthetic else "") + _safe(sample_id)
    alike: dict[str, list[str]] = defaultdict(list)
    for sample_id, name in wanted.items():
        alike[name.casefold()].append(sample_id)
    for ids in alike.values():
        if len(ids) > 1:
            wanted.update({i: f"{wanted[i]}-{digest(i, length=12)}" for i in ids})
    return wanted


def _safe(sample_id: str) -> str:
    name = _UNSAFE.sub("-", sample_id).strip("-_")
    return name if name and len(name) <= _LONGEST else f"{name[:_LONGEST]}-{digest(sample_id, length=12)}".lstrip("-")


def labels_of(ids: Iterable[str], prefix: str = "") -> dict[str, str]:
    """A label of letters and digits for every id, as BIDS entities need them; of two that become one, with a digest.

    >>> labels_of(["S-001", "S_002"])
    {'S-001': 'S001', 'S_002': 'S002'}
    """
    found = {i: prefix + re.sub(r"[^A-Za-z0-9]", "", i) for i in ids}
    alike: dict[str, list[str]] = defaultdict(list)
    for i, label in found.items():
        alike[label.casefold()].append(i)
    for label, together in alike.items():
        if len(together) > 1 or label == prefix.casefold():
            found.update({i: found[i] + digest(i, length=8) for i in together})
    return found
