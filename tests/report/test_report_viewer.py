"""The report in a real browser: what it draws, how keys and sliders move it, and that nothing of the data runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Page, chromium, open_page
from builders import lesion_sample, slice_sample
from report_runs import HOSTILE, edit, hostile_run, write_report_run

from augengine.gates.base import LESION
from augengine.report.contact_sheet import upright
from augengine.report.page.build import build_report

PROGRAM = chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")
DRAWN = "Boolean(document.body.dataset.drawn)"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    assert PROGRAM is not None
    with open_page(PROGRAM) as opened:
        yield opened


def show(page: Page, folder: Path, runs: list[str], audit_rows: int = 0, **options: object) -> None:
    file = folder / "report.html"
    file.write_bytes(build_report(runs, audit_rows=audit_rows))
    page.show(file, **options)  # type: ignore[arg-type]
    page.until(DRAWN)


def pixels(page: Page, canvas: int) -> np.ndarray:
    """A picture as shown, one value for each of its pixels (rows, columns, 3)."""
    found = page.value(
        f"(() => {{ const c = document.getElementById('canvas-{canvas}'); const z = c.width / rows[0].size[1];"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const out = [];"
        "for (let y = 0; y < c.height; y += z) for (let x = 0; x < c.width; x += z)"
        "{ const n = 4 * (Math.floor(y + z / 2) * c.width + Math.floor(x + z / 2)); out.push(...d.slice(n, n + 3)); }"
        "return [c.height / z, out]; })()"
    )
    return np.array(found[1], int).reshape(int(found[0]), -1, 3)


def test_three_pictures_show_what_the_rows_hold(page: Page, tmp_path: Path) -> None:
    source = lesion_sample(1)
    after = edit(source, "row", image=source.image + 200 * (source.label == 2) - 100 * (source.label == 5))
    show(page, tmp_path, [write_report_run(tmp_path, [source], accepted=[after])])
    page.value("at('regions').click()")
    low, width = -0.15 * 620, 1.3 * 620
    for n, image in enumerate((source.image[0], after.image[0])):
        grey = np.clip((upright(image) - low) / width, 0, 1) * 255
        assert np.abs(pixels(page, n)[..., 0] - grey).max() <= 1.5
    difference = pixels(page, 2)
    brighter, darker = upright(source.label == 2), upright(source.label == 5)
    rest = round(255 * (1 - 200 / width))
    assert np.abs(difference[brighter] - [255, rest, rest]).max() <= 1
    assert (difference[darker][:, 2] == 255).all()
    assert (difference[darker][:, 0] < 255).all()
    assert (difference[~brighter & ~darker] >= 254).all()
    before = pixels(page, 0)
    page.value("at('regions').click()")
    assert page.value("at('regions').checked")
    changed = page.value("[0, 1, 2].map((n) => at('canvas-' + n).toDataURL().length)")
    page.value("at('regions').click()")
    assert changed != page.value("[0, 1, 2].map((n) => at('canvas-' + n).toDataURL().length)")
    np.testing.assert_array_equal(pixels(page, 0), before)
    assert page.problems == []


def test_window_level_and_channel(page: Page, tmp_path: Path) -> None:
    source = lesion_sample(1)
    show(page, tmp_path, [write_report_run(tmp_path, [source], accepted=[edit(source, "row")])])
    page.value("at('regions').click()")

    def shade() -> float:
        return float(pixels(page, 0).mean())

    start = shade()
    page.value("(at('level').value = 130, at('level').dispatchEvent(new Event('input')))")
    assert shade() < start
    page.value("at('reset').click()")
    assert shade() == start
    page.value("(at('window').value = 50, at('window').dispatchEvent(new Event('input')))")
    assert float(pixels(page, 0).std()) > 0
    page.value("at('reset').click()")
    page.value("(at('channel').selectedIndex = 1, at('channel').dispatchEvent(new Event('change')))")
    page.until("document.body.dataset.drawn === 'row flair'")
    grey = np.clip((upright(source.image[1]) + 0.15 * 620) / (1.3 * 620), 0, 1) * 255
    assert np.abs(pixels(page, 0)[..., 0] - grey).max() <= 1.5


def test_the_channel_that_changed_most_is_shown_with_its_lesions_outlined(page: Page, tmp_path: Path) -> None:
    source = lesion_sample(1)
    image = source.image.copy()
    image[1] += 90
    show(page, tmp_path, [write_report_run(tmp_path, [source], accepted=[edit(source, "row", image=image)])])
    assert page.value("document.body.dataset.drawn") == "row flair"
    legend = "[...document.querySelectorAll('#legend span')].map((s) => s.textContent)"
    lesions = [name for name in source.labels if name in LESION]
    assert page.value(legend) == lesions
    marked = pixels(page, 0)[..., 0] != pixels(page, 0)[..., 2]
    assert not marked.any(), "outlines lie between the middles of pixels"
    few = page.value("at('canvas-0').toDataURL()")
    page.value("at('every').click()")
    assert page.value(legend) == list(source.labels)
    assert page.value("at('canvas-0').toDataURL()") != few
    healthy = slice_sample(1)
    show(page, tmp_path, [write_report_run(tmp_path / "healthy", [healthy], accepted=[edit(healthy, "row")])])
    assert page.value(legend) == ["fat"], "without lesions all labels are outlined"
    assert page.value("at('every').parentElement.hidden")


def test_keys_move_rows_and_slices(page: Page, tmp_path: Path) -> None:
    sources = [lesion_sample(s, at_mm=(-8.0, 0.0, 4.0), size=12, voxel_mm=8.0) for s in range(3)]
    made = [edit(s, f"row-{n}") for n, s in enumerate(sources)]
    show(page, tmp_path, [write_report_run(tmp_path, sources, accepted=made[:2], rejected=[(made[2], "too dark")])])
    page.value("at('panels').focus()")
    assert page.value("at('slice-value').textContent") == "5"
    page.key("ArrowUp")
    assert page.value("at('slice-value').textContent") == "6"
    grey = np.clip((upright(sources[0].image[0, ..., 6]) + 93) / 806, 0, 1) * 255
    page.value("at('regions').click()")
    assert np.abs(pixels(page, 0)[..., 0] - grey).max() <= 1.5
    page.value("at('panels').focus()")
    page.key("ArrowRight")
    page.until("document.body.dataset.drawn === 'row-1 t1'")
    page.key("ArrowLeft")
    page.until("document.body.dataset.drawn === 'row-0 t1'")
    page.key("ArrowLeft")
    page.until("document.body.dataset.drawn === 'row-2 t1'")
    assert "too dark" in page.value("at('facts').textContent")
    page.value("(at('filter').value = 'accepted', at('filter').dispatchEvent(new Event('change')))")
    page.until("document.body.dataset.drawn === 'row-0 t1'")
    assert page.value("at('row').options.length") == 2


def test_every_control_is_reached_by_tab(page: Page, tmp_path: Path) -> None:
    source = lesion_sample(1)
    show(page, tmp_path, [write_report_run(tmp_path, [source], accepted=[edit(source, "row")])])
    reached = set()
    for _ in range(25):
        page.key("Tab")
        reached.add(page.value("document.activeElement.id"))
    assert {"previous", "row", "next", "filter", "channel", "window", "level", "regions", "reset", "panels"} <= reached


def test_nothing_of_the_data_runs_or_is_fetched(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, [hostile_run(tmp_path)])
    for row in (1, 0):
        page.value(f"open({row})")
        page.until(f"document.body.dataset.drawn.includes('-{row + 1} ')")
    assert page.problems == []
    assert page.value("document.images.length") == 0
    assert page.value("window.hacked") is None
    assert HOSTILE in page.value("at('facts').textContent")
    assert page.value("document.title") == "augengine report: " + "/".join(tmp_path.joinpath("out").parts[-2:])
    # What would have got in all the same is stopped by the page's own policy.
    page.value("document.body.append(Object.assign(document.createElement('script'), {textContent: 'hacked = 2'}))")
    page.value("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"hacked=3\">')")
    failed = page.value("fetch('https://example.org/').then(() => 'fetched', () => 'refused')")
    assert (failed, page.value("window.hacked")) == ("refused", None)


@pytest.mark.parametrize(("width", "dark"), [(360, False), (390, True), (1200, False), (1200, True)])
def test_it_fits_a_phone_and_can_be_read_by_day_and_night(page: Page, tmp_path: Path, width: int, dark: bool) -> None:
    sources = [slice_sample(s) for s in range(4)]
    made = [edit(s, f"row-{n}", label=s.label * (n % 2)) for n, s in enumerate(sources)]
    run = write_report_run(tmp_path, sources, accepted=made[:3], rejected=[(made[3], "a reason " * 20)])
    show(page, tmp_path, [run, hostile_run(tmp_path / "hostile")], width=width, dark=dark, audit_rows=2)
    assert page.value("document.documentElement.scrollWidth") <= width
    low = page.value(
        """(() => {
        const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const back = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
            if (!/, 0\\)$/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
        const found = [];
        for (const e of document.querySelectorAll('body *')) {
            if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length)
                continue;
            const style = getComputedStyle(e);
            const [a, b] = [light(e.closest('svg') ? style.fill : style.color), light(back(e))].sort((x, y) => y - x);
            if ((a + 0.05) / (b + 0.05) < 4.5) found.push(e.outerHTML.slice(0, 80));
        }
        return found; })()"""
    )
    assert low == [], "text with too little contrast"
    assert page.problems == []


def test_a_screen_reader_hears_names_and_a_finger_meets_its_aim(page: Page, tmp_path: Path) -> None:
    source = lesion_sample(1, at_mm=(-8.0, 0.0, 4.0), size=12, voxel_mm=8.0)
    show(page, tmp_path, [write_report_run(tmp_path, [source], accepted=[edit(source, "row")])], width=390)
    page.send("Accessibility.enable")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    page.send("Accessibility.disable")
    roles = {"button", "combobox", "slider", "checkbox", "link", "image", "img", "heading", "region"}
    heard = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")]
    named = [(role, name) for role, name in heard if role in roles]
    assert len(named) > 20
    assert [one for one in named if not one[1]] == []
    levels = page.value(
        "[...document.querySelectorAll('h1,h2,h3,h4')].filter((h) => h.getClientRects().length)"
        ".map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(then - before <= 1 for before, then in itertools.pairwise(levels))
    small = page.value(
        "[...document.querySelectorAll('button, select, nav a, summary, .controls label')]"
        ".filter((e) => e.getClientRects().length).map((e) => [e.textContent.slice(0, 20), e.getBoundingClientRect()])"
        ".filter(([, box]) => box.height < 24 || box.width < 24).map(([name]) => name)"
    )
    assert small == [], "WCAG 2.2, 2.5.8: 24 pixels"


@pytest.mark.slow
def test_five_hundred_rows_open_in_three_seconds(page: Page, tmp_path: Path) -> None:
    sources = [slice_sample(s, i, size=96) for s in range(25) for i in range(20)]
    made = [edit(s, f"row-{n:03d}") for n, s in enumerate(sources)]
    run = write_report_run(tmp_path, sources, accepted=made)
    file = tmp_path / "report.html"
    file.write_bytes(build_report([run], rows=500))
    seconds = []
    for _ in range(3):  # the machine may be busy with something else
        started = time.monotonic()
        page.show(file)
        page.until(DRAWN)
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 3
    assert page.value("rows.length") == 500
