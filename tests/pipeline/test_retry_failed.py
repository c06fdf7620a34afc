"""Failed rows are tried again on demand, they alone; what was made stays, byte for byte, whatever dies meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import slice_sample, write_checkpoint, write_samples
from typer.testing import CliRunner

from augengine.cli import app
from augengine.edits import EDITS
from augengine.io.commits import RETRIED, committed_files, committed_units, find_record, read_records
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.load import load_policy
from augengine.pipeline.augment import AugmentSummary, augment
from augengine.pipeline.retry import joined, set_failed_aside
from augengine.pipeline.units import INLINE, Actors

POLICY = """\
version: 1
name: retry
edit: acquisition
params: {target: {empirical: {from: duke_protocols}}}
sampler: {steps: 2}
gates: [{name: changed, min: 0.0}]
output: {micro_batch: 4, max_fail_rate: 0.9}
"""
SAMPLES = [slice_sample(s, i) for s in range(2) for i in range(5)]
EDIT = EDITS["acquisition"]
APPLY = type(EDIT).apply_measured


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("retry")
    (folder / "policy.yaml").write_text(POLICY)
    return {
        "policy": str(folder / "policy.yaml"),
        "data": write_samples(folder / "data", SAMPLES, per_file=5),
        "model": write_checkpoint(folder / "model"),
    }


def run(given: dict[str, str], out: Path, *, actors: Actors = INLINE, **options: Any) -> AugmentSummary:
    policy = load_policy(given["policy"])
    return augment(policy, given["data"], str(out), {"generator": given["model"]}, actors=actors, **options)


def images(out: Path) -> dict[str, bytes]:
    store = Store(str(out))
    samples = list(iter_samples(store, committed_files(store, "accepted")))
    assert len({s.sample_id for s in samples}) == len(samples), "a row was made twice"
    return {s.provenance.parent_id: s.image.tobytes() for s in samples}


def break_rows(patch: pytest.MonkeyPatch, *bad: str) -> list[str]:
    """Rows of these ids raise in the edit; returns the ids of all that it is asked for, as they come."""
    asked: list[str] = []

    def apply(samples: Any, *args: Any) -> Any:
        asked.extend(s.sample_id for s in samples)
        if any(s.sample_id in bad for s in samples):
            raise RuntimeError("planted")
        return APPLY(EDIT, samples, *args)

    patch.setattr(EDIT, "apply_measured", apply, raising=False)
    return asked


BAD = ("S000#0001", "S000#0003")


@pytest.fixture
def out(given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run in which two rows of one unit failed."""
    with monkeypatch.context() as patch:
        break_rows(patch, *BAD)
        summary = run(given, tmp_path / "out")
    assert (summary.counts["accepted"], summary.counts["failed"]) == (8, 2)
    return tmp_path / "out"


