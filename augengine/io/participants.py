"""A table of participants goes in; who a volume's participant is, and at which site, comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from augengine.errors import ConfigError, DataError
from augengine.io.sources import Source, SourceOptions
from augengine.io.tables import records, table_rows
from augengine.yaml_config import unknown_name

KEY = "participant_id"


@dataclass(frozen=True)
class Participants:
    """Rows of the table by participant; empty where there is none.

    Attributes:
        table: the file.
        rows: participant (as written, and without `sub-`) to the row's values by column.
        subject_column, site_column: what is asked for; None where it is not.
    """

    table: Path | None = None
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    subject_column: str | None = None
    site_column: str | None = None

    @classmethod
    def of(cls, root: Path, options: SourceOptions) -> Participants:
        """The stated table, or BIDS' `participants.tsv` in the root.

        Raises:
            ConfigError: columns are asked for and there is no table, or it lacks them.
        """
        beside = root / "participants.tsv"
        table = options.participants or (beside if beside.is_file() else None)
        wanted = [column for column in (options.subject_column, options.site_column) if column]
        if table is None:
            if wanted:
                raise ConfigError(
                    "a column of participants needs their table", found=wanted[0], next_step="give --participants FILE"
                )
            return cls()
        rows = records(table_rows(table))
        columns = list(rows[0]) if rows else []
        for column in [KEY, *wanted] if wanted or options.participants else []:
            if column not in columns:
                raise unknown_name("column", column, columns, str(table))
        by_name = {row[KEY].removeprefix("sub-"): row for row in rows if row.get(KEY)}
        return cls(table, by_name, options.subject_column, options.site_column)

    def files(self, root: Path) -> list[str]:
        """The table, if it lies below the root and was asked for anything."""
        used = self.table is not None and (self.subject_column or self.site_column)
        inside = used and self.table is not None and self.table.resolve().is_relative_to(root)
        return [self.table.resolve().relative_to(root).as_posix()] if inside and self.table is not None else []

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
        if value in ("", "n/a"):
            found = "no row" if row is None else "an empty cell"
            raise DataError(f"the table of participants must state '{column}' of every volume", found=found)
        return value
