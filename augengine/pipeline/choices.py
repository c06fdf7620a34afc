"""A data set and policies in; where a policy's choice of rows or targets takes nothing, why, with what comes nearest.

Rows are read a second time only where something was not found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from augengine.diffusion.spec import ModelSpec
from augengine.edits.base import Donor, Plan, Skip, TakesDonors
from augengine.errors import DataError
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_metadata
from augengine.io.store import Store
from augengine.load import LoadedPolicy, Mixture
from augengine.pipeline.survey import Survey
from augengine.policy.spec import Select, mismatch
from augengine.records import Acquisition, Sample

Kind = tuple[str | None, Acquisition, bool]
"""Split and acquisition of a row, and whether it has a label map."""

DRAWS = 1000  # of targets, over all scans, until none is taken to be possible

Count = Callable[[], Mapping[Kind, int]]


def check_choices(store: Store, mixture: Mixture, surveyed: Survey) -> dict[str, str]:
    """Refuse policies that take no row of the data, or whose targets no training subject of it can serve.

    Returns:
        Of a mix, the members that take no row while others do, with the reason.

    Raises:
        DataError: naming the values of the data that are nearest to those asked for.
    """
    return check_taken(store.uri, mixture, surveyed, lambda: count_acquisitions(store))


def check_taken(where: str, mixture: Mixture, surveyed: Survey, count: Count) -> dict[str, str]:
    """As `check_choices`, of data that are not ingested yet; `count` says what there is by split and acquisition."""
    idle = _idle(mixture, surveyed, count)
    if not surveyed.selected:
        raise DataError(
            "the policy's select takes no row of this data",
            where=where,
            found=f"{surveyed.rows} rows, {'; '.join(dict.fromkeys(idle.values()))}",
            next_step="loosen select, or check split and acquisition values with `augengine plan`",
        )
    for member in mixture.members:
        if member.name not in idle:
            for step in member.steps:
                step.check_donors(surveyed.donors)
    return idle


def check_targets(where: str, member: LoadedPolicy, surveyed: Survey, specs: Mapping[str, ModelSpec]) -> None:
    """Refuse a policy whose first edit takes its target from the data's acquisitions and finds none for any scan.

    A target that is drawn may be one that the model never saw where the next would do, so each scan gets several draws.

    Args:
        where: the data.
        specs: the policy's role → what the model's `model.json` says, or will say.

    Raises:
        DataError: with the commonest reason.
    """
    step, scanned = member.steps[0], surveyed.taken[member.name]
    if not isinstance(step.edit, TakesDonors) or not scanned:
        return
    reasons: Counter[str] = Counter()
    draws = -(-DRAWS // len(scanned))
    for seed in range(draws):
        for scan in scanned:
            drawn = step.plan(_blank(scan), Plan("", "", 0, 0, seed, {}), surveyed.donors, specs)
            if not isinstance(drawn, Skip):
                return
            reasons[drawn.reason] += 1
    reason, found = reasons.most_common(1)[0]
    scans = -(-found // draws)
    acquisitions = len({donor.acquisition for donor in surveyed.donors})
    raise DataError(
        f"policy '{member.name}' finds no target for any scan of this data",
        where=where,
        found=f"{scans} of {len(scanned)} scans: {reason} ({len(surveyed.donors)} training subjects with "
        f"{acquisitions} acquisitions)",
        next_step="add data of another scanner, or state acquisitions or targets that differ",
    )


def _blank(scan: Donor) -> Sample:
    """A row with a subject and an acquisition, and nothing to see."""
    return Sample(
        image=np.zeros((1, 1, 1), np.float32),
        affine=np.eye(4),
        channels=("",),
        subject_id=scan.subject_id,
        volume_id=scan.subject_id,
        slice_index=0,
        acquisition=scan.acquisition,
        intensity_range=((0.0, 1.0),),
    )


def _idle(mixture: Mixture, surveyed: Survey, count: Count) -> dict[str, str]:
    """Members that take no row, and why."""
    if all(surveyed.requested(member.name) for member in mixture.members):
        return {}
    found = count()
    selects = {member.name: member.policy.select for member in mixture.members}
    return {name: reason for name, select in selects.items() if (reason := why_nothing(select, found))}


def count_acquisitions(store: Store) -> Counter[Kind]:
    """Rows of a data set by split, acquisition, and whether they have a label map."""
    rows = iter_metadata(store, dataset_files(store))
    return Counter((row["split"], Acquisition(**row["acquisition"]), row["labelled"]) for row in rows)


def why_nothing(select: Select, found: Mapping[Kind, int]) -> str | None:
    """Why `select` takes none of the rows; None if it takes some."""
    if any(select.takes(*kind) for kind in found):
        return None
    here: Counter[Acquisition] = Counter()
    labelled: Counter[Acquisition] = Counter()
    for (split, acquisition, there), rows in found.items():
        if select.split in (None, split):
            here[acquisition] += rows
            if select.labelled in (None, there):
                labelled[acquisition] += rows
    if here and not labelled:
        wanted = "with" if select.labelled else "without"
        return f"{sum(here.values())} of split {select.split}, none {wanted} a label map"
    if here:
        return mismatch(select.where, labelled)
    splits: Counter[str] = Counter()
    for (split, _, _), rows in found.items():
        splits[str(split)] += rows
    return f"none of split {select.split}: {', '.join(f'{n} of {name}' for name, n in sorted(splits.items()))}"
