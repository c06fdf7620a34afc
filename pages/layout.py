"""Sections in; the text of a page of figures out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pages.records import Record

NOTE = "<!-- Written by `make pages` from benchmarks/results; change the record or pages/, not this file. -->"


@dataclass(frozen=True)
class Section:
    """A part of a page: what was asked, and the tables that answer.

    Attributes:
        text: what the tables show, without figures of its own: `tests/pages` looks for typed ones.
        records: the records that the tables are made of; their commands are told below the text.
        tables: Markdown, made of these records.
    """

    title: str
    text: str
    records: Sequence[Record]
    tables: Sequence[str]

    def markdown(self) -> str:
        """The section as it stands in the page."""
        sources = "\n".join(f"- {record.source}" for record in self.records)
        return "\n\n".join([f"## {self.title}", self.text, *self.tables, f"From:\n\n{sources}"])


@dataclass(frozen=True)
class Page:
    """A page of figures below `docs/results`."""

    name: str
    title: str
    purpose: str
    sections: Sequence[Section]

    def markdown(self) -> str:
        """The whole page, as its file holds it."""
        return "\n\n".join([f"# {self.title}", NOTE, self.purpose, *(s.markdown() for s in self.sections)]) + "\n"
