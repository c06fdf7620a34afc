"""Test rows and a protocol that names a channel in; how bright each patient's lesion is beside its surroundings, out.

And the scores of an experiment by thirds of that ratio: faint lesions are missed first, so a gain is looked for there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from augengine.downstream.predictions import Chunk, rows_of
from augengine.downstream.protocols import Protocol
from augengine.errors import DataError
from augengine.io.shards import SCHEMA, from_row
from augengine.lesion_scene import Scene
from augengine.metrics.lesion_contrast import Contrast
from augengine.records import Sample
from augengine.rng import digest

CONTRAST, RATIOS = "contrast", "ratios"
RATIO_SCHEMA = pa.schema([("subject_id", pa.string()), ("ratio", pa.float64())])
THIRDS = ("faint", "middle", "bright")
VERSION = 2


def contrast_id(chunk_id: str, protocol: Protocol) -> str:
    """The unit of one chunk of test subjects."""
    return f"{chunk_id}-{digest(protocol.contrast_channel, protocol.lesion, VERSION, length=8)}"


class ContrastWorker:
    """Measures the lesion-to-ring ratio of the test patients of a chunk."""

    def __init__(self, data: str, protocol: Protocol) -> None:
        self.data, self.protocol = data, protocol

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Rows of `RATIO_SCHEMA`; a patient without a lesion has NaN."""
        found: dict[str, Contrast] = {}
        for row in rows_of(Chunk.from_dict(spec), self.data, self.protocol, SCHEMA.names):
            if row["label"] is not None:
                contrast, subject = self._contrast(from_row(row)), row["subject_id"]
                found[subject] = found[subject].merge(contrast) if subject in found else contrast
        rows = [{"subject_id": subject, "ratio": contrast.ratios[0]} for subject, contrast in sorted(found.items())]
        return {RATIOS: pa.Table.from_pylist(rows, schema=RATIO_SCHEMA)}

    def _contrast(self, row: Sample) -> Contrast:
        """Of the protocol's channel of a row."""
        channel = self.protocol.contrast_channel
        if channel not in row.channels:
            raise DataError(
                f"contrast_channel of protocol {self.protocol.name} is a channel of the rows",
                found=channel,
                where=row.sample_id,
                next_step=f"channels: {', '.join(row.channels)}",
            )
        codes = [row.labels[name] for name in self.protocol.lesion if name in row.labels]
        assert row.label is not None  # rows without one are left out
        lesion = np.isin(row.label, codes)
        scene, place = Scene.of(row.image, lesion, row.spacing_mm), row.channels.index(channel)
        return Contrast.of(scene.signal[place : place + 1], lesion, scene.body)


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
