"""A report in; its elements, tables, texts and the rows of its viewer out, as a browser would see them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any


class Seen(HTMLParser):
    """The elements of a page with their attributes, its tables as texts, and the content of its scripts."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        here = self._open[-1] if self._open else ""
        if here == "script":
            self.scripts[-1] += data
        elif here != "style":
            self.text += data
            if "td" in self._open[-2:] or "th" in self._open[-2:]:
                self.tables[-1][-1][-1] += data

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the viewer."""
        found: list[dict[str, Any]] = json.loads(self.scripts[0])["rows"]
        return found

    def table(self, *columns: str) -> list[list[str]]:
        """The first table with these columns, without its head."""
        return next(t[1:] for t in self.tables if t[0] == list(columns))
