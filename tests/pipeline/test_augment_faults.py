"""What goes wrong in an augmentation: memory, NaN, dead processes, changed inputs; no row is lost or made twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import slice_sample, write_checkpoint, write_samples
from typer.testing import CliRunner

from augengine.commands.augment import exit_codes
from augengine.edits import EDITS
from augengine.errors import RunError
from augengine.io.commits import committed_files, committed_units
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.load import LoadedPolicy, load_policy
from augengine.pipeline.augment import AugmentSummary, augment
from augengine.pipeline.units import INLINE
from augengine.workflow import check_acceptable

POLICY = """\
version: 1
name: faults
edit: acquisition
params: {target: {empirical: {from: duke_protocols}}}
sampler: {steps: 2}
gates: [{name: changed, min: 0.0}]
output: {retries: 1, micro_batch: 4, max_fail_rate: 0.2}
"""
SAMPLES = [slice_sample(s, i) for s in range(2) for i in range(5)]
BAD = "S000#0001"
EDIT = EDITS["acquisition"]
APPLY = type(EDIT).apply_measured


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


def load(tmp_path: Path, text: str = POLICY) -> LoadedPolicy:
    (tmp_path / "policy.yaml").write_text(text)
    return load_policy(tmp_path / "policy.yaml")


def run(tmp_path: Path, checkpoint: str, text: str = POLICY, out: str = "out", **kwargs: Any) -> AugmentSummary:
    data = write_samples(tmp_path / "data", SAMPLES, per_file=5)
    models = {"generator": checkpoint}
    return augment(load(tmp_path, text), data, str(tmp_path / out), models, actors=INLINE, **kwargs)


def images(out: str) -> dict[str, bytes]:
    store = Store(out)
    samples = list(iter_samples(store, committed_files(store, "accepted")))
    assert len({s.sample_id for s in samples}) == len(samples), "a row was made twice"
    return {s.provenance.parent_id: s.image.tobytes() for s in samples}


def failed(out: str) -> list[dict[str, Any]]:
    store = Store(out)
    return [row for n in committed_files(store, "failed") for row in store.parquet(n).read().to_pylist()]


def test_where_memory_runs_out_the_batch_is_halved_until_it_fits(
    tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def two_fit(samples: Any, *args: Any) -> Any:
        sizes.append(len(samples))
        if len(samples) > 2:
            raise torch.OutOfMemoryError("planted")
        return APPLY(EDIT, samples, *args)

    monkeypatch.setattr(EDIT, "apply_measured", two_fit, raising=False)
    assert run(tmp_path, checkpoint).counts["accepted"] == 10
    assert sizes == [4, 2, 2, 4, 2] * 2  # 5 rows per unit: a batch of 4, and 1 padded to 4, then to 2


def test_a_row_that_fits_in_no_memory_fails_alone(
    tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def big(samples: Any, *args: Any) -> Any:
        if any(s.sample_id == BAD for s in samples):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return APPLY(EDIT, samples, *args)

    monkeypatch.setattr(EDIT, "apply_measured", big, raising=False)
    summary = run(tmp_path, checkpoint)
    assert summary.counts == {"accepted": 9, "rejected": 0, "failed": 1, "skipped": 0}
    assert [(r["sample_id"], r["stage"]) for r in failed(summary.out)] == [(BAD, "apply")]


def test_rows_that_are_no_numbers_fail(tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(samples: Any, *args: Any) -> Any:
        made = APPLY(EDIT, samples, *args)
        return [
            (s.replace(image=np.where(s.image > 0, np.nan, s.image)) if b.sample_id == BAD else s, measured)
            for b, (s, measured) in zip(samples, made, strict=True)
        ]

    monkeypatch.setattr(EDIT, "apply_measured", broken, raising=False)
    summary = run(tmp_path, checkpoint)
    assert summary.counts == {"accepted": 9, "rejected": 0, "failed": 1, "skipped": 0}
    assert "no numbers" in failed(summary.out)[0]["reason"]


def test_exit_code_3_says_which_limit_was_broken(
    tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(samples: Any, *args: Any) -> Any:
        if any(s.subject_id == "S000" for s in samples):
            raise ValueError("planted")
        return APPLY(EDIT, samples, *args)

    monkeypatch.setattr(EDIT, "apply_measured", broken, raising=False)
    summary = run(tmp_path, checkpoint)
    assert (summary.fail_rate, summary.acceptable) == (0.5, False)
    with pytest.raises(SystemExit) as caught, exit_codes():
        check_acceptable(summary)
    assert caught.value.code == 3
    text = capsys.readouterr().err
    assert "at most 20% of the rows may fail, found 50%" in text
    assert "failed: ValueError: planted (5 rows)" in text
    # The rate judges the run and decides no row: a higher one accepts the same rows, and nothing is made again.
    again = run(tmp_path, checkpoint, POLICY.replace("max_fail_rate: 0.2", "max_fail_rate: 0.6"))
    assert (again.acceptable, again.run.made) == (True, 0)
    check_acceptable(again)


def test_rows_of_a_divided_unit_have_the_same_bytes(tmp_path: Path, checkpoint: str) -> None:
    plain = run(tmp_path, checkpoint, out="plain")
    units = sorted(committed_units(Store(plain.out)))
    # As three deaths of whole units, and three more of one of its rows, would leave them.
    store = Store(str(tmp_path / "out"))
    for unit in units:
        for mark in (f"{unit}.1", f"{unit}.2"):
            store.write(f"_attempts/{mark}", b"gone")
    for n in (1, 2, 3):
        store.write(f"_attempts/{units[0]}-row0001.{n}", b"gone")
    divided = run(tmp_path, checkpoint)
    assert divided.counts == {"accepted": 9, "rejected": 0, "failed": 1, "skipped": 0}
    lost = failed(divided.out)[0]
    assert (lost["stage"], lost["reason"]) == ("process", "this work killed its process 3 times")
    expected = images(plain.out)
    del expected[lost["sample_id"]]
    assert images(divided.out) == expected


def test_a_new_version_stands_beside_the_old_one(tmp_path: Path, checkpoint: str) -> None:
    first = run(tmp_path, checkpoint)
    other = POLICY.replace("steps: 2", "steps: 3")
    with pytest.raises(RunError, match=r"another policy_digest.*--new-version"):
        run(tmp_path, checkpoint, other)
    second = run(tmp_path, checkpoint, other, new_version=True)
    assert second.out == f"{first.out}/v2"
    assert len(images(first.out)) == len(images(second.out)) == 10
    assert images(first.out) != images(second.out)
    assert run(tmp_path, checkpoint, other).run.made == run(tmp_path, checkpoint).run.made == 0


def test_other_pixels_under_the_same_ids_are_another_source(tmp_path: Path, checkpoint: str) -> None:
    data = write_samples(tmp_path / "data", SAMPLES, per_file=5)
    models, out = {"generator": checkpoint}, str(tmp_path / "out")
    augment(load(tmp_path), data, out, models, actors=INLINE)
    brighter = [s.replace(image=np.round(s.image * 1.1)) for s in SAMPLES]
    write_samples(tmp_path / "data", brighter, per_file=5)
    with pytest.raises(RunError, match="holds a run with another source"):
        augment(load(tmp_path), data, out, models, actors=INLINE)


def test_the_flag_reaches_the_job() -> None:
    from augengine.cli import app

    help_text = CliRunner().invoke(app, ["augment", "--help"], env={"COLUMNS": "200"}).output
    assert "--new-version" in help_text
    assert "--unit-timeout-s" in help_text
