"""Test rows and a protocol that names a channel in; how bright each patient's lesion is beside its surroundings, out.

And the scores of an experiment by thirds of that ratio: faint lesions are missed first, so a gain is looked for there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from augengine.downstream.predictions import Chunk, rows_of
from augengine.downstream.protocols import Protocol
from augengine.errors import DataError
from augengine.gates import body_mask
from augengine.io.shards import SCHEMA, from_row
from augengine.metrics.lesion_contrast import lesion_to_ring_ratio, pooled_ratio
from augengine.records import Sample
from augengine.rng import digest

CONTRAST, RATIOS = "contrast", "ratios"
RATIO_SCHEMA = pa.schema([("subject_id", pa.string()), ("ratio", pa.float64())])
THIRDS = ("faint", "middle", "bright")
VERSION = 1


def contrast_id(chunk_id: str, protocol: Protocol) -> str:
    """The unit of one chunk of test subjects."""
    return f"{chunk_id}-{digest(protocol.contrast_channel, protocol.lesion, VERSION, length=8)}"


class ContrastWorker:
    """Measures the lesion-to-ring ratio of the test patients of a chunk."""

    def __init__(self, data: str, protocol: Protocol) -> None:
        self.data, self.protocol = data, protocol

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Rows of `RATIO_SCHEMA`; a patient without a lesion has NaN."""
        scans: dict[str, list[Sample]] = {}
        for row in rows_of(Chunk.from_dict(spec), self.data, self.protocol, SCHEMA.names):
            if row["label"] is not None:
                scans.setdefault(row["subject_id"], []).append(from_row(row))
        rows = [{"subject_id": subject, "ratio": self._ratio(rows)} for subject, rows in sorted(scans.items())]
        return {RATIOS: pa.Table.from_pylist(rows, schema=RATIO_SCHEMA)}

    def _ratio(self, rows: Sequence[Sample]) -> float:
        """Of one patient: of slices pooled, of several volumes the mean."""
        volumes = [lesion_to_ring_ratio(*self._planes(row)) for row in rows if row.slice_index is None]
        if volumes:
            found = [ratio for ratio in volumes if not np.isnan(ratio)]
            return float(np.mean(found)) if found else np.nan
        return pooled_ratio(self._planes(row) for row in rows)

    def _planes(self, row: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The channel, the lesion and the foreground of a row."""
        channel = self.protocol.contrast_channel
        if channel not in row.channels:
            raise DataError(
                f"contrast_channel of protocol {self.protocol.name} is a channel of the rows", found=channel,
                where=row.sample_id, next_step=f"channels: {', '.join(row.channels)}",
            )  # fmt: skip
        codes = [row.labels[name] for name in self.protocol.lesion if name in row.labels]
        assert row.label is not None  # rows without one are left out
        return row.image[row.channels.index(channel)], np.isin(row.label, codes), body_mask(row.image)


@dataclass(frozen=True)
class Third:
    """Patients of similar lesion contrast.

    Attributes:
        low, high: smallest and largest ratio.
        patients: their ids.
    """

    name: str
    low: float
    high: float
    patients: tuple[str, ...]


def thirds(ratios: Mapping[str, float]) -> Iterator[Third]:
    """Patients in three groups of equal size by their ratio, faint ones first; those without a ratio are left out.

    >>> [t.patients for t in thirds({"a": 1.5, "b": 1.1, "c": 2.0})]
    [('b',), ('a',), ('c',)]
    """
    ordered = sorted((ratio, patient) for patient, ratio in ratios.items() if not np.isnan(ratio))
    for name, part in zip(THIRDS, np.array_split(np.arange(len(ordered)), len(THIRDS)), strict=True):
        if len(part):
            of_third = [ordered[n] for n in part]
            yield Third(name, of_third[0][0], of_third[-1][0], tuple(patient for _, patient in of_third))
