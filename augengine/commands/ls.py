"""A data set or run in; the files of its rows on the console out, for other tools to read."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from augengine.errors import ConfigError
from augengine.io.dataset import ROW_FOLDERS, listed_files
from augengine.io.store import Store
from augengine.pipeline.cluster import user_errors


def ls_command(
    data: Annotated[str, typer.Argument(help="Folder that ingest, phantom or augment wrote: a path or URI.")],
    kind: Annotated[str | None, typer.Option(help="samples, accepted, rejected, failed, …; default: the rows.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Names, rows, bytes and sha256 as JSON.")] = False,
) -> None:
    """Print the files that a finished data set lists, one path or URI a line: its rows are these and no others.

    Example: `duckdb -c "select count(*) from read_parquet([$(augengine ls DATA | sed "s/.*/'&'/" | paste -sd,)])"`
    """
    with user_errors():
        store = Store(data)
        files = listed_files(store)
        wanted = kind or next((name for name in ROW_FOLDERS if name in files), "")
        if wanted not in files:
            raise ConfigError(
                f"this folder has no files of kind '{wanted or 'samples'}'", found=", ".join(files) or "none",
                where="--kind", next_step="name one of those found",
            )  # fmt: skip
        parts = files[wanted]
        if as_json:
            listed = [{**part.to_json(), "uri": store.uri_of(part.name)} for part in parts]
            typer.echo(json.dumps({"kind": wanted, "files": listed}, indent=1))
        else:
            for part in parts:
                typer.echo(store.uri_of(part.name))
