"""MkDocs' hook: pages as they are linked on disk in; a site whose links all stay in it out.

Pages link to files of the project that lie outside `docs`: pictures, records, scripts, modules. On a code host these
links work as they stand. For the site every such file is copied below `project/`, and the links are bent to it;
README, CONTRIBUTING and CHANGELOG become pages. So the site needs no address of a repository, and no network.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from pages.links import Link, links, pages, slug
from pages.records import ROOT

DOCS = ROOT / "docs"
COPIES = "project"
PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def place(file: Path) -> str:
    """Where a file of the project stands in the site's source: `policies.md`, `project/jobs/slurm/ray.sh`."""
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix()
    name = file.relative_to(ROOT).as_posix()
    if name in PAGES:
        return PAGES[name]
    return f"{COPIES}/{name}.txt" if file.suffix in (".md", ".py", ".sh", ".yaml", ".toml", "") else f"{COPIES}/{name}"


def bent(text: str, page: Path, source: str) -> str:
    """The text of a page, with every link to a file of the project as the site has it."""
    for link in {found.target: found for found in links(page) if found.local}.values():
        new = posixpath.relpath(place(link.file), posixpath.dirname(source) or ".")
        new += f"#{link.anchor}" if link.anchor else ""
        text = re.sub(rf"(\]\(\s*){re.escape(link.target)}(?=[\s)])", rf"\g<1>{new}", text)
    return text


def linked() -> list[Link]:
    """Every link of a page to a file of the project outside `docs`."""
    return [
        link
        for page in pages()
        for link in links(page)
        if link.local and link.file.is_file() and not link.file.is_relative_to(DOCS)
    ]


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to."""
    for name, source in PAGES.items():
        if (ROOT / name).exists():
            files.append(File.generated(config, source, abs_src_path=str(ROOT / name)))
    for file in sorted({link.file for link in linked()}):
        source = place(file)
        if source not in PAGES.values():
            files.append(File.generated(config, source, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Bend the links of a page."""
    path = Path(page.file.abs_src_path).resolve()
    return bent(markdown, path, page.file.src_uri)


def anchor(text: str, separator: str) -> str:
    """Anchors of headings, as `pages.links` and code hosts make them."""
    assert separator == "-"
    return slug(text)
