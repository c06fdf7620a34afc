"""Pages of figures, the reference and marked places are what the records and the code give; no figure is typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pages import blocks, records, results, robustness, speed, tables
from pages.__main__ import DOCS, generated
from pages.records import ROOT, names

NEXT = "run `make pages` and look at what has changed"


@pytest.fixture(scope="module")
def written() -> dict[Path, str]:
    return generated()


def test_every_generated_file_is_what_its_records_give(written: dict[Path, str]) -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in written.items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], NEXT


def test_no_other_page_lies_among_the_results(written: dict[Path, str]) -> None:
    assert {path for path in (DOCS / "results").rglob("*") if path.is_file()} <= set(written)


def test_every_record_is_shown_and_named_on_a_page() -> None:
    text = "".join(page.markdown() for page in results.pages())
    missing = [name for name in names() if f"results/{name}.json)" not in text]
    assert missing == [], "give each a section in pages/"


def test_readme_has_its_tables(written: dict[Path, str]) -> None:
    assert blocks.used((ROOT / "README.md").read_text()) == ["experiment"]
    used = [name for path in (ROOT / "README.md", *DOCS.rglob("*.md")) for name in blocks.used(path.read_text())]
    assert sorted(used) == sorted(blocks.BLOCKS), "a block that no page has, or two"


def test_prose_of_pages_of_figures_types_no_figure() -> None:
    for page in results.pages():
        for section in page.sections:
            found = _figures(section.text)
            told = [f for f in found if not any(f in table for table in (*section.tables, str(_values(section))))]
            assert told == [], f"{page.name}, {section.title}"


def test_a_changed_record_changes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in records.RESULTS.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    changed = json.loads((tmp_path / "augment_memory.json").read_text())
    changed["figures"]["runs"][0]["actor_peak_mib"] = 123456.0
    (tmp_path / "augment_memory.json").write_text(json.dumps(changed))
    before = results.texts()
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    after = results.texts()
    assert [name for name in after if after[name] != before[name]] == ["results/exactly-once.md"]
    assert "123456" in after["results/exactly-once.md"]


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [
        (0.9750, 2, False, "0.98"),
        (-0.0004, 3, True, "0.000"),
        (-0.0006, 3, True, "−0.001"),
        (0.4349, 2, True, "+0.43"),
        (12, 1, False, "12.0"),
        (1e-7, 3, False, "0.000"),
    ],
)
def test_numbers(value: float, digits: int, sign: bool, text: str) -> None:
    assert tables.number(value, digits, sign) == text


def test_tables_escape_and_keep_their_width() -> None:
    assert tables.table(["a", "max |Δ|"], [["1", "2"]]).splitlines()[0] == "| a | max \\|Δ\\| |"
    with pytest.raises(AssertionError):
        tables.table(["a", "b"], [["1"]])


def test_a_marker_of_no_block_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        blocks.filled("<!-- measured: nothing -->\n<!-- end -->")


def test_filling_twice_changes_nothing() -> None:
    once = blocks.filled("before\n<!-- measured: truth_real -->\nold\n<!-- end -->\nafter")
    assert blocks.filled(once) == once
    assert "old" not in once
    assert once.startswith("before\n")
    assert once.endswith("\nafter")


def _figures(text: str) -> list[str]:
    """Numbers with decimals or with a percent sign."""
    return re.findall(r"\d+\.\d+|\d+ %", text)


def _values(section: object) -> object:
    return [record.figures for record in section.records]  # type: ignore[attr-defined]


def test_kills_on_ray_are_summed_by_record_and_by_kind() -> None:
    text = robustness._kills_on_ray(
        {"killed": {"actor": 3, "worker": 4}},
        {"models": {"a": {"killed": {"killed_at_step": 7}}, "b": {"killed": {}}}},
        {"faults_by_kind": {"actor": {"faults": 2}, "full disk": {"faults": 9}}},
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    assert [line[1:] for line in cells] == [["3", "4", "7"], ["2", "0", "2"], ["0", "1", "1"], ["5", "5", "10"]]


def test_checksums_that_cost_more_than_their_bound_are_named() -> None:
    told = speed._bound(
        {
            "bound": 1.1,
            "rows": {
                "a": {"write": {"ratio": 1.02}, "read": {"ratio": 1.2}, "alone": {"ratio": 1.05}, "verify_ms": 3.0}
            },
        }
    )
    assert "not met by reading samples, a (1.200)" in told
    assert "alone, without making samples: met, at most 1.050" in told