def test_failed_rows_alone_are_made_and_equal_those_of_a_run_without_failures(
    given: dict[str, str], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = set(committed_files(Store(str(out)), "accepted"))
    assert run(given, out).run.made == 0, "without the flag they stay as they are"
    asked = break_rows(monkeypatch)
    summary = run(given, out, retry_failed=True)
    assert set(asked) == set(BAD)
    assert summary.counts == {"accepted": 10, "rejected": 0, "failed": 0, "skipped": 0}
    assert (summary.run.made, summary.run.retried) == (1, {"accepted": 2})
    assert json.loads((out / "manifest.json").read_text())["retried"] == {"accepted": 2}
    assert not summary.reasons
    run(given, tmp_path / "plain")
    assert images(out) == images(tmp_path / "plain")
    assert kept < set(committed_files(Store(str(out)), "accepted"))
    assert not list((out / "failed").iterdir()), "their old rows are swept"
    assert not list((out / RETRIED).iterdir())
    again = run(given, out, retry_failed=True)
    assert (again.run.made, again.run.retried) == (0, {"accepted": 2})


def test_rows_that_fail_again_are_counted_once(
    given: dict[str, str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_rows(patch, BAD[1])
        summary = run(given, out, retry_failed=True)
    assert (summary.counts["accepted"], summary.counts["failed"]) == (9, 1)
    assert summary.run.retried == {"accepted": 1, "failed": 1}
    assert summary.reasons == {"failed": [("RuntimeError: planted", 1)]}
    last = run(given, out, retry_failed=True)
    assert (last.counts["accepted"], last.counts["failed"], last.run.retried) == (10, 0, {"accepted": 2})


def test_a_retry_that_dies_is_gone_on_with_without_the_flag(
    given: dict[str, str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = images(out)

    def dies(samples: Any, *args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EDIT, "apply_measured", dies, raising=False)
        with pytest.raises(KeyboardInterrupt):
            run(given, out, retry_failed=True)
    assert not (out / "_SUCCESS.json").exists()
    assert len(committed_units(Store(str(out)))) == 1
    asked = break_rows(monkeypatch)
    summary = run(given, out)
    assert set(asked) == set(BAD)
    assert (summary.counts["accepted"], summary.run.retried) == (10, {"accepted": 2})
    assert before.items() < images(out).items()


def test_a_death_between_setting_aside_and_opening_changes_nothing(given: dict[str, str], out: Path) -> None:
    store = Store(str(out))
    done = read_records(store)
    unit = next(u for u, record in done.items() if record.counts["failed"])
    assert set_failed_aside(store, done).keys() == done.keys() - {unit}
    store.write(f"_commits/{unit}.json", store.read(f"{RETRIED}/{unit}.json"))
    summary = run(given, out)
    assert (summary.run.made, summary.counts["failed"], summary.run.retried) == (0, 2, {})


def test_where_a_row_that_was_made_is_damaged_its_unit_is_made_anew(given: dict[str, str], out: Path) -> None:
    store = Store(str(out))
    done = read_records(store)
    set_failed_aside(store, done)
    unit = next(u for u, record in done.items() if record.counts["failed"])
    store.remove(done[unit].files["accepted"][0].name)
    summary = run(given, out)
    assert (summary.counts["accepted"], len(images(out))) == (10, 10)


def test_what_single_rows_came_to_does_not_stand_for_a_retry(given: dict[str, str], tmp_path: Path) -> None:
    """A run that divided a unit, lost a row of it for good and was not finished."""
    out = tmp_path / "out"
    run(given, tmp_path / "plain")
    unit = sorted(committed_units(Store(str(tmp_path / "plain"))))[0]
    store = Store(str(out))
    marks = [f"{unit}.1", f"{unit}.2", *(f"{unit}-row0001.{n}" for n in (1, 2, 3))]
    for mark in marks:
        store.write(f"_attempts/{mark}", b"gone")
    assert run(given, out).counts["failed"] == 1
    failed = find_record(store, unit)
    assert failed is not None
    store.write(f"_rows/{unit}-row0000.json", store.read(f"_commits/{unit}.json"))
    for mark in marks:
        store.write(f"_attempts/{mark}", b"gone")
    summary = run(given, out, retry_failed=True)
    assert (summary.counts["accepted"], summary.counts["failed"]) == (10, 0)
    assert images(out) == images(tmp_path / "plain")


def test_joined_records_count_every_row_once(given: dict[str, str], out: Path) -> None:
    record = next(r for r in read_records(Store(str(out))).values() if r.counts["failed"])
    twice = joined(record, record)
    assert sum(twice.counts.values()) == 5 - 2 + 5
    assert twice.seconds == pytest.approx(2 * record.seconds, abs=2e-3)


@pytest.mark.slow
def test_a_time_limit_that_was_too_short_loses_no_row_for_good(
    ray_session: None, given: dict[str, str], tmp_path: Path
) -> None:
    """The command itself, on Ray: nothing is done in ten microseconds. One row, since each death takes seconds."""
    data = write_samples(tmp_path / "data", SAMPLES[:1], per_file=1)
    command = [
        "augment",
        "--data",
        data,
        "--policy",
        given["policy"],
        "--checkpoint",
        given["model"],
        "--out",
        str(tmp_path / "run"),
        "--actors",
        "1",
    ]
    short = CliRunner().invoke(app, [*command, "--unit-timeout-s", "0.00001"])
    assert short.exit_code == 3, short.output
    assert "killed its process, or ran for more than 1e-05 s, 3 times (1 rows)" in short.output
    again = CliRunner().invoke(app, command)
    assert (again.exit_code, "units made 0" in again.output) == (3, True)
    retried = CliRunner().invoke(app, [*command, "--retry-failed"])
    assert retried.exit_code == 0, retried.output
    assert "rows that had failed and were tried again: 1 accepted" in retried.output
    run({**given, "data": data}, tmp_path / "plain")
    assert images(tmp_path / "run/augmented") == images(tmp_path / "plain")
