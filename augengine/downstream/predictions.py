"""Fitted segmenters and test rows in, predicted class maps out, and the true ones in a folder of their own.

What predicts is given images alone; truth and predictions meet only where they are measured. Both store a class map as
uint8, C order: bit n is set where class n of the protocol is. A prediction says which classes the segmenter predicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from augengine.downstream.classes import Unions, class_maps, regions_of_classes
from augengine.downstream.inventory import Inventory, Scanned, class_bits
from augengine.downstream.protocols import Protocol
from augengine.downstream.segmenters import Segmenter, load_segmenter
from augengine.io.shards import SCHEMA, from_row, read_group
from augengine.io.store import Store
from augengine.records import Acquisition
from augengine.rng import digest

SUBJECTS_PER_CHUNK = 8
BATCH = 16
TRUTH, PREDICTIONS, MAPS = "truth", "predictions", "maps"
_MAP = [
    ("sample_id", pa.string()),
    ("subject_id", pa.string()),
    ("volume_id", pa.string()),
    ("slice_index", pa.int32()),
    ("map_shape", pa.list_(pa.int32())),
    ("map", pa.large_binary()),
]
PREDICTION_SCHEMA = pa.schema([*_MAP, ("classes", pa.list_(pa.string()))])
TRUTH_SCHEMA = pa.schema([*_MAP, ("spacing_mm", pa.list_(pa.float64(), 3))])


@dataclass(frozen=True)
class Chunk:
    """Whole test subjects of one domain value and split, few enough to be held in memory.

    Attributes:
        places: row groups in which their rows stand.
    """

    value: str
    split: str
    subjects: tuple[str, ...]
    places: tuple[tuple[str, int], ...]

    @property
    def scanned(self) -> frozenset[Scanned]:
        """Who is in it."""
        return frozenset((subject, self.value) for subject in self.subjects)

    def digest(self, data: Inventory, protocol: Protocol) -> str:
        """Identity of its rows and of the classes that are told apart in them."""
        return digest(data.digest, protocol.key, protocol.classes, self.value, self.split, self.subjects, length=16)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "value": self.value,
            "split": self.split,
            "subjects": list(self.subjects),
            "places": [list(place) for place in self.places],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Chunk:
        """Inverse of `to_dict`."""
        places = tuple((str(name), int(group)) for name, group in values["places"])
        return cls(values["value"], values["split"], tuple(values["subjects"]), places)


def test_chunks(data: Inventory, protocol: Protocol) -> list[Chunk]:
    """Everyone with labels whom some cell is tested on."""
    wanted = sorted({pair for cell in protocol.cells for pair in protocol.tests(cell)})
    chunks = []
    for value, split in wanted:
        subjects = sorted(subject for subject, _ in data.scanned({value}, {split}) & data.labelled)
        for start in range(0, len(subjects), SUBJECTS_PER_CHUNK):
            chosen = tuple(subjects[start : start + SUBJECTS_PER_CHUNK])
            groups = data.holding([(subject, value) for subject in chosen])
            chunks.append(Chunk(value, split, chosen, tuple(group.place for group in groups)))
    return chunks


def rows_of(chunk: Chunk, data: str, protocol: Protocol, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The real rows of a chunk, in the order of the shards, with some columns."""
    scanned, store = chunk.scanned, Store(data)
    for name, group in chunk.places:
        table = read_group(store.parquet(name), group, columns)
        for row in table.to_pylist():
            if (row["subject_id"], protocol.value(row)) in scanned and not row["synthetic"]:
                yield row


class TruthWorker:
    """The true class maps of a chunk."""

    def __init__(self, data: str, protocol: Protocol) -> None:
        self.data, self.protocol = data, protocol

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Rows of `TRUTH_SCHEMA`; slices without labels are not tested on."""
        columns = [name for name in SCHEMA.names if name != "image"]
        rows = [
            _map_row(row, class_bits(row, self.protocol)) | {"spacing_mm": row["spacing_mm"]}
            for row in rows_of(Chunk.from_dict(spec), self.data, self.protocol, columns)
            if row["label"] is not None
        ]
        return {MAPS: pa.Table.from_pylist(rows, schema=TRUTH_SCHEMA)}


class PredictionWorker:
    """Segments the images of a chunk; labels are never read."""

    def __init__(self, data: str, protocol: Protocol, device: str) -> None:
        torch.set_num_threads(1)
        self.data, self.protocol, self.device = data, protocol, device
        self.loaded: tuple[list[str], list[Segmenter]] = ([], [])

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """Rows of `PREDICTION_SCHEMA`, of the mean of the probabilities of all segmenters that the spec names."""
        if self.loaded[0] != spec["segmenters"]:  # units of one training come one after the other
            self.loaded = (spec["segmenters"], [load_segmenter(uri, self.device) for uri in spec["segmenters"]])
        segmenters = self.loaded[1]
        found = []
        for batch, images in images_of(Chunk.from_dict(spec["chunk"]), self.data, self.protocol, segmenters[0]):
            acquired = [Acquisition(**row["acquisition"]) for row in batch]
            mean = np.mean([s.predict(images, acquisitions=acquired) for s in segmenters], axis=0)
            found += map_rows(batch, mean, segmenters[0].regions, self.protocol)
        return {MAPS: pa.Table.from_pylist(found, schema=PREDICTION_SCHEMA)}


def images_of(
    chunk: Chunk, data: str, protocol: Protocol, segmenter: Segmenter
) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
    """Rows of a chunk without labels, and their images as the segmenter takes them, batch by batch."""
    columns = [name for name in SCHEMA.names if name != "label"]
    for batch in _batches(rows_of(chunk, data, protocol, columns)):
        yield batch, segmenter.normalised([from_row({**row, "label": None}) for row in batch])


def map_rows(
    rows: Sequence[Mapping[str, Any]], probabilities: np.ndarray, regions: Unions, protocol: Protocol
) -> list[dict[str, Any]]:
    """Rows of `PREDICTION_SCHEMA` of some rows' probabilities (B, R, *) of a segmenter's regions."""
    maps, classes = (
        class_maps(probabilities, regions, protocol.classes),
        list(regions_of_classes(regions, protocol.classes)),
    )
    return [_map_row(row, one) | {"classes": classes} for row, one in zip(rows, maps, strict=True)]


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Slices of one shape, at most `BATCH` at a time; volumes one by one."""
    batch: list[dict[str, Any]] = []
    for row in rows:
        volume = row["slice_index"] is None
        if batch and (volume or len(batch) == BATCH or row["image_shape"] != batch[0]["image_shape"]):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _map_row(row: Mapping[str, Any], found: np.ndarray) -> dict[str, Any]:
    kept = {name: row[name] for name in ("sample_id", "subject_id", "volume_id", "slice_index")}
    return {**kept, "map_shape": list(found.shape), "map": found.tobytes()}
