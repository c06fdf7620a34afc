"""Whole rows of the scanner table are drawn, and fat saturation can be taken away."""

from __future__ import annotations

import csv
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from augengine.edits.targets import Empirical
from augengine.errors import DataError
from augengine.load import load_mixture
from augengine.phantom import protocols
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.phantom.protocols import (
    GE,
    SIEMENS,
    draw_protocol,
    duke_protocols,
    is_fat_saturated,
    plausible_protocols,
    without_fat_saturation,
)
from augengine.records import Acquisition
from augengine.report.invented import say_invented, say_invented_targets


def test_table_is_complete() -> None:
    rows = duke_protocols()
    assert len(rows) == 52
    assert sum(p.patients for p in rows) == 922
    assert sum(p.patients for p in rows if p.manufacturer == GE) == 628
    assert all(is_fat_saturated(p.acquisition(0.5)) for p in rows)


def test_packaged_table_equals_the_source(real_data: Path) -> None:
    with (real_data / "A9_duke_protocol" / "duke_protocol_joint_counts.csv").open() as file:
        source = [(r["model"], r["scan_options"], int(r["n"]), float(r["te_med"])) for r in csv.DictReader(file)]
    assert source == [(p.model, p.scan_options, p.patients, p.echo_time_ms[1]) for p in duke_protocols()]


def test_the_package_s_own_protocols_differ_by_vendor_as_duke_s_do() -> None:
    rows = plausible_protocols()
    assert {p.manufacturer for p in rows} == {GE, SIEMENS}
    assert {p.model for p in rows}.isdisjoint({p.model for p in duke_protocols() if p.model != "Skyra"})
    assert all(is_fat_saturated(p.acquisition(0.5)) for p in rows)
    for table in (rows, duke_protocols()):
        longest = max(p.echo_time_ms[2] for p in table if p.manufacturer == SIEMENS)
        assert longest < min(p.echo_time_ms[0] for p in table if p.manufacturer == GE)
        assert sum(p.patients for p in table if p.manufacturer == GE) / sum(p.patients for p in table) == pytest.approx(
            0.68, abs=0.01
        )


