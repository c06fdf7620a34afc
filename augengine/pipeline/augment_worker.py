"""One row group of samples in; the accepted, rejected, failed and skipped rows that a policy makes of it out."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import torch

from augengine.diffusion.checkpoint import load_model
from augengine.edits.base import Donor
from augengine.errors import AugengineError, DataError
from augengine.gates import Tools
from augengine.io.shards import from_row, has_labels, read_group
from augengine.io.store import Place, Store
from augengine.load import Mixture
from augengine.pipeline.outcomes import Outcomes, count_reasons
from augengine.pipeline.row_maker import Planned, RowMaker
from augengine.plugins import check_versions
from augengine.records import Acquisition, Sample
from augengine.runtime.network import under

_NONE: Mapping[str, str] = MappingProxyType({})
ID_COLUMNS = ["sample_id", "subject_id", "split", "acquisition"]


@dataclass(frozen=True)
class Read:
    """A unit before its turn.

    Attributes:
        samples: its rows.
        planned: of each, its first step's first plan or why there is none.
        outcomes: of rows that could not be read.
    """

    samples: Sequence[Sample]
    planned: Sequence[Planned]
    outcomes: Outcomes


class AugmentWorker:
    """Holds policies and models; turns one row group, replicate and policy into the four outcome tables.

    Args:
        policy: of a `Mixture`, plain JSON.
        models, hashes: policy name → role → checkpoint folder, or sha256; a folder is loaded once.
        donors: plain JSON of every `Donor`.
        licence: of the data.
        plugins: package → version on the driver; others here would make other rows under the same ids.
    """

    def __init__(
        self,
        policy: dict[str, Any],
        data: Place,
        models: Mapping[str, Mapping[str, Place]],
        hashes: Mapping[str, Mapping[str, str]],
        donors: Sequence[dict[str, Any]],
        device: str,
        licence: str | None = None,
        plugins: Mapping[str, str] = _NONE,
    ) -> None:
        check_versions(plugins, "these rows are to be made", f"worker on {platform.node()}")
        if device == "cpu":
            torch.set_num_threads(1)  # the thread count decides the last bits; one thread per actor is also fastest
        self.mixture = Mixture.from_dict(policy)
        self.data = Store.at(data)
        places = {Store.at(place) for roles in models.values() for place in roles.values()}
        loaded = {place: load_model(place, device=device) for place in sorted(places, key=str)}
        found = [Donor(d["subject_id"], Acquisition(**d["acquisition"]), d["labelled"]) for d in donors]
        tools = Tools(device)
        own = {
            name: {
                r: under(loaded[Store.at(place)], self.mixture.member(name).policy.runtime) for r, place in of.items()
            }
            for name, of in models.items()
        }
        self.makers = {
            m.name: RowMaker(m, own[m.name], hashes[m.name], found, tools, licence) for m in self.mixture.members
        }

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Tables by outcome; every row of the unit ends in exactly one of them."""
        return self.encode(self.make(spec, self.read(spec)))

    def read(self, spec: dict[str, Any]) -> Read:
        """The unit's rows, decoded and planned."""
        outcomes = Outcomes()
        samples = list(self._read(spec, outcomes))
        return Read(samples, self.makers[spec["policy"]].foreseen(samples, spec["replicate"]), outcomes)

    def make(self, spec: dict[str, Any], read: Read) -> Outcomes:
        """What becomes of these rows."""
        self.makers[spec["policy"]].make(read.samples, spec["replicate"], read.outcomes, read.planned)
        return read.outcomes

    def encode(self, made: Outcomes) -> dict[str, pa.Table]:
        """The same as tables."""
        return made.tables()

    def reasons(self, tables: Mapping[str, pa.Table]) -> dict[str, dict[str, int]]:
        """Gates that rejected rows, and why others failed or were skipped, with the number of rows."""
        return count_reasons(tables)

    def divide(self, spec: dict[str, Any]) -> list[dict[str, Any]]:
        """One row each; alone in its padded batch a row has the same bits."""
        return [{**spec, "row": n} for n, _ in self._rows(spec, ID_COLUMNS)]

    def again(self, spec: dict[str, Any], sample_ids: frozenset[str]) -> dict[str, Any]:
        """The same unit with some of its rows alone."""
        found = {row["sample_id"]: n for n, row in self._rows(spec, ID_COLUMNS) if row["sample_id"] in sample_ids}
        if found.keys() != sample_ids:
            lost = ", ".join(sorted(sample_ids - found.keys()))
            raise DataError("rows that failed are among those of their unit", found=f"{lost} is not")
        return {**spec, "rows": sorted(found.values())}

    def quarantine(self, spec: dict[str, Any], why: AugengineError) -> dict[str, pa.Table]:
        """The rows of the unit as failed, without touching them."""
        outcomes = Outcomes()
        for _, row in self._rows(spec, ID_COLUMNS):
            self._lose(spec, row, "process", why, outcomes)
        return outcomes.tables()

    def _rows(self, spec: dict[str, Any], columns: list[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Place in the row group and values of the unit's rows: those that its policy is to make."""
        file, group = self.data.parquet(spec["name"]), int(spec["group"])
        table, labelled = read_group(file, group, columns), has_labels(file, group)
        start, length = (int(spec["row"]), 1) if "row" in spec else (0, None)
        among = set(spec["rows"]) if "rows" in spec else None
        for n, row in enumerate(table.slice(start, length).to_pylist(), start):
            if row["acquisition"] is None or (among is not None and n not in among):
                continue  # nobody can say whether the policy takes it; the survey counts it as left out
            drawn = self.mixture.drawn({**row, "labelled": labelled[n]}, spec["replicate"])
            if drawn is not None and drawn.name == spec["policy"]:
                yield n, row

    def _read(self, spec: dict[str, Any], outcomes: Outcomes) -> Iterator[Sample]:
        for _, row in self._rows(spec):
            try:
                yield from_row(row)
            except DataError as error:
                self._lose(spec, row, "read", error, outcomes)

    def _lose(
        self, spec: dict[str, Any], row: Mapping[str, Any], stage: str, why: AugengineError, outcomes: Outcomes
    ) -> None:
        output_id = self.makers[spec["policy"]].output_id(row["sample_id"], spec["replicate"])
        outcomes.lost(output_id, row["sample_id"], row["subject_id"], stage, why)
