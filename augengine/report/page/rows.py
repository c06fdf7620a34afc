"""An augmented run in; what its rows say without their images out: counts, reasons, gates, scans, volumes of labels.

Rows are read one row group at a time. Of a large run a part of the rows is kept, drawn by their ids.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from augengine.errors import DataError
from augengine.gates.base import LESION
from augengine.io.commits import read_records
from augengine.io.dataset import SUCCESS, dataset_files, run_files
from augengine.io.shards import check_schema, from_row, read_group
from augengine.io.store import Place, Store
from augengine.pipeline.augment import OUTCOMES
from augengine.pipeline.lineage import WITH_PIXELS, Run
from augengine.records import Acquisition, Sample
from augengine.rng import derive

MOST_KEPT = 2000
"""Rows of a run of which more than the counts is kept."""
_LABELS = ("label", "label_names", "label_codes", "spacing_mm", "image_shape", "affine")
_COLUMNS = ("sample_id", "subject_id", "acquisition", *_LABELS)
Position = tuple[float, float, float]
"""Millimetres to the right, to the front and up, as the affine says."""


@dataclass(frozen=True)
class Spot:
    """Where a row stands: a file of a store, a row group and the number in it."""

    name: str
    group: int
    at: int


@dataclass(frozen=True)
class SourceRow:
    """A row that was edited.

    Attributes:
        volumes_ml: by label name, empty without a label map.
        lesion_mm: the middle of all lesions, None without any.
    """

    spot: Spot
    acquisition: Acquisition
    volumes_ml: Mapping[str, float]
    lesion_mm: Position | None


@dataclass(frozen=True)
class Seen:
    """An accepted or rejected row, without its image."""

    spot: Spot
    row_id: str
    parent_id: str
    subject_id: str
    outcome: str
    reason: str
    policy: str
    gates: tuple[Mapping[str, Any], ...]
    acquisition: Acquisition
    volumes_ml: Mapping[str, float]
    lesion_mm: Position | None


@dataclass
class GateTally:
    """How a gate judged all rows of a run; its values are those of the rows kept."""

    judged: int = 0
    broken: int = 0
    without_value: int = 0


@dataclass
class RunRows:
    """What a report says of a run.

    Attributes:
        asked: its folder, as it was given.
        counts: rows by outcome.
        reasons: by outcome the commonest reasons, gates by name, with their number of rows.
        gates: of all rows with pixels, by name.
        kept: the rows drawn, sorted by id …
        sources: … and what they were made from, by id.
    """

    asked: str
    run: Run
    data: Store
    finished: bool
    counts: Mapping[str, int]
    reasons: Mapping[str, list[tuple[str, int]]]
    gates: dict[str, GateTally] = field(default_factory=dict)
    kept: list[Seen] = field(default_factory=list)
    sources: dict[str, SourceRow] = field(default_factory=dict)


def read_run(asked: str, data: Place | None = None, most: int = MOST_KEPT) -> RunRows:
    """Read a run, finished or not, and the rows it was made from.

    Args:
        asked: folder of the run.
        data: folder of its source rows, if they no longer stand where the run read them.
        most: rows to keep.

    Raises:
        AugengineError: no augmented run, or no data set where its source should be.
    """
    run = Run(asked)
    records = read_records(run.store).values()
    counts: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {outcome: Counter() for outcome in OUTCOMES}
    for record in records:
        counts.update(record.counts)
        for outcome, found in record.reasons.items():
            reasons.setdefault(outcome, Counter()).update(found)
    rows = RunRows(
        asked,
        run,
        Store.at(data) if data else run.store.like(run.inputs["data"]),
        run.store.exists(SUCCESS),
        {outcome: counts[outcome] for outcome in OUTCOMES},
        {outcome: found.most_common(20) for outcome, found in reasons.items() if found},
    )
    drawn: list[tuple[int, str, Seen]] = []
    for seen in _with_pixels(run.store):
        for gate in seen.gates:
            tally = rows.gates.setdefault(str(gate["name"]), GateTally())
            tally.judged += 1
            tally.broken += not gate["passed"]
            tally.without_value += gate["value"] is None
        # The rows whose ids hash lowest: the same ones in any order of the files.
        heapq.heappush(drawn, (-derive(seen.row_id), seen.row_id, seen))
        if len(drawn) > most:
            heapq.heappop(drawn)
    rows.kept = sorted((seen for *_, seen in drawn), key=lambda seen: seen.row_id)
    rows.sources = _sources(rows.data, {seen.parent_id for seen in rows.kept})
    return rows


def _with_pixels(store: Store) -> Iterator[Seen]:
    for outcome in WITH_PIXELS:
        columns = (*_COLUMNS, "provenance", *(["reason"] if outcome == "rejected" else []))
        for spot, row in _rows(store, run_files(store, outcome), columns):
            made = json.loads(row["provenance"])
            yield Seen(
                spot,
                row["sample_id"],
                made["parent_id"],
                row["subject_id"],
                outcome,
                row.get("reason") or "",
                made["policy"],
                tuple(made["gates"]),
                Acquisition(**row["acquisition"]),
                _volumes_ml(row),
                _lesion_mm(row),
            )


def _sources(data: Store, wanted: Collection[str]) -> dict[str, SourceRow]:
    """The rows of these ids, read from the row groups that hold any."""
    try:
        names = dataset_files(data)
    except DataError as error:
        raise DataError(
            "the rows that a run was made from must be there",
            found=error.rule,
            where=data.uri,
            next_step="give the folder in which they are now by --data",
        ) from None
    found: dict[str, SourceRow] = {}
    for name in names:
        file = data.parquet(name)
        check_schema(file, data.path(name))
        for group in range(file.num_row_groups):
            ids = read_group(file, group, ["sample_id"])["sample_id"].to_pylist()
            here = [at for at, one in enumerate(ids) if one in wanted]
            rows = read_group(file, group, _COLUMNS).take(here).to_pylist() if here else []
            for at, row in zip(here, rows, strict=True):
                spot = Spot(name, group, at)
                found[row["sample_id"]] = SourceRow(
                    spot, Acquisition(**row["acquisition"]), _volumes_ml(row), _lesion_mm(row)
                )
    return found


def _rows(store: Store, names: list[str], columns: tuple[str, ...]) -> Iterator[tuple[Spot, dict[str, Any]]]:
    for name in names:
        file = store.parquet(name)
        for group in range(file.num_row_groups):
            for at, row in enumerate(read_group(file, group, columns).to_pylist()):
                yield Spot(name, group, at), row


def _volumes_ml(row: Mapping[str, Any]) -> dict[str, float]:
    """Millilitres of every label; of a slice, of its thickness."""
    if row["label"] is None:
        return {}
    voxels = np.bincount(np.frombuffer(row["label"], np.uint8), minlength=256)
    voxel_ml = math.prod(row["spacing_mm"]) / 1000
    return {n: float(voxels[code] * voxel_ml) for n, code in zip(row["label_names"], row["label_codes"], strict=True)}


def _lesion_mm(row: Mapping[str, Any]) -> Position | None:
    """The middle of the voxels of all labels that are lesions."""
    if row["label"] is None:
        return None
    codes = [code for name, code in zip(row["label_names"], row["label_codes"], strict=True) if name in LESION]
    label = np.frombuffer(row["label"], np.uint8).reshape(row["image_shape"][1:])
    places = np.nonzero(np.isin(label, codes))
    if not places[0].size:
        return None
    middle = np.array([*(axis.mean() for axis in places), *[0.0] * (3 - label.ndim), 1.0])
    x, y, z = (np.array(row["affine"]).reshape(4, 4) @ middle)[:3].tolist()
    return x, y, z


class Pixels:
    """Whole rows of a store by their spots; the row group read last is kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: tuple[tuple[str, int], Any] | None = None

    def __call__(self, spot: Spot) -> Sample:
        """One row with its image."""
        key = (spot.name, spot.group)
        if self._held is None or self._held[0] != key:
            self._held = (key, read_group(self._store.parquet(spot.name), spot.group))
        return from_row(self._held[1].slice(spot.at, 1).to_pylist()[0])
