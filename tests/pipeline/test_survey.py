"""The survey of a data set says what a look at every single row says, whatever the rows and their grouping."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from builders import GE, SIEMENS, slice_sample

from augengine.edits.base import Donor
from augengine.errors import DataError
from augengine.io import shards
from augengine.io.dataset import dataset_files, write_dataset
from augengine.io.row_kinds import KIND_COLUMNS, kinds
from augengine.io.row_problems import row_problem
from augengine.io.shards import SCHEMA, iter_metadata, read_metadata, to_row
from augengine.io.store import Store
from augengine.load import LoadedPolicy, Mixture
from augengine.pipeline import survey as surveys
from augengine.pipeline.survey import Scale, survey
from augengine.records import Acquisition, IntensityRule

GATES = [{"name": "duplicate", "max": 0}]
TARGET = {"target": {"explicit": [{"echo_time_ms": 2.0}]}}


def policy(name: str = "one", per_input: int = 2, **select: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": name,
        "edit": "acquisition",
        "params": TARGET,
        "gates": GATES,
        "select": {"split": "train", **select},
        "output": {"per_input": per_input},
    }


def rows() -> list[dict[str, Any]]:
    """Volumes of many alike slices; some without labels, with other channels, or damaged in every way."""
    rng = np.random.default_rng(0)
    found = []
    for subject in range(8):
        for index in range(12):
            changes: dict[str, Any] = {"split": ("train", "train", "val", "test")[subject % 4]}
            if subject in (2, 5):
                changes |= {"label": None, "labels": {}}
            if subject == 6:
                changes["acquisition"] = SIEMENS if index < 5 else SIEMENS.replace(echo_time_ms=None)
            if subject == 4:
                changes["acquisition"] = GE if index % 2 else GE.replace(repetition_time_ms=9.0 + index % 3)
            row = to_row(slice_sample(subject, index, size=8, **changes))
            row["affine"][11] = float(rng.normal())  # every slice has a place of its own
            found.append(row)
    found[3]["affine"][0] = float("nan")
    found[4]["affine"] = [0.0] * 16
    found[5]["sample_id"] = ""
    found[6]["acquisition"] = None
    found[7]["intensity_low"] = None
    found[8]["label_codes"] = [1, 2]
    found[9]["image_shape"] = [1, 8, 8, 2]
    found[9]["channels"] = ["t2"]
    found[26]["subject_id"] = None
    return found


@pytest.fixture(scope="module", params=[5, 64])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The rows in files of 40, in row groups of so many."""
    table = pa.Table.from_pylist(rows(), SCHEMA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROW_GROUP_ROWS", request.param)
        return write_dataset(tmp_path_factory.mktemp("data"), [table.slice(n, 40) for n in range(0, len(table), 40)])


def mix() -> Mixture:
    members = [
        policy("one", 1, where={"manufacturer": GE.manufacturer}),
        policy("two", 1),
        policy("three", 1, labelled=True),
    ]
    shares = (0.5, 0.3, 0.2)
    written = [{"policy": m, "share": s} for m, s in zip(members, shares, strict=True)]
    return Mixture.from_dict({"version": 1, "name": "all", "mix": written, "output": {"per_input": 3}})


MIXTURES = {
    "any split": lambda: Mixture((LoadedPolicy.from_dict(policy(split=None)),)),
    "a vendor": lambda: Mixture((LoadedPolicy.from_dict(policy(where={"manufacturer": GE.manufacturer})),)),
    "labelled": lambda: Mixture((LoadedPolicy.from_dict(policy(labelled=True)),)),
    "a mix": mix,
}


@pytest.mark.parametrize("asked", MIXTURES)
@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_alike_rows_are_counted_as_one_by_one(
    store: Store, asked: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys, "GROUPS_READ", at_once)
    mixture = MIXTURES[asked]()
    found = survey(store, mixture)
    wanted = one_by_one(store, mixture)
    assert [(g.name, g.group, g.selected, dict(g.requested)) for g in found.groups] == wanted["groups"]
    assert dict(found.left_out) == dict(wanted["left_out"])
    assert found.rows == 96
    assert list(found.donors) == [donor for _, donor in sorted(wanted["donors"].items())]
    assert {name: set(scales) for name, scales in found.scales.items()} == wanted["scales"]
    assert {name: set(taken) for name, taken in found.taken.items()} == wanted["taken"]
    assert found.mean_voxels == np.mean(wanted["voxels"])


def one_by_one(store: Store, mixture: Mixture) -> dict[str, Any]:
    """The survey by its definition."""
    groups, donors, left_out, voxels = [], dict[str, Donor](), Counter[str](), list[int]()
    scales: dict[str, set[Scale]] = {m.name: set() for m in mixture.members}
    taken: dict[str, set[Donor]] = {m.name: set() for m in mixture.members}
    for name, group, found in grouped(store):
        requested = Counter[tuple[str, int]]()
        selected = 0
        for row in found:
            problem = row_problem(row)
            if row["acquisition"] is None:
                left_out[f"damaged row ({problem})"] += 1
                continue
            acquisition = Acquisition(**row["acquisition"])
            if mixture.takes(row):
                selected += 1
                if problem is None:
                    voxels.append(math.prod(row["image_shape"]))
                for replicate in range(mixture.per_input):
                    member = mixture.drawn(row, replicate)
                    assert member is not None
                    requested[member.name, replicate] += 1
                    if problem is None:
                        rule = IntensityRule.from_dict(row["intensity_rule"])
                        scales[member.name].add(Scale(tuple(row["channels"]), rule, tuple(row["image_shape"][1:])))
                        taken[member.name].add(Donor(row["subject_id"], acquisition))
            else:
                splits = {m.policy.select.split for m in mixture.members}
                other = None not in splits and row["split"] not in splits
                left_out[f"split is {row['split']}" if other else surveys._why(row, mixture)] += 1
            if row["split"] == "train" and problem is None:
                before = donors.get(row["subject_id"])
                labelled = row["labelled"] or (before is not None and before.labelled)
                donors[row["subject_id"]] = Donor(row["subject_id"], acquisition, labelled)
        groups.append((name, group, selected, dict(requested)))
    return {
        "groups": groups,
        "donors": donors,
        "left_out": left_out,
        "scales": scales,
        "taken": taken,
        "voxels": voxels,
    }


def grouped(store: Store) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    for name in dataset_files(store):
        file = store.parquet(name)
        for group in range(file.num_row_groups):
            yield name, group, read_metadata(file, group)


def test_a_row_that_stands_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows()[:5] + rows()[4:5], SCHEMA)
    place = write_dataset(tmp_path, [table])
    with pytest.raises(DataError, match="may stand once"):
        survey(place, MIXTURES["any split"]())


def test_slices_of_a_volume_are_of_one_kind_and_what_differs_is_of_another() -> None:
    table = pa.Table.from_pylist(rows(), SCHEMA).select(KIND_COLUMNS)
    labelled = pc.is_valid(pa.Table.from_pylist(rows(), SCHEMA)["label"]).to_numpy()
    found = kinds(table, labelled)
    assert sorted(np.concatenate([kind.places for kind in found]).tolist()) == list(range(96))
    assert [kind.places[-1] for kind in found] == sorted(kind.places[-1] for kind in found)
    alike = {tuple(kind.places.tolist()) for kind in found}
    assert tuple(range(12, 24)) in alike, "a whole volume"
    assert {(3,), (4,), (5,), (6,), (7,), (8,), (9,)} <= alike
    assert (0, 1, 2, 10, 11) in alike
    plain = table.to_pylist()
    for kind in found:
        for place in kind.places:
            same = set(KIND_COLUMNS) - {"sample_id", "affine"}
            assert all(plain[place][name] == kind.row[name] for name in same)


def test_the_metadata_of_rows_are_as_ever(store: Store) -> None:
    assert len(list(iter_metadata(store, dataset_files(store)))) == 96
