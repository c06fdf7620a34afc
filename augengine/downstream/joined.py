"""Real data sets, and the sites of their subjects, in; one data set of all rows, each with its site, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from augengine.errors import DataError
from augengine.io.content import content_digest
from augengine.io.dataset import dataset_files, finish
from augengine.io.labellers import LABELLERS, labellers
from augengine.io.shards import SCHEMA, read_group
from augengine.io.store import Store
from augengine.io.subject_sites import subjects
from augengine.pipeline.units import Actors, Progress, run_units
from augengine.pipeline.workers import Unit
from augengine.rng import canonical_json, digest

FOLDER = "samples"


def join(
    uris: Sequence[str], out: str, sites: Mapping[str, str], *, actors: Actors, progress: Progress | None = None
) -> str:
    """Copy the rows of several data sets into one, row group by row group; splits stay as they are.

    Args:
        out: absolute path or URI; the same call again makes what is missing.
        sites: subject id to the site that its rows get; rows of others keep theirs.

    Returns:
        URI of the data set.

    Raises:
        DataError: a subject id that stands in two of the data sets: the two may be different people.
        RunError: the folder holds other rows.
    """
    stores, store = [Store(uri) for uri in uris], Store(out)
    _check_subjects(stores)
    names = {source.uri: dataset_files(source) for source in stores}
    units = [
        Unit(digest(source.uri, name, group, length=16), {"data": source.uri, "name": name, "group": group})
        for source in stores
        for name in names[source.uri]
        for group in range(source.parquet(name).num_row_groups)
    ]
    content = [content_digest(source, names[source.uri]) for source in stores]
    fingerprint = {"stage": "joined", "sources": content, "sites": digest(sorted(sites.items()))}
    weights = {role: sha256 for source in stores for role, sha256 in labellers(source).items()}
    files = {LABELLERS: canonical_json(weights) + "\n"} if weights else {}
    run = run_units(
        units, JoinWorker, {"sites": dict(sites)}, store, fingerprint, files=files, actors=actors, progress=progress
    )
    finish(store, {"stage": "joined", "counts": run.counts}, run.files)
    return store.uri


class JoinWorker:
    """Copies one row group."""

    def __init__(self, sites: Mapping[str, str]) -> None:
        self.sites = sites

    def __call__(self, spec: dict[str, Any]) -> dict[str, pa.Table]:
        """The rows with their sites."""
        table = read_group(Store(spec["data"]).parquet(spec["name"]), spec["group"], SCHEMA.names)
        people, stated = table["subject_id"].to_pylist(), table["site"].to_pylist()
        sites = [self.sites.get(person, site) for person, site in zip(people, stated, strict=True)]
        column = table.schema.get_field_index("site")
        return {FOLDER: table.set_column(column, SCHEMA.field("site"), pa.array(sites, pa.string()))}


def _check_subjects(stores: Sequence[Store]) -> None:
    held: dict[str, str] = {}
    for store in stores:
        for person in subjects(store):
            if held.setdefault(person, store.uri) != store.uri:
                raise DataError(
                    "a subject id stands in one data set, since two people may bear it",
                    found=person,
                    where=f"{held[person]}, {store.uri}",
                    next_step="ingest one of them with another --pseudonym-key-file",
                )
