"""A table of participants goes in; who a volume's participant is, and at which site, comes out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from augengine.errors import ConfigError, DataError
from augengine.io.sources import Source, SourceOptions
from augengine.io.tables import records, table_rows
from augengine.yaml_config import unknown_name

KEY = "participant_id"
# BIDS writes n/a; tables that went through other programs hold these.
NOTHING = ("", "n/a", "na", "nan", "none", "null")


@dataclass(frozen=True)
class Participants:
    """Rows of the table by participant; empty where nothing is asked for.

    Attributes:
        table: the file.
        rows: participant (without `sub-`) to the row's values by column.
        subject_column, site_column: what is asked for; None where it is not.
    """

    table: Path | None = None
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    subject_column: str | None = None
    site_column: str | None = None

    @classmethod
    def of(cls, root: Path, options: SourceOptions) -> Participants:
        """The stated table, or BIDS' `participants.tsv` in the root; a table that nobody asks for is not read.

        Raises:
            ConfigError: columns are asked for and there is no table, or it lacks them; a table without a column to
                read; a column that stands twice; rows of one participant that disagree.
        """
        wanted = [column for column in (options.subject_column, options.site_column) if column]
        if not wanted:
            if options.participants is not None:
                raise ConfigError(
                    "--participants needs a column to read",
                    found=options.participants.name,
                    next_step="give --subject-column or --site-column, or leave it out",
                )
            return cls()
        beside = root / "participants.tsv"
        table = options.participants or (beside if beside.is_file() else None)
        if table is None:
            raise ConfigError(
                "a column of participants needs their table", found=wanted[0], next_step="give --participants FILE"
            )
        rows = table_rows(table)
        columns = rows[0] if rows else []
        for column in [KEY, *wanted]:
            if column not in columns:
                raise unknown_name("column", column, [c for c in columns if c], str(table))
            if Counter(columns)[column] > 1:
                raise ConfigError("a column may stand once in a table", found=column, where=str(table))
        by_name = _by_participant(records(rows), wanted, str(table))
        return cls(table, by_name, options.subject_column, options.site_column)

    def files(self, root: Path) -> list[str]:
        """The table, if it lies below the root; a link counts as the file that it is listed as."""
        if self.table is None:
            return []
        places = (Path(os.path.abspath(self.table)), self.table.resolve())
        return [place.relative_to(root).as_posix() for place in places if place.is_relative_to(root)][:1]

    def subject(self, source: Source) -> str | None:
        """The person that the table names for a volume; None if it was not asked for.

        Raises:
            DataError: the table does not hold the participant, or leaves the cell empty.
        """
        return self._value(source, self.subject_column)

    def site(self, source: Source) -> str | None:
        """The site that the table names for a volume; None if it was not asked for. Raises as `subject` does."""
        return self._value(source, self.site_column)

    def _value(self, source: Source, column: str | None) -> str | None:
        if column is None:
            return None
        row = self.rows.get((source.participant or "").removeprefix("sub-"))
        value = (row or {}).get(column, "").strip()
        if value.lower() in NOTHING:
            found = "no row" if row is None else "an empty cell"
            raise DataError(
                f"the table of participants must state '{column}' of every volume",
                found=found,
                next_step=f"complete the table; its column '{KEY}' must hold the names that the data set uses",
            )
        return value


def _by_participant(rows: list[dict[str, str]], wanted: list[str], where: str) -> dict[str, Mapping[str, str]]:
    """Rows by participant; several of one participant must agree on what is asked for."""
    found: dict[str, Mapping[str, str]] = {}
    for row in rows:
        name = row[KEY].removeprefix("sub-")
        if not name:
            continue
        first = found.setdefault(name, row)
        for column in wanted:
            if first.get(column, "") != row.get(column, ""):
                raise ConfigError(
                    f"rows of one participant must agree on '{column}'",
                    found=f"{row[KEY]}: {first.get(column, '')} and {row.get(column, '')}",
                    where=where,
                    next_step="correct the table",
                )
    return found
