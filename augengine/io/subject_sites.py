"""Shards and a table of participants in; the site of every subject out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from augengine.errors import DataError
from augengine.io.dataset import dataset_files
from augengine.io.participants import NOTHING, Participants
from augengine.io.shards import iter_metadata
from augengine.io.sources import SourceOptions
from augengine.io.store import Store


def sites_of(uris: Sequence[str], table: Path, column: str) -> dict[str, str]:
    """Subject id to the value of a column of a table of participants (`participant_id`, with or without `sub-`).

    Raises:
        ConfigError: the table lacks a column, or says two things of one participant.
        DataError: it says nothing of a subject.
    """
    rows = Participants.of(Path(), SourceOptions(participants=table, site_column=column)).rows
    people = {person for uri in uris for person in subjects(Store(uri))}
    found = {person: rows.get(person.removeprefix("sub-"), {}).get(column, "").strip() for person in people}
    unknown = sorted(person for person, site in found.items() if site.lower() in NOTHING)
    if unknown:
        raise DataError(
            f"the table of participants must state '{column}' of every subject",
            found=f"nothing of {unknown[0]} and {len(unknown) - 1} others",
            where=str(table),
            next_step="complete it, with the subject ids of the shards; or ingest with --site-column",
        )
    return found


def subjects(store: Store) -> set[str]:
    """Everyone in a data set."""
    return {row["subject_id"] for row in iter_metadata(store, dataset_files(store))}
