"""Pages of Markdown in; their links and anchors out, and what is dead among them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pages.records import ROOT

_CODE = re.compile(r"^ *(```|~~~).*?^ *\1 *$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!\\)\]\(\s*([^)\s]+)(?:\s+\"[^\"]*\")?\s*\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*#*$", re.MULTILINE)


@dataclass(frozen=True)
class Link:
    """One link of a page: its line, and its target as it stands there."""

    page: Path
    line: int
    target: str

    @property
    def local(self) -> bool:
        """It leads to a file of the project, or to a place in the page."""
        return not re.match(r"[a-z][a-z0-9+.-]*:", self.target)

    @property
    def file(self) -> Path:
        """The file that it leads to."""
        path = self.target.partition("#")[0]
        return (self.page.parent / path).resolve() if path else self.page

    @property
    def anchor(self) -> str:
        """The place in it, or ""."""
        return self.target.partition("#")[2]


def pages() -> list[Path]:
    """Every page of the documentation."""
    roots = (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))
    return [*(path for path in roots if path.exists()), *sorted((ROOT / "docs").rglob("*.md"))]


def links(page: Path) -> Iterator[Link]:
    """The links of a page, those in code left out."""
    text = _CODE.sub(_blank, page.read_text(encoding="utf-8"))
    for found in _LINK.finditer(text):
        yield Link(page, text.count("\n", 0, found.start()) + 1, found[1])


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown and code hosts both make them."""
    text = re.sub(r"^ *(```|~~~).*?^ *\1 *$", _blank, page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in _HEADING.finditer(text):
        name = slug(heading[1])
        number, first = 0, name
        while name in found:
            number += 1
            name = f"{first}-{number}"
        found.add(name)
    return found


def slug(heading: str) -> str:
    """The anchor of a heading: lower case, without marks, with a hyphen for every space."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def dead(found: Iterable[Path]) -> list[str]:
    """One line for each link to a file or a heading that is not there."""
    problems = []
    for page in found:
        for link in links(page):
            place = f"{page.relative_to(ROOT)}:{link.line}: {link.target}"
            if not link.local:
                continue
            if not link.file.exists():
                problems.append(f"{place}: no such file")
            elif not link.file.is_relative_to(ROOT):
                problems.append(f"{place}: outside the project")
            elif link.anchor and link.file.suffix == ".md" and link.anchor not in anchors(link.file):
                problems.append(f"{place}: no such heading")
    return problems


def _blank(code: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", code[0])
