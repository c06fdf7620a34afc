"""A finished folder in, the files of its rows out: a data set is what its manifest lists.

`manifest.json` lists every file of a run by kind of outcome, and `_SUCCESS.json` says that it is whole. Both are
written when every unit is committed, and the mark goes before anything is made anew. What else lies in the folder, of
crashed attempts or of other kinds, is not data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from augengine.errors import DataError
from augengine.io.commits import RUN, committed_files, committed_units
from augengine.io.parts import Part, write_part
from augengine.io.sealed import sealed, unsealed
from augengine.io.store import Place, Store

MANIFEST, SUCCESS = "manifest.json", "_SUCCESS.json"
ROW_FOLDERS = ("samples", "accepted")
"""Kinds that hold a data set's rows: those of an ingested one, or of an augmented one."""


def dataset_files(store: Store) -> list[str]:
    """Names of the shards that hold a data set's rows.

    Raises:
        DataError: this is no data set, or none that is finished, or it has no rows.
    """
    files = listed_files(store)
    kind = next((kind for kind in ROW_FOLDERS if kind in files), None)
    if kind is None:
        raise DataError(
            f"a data set's rows are its {' or '.join(ROW_FOLDERS)}",
            found=", ".join(files) or "no files",
            where=store.uri,
            next_step="give the folder that ingest, phantom or augment wrote",
        )
    if not files[kind]:
        raise DataError(
            "this data set has no rows",
            found=f"no {kind}",
            where=store.uri,
            next_step="read the reasons in failed/ or rejected/, then mend the input or the policy",
        )
    return [part.name for part in files[kind]]


def listed_files(store: Store) -> dict[str, list[Part]]:
    """What the manifest of a finished folder lists, by kind of outcome.

    Raises:
        DataError: no finished run or data set stands here, or its manifest was changed by other hands.
    """
    if not store.exists(SUCCESS):
        raise _no_dataset(store)
    try:
        manifest = read_manifest(store)
    except FileNotFoundError:
        raise _no_dataset(store) from None
    files = manifest.get("files", {})
    if not isinstance(files, dict) or not all(isinstance(entries, list) for entries in files.values()):
        raise _changed(store, "files that are no lists by kind")
    if any(isinstance(entry, str) for entries in files.values() for entry in entries) or not files:
        return _listed_by_older_versions(store)
    try:
        listed = {kind: [Part(**entry) for entry in entries] for kind, entries in files.items()}
    except (TypeError, AttributeError):
        raise _changed(store, "entries that are no files") from None
    _check_list(store, listed, manifest.get("counts", {}))
    return listed


def read_manifest(store: Store) -> dict[str, Any]:
    """What the manifest says.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is damaged.
    """
    return unsealed(store.read_json(MANIFEST), store.path(MANIFEST))


def _check_list(store: Store, listed: Mapping[str, Sequence[Part]], counts: Mapping[str, int]) -> None:
    """Every file stands once and in this folder, and together they have the rows that the manifest counts."""
    names = Counter(part.name for parts in listed.values() for part in parts)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise _changed(store, f"{twice[0]} listed twice")
    outside = [name for name in names if name.startswith("/") or ".." in name.split("/")]
    if outside:
        raise _changed(store, f"{outside[0]}, which lies outside")
    for kind, parts in listed.items():
        rows = [part.rows for part in parts]
        if kind in counts and None not in rows and sum(row or 0 for row in rows) != counts[kind]:
            found = sum(row or 0 for row in rows)
            raise _changed(store, f"files of {found} rows, and {counts[kind]} counted as {kind}")


def _changed(store: Store, found: str) -> DataError:
    return DataError(
        f"{MANIFEST} must list each file of its folder once, and all rows that it counts",
        found=found,
        where=store.uri,
        next_step="restore the file, or run the command that wrote the data set again",
    )


def licence_of(store: Store) -> str | None:
    """The licence of a data set's source, as its manifest states it; None where nobody said.

    Raises:
        DataError: no data set.
    """
    try:
        stated = read_manifest(store).get("licence")
    except FileNotFoundError:
        raise _no_dataset(store) from None
    return None if stated is None else str(stated)


def run_files(store: Store, kind: str) -> list[str]:
    """Files of one kind of outcome of a run: what its manifest lists or, while it is not finished, its records."""
    if store.exists(SUCCESS):
        return [part.name for part in listed_files(store).get(kind, ())]
    return committed_files(store, kind)


def is_dataset(store: Store) -> bool:
    """True for what is a data set, or is to become one when its run is finished."""
    return store.exists(SUCCESS) or store.exists(RUN)


def _no_dataset(store: Store) -> DataError:
    if store.exists(RUN):
        return DataError(
            "this data set is not finished", where=store.uri, next_step="run the command that writes it again"
        )
    found, next_step = None, "give the folder that ingest, phantom or augment wrote, or run jobs/ingest.py first"
    parent = store.parent()
    if parent is not None and parent.exists(SUCCESS):
        found, next_step = "one of its folders", f"give the whole data set, {parent.uri}"
    elif store.exists(f"augmented/{SUCCESS}"):
        found, next_step = "the folder of a job", f"give the rows that it made, {store.uri}/augmented"
    elif store.names("", ".parquet"):
        found, next_step = "Parquet files alone", "write them with augengine.io.dataset.write_dataset"
    return DataError(
        f"a data set is a folder with {MANIFEST} and {SUCCESS}, which says which files are its rows",
        found=found,
        where=store.uri,
        next_step=next_step,
    )


def _listed_by_older_versions(store: Store) -> dict[str, list[Part]]:
    """Files of a finished folder whose manifest lists none, or names alone: `part-<unit>.parquet` of committed units.

    Their row counts and hashes were not recorded.
    """
    done = committed_units(store)
    found: dict[str, list[Part]] = {}
    for folder in store.folders():
        sizes = store.sizes(folder)
        names = sorted(name for unit in done if (name := f"{folder}/part-{unit}.parquet") in sizes)
        if names:
            found[folder] = [Part(name, None, None, sizes[name]) for name in names]
    return found


def finish(store: Store, manifest: Mapping[str, Any], files: Mapping[str, Sequence[Part]]) -> None:
    """Write the manifest with its files and, last, the success mark."""
    listed = {kind: [part.to_json() for part in parts] for kind, parts in files.items()}
    store.write_json(MANIFEST, sealed({**manifest, "files": listed}))
    store.write_json(SUCCESS, {"counts": manifest["counts"]})


def begin(store: Store) -> None:
    """Take the success mark away: what the manifest lists may not hold until `finish`."""
    store.remove(SUCCESS)


def write_dataset(
    place: Place, tables: Iterable[pa.Table], *, kind: str = "samples", about: Mapping[str, Any] | None = None
) -> Store:
    """Write rows as a data set, one shard per table, replacing any that stood there.

    Args:
        tables: of the schema of `augengine.io.shards`.
        about: what else the manifest is to say.
    """
    store = Store.at(place)
    begin(store)
    parts = [write_part(store, kind, f"{n:05d}", table) for n, table in enumerate(tables)]
    rows = sum(part.rows or 0 for part in parts)
    finish(store, {"stage": "written", **(about or {}), "counts": {kind: rows}}, {kind: parts})
    return store


def below(folder: str, parts: Iterable[Part]) -> list[Part]:
    """Parts as a data set in `folder` itself names them."""
    return [replace(part, name=part.name.removeprefix(f"{folder}/")) for part in parts]
