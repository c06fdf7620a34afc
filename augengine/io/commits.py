"""Which files of an output folder count: those whose work unit has a commit record.

Layout of an output folder:
    <folder>/part-<unit>.parquet   rows, one folder per kind of outcome (samples, accepted, rejected, failed, …)
    _commits/<unit>.json           written last: the unit is done, with its row counts
    _run.json                      fingerprint of what makes this folder's rows; another one is refused
    manifest.json, _SUCCESS.json   written when every unit is committed
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from augengine.errors import RunError
from augengine.io.shards import shard_names
from augengine.io.store import Store
from augengine.rng import canonical_json

COMMITS = "_commits"


def commit_name(unit_id: str) -> str:
    """The commit record of a unit."""
    return f"{COMMITS}/{unit_id}.json"


def part_name(folder: str, unit_id: str) -> str:
    """The file of a unit in one outcome folder."""
    return f"{folder}/part-{unit_id}.parquet"


def committed_units(store: Store) -> set[str]:
    """Ids of the units that are done."""
    return {name.removeprefix(f"{COMMITS}/").removesuffix(".json") for name in store.names(COMMITS, ".json")}


def committed_files(store: Store, folder: str) -> list[str]:
    """Files of one outcome folder that belong to committed units, sorted; what a crash left is not listed."""
    done = {part_name(folder, unit_id) for unit_id in committed_units(store)}
    return [name for name in store.names(folder, ".parquet") if name in done]


def sample_files(store: Store) -> list[str]:
    """Shards of an ingested data set (`samples/`), of an augmented one (`accepted/`), or of a plain folder.

    Raises:
        DataError: there are none.
    """
    for folder in ("samples", "accepted"):
        if store.exists(folder):
            return committed_files(store, folder) or shard_names(store, folder)
    return shard_names(store, "")


def claim(store: Store, fingerprint: Mapping[str, Any]) -> None:
    """Mark a folder as holding the rows of `fingerprint`; refuse one that holds others."""
    if not store.exists("_run.json"):
        store.write_json("_run.json", dict(fingerprint))
        return
    held = store.read_json("_run.json")
    for key in sorted(held.keys() | fingerprint.keys()):
        if canonical_json(held.get(key)) != canonical_json(fingerprint.get(key)):
            raise RunError(
                f"this output folder holds a run with another {key}", found=str(held.get(key)), where=store.uri,
                next_step=f"choose another --out (this run has {fingerprint.get(key)})",
            )  # fmt: skip


def finish(store: Store, manifest: Mapping[str, Any]) -> None:
    """Write the manifest and, last, the success mark."""
    store.write_json("manifest.json", dict(manifest))
    store.write_json("_SUCCESS.json", {"counts": manifest["counts"]})
