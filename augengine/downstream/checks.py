"""Experiments that cannot be: refused before a row is written or a segmenter trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from augengine.downstream.classes import regions_of_classes
from augengine.downstream.experiment import Experiment
from augengine.downstream.inventory import Inventory
from augengine.downstream.predictions import Chunk
from augengine.downstream.protocols import Protocol
from augengine.downstream.segmenters import SEGMENTERS
from augengine.errors import DataError, RunError
from augengine.io.dataset import MANIFEST
from augengine.io.store import Store

_OTHERS = (MANIFEST, f"augmented/{MANIFEST}", "checkpoint/model.json", "metrics.jsonl")
"""What ingest, augment and training leave in theirs."""


def check_out(out: Store) -> None:
    """Refuse an output folder that another job wrote: an experiment's files would lie among its own.

    Raises:
        RunError: naming what is there.
    """
    for name in _OTHERS:
        if out.exists(name):
            raise RunError(
                "an experiment has an output folder of its own",
                found=name,
                where=out.uri,
                next_step="give another --out",
            )


def check_classes(experiment: Experiment) -> None:
    """Refuse a segmenter that will predict no class of the protocol, before it is trained; raises a `ConfigError`."""
    regions = SEGMENTERS[experiment.segmenter].regions_of(experiment.adapted_recipes)
    if regions:
        regions_of_classes(regions, experiment.protocol.classes)


def check_data(data: Inventory, chunks: Sequence[Chunk], protocol: Protocol) -> None:
    """Refuse data that a cell of the protocol has no labelled rows for.

    Raises:
        DataError: naming the domain and the splits.
    """
    tested = {(chunk.value, chunk.split) for chunk in chunks}
    for cell in protocol.cells:
        train = data.scanned(protocol.values(cell.train), protocol.splits.train) & data.labelled
        for what, there in (("trained", bool(train)), ("tested", bool(protocol.tests(cell) & tested))):
            if not there:
                domain = cell.train if what == "trained" else cell.test
                wanted = f"{protocol.key} {' or '.join(protocol.values(domain))}"
                raise DataError(
                    f"the cell {cell} of protocol {protocol.name} has no labelled rows to be {what} on, of {wanted}",
                    found=_labelled(data),
                    where=data.uri,
                    next_step="check the splits and labels of the data, or choose another protocol",
                )


def check_validation(experiment: Experiment, data: Inventory) -> None:
    """Refuse a recipe whose validation loss chooses the checkpoint where a domain has no rows to validate on.

    Raises:
        DataError: naming the recipe and the domain.
    """
    protocol = experiment.protocol
    choosing = [recipe.name for recipe in experiment.adapted_recipes.values() if recipe.best_checkpoint is not None]
    for train in protocol.train_domains if choosing else ():
        if not data.scanned(protocol.values(train), protocol.splits.val) & data.labelled:
            raise DataError(
                f"best_checkpoint of recipe {choosing[0]} chooses by the validation loss, and the domain {train} has "
                f"no labelled rows of split {' or '.join(protocol.splits.val)}",
                found=_labelled(data),
                where=data.uri,
                next_step="ingest with other --fractions or --labelled-fractions, or give a --recipe without it",
            )


def _labelled(data: Inventory) -> str:
    """Subjects with and without labels, by domain value and split."""
    subjects = Counter((value, split) for (_, value), split in data.split.items())
    labelled = Counter((key[1], data.split[key]) for key in data.labelled)
    told = (f"{value} {split}: {labelled[value, split]} of {n}" for (value, split), n in sorted(subjects.items()))
    return "labelled subjects, " + (", ".join(told) or "none at all")
