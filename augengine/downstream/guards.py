"""Rows of an experiment's arms and models in; what stands behind them, checked against the test subjects, out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from augengine.diffusion.checkpoint import read_spec
from augengine.diffusion.spec import ModelSpec
from augengine.downstream.experiment import Experiment
from augengine.downstream.inventory import Inventory
from augengine.downstream.predictions import Chunk
from augengine.downstream.trials import Folders
from augengine.io.dataset import dataset_files
from augengine.io.labellers import labellers
from augengine.io.shards import iter_metadata
from augengine.io.store import Store
from augengine.leakage import Lineage, check_leakage


def guard_folders(
    experiment: Experiment, data: Inventory, chunks: Sequence[Chunk], models: Mapping[str, ModelSpec]
) -> None:
    """Refuse folders of augmented rows that hold anything of subjects that are only tested on.

    No arm would take such a row, but whoever made it has mixed up the splits.
    """
    protocol = experiment.protocol
    values = {value for train in protocol.train_domains for value in protocol.values(train)}
    trained = {subject for subject, _ in data.scanned(values, protocol.splits.train)}
    tested = {subject for chunk in chunks for subject in chunk.subjects} - trained
    for folder in experiment.added:
        check_leakage(tested, _metadata(folder), models)


def guard(
    experiment: Experiment, folders: Folders, chunks: Sequence[Chunk], models: Mapping[str, ModelSpec]
) -> dict[str, Lineage]:
    """Resolve the lineage of everything that any arm is trained on, one training domain after the other."""
    protocol, parts = experiment.protocol, _parts(experiment)
    others = {f"labels of the rows, {role}": sha for role, sha in labellers(Store(experiment.data)).items()}
    others |= {name: spec.sha256 for name, spec in parts.items()}
    found = {}
    for train in protocol.train_domains:
        tests = {pair for cell in protocol.cells if cell.train == train for pair in protocol.tests(cell)}
        subjects = {s for chunk in chunks if (chunk.value, chunk.split) in tests for s in chunk.subjects}
        own = [kinds for chosen, kinds in folders.items() if chosen.train == train]
        uris = dict.fromkeys(uri for kinds in own for shards in kinds.values() for uri in shards)
        rows = chain.from_iterable(_metadata(uri) for uri in uris)
        # Validation rows decide no weight; where the protocol validates on the test subjects, they are those.
        counted = (row for row in rows if row["split"] == "train" or not protocol.validates_on_test)
        found[train] = check_leakage(
            subjects,
            counted,
            {**models, **parts},
            held_out_manufacturers=protocol.held_out_manufacturers(train),
            others=others,
        )
    return found


def _parts(experiment: Experiment) -> dict[str, ModelSpec]:
    """Trained models that the segmenter's recipes are built on."""
    return {
        f"part '{name}' of recipe {recipe.name}": read_spec(uri)
        for recipe in experiment.recipes.values()
        for name, uri in recipe.parts.items()
        if uri is not None
    }


def _metadata(uri: str) -> Iterable[dict[str, Any]]:
    store = Store(uri)
    return iter_metadata(store, dataset_files(store))
