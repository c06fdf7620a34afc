"""The rows of a selection in; the cases to be exported, each of one row or of the slices of a volume, out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from augengine.errors import DataError
from augengine.export.names import case_names
from augengine.export.nifti import check_grid
from augengine.leakage import LeakageError
from augengine.selection import Selected
from augengine.selection.reading import metadata

_COLUMNS = [
    "sample_id",
    "subject_id",
    "volume_id",
    "slice_index",
    "site",
    "split",
    "synthetic",
    "image_shape",
    "affine",
    "acquisition",
    "provenance",
]


@dataclass(frozen=True)
class Place:
    """A row of a shard: number of its data set, file, row group, and place within it."""

    source: int
    name: str
    group: int
    row: int


@dataclass(frozen=True)
class Case:
    """What becomes one image of the export.

    Attributes:
        name: of `[A-Za-z0-9_-]`, unique.
        sample_id: of the row; of a stack the volume's id, for a synthetic one with its policy and replicate.
        shape: voxels, two numbers of a slice and three of a volume.
        parent: sample id (of a stack: volume id) that a synthetic case was made from.
        rows: one, or the slices of a stack in order.
        air: for each of `rows` of a synthetic case, the source's row.
        called: what a target calls the case, if it needs more than a name.
        plan: of a synthetic row, what was drawn for it but for seeds and ids; JSON.
    """

    name: str
    sample_id: str
    subject_id: str
    volume_id: str
    slice_index: int | None
    site: str | None
    split: str | None
    synthetic: bool
    shape: tuple[int, ...]
    acquisition: Mapping[str, Any]
    rows: tuple[Place, ...]
    parent: str | None = None
    policy: str | None = None
    policy_digest: str | None = None
    replicate: int | None = None
    licence: str | None = None
    air: tuple[Place, ...] = ()
    called: tuple[str, ...] = ()
    plan: str = field(default="", compare=False)

    @property
    def trains(self) -> bool:
        """True if the case is for training."""
        return self.split in ("train", None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` makes it again."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Case:
        """Inverse of `to_json`."""
        places = {key: tuple(Place(**place) for place in values[key]) for key in ("rows", "air")}
        return cls(**{**values, **places, "shape": tuple(values["shape"]), "called": tuple(values["called"])})


def cases_of(selected: Selected) -> list[Case]:
    """One case for every row, real ones first, each kind in the order of the data.

    Raises:
        DataError: an id that stands twice, an image whose axes are not at right angles, slices among volumes, or an
            augmented row whose source is not in the data.
        LeakageError: an augmented row whose source is of a held-out subject, whatever the row says of its own.
    """
    rows = [(place, row) for place, row in _places(selected)]
    names = case_names((row["sample_id"], row["synthetic"]) for _, row in rows)
    cases = [_case(place, row, names[row["sample_id"]]) for place, row in rows]
    kinds = {len(case.shape): case.sample_id for case in cases}
    if len(kinds) > 1:
        raise DataError(
            "slices and volumes must not stand in one export",
            found=f"{kinds[2]} and {kinds[3]}",
            next_step="export the data sets one by one",
        )
    return _with_sources(selected, cases)


def _places(selected: Selected) -> Iterator[tuple[Place, dict[str, Any]]]:
    for group in selected.groups:
        for n, row in zip(group.rows.tolist(), selected.read(group, _COLUMNS), strict=True):
            yield Place(group.source, group.name, group.group, n), row


def _case(place: Place, row: Mapping[str, Any], name: str) -> Case:
    shape = tuple(row["image_shape"][1:])
    check_grid(np.array(row["affine"], float).reshape(4, 4), shape, row["sample_id"])
    made = json.loads(row["provenance"]) if row["synthetic"] else {}
    plan = made.get("plan", {})
    return Case(
        name=name,
        sample_id=row["sample_id"],
        subject_id=row["subject_id"],
        volume_id=row["volume_id"],
        slice_index=row["slice_index"],
        site=row["site"],
        split=row["split"],
        synthetic=row["synthetic"],
        shape=shape,
        acquisition=row["acquisition"],
        rows=(place,),
        parent=made.get("parent_id"),
        policy=made.get("policy"),
        policy_digest=made.get("policy_digest"),
        replicate=plan.get("replicate"),
        licence=made.get("source_licence"),
        plan=json.dumps(_drawn(plan), sort_keys=True) if made else "",
    )


def _drawn(plan: Any) -> Any:
    """A plan without what differs from row to row though the same was drawn."""
    if isinstance(plan, Mapping):
        own = ("output_id", "sample_id", "seed", "attempt")
        return {key: _drawn(value) for key, value in plan.items() if key not in own}
    return [_drawn(value) for value in plan] if isinstance(plan, list) else plan


def _with_sources(selected: Selected, cases: Sequence[Case]) -> list[Case]:
    """Cases with the places of the rows that synthetic ones were made from."""
    wanted = {case.parent for case in cases if case.synthetic}
    found: dict[str, Place] = {case.sample_id: case.rows[0] for case in cases if case.sample_id in wanted}
    subjects = {case.sample_id: case.subject_id for case in cases if case.sample_id in wanted}
    for source, store in enumerate(selected.sources):
        if wanted <= found.keys():
            break
        for about in metadata(store, ["sample_id", "subject_id"]):
            ids, owners = (about.rows[name].to_pylist() for name in ("sample_id", "subject_id"))
            found.update({i: Place(source, about.name, about.group, n) for n, i in enumerate(ids) if i in wanted})
            subjects.update({i: owner for i, owner in zip(ids, owners, strict=True) if i in wanted})
    done = []
    for case in cases:
        if case.synthetic:
            if case.parent not in found:
                raise DataError(
                    "the source of every augmented row must be in the data",
                    found=f"no row {case.parent}",
                    where=case.sample_id,
                    next_step="give the data set that the run augmented, too",
                )
            if (subject := subjects[case.parent]) in selected.held_out:
                raise LeakageError(
                    "no held-out subject may have a part in an augmented row",
                    found=f"{subject} is the subject of its source {case.parent}",
                    where=case.sample_id,
                    next_step="leave the row out, for example by --where, or augment training rows alone",
                )
            case = replace(case, air=(found[case.parent],))
        done.append(case)
    return done
