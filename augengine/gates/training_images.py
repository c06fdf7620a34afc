"""A folder of shards in; its training rows on a coarse grid, in a file read piece by piece, and a digest out."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from augengine.errors import DataError
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Place, Store
from augengine.metrics.copies import NOTHING, Nearest, coarse, coarse_mask, coarsening, nearest_place
from augengine.records import Sample
from augengine.rng import canonical_json

PIECE_VALUES = 2**20
"""Voxels of all channels that are in memory at a time."""


@dataclass(frozen=True)
class TrainingImages:
    """Training rows of one shape, normalised and coarse; memory holds their ids alone.

    Attributes:
        uri: where they come from.
        channels: theirs.
        shape: voxels (*) before they were made coarser.
        ids, subjects: of every row.
        spool: a file without name, float32 (N, C, *) of the coarse grid.
    """

    uri: str
    channels: tuple[str, ...]
    shape: tuple[int, ...]
    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    spool: IO[bytes]

    @classmethod
    def read(cls, uri: Place) -> TrainingImages:
        """Read every training row once.

        Raises:
            DataError: no such row, or rows of several shapes or channels.
        """
        spool = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the gate is there
        kinds: set[tuple[tuple[str, ...], tuple[int, ...]]] = set()
        ids, subjects = [], []
        for row in training_rows(uri):
            kinds.add((row.channels, row.image.shape[1:]))
            spool.write(coarse(normalise(row), coarsening(row.image.shape[1:])).tobytes())
            ids.append(row.sample_id)
            subjects.append(row.subject_id)
        if len(kinds) != 1:
            raise DataError(
                "images that rows are compared with are training rows of one shape and the same channels",
                found=sorted(kinds) or "no training row",
                where=Store.at(uri).uri,
                next_step="give the shards that the generator was trained on",
            )
        ((channels, shape),) = kinds
        return cls(Store.at(uri).uri, channels, shape, tuple(ids), tuple(subjects), spool)

    def nearest(self, row: Sample, mask: np.ndarray) -> Nearest:
        """The place of all rows of other subjects that is most like a row inside a mask (*); see `nearest_place`.

        Raises:
            DataError: a row of another shape or other channels.
        """
        if (row.channels, row.image.shape[1:]) != (self.channels, self.shape):
            raise DataError(
                "a row is compared with training rows of its channels and shape",
                found=f"{', '.join(row.channels)} {row.image.shape[1:]}",
                where=self.uri,
                next_step=f"there are {', '.join(self.channels)} {self.shape}",
            )
        factor = coarsening(self.shape)
        image, inside = coarse(normalise(row), factor), coarse_mask(mask, factor)
        best = NOTHING
        for start, piece in self._pieces(image.shape):
            others = [n for n in range(len(piece)) if self.subjects[start + n] != row.subject_id]
            found = nearest_place(image, inside, piece[others])
            if found.index >= 0 and not found.distance >= best.distance:
                best = Nearest(found.distance, start + others[found.index], found.shift)
        return best

    def _pieces(self, shape: tuple[int, ...]) -> Iterator[tuple[int, np.ndarray]]:
        size = int(np.prod(shape))
        rows = max(1, PIECE_VALUES // size)
        for start in range(0, len(self.ids), rows):
            self.spool.seek(4 * start * size)
            values = np.frombuffer(self.spool.read(4 * rows * size), np.float32)
            yield start, values.reshape(-1, *shape)


def training_rows(uri: Place) -> Iterator[Sample]:
    """The rows of split `train`, one row group at a time."""
    store = Store.at(uri)
    return (row for row in iter_samples(store, dataset_files(store)) if row.split == "train")


def images_digest(uri: Place) -> str:
    """Digest of what `TrainingImages.read` reads."""
    running = hashlib.blake2b(digest_size=32)
    for row in training_rows(uri):
        held = (row.sample_id, row.subject_id, row.channels, row.image.shape, row.intensity_range)
        running.update(canonical_json(held).encode())
        running.update(np.ascontiguousarray(row.image).tobytes())
    return running.hexdigest()