@pytest.fixture
def without_duke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where the wheel is installed."""
    monkeypatch.setattr(protocols, "_CHECKOUT", tmp_path / "licensed/duke_protocols.csv")
    monkeypatch.delenv(protocols.DUKE_FILE, raising=False)


def test_without_duke_s_table_phantoms_and_policies_take_the_own_one_and_state_it(without_duke: None) -> None:
    cohort = Cohort(subjects=8)
    assert cohort.model_dump(mode="json")["protocols"] == "plausible"
    assert {cohort.acquisition(n).model for n in range(8)} <= {p.model for p in plausible_protocols()}
    assert Cohort.model_validate_json(cohort.model_dump_json()) == cohort
    drawn = Empirical.model_validate({"from": "duke_protocols"})
    assert drawn.model_dump()["table"] == "plausible"
    assert drawn.protocols == plausible_protocols()
    assert "table" not in Empirical.model_validate({"from": "samples"}).model_dump()
    with pytest.raises(DataError, match=r"CC BY-NC 4\.0 and do not come with the package; found no file; name a copy"):
        duke_protocols()


def test_a_copy_of_duke_s_table_is_taken_from_where_the_user_says(
    without_duke: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "mine.csv"
    copy.write_bytes((Path(__file__).parents[2] / "licensed/duke_protocols.csv").read_bytes())
    monkeypatch.setenv(protocols.DUKE_FILE, str(copy))
    assert sum(p.patients for p in duke_protocols()) == 922
    assert "protocols" not in Cohort().model_dump()
    monkeypatch.setenv(protocols.DUKE_FILE, str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match=r"none\.csv: the protocols of Duke"):
        Cohort().acquisition(0)
    copy = tmp_path / "other.csv"
    copy.write_text("a,b\n1,2\n")
    monkeypatch.setenv(protocols.DUKE_FILE, str(copy))
    with pytest.raises(DataError, match=r"other\.csv: a table of protocols has the columns of licensed"):
        duke_protocols()


def test_with_duke_s_table_the_identity_of_phantoms_and_policies_is_what_it_was() -> None:
    assert "protocols" not in Cohort().model_dump()
    assert "table" not in Empirical.model_validate({"from": "duke_protocols"}).model_dump()
    own = Cohort(subjects=4, protocols="plausible")
    assert {own.acquisition(n).model for n in range(4)} <= {p.model for p in plausible_protocols()}


def test_the_wheel_holds_the_own_table_alone() -> None:
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        packaged = tomllib.load(file)["tool"]["setuptools"]["package-data"]["augengine.phantom"]
    tables = Path(protocols.__file__).parent.glob("*.csv")
    assert [path.name for path in tables] == packaged == ["plausible_protocols.csv"]


def test_draws_are_whole_rows_weighted_by_patients() -> None:
    rng = np.random.default_rng(3)
    drawn = [draw_protocol(rng) for _ in range(4000)]
    for a in drawn:
        matching = [
            p
            for p in duke_protocols()
            if (p.manufacturer, p.model, p.field_strength_t, p.scan_options, p.flip_angle_deg, p.slice_thickness_mm)
            == (a.manufacturer, a.model, a.field_strength_t, a.scan_options, a.flip_angle_deg, a.slice_thickness_mm)
        ]
        assert len(matching) == 1
        (low, _, high), (te_low, _, te_high) = matching[0].repetition_time_ms, matching[0].echo_time_ms
        assert low <= (a.repetition_time_ms or 0) <= high
        assert te_low <= (a.echo_time_ms or 0) <= te_high
    share = Counter(a.manufacturer for a in drawn)[SIEMENS] / len(drawn)
    assert share == pytest.approx(294 / 922, abs=0.03)


def test_echo_and_repetition_time_share_one_quantile() -> None:
    row = max(duke_protocols(), key=lambda p: p.patients)
    low, middle, high = (row.acquisition(q) for q in (0.0, 0.5, 1.0))
    assert (low.repetition_time_ms, low.echo_time_ms) == (row.repetition_time_ms[0], row.echo_time_ms[0])
    assert (middle.repetition_time_ms, middle.echo_time_ms) == (row.repetition_time_ms[1], row.echo_time_ms[1])
    assert (high.repetition_time_ms, high.echo_time_ms) == (row.repetition_time_ms[2], row.echo_time_ms[2])


def test_draws_of_one_manufacturer() -> None:
    rng = np.random.default_rng(0)
    assert {draw_protocol(rng, manufacturer=SIEMENS).manufacturer for _ in range(20)} == {SIEMENS}
    with pytest.raises(DataError, match="known: GE MEDICAL SYSTEMS, SIEMENS"):
        draw_protocol(rng, manufacturer="ACME")


def test_removing_fat_saturation_changes_the_options_alone() -> None:
    before = Acquisition(manufacturer=GE, scan_options="FAST_GEMS\\SAT_GEMS\\MP_GEMS\\PFP\\FS", echo_time_ms=2.4)
    after = without_fat_saturation(before)
    assert after == before.replace(scan_options="FAST_GEMS\\MP_GEMS\\PFP")
    assert is_fat_saturated(before)
    assert not is_fat_saturated(after)
    assert without_fat_saturation(after) == after
    assert without_fat_saturation(Acquisition(scan_options="FS")).scan_options is None
    assert is_fat_saturated(Acquisition(scan_options="PFP\\SFS"))
    assert not is_fat_saturated(Acquisition())


def test_invented_protocols_are_said_on_the_console_once_each(
    without_duke: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "the package's invented ones, not Duke's; AUGENGINE_DUKE_PROTOCOLS=FILE names a table of Duke's"
    say_invented(Cohort())
    say_invented(BrainCohort())
    say_invented_targets(load_mixture("duke_acquisition"))
    told = " ".join(capsys.readouterr().out.split())
    assert told == f"protocols of the phantom: {own} protocols of the policy: {own}"
    monkeypatch.undo()
    say_invented(Cohort())
    say_invented_targets(load_mixture("duke_acquisition"))
    assert capsys.readouterr().out == ""
