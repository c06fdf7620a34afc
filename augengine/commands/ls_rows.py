"""A run and an outcome in; the id of every row that ended so, and why, out: as lines or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

import typer

from augengine.errors import DataError
from augengine.io.dataset import SUCCESS, is_dataset, listed_files, run_files
from augengine.io.store import Store
from augengine.report.page.markup import visible
from augengine.yaml_config import unknown_name

OUTCOMES = ("accepted", "rejected", "failed", "skipped")
_COLUMNS = ("output_id", "sample_id", "parent_id", "subject_id", "reason")


def list_rows(store: Store, outcome: str, as_json: bool) -> None:
    """Print the rows of a run, finished or not; one row group is held at a time.

    Raises:
        ConfigError: no such outcome.
        DataError: it is no run, or a file of it is damaged.
    """
    if outcome not in OUTCOMES:
        raise unknown_name("outcome", outcome, OUTCOMES, "--outcome")
    kinds = listed_files(store) if is_dataset(store) and store.exists(SUCCESS) else OUTCOMES
    if not set(OUTCOMES) & set(kinds):
        raise DataError(
            "outcomes are those of a run of augment",
            found=f"a data set of {', '.join(kinds)}",
            where=store.uri,
            next_step="give the folder that augment reported, …/augmented",
        )
    if not as_json:
        for row in _rows(store, outcome):
            typer.echo(_line(f"{row['id']}  {row['reason']}".rstrip()))
        return
    between = "[\n "
    for row in _rows(store, outcome):
        typer.echo(between + json.dumps(row), nl=False)
        between = ",\n "
    typer.echo("\n]" if between.startswith(",") else "[]")


def _rows(store: Store, outcome: str) -> Iterator[dict[str, str]]:
    """Id, id of the source row, subject and reason; accepted rows have no reason."""
    for name in run_files(store, outcome):
        file = store.parquet(name)
        there = [column for column in _COLUMNS if column in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            for row in file.read_row_group(group, columns=there).to_pylist():
                made = "output_id" not in row  # what has no pixels names its source as sample_id
                yield {
                    "id": row["sample_id"] if made else row["output_id"],
                    "source": (row.get("parent_id") if made else row["sample_id"]) or "",
                    "subject": row["subject_id"],
                    "reason": row.get("reason") or "",
                }


def _line(text: str) -> str:
    """One line, whatever a file or header that is named in it says to a terminal."""
    return visible(text.replace("\n", " "))
