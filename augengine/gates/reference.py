"""A folder of shards in, its training label maps and their digest out; pixels are not read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from augengine.diffusion.tissue import tissue_index
from augengine.errors import DataError
from augengine.io.dataset import dataset_files
from augengine.io.row_problems import check_row
from augengine.io.shards import check_schema, has_labels, label_map, read_group
from augengine.io.store import Store
from augengine.rng import canonical_json

_COLUMNS = ["sample_id", "split", "image_shape", "label", "label_names", "label_codes"]


class RowKind(NamedTuple):
    """What rows must share to be compared: channels in order, and voxels along the spatial axes."""

    channels: tuple[str, ...]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.channels)} ({' × '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class Reference:
    """Training label maps: `planes` bool (N, R, *spatial), one plane for every name of `labels`."""

    labels: tuple[str, ...]
    planes: np.ndarray


def read_reference(uri: str, labels: tuple[str, ...]) -> Reference:
    """Label maps of the training rows of `uri` that hold any of `labels`, one byte a voxel and label.

    Raises:
        DataError: no such row, or rows of several shapes.
    """
    maps = [planes for row in _rows(uri) if (planes := _label_masks(row, labels)).any()]
    shapes = {m.shape for m in maps}
    if len(shapes) != 1:
        raise DataError(
            "reference label maps are training rows of one shape",
            found=sorted(shapes),
            where=uri,
            next_step="give the shards that the prior was trained on",
        )
    return Reference(labels, np.stack(maps))


def labels_digest(uri: str) -> str:
    """Digest of the label maps that `read_reference` reads, whichever labels are asked for."""
    running = hashlib.blake2b(digest_size=32)
    for row in _rows(uri):
        held = (row["sample_id"], row["image_shape"], row["label_names"], row["label_codes"])
        running.update(canonical_json(held).encode())
        running.update(row["label"])
    return running.hexdigest()


def training_kinds(uri: str, labelled: bool = False) -> set[RowKind]:
    """Kinds of the training rows of `uri`, or of those with a label map; reads metadata alone."""
    store, found = Store(uri), set[RowKind]()
    for name in dataset_files(store):
        file = store.parquet(name)
        check_schema(file, store.path(name))
        for group in range(file.num_row_groups):
            there = has_labels(file, group) if labelled else None
            rows = read_group(file, group, ["sample_id", "split", "channels", "image_shape"]).to_pylist()
            for n, row in enumerate(rows):
                if row["split"] == "train" and (there is None or there[n]):
                    check_row(row)
                    found.add(RowKind(tuple(row["channels"]), tuple(row["image_shape"][1:])))
    return found


def label_masks(label: np.ndarray, codes: dict[str, int], labels: tuple[str, ...]) -> np.ndarray:
    """bool (R, *spatial): one plane for every name of `labels`."""
    index = tissue_index(label, codes, labels, label[None])
    return np.stack([index == n for n in range(1, len(labels) + 1)])


def _label_masks(row: dict[str, Any], labels: tuple[str, ...]) -> np.ndarray:
    label = label_map(row)
    assert label is not None  # only such rows come here
    return label_masks(label, dict(zip(row["label_names"], row["label_codes"], strict=True)), labels)


def _rows(uri: str) -> Iterator[dict[str, Any]]:
    store = Store(uri)
    for name in dataset_files(store):
        file = store.parquet(name)
        check_schema(file, store.path(name))
        for group in range(file.num_row_groups):
            for row in read_group(file, group, _COLUMNS).to_pylist():
                if row["split"] == "train" and row["label"] is not None:
                    check_row(row)
                    yield row
