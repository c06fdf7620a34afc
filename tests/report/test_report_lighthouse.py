"""What page checkers ask of a report, without a browser: contrast, headings, names of controls, no foreign parts."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from builders import slice_sample
from report_runs import edit, hostile_run, write_report_run

from augengine.report.page.build import build_report

AA = 4.5
GRAPHICS = 3.0
"""WCAG 2.2, 1.4.3 and 1.4.11."""
TEXT_ON = {
    "ink": ("paper", "panel"),
    "soft": ("paper", "panel"),
    "link": ("paper",),
    "good": ("paper",),
    "bad": ("paper",),
    "warn-ink": ("warn",),
    **{f"g{n}": ("paper",) for n in range(6)},
}


def schemes() -> dict[str, dict[str, str]]:
    """Colours by name, in light and in dark; the dark ones stand over the light ones."""
    style = (files("augengine.report.page") / "style.css").read_text(encoding="utf-8")
    roots = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", root)) for root in re.findall(r":root \{([^}]*)\}", style)]
    light, dark = roots
    return {"light": light, "dark": {**light, **dark}}


def contrast(a: str, b: str) -> float:
    """Ratio of two colours, 1…21."""

    def light(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read(scheme: str) -> None:
    colours = schemes()[scheme]
    for name, grounds in TEXT_ON.items():
        for ground in grounds:
            assert contrast(colours[name], colours[ground]) >= AA, (name, ground)
    for name in ("good", "bad", *(f"g{n}" for n in range(6))):
        assert contrast(colours[name], colours["panel"]) >= GRAPHICS, f"{name} in a chart"
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


class Parts(HTMLParser):
    """Elements in order, with the elements around them and their own text."""

    VOID = ("meta", "input", "br", "link", "img", "hr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str], tuple[str, ...], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text: list[str] = []
        around = tuple(name for name, _ in self._open)
        self.found.append((tag, {key: value or "" for key, value in attrs}, around, text))
        if tag not in self.VOID:
            self._open.append((tag, text))

    def handle_endtag(self, tag: str) -> None:
        while self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for _, text in self._open:
            text.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("lighthouse")
    sources = [slice_sample(s) for s in range(4)]
    made = [edit(s, f"row-{n}", label=s.label * (n % 2)) for n, s in enumerate(sources)]
    run = write_report_run(folder, sources, accepted=made[:3], rejected=[(made[3], "why")])
    return build_report([run, hostile_run(folder / "hostile")], audit_rows=2).decode()


def test_headings_follow_each_other(page: str) -> None:
    levels = [int(tag[1]) for tag, *_ in Parts(page).found if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(then - before <= 1 for before, then in itertools.pairwise(levels))


def test_everything_that_is_used_or_looked_at_has_a_name(page: str) -> None:
    for tag, attributes, around, text in Parts(page).found:
        said = "".join(text).strip()
        if tag in ("select", "input"):
            assert "label" in around, attributes
        if tag in ("button", "a", "summary", "th", "title", "label", "option"):
            assert said, (tag, attributes)
        if tag == "canvas" or (tag == "svg" and "role" in attributes):
            assert (attributes["role"], bool(attributes["aria-label"])) == ("img", True)
        if tag == "th":
            assert attributes["scope"] == "col"
        if attributes.get("role") == "region":
            assert attributes["aria-label"]


def test_the_page_says_its_language_and_may_be_zoomed(page: str) -> None:
    found = Parts(page).found
    (html,) = [attributes for tag, attributes, *_ in found if tag == "html"]
    assert html["lang"] == "en"
    (viewport,) = [a["content"] for tag, a, *_ in found if tag == "meta" and a.get("name") == "viewport"]
    assert viewport == "width=device-width, initial-scale=1"
    ids = [attributes["id"] for _, attributes, *_ in found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_fetched(page: str) -> None:
    for tag, attributes, *_ in Parts(page).found:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert "style" not in attributes, "the security policy would refuse it"
    own = [(files("augengine.report.page") / name).read_text(encoding="utf-8") for name in ("style.css", "viewer.js")]
    assert not any(re.search(r"@import|url\(|fetch\(|https?://(?!www\.w3\.org/2000/svg)", text) for text in own)


def test_a_page_without_pictures_is_small(tmp_path: Path) -> None:
    sources = [slice_sample(s) for s in range(40)]
    run = write_report_run(tmp_path, sources, accepted=[edit(s, f"row-{n}") for n, s in enumerate(sources)])
    assert len(build_report([run], rows=0)) < 64 * 2**10
