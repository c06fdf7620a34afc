"""`augengine plan` by site: of the rows themselves, or of a table of participants, over several data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import slice_sample, write_samples
from typer.testing import CliRunner

from augengine.cli import app

POLICY = """\
version: 1
name: sites
edit: acquisition
select: {where: {manufacturer: SIEMENS}}
params: {target: {empirical: {from: samples, where: {manufacturer: GE MEDICAL SYSTEMS}}}}
sampler: {steps: 2}
gates: [{name: changed, min: 0.0}]
output: {per_input: 2}
"""


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """Bonn has subjects 0 to 3, Turin 4 to 6, of whom the odd are Siemens's; the second data set does not say."""
    sites = {s: "Bonn" if s < 4 else "Turin" for s in range(7)}
    (tmp_path / "policy.yaml").write_text(POLICY)
    stated = [slice_sample(s, i, site=site) for s, site in sites.items() for i in range(3)]
    write_samples(tmp_path / "stated", stated)
    write_samples(tmp_path / "silent", [slice_sample(s) for s in range(7, 11)])
    return ["plan", str(tmp_path / "policy.yaml"), str(tmp_path / "stated")]


def told(*flags: str) -> tuple[int, dict[str, str]]:
    """Exit code, and what each line of the tables says; the last words stand under an empty name."""
    result = CliRunner().invoke(app, list(flags), env={"COLUMNS": "200"})
    rows = [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in result.output.splitlines()]
    return result.exit_code, {row[0]: row[1] for row in rows if len(row) == 2} | {"": result.output}


def test_rows_are_counted_by_site(flags: list[str]) -> None:
    code, lines = told(*flags, "--site", "Turin", "--site", "Bonn")
    assert code == 0, lines[""]
    assert [name for name in lines if name.startswith("requested at")] == ["requested at Turin", "requested at Bonn"]
    assert lines["requested at Bonn"] == "12, of 6 of 12 rows"
    assert lines["requested at Turin"] == "6, of 3 of 9 rows"
    code, lines = told(*flags)
    assert code == 0
    assert not [name for name in lines if name.startswith("requested at")]


def test_a_table_states_the_sites_of_several_data_sets(flags: list[str], tmp_path: Path) -> None:
    table = tmp_path / "participants.tsv"
    rows = [f"S{s:03d}\t{'Rome' if s in (1, 7) else 'Pisa'}" for s in range(11)]
    table.write_text("\n".join(["participant_id\thospital", *rows]) + "\n")
    where = ["--participants", str(table), "--site-column", "hospital"]
    code, lines = told(*flags, str(tmp_path / "silent"), *where)
    assert code == 0, lines[""]
    first, second = lines[""].split("silent", 1)
    assert "requested at Rome" in first
    assert "6, of 3 of 3 rows" in first
    assert "2, of 1 of 1 rows" in second
    code, lines = told(*flags, *where, "--site", "Rom")
    assert (code, "did you mean 'Rome'" in lines[""]) == (2, True)


def test_rows_that_state_no_site_are_refused(flags: list[str], tmp_path: Path) -> None:
    code, lines = told(flags[0], flags[1], str(tmp_path / "silent"), "--site", "Bonn")
    assert code == 2
    assert "a plan by site needs rows that state theirs" in lines[""]
    code, lines = told(*flags, "--site", "Bon")
    assert (code, "did you mean 'Bonn'" in lines[""]) == (2, True)
