"""A data set or run in, the files that hold its rows out, or the rows of one outcome, as lines or as JSON."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

import typer

from augengine.commands.ls_rows import OUTCOMES, list_rows
from augengine.errors import ConfigError, DataError
from augengine.io.dataset import ROW_FOLDERS, listed_files
from augengine.io.parts import Part
from augengine.io.store import Store
from augengine.pipeline.cluster import user_errors
from augengine.yaml_config import unknown_name


def ls_command(
    data: Annotated[str, typer.Argument(help="Data set or augmented run: a path or any fsspec URI.")],
    folder: Annotated[
        str | None, typer.Option(help="Kind of rows: accepted, rejected, failed, …; default: those of the data set.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Paths, rows, bytes and sha256 as JSON.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read every file and compare its sha256 first.")] = False,
    outcome: Annotated[
        str | None, typer.Option(help=f"Of an augmented run: ids and reasons of its rows, {', '.join(OUTCOMES)}.")
    ] = None,
) -> None:
    """Print the files of a finished data set (nothing else in it is data), or by --outcome a run's ids and reasons.

    Example: augengine ls runs/duke_phantom/augmented --outcome rejected
    """
    with user_errors():
        store = Store(data)
        if outcome is not None:
            if folder or check:
                raise ConfigError(
                    "--outcome lists rows, --folder and --check are of files",
                    next_step="give one of them",
                )
            list_rows(store, outcome, as_json)
            return
        files = listed_files(store)
        kind = folder or next(name for name in (*ROW_FOLDERS, *files) if name in files)
        if kind not in files:
            raise unknown_name("kind of rows", kind, list(files), store.uri)
        for part in files[kind]:
            if check:
                _check(store, part)
        if as_json:
            typer.echo(json.dumps([_told(store, part) for part in files[kind]], indent=1))
            return
        for part in files[kind]:
            typer.echo(store.uri_of(part.name))


def _told(store: Store, part: Part) -> dict[str, Any]:
    return {"path": store.uri_of(part.name), "rows": part.rows, "bytes": part.bytes, "sha256": part.sha256}


def _check(store: Store, part: Part) -> None:
    try:
        found = hashlib.sha256(store.read(part.name)).hexdigest()
    except FileNotFoundError:
        raise DataError("a listed file is missing", where=store.path(part.name)) from None
    if part.sha256 not in (None, found):
        raise DataError(
            f"a listed file has the sha256 {part.sha256}",
            found=found,
            where=store.path(part.name),
            next_step="restore it, or make the data set anew",
        )
