"""A data set and policies in; where a policy's choice of rows or targets takes nothing, why, with what comes nearest.

Rows are read a second time only where something was not found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from augengine.errors import DataError
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_metadata
from augengine.io.store import Store
from augengine.load import Mixture
from augengine.pipeline.survey import Source
from augengine.policy.spec import Select, mismatch
from augengine.records import Acquisition

Kind = tuple[str | None, Acquisition, bool]
"""Split and acquisition of a row, and whether it has a label map."""


def check_choices(store: Store, mixture: Mixture, source: Source) -> dict[str, str]:
    """Refuse policies that take no row of the data, or whose targets no training subject of it can serve.

    Returns:
        Of a mix, the members that take no row while others do, with the reason.

    Raises:
        DataError: naming the values of the data that are nearest to those asked for.
    """
    idle = _idle(store, mixture, source)
    if not source.selected:
        raise DataError(
            "the policy's select takes no row of this data", where=store.uri,
            found=f"{source.rows} rows, {'; '.join(dict.fromkeys(idle.values()))}",
            next_step="loosen select, or check split and acquisition values with `augengine plan`",
        )  # fmt: skip
    for member in mixture.members:
        if member.name not in idle:
            for step in member.steps:
                step.check_donors(source.donors)
    return idle


def _idle(store: Store, mixture: Mixture, source: Source) -> dict[str, str]:
    """Members that take no row, and why."""
    if all(source.requested(member.name) for member in mixture.members):
        return {}
    found = count_acquisitions(store)
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
