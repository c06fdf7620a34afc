"""Cases of slices in; cases of whole volumes out, where every slice of a volume is there once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from augengine.errors import DataError
from augengine.export.case import Case
from augengine.export.names import case_names
from augengine.export.nifti import PLACE_TOLERANCE_MM
from augengine.rng import digest

_Key = tuple[Any, ...]


def stacked(cases: Sequence[Case]) -> list[Case]:
    """One case for each volume and, of synthetic slices, each volume, policy and replicate.

    Raises:
        DataError: volumes already; slices that are missing or doubled, or of several shapes; synthetic slices for which
            not the same was drawn, so that they show no volume.
    """
    if any(case.slice_index is None for case in cases):
        raise DataError("only slices can be stacked", found="volumes", next_step="leave --stack out")
    groups: dict[_Key, list[Case]] = defaultdict(list)
    for case in cases:
        groups[_key(case)].append(case)
    whole: dict[str, list[int]] = {}
    made = []
    for key, members in groups.items():
        members.sort(key=lambda case: case.slice_index or 0)
        made.append(_volume(key, members))
        if not members[0].synthetic:
            whole[members[0].volume_id] = [case.slice_index or 0 for case in members]
    for members in groups.values():
        source = whole.get(members[0].volume_id)
        found = [case.slice_index for case in members]
        if members[0].synthetic and source is not None and found != source:
            raise DataError(
                "a stack must have all slices of its source",
                found=f"{len(found)} of {len(source)}",
                where=f"{members[0].volume_id} by policy {members[0].policy}",
                next_step="leave --stack out, or augment every slice",
            )
    names = case_names((case.sample_id, case.synthetic) for case in made)
    return [replace(case, name=names[case.sample_id]) for case in made]


def _key(case: Case) -> _Key:
    """What slices of one volume share."""
    made = (case.rows[0].source, case.policy_digest, case.replicate) if case.synthetic else ()
    return (case.volume_id, case.synthetic, *made)


def _volume(key: _Key, members: Sequence[Case]) -> Case:
    first = members[0]
    where = f"{first.volume_id} by policy {first.policy}" if first.synthetic else first.volume_id
    for a, b in pairwise(members):
        step = (b.slice_index or 0) - (a.slice_index or 0)
        if step != 1:
            raise DataError(
                "to become a volume every slice must be there once",
                found=f"slices {a.slice_index} and {b.slice_index} next to each other",
                where=where,
                next_step="leave --stack out, or ingest and augment all slices",
            )
        if b.shape != a.shape:
            raise DataError("slices of a volume must have one shape", found=f"{a.shape} and {b.shape}", where=where)
        if b.plan != a.plan:
            raise DataError(
                "slices become a volume only if the same was drawn for all",
                found=f"{a.sample_id} and {b.sample_id} differ",
                where=where,
                next_step="leave --stack out, or augment volumes (ingest --volumes)",
            )
    sample_id = first.volume_id
    if first.synthetic:
        sample_id += f"-{first.policy}-{digest([case.sample_id for case in members], length=8)}"
    return replace(
        first,
        sample_id=sample_id,
        slice_index=None,
        shape=(*first.shape, len(members)),
        parent=first.volume_id if first.synthetic else None,
        rows=tuple(case.rows[0] for case in members),
        air=tuple(case.air[0] for case in members) if first.synthetic else (),
    )


def stack_affine(affines: Sequence[np.ndarray], where: str) -> np.ndarray:
    """The affine of a volume from those of its slices in order.

    Raises:
        DataError: the slices do not lie one slice distance apart.
    """
    first = affines[0]
    for n, affine in enumerate(affines):
        expected = first.copy()
        expected[:3, 3] += n * first[:3, 2]
        if np.abs(affine - expected).max() > PLACE_TOLERANCE_MM:
            raise DataError(
                "the slices of a volume must lie one slice distance apart",
                where=where,
                found=f"slice {n} is {np.abs(affine - expected).max():.3g} mm off",
                next_step="leave --stack out",
            )
    return first
