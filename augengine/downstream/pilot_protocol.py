"""A data set, or a protocol, in; the protocol of a pilot out, whose validation patients decide.

A pilot chooses a ratio, so who decides it must not be tested on later: it looks at the split `val` alone, and leaves
the test patients to `augengine evaluate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from augengine.downstream.domains import KEYS, NUMBERS, SHORT, domain_value
from augengine.downstream.protocols import Cell, Protocol, Splits
from augengine.errors import ConfigError, DataError
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_metadata
from augengine.io.store import Store
from augengine.yaml_config import unknown_name

TRAIN, DECIDE = "train", "val"
MOST_CLASSES = 8


def pilot_of(asked: Protocol) -> Protocol:
    """The protocol with its validation patients in the place of its test patients, and without reference domains."""
    splits = Splits(train=asked.splits.train, val=(DECIDE,), test=(DECIDE,), elsewhere=(DECIDE,))
    cells = tuple(cell for cell in asked.cells if cell.train not in asked.reference)
    return asked.model_copy(
        update={"name": f"{asked.name}-pilot", "splits": splits, "cells": cells, "reference": (), "arms": ()}
    )


def protocol_of(data: str, key: str = "none", lesion: Sequence[str] = ()) -> Protocol:
    """The pilot's protocol of a data set that needs none: its labels are the classes, its domains those of `key`.

    Every domain that has labelled rows to train on is trained on, and tested on each that has some to decide on.

    Args:
        data: URI of real shards.
        key: what domains are made of: `none`, `manufacturer`, `site`, or another column of texts.
        lesion: labels of the lesion: augmented rows then take the place of real ones of their kind.

    Raises:
        ConfigError: a key that no row can have, or labels that the rows have not.
        DataError: no labelled rows to train or to decide on.
    """
    if key not in KEYS:
        raise unknown_name("key of domains", key, KEYS, "--by")
    if SHORT.get(key, key) in NUMBERS:
        raise ConfigError(
            "domains of numbers are ranges, which a protocol states",
            found=key,
            where="--by",
            next_step="write a protocol (docs/evidence.md) and give it by --protocol",
        )
    found = _Found.of(data, key)
    if unknown := [name for name in lesion if name not in found.labels]:
        raise unknown_name("label", unknown[0], sorted(found.labels), "--lesion")
    if len(found.labels) > MOST_CLASSES:
        raise ConfigError(
            f"a protocol has at most {MOST_CLASSES} classes",
            found=f"{len(found.labels)} labels",
            where=data,
            next_step="unite labels to classes in a protocol of your own, and give it by --protocol",
        )
    for split, values in ((TRAIN, found.trained), (DECIDE, found.decide)):
        if not values:
            raise DataError(
                f"a pilot trains on labelled rows of split '{TRAIN}' and decides on those of split '{DECIDE}'",
                found=f"none of '{split}'",
                where=data,
                next_step="ingest with other --fractions",
            )
    domains = sorted(found.trained | found.decide)
    cells = [Cell(train=train, test=test) for train, test in product(sorted(found.trained), sorted(found.decide))]
    made: dict[str, Any] = {
        "name": "pilot",
        "key": key,
        "domains": {domain: (domain,) for domain in domains},
        "cells": cells,
        "splits": {"train": (TRAIN,), "val": (DECIDE,), "test": (DECIDE,), "elsewhere": (DECIDE,)},
        "classes": {name: (name,) for name in sorted(found.labels)},
        "generator_sees": "target_images",
        "metrics": ("dice",),
        "lesion": tuple(lesion),
    }
    return Protocol.model_validate(made)


@dataclass(frozen=True)
class _Found:
    """Labels of the labelled real rows, and the domain values that there are to train and to decide on."""

    labels: frozenset[str]
    trained: frozenset[str]
    decide: frozenset[str]

    @classmethod
    def of(cls, data: str, key: str) -> _Found:
        store, labels = Store(data), set[str]()
        values: Mapping[str, set[str]] = {TRAIN: set(), DECIDE: set()}
        for row in iter_metadata(store, dataset_files(store)):
            if row["labelled"] and not row["synthetic"] and row["split"] in values:
                labels.update(row["label_names"])
                values[row["split"]].add(domain_value(key, row))
        return cls(frozenset(labels), *(frozenset(values[split]) for split in (TRAIN, DECIDE)))
