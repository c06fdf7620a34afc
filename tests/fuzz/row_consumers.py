"""Well stored shards of which one row, or column, is absurd, through all that reads labelled rows.

A reader is given rows of patients, and of augmented ones where it takes them. Where the change is one that a rule of
`docs/refusals.md` refuses and the reader reads what was changed, it may not accept the row in silence: it refuses, or
leaves the row out and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from augmented_rows import made_rows, real_rows
from fuzz import mutations, store_readers
from fuzz.pool import Silent

from augengine.downstream.inventory import take_inventory
from augengine.downstream.predictions import TruthWorker, test_chunks
from augengine.downstream.protocols import Protocol
from augengine.gates.real_rows import read_real_rows
from augengine.gates.reference import labels_digest, read_reference, training_kinds
from augengine.gates.training_images import TrainingImages, images_digest
from augengine.io.dataset import write_dataset
from augengine.io.shards import SCHEMA, to_row
from augengine.io.store import Store
from augengine.metrics.lesion_survey import SurveyLesions
from augengine.pipeline.measure import measure
from augengine.pipeline.units import INLINE
from augengine.policy.spec import Select
from augengine.splits import SPLITS
from augengine.torch import ShardStream
from augengine.train.data import BatchReader
from augengine.train.rows import SplitRows, dataset_facts
from augengine.train.shown_share import share_warning

Row = dict[str, Any]
Use = Callable[[str, str], object]
CHANGES: Mapping[str, frozenset[str]] = {
    "_number": frozenset({"acquisition"}),
    "_spacing": frozenset({"affine"}),
    "_labels": frozenset({"label_names", "label_codes"}),
    "_shape": frozenset({"image_shape"}),
    "_kind": frozenset({"image_dtype"}),
    "_range": frozenset({"intensity_low", "intensity_high"}),
}
"""Changes of `store_readers` that a rule always refuses, and the columns that they change."""
PIXELS = frozenset({"image", "image_shape", "image_dtype"})
LABELS = frozenset({"label", "label_names", "label_codes", "image_shape"})
EVERY = frozenset(SCHEMA.names)


@cache
def _rows() -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Real rows of the training split and others, and augmented ones."""
    real = [row for row in real_rows() if row.slice_index in (0, 1)]
    return tuple(map(to_row, real)), tuple(map(to_row, made_rows(1, (1, 2))))


def _reader(use: Use, reads: frozenset[str]) -> Callable[[np.random.Generator, Path], None]:
    def read(rng: np.random.Generator, folder: Path) -> None:
        kinds = [[dict(row) for row in rows] for rows in _rows()]
        which = int(rng.random() < 0.3)
        rows = kinds[which]
        n = int(rng.integers(len(rows)))
        changes = (store_readers._null, *(getattr(store_readers, name) for name in (*CHANGES, "_bytes")))
        change = mutations.pick(rng, changes)
        rows[n]["label_confidence"] = rows[n]["label_confidence"] or bytes([200]) * (32 * 32)
        change(rng, rows[n])
        tables = [pa.Table.from_pylist(some, schema=SCHEMA) for some in kinds]
        must = bool(CHANGES.get(change.__name__, frozenset()) & reads) and not which and rows[n]["split"] == "train"
        if rng.random() < 0.15:
            tables[which], _ = store_readers._lost_column(rng, tables[which])
            must = False
        places = [write_dataset(str(folder / name), [table]).uri for name, table in zip("rm", tables, strict=True)]
        use(*places)
        if must:
            raise Silent(f"{change.__name__} of a training row")

    return read


def _references(real: str, made: str) -> None:
    labels_digest(real)
    training_kinds(real)
    training_kinds(real, labelled=True)
    read_reference(real, ("fat", "cyst"))


def _training_images(real: str, made: str) -> None:
    images_digest(real)
    TrainingImages.read(real)


def _calibration(real: str, made: str) -> None:
    read_real_rows(real, Select(), 100)


def _training(real: str, made: str) -> None:
    rows = SplitRows("train", showing=("fat", "cyst", "gland"))
    dataset_facts([real], rows)
    reader = BatchReader([real], rows, 0, 8, labels=("fat",))
    reader.batch(0)
    reader.volumes()


def _balanced(real: str, made: str) -> None:
    rows = SplitRows("train", balance=("cyst",), augmented_per_real=0.5)
    dataset_facts([real, made], rows)
    BatchReader([real, made], rows, 0, 16, labels=("fat",)).batch(0)
    share_warning([Store(real), Store(made)], SplitRows("train"), {"cyst": ("cyst",)})


def _stream(real: str, made: str) -> None:
    list(ShardStream(real, made, balance="cyst", augmented_per_real=0.5, unlabelled="skip", rank=0, world=1))


def _lesions(real: str, made: str) -> None:
    arguments = {"labels": ("cyst",), "kept": 8, "size": 16, "least_ml": 0.0}
    measure(real, SurveyLesions, arguments, actors=INLINE)


def _inventory(real: str, made: str) -> None:
    """Who is there, and the true class maps of those who are tested."""
    asked = _protocol()
    worker = TruthWorker(real, asked)
    for chunk in test_chunks(take_inventory(real, asked), asked):
        worker(chunk.to_dict())


@cache
def _protocol() -> Protocol:
    """All rows are of one domain, and all are tested."""
    splits = {"train": [], "val": [], "test": list(SPLITS), "elsewhere": []}
    return Protocol.model_validate(
        {
            "version": 1,
            "name": "all",
            "key": "none",
            "domains": {"all": ["all"]},
            "cells": [{"train": "all", "test": "all"}],
            "splits": splits,
            "classes": {"fat": ["fat"], "cyst": ["cyst"]},
            "generator_sees": "train_domain",
            "metrics": ["dice"],
        }
    )


READERS = {
    "reference": _reader(_references, LABELS),
    "training images": _reader(_training_images, EVERY),
    "calibration rows": _reader(_calibration, frozenset()),
    "training rows": _reader(_training, EVERY),
    "balanced rows": _reader(_balanced, EVERY),
    "stream": _reader(_stream, frozenset()),
    "lesion survey": _reader(_lesions, EVERY),
    "inventory": _reader(_inventory, LABELS | {"acquisition"}),
}
