"""No link of README and docs is dead; each page says what it is for; README stays short."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pages import links
from pages.records import ROOT


def test_no_link_and_no_anchor_is_dead() -> None:
    found = links.pages()
    assert sum(1 for page in found for link in links.links(page) if link.local) > 200
    assert links.dead(found) == []


def test_every_page_opens_with_a_title_and_what_it_is_for() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        text = [line for line in page.read_text().splitlines() if line and not line.startswith("<!--")]
        assert text[0].startswith("# "), page
        if "decisions" in page.parts and page.name != "index.md":
            assert text[1].startswith("**Decided.**"), page
        else:
            opening = " ".join(text[1:4])
            assert any(word in opening for word in ("This page", "These pages", "This site")), page


def test_readme_and_records_of_decisions_are_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    for page in (ROOT / "docs/decisions").glob("*.md"):
        assert len(page.read_text().splitlines()) <= 30, page


def test_every_page_is_in_the_menu_once() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda *_: None)
    menu = _leaves(yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"])
    roots = {"readme.md", "contributing.md", "changelog.md"}
    found = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(menu) == sorted(found | roots)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[a](other.md)", []),
        ("[a](other.md#here-and-there)", []),
        ("[a](#own)", []),
        ("`[a](gone.md)`", []),
        ("```\n[a](gone.md)\n```", []),
        ("[a](https://example.org/gone.md)", []),
        ("[a](gone.md)", ["gone.md: no such file"]),
        ("![a](gone.png)", ["gone.png: no such file"]),
        ("[a](other.md#gone)", ["other.md#gone: no such heading"]),
        ("[a](#gone)", ["#gone: no such heading"]),
    ],
)
def test_what_is_dead(text: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# Other\n\n## Here, and `there`\n")
    (tmp_path / "page.md").write_text(f"# Own\n\n{text}\n")
    assert links.dead([tmp_path / "page.md"]) == [f"page.md:3: {t}" for t in found]


def _leaves(menu: object) -> list[str]:
    if isinstance(menu, str):
        return [menu]
    parts = menu.values() if isinstance(menu, dict) else menu
    return [leaf for part in parts for leaf in _leaves(part)]  # type: ignore[attr-defined]
