"""Mistakes at the command line: one line on stderr with rule, value and next step; exit code 2; no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import slice_sample, write_checkpoint, write_samples
from typer.testing import CliRunner

from augengine.cli import app
from augengine.commands.augment import JobFlags, augment_brats
from augengine.edits import EDITS
from augengine.errors import RunError
from augengine.pipeline.cluster import output_uri

ROOT = Path(__file__).parents[1]


def invoke(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["augment", *args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "empty").mkdir()
    (tmp_path / "typo.yaml").write_text(
        (ROOT / "augengine/policies/duke_acquisition.yaml").read_text().replace("gates:", "gatez:")
    )
    return {
        "shards": write_samples(tmp_path / "shards", [slice_sample(1)]),
        "empty": str(tmp_path / "empty"),
        "typo": str(tmp_path / "typo.yaml"),
        "policy": "duke_acquisition",
        "absent": str(tmp_path / "absent"),
        "checkpoint": write_checkpoint(tmp_path / "model"),
        "flair": write_checkpoint(tmp_path / "flair", channels=("flair",)),
        "out": str(tmp_path / "out"),
    }


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("--data {absent} --policy {policy} --checkpoint {checkpoint}", "no such file or folder; found {absent}"),
        ("--data {empty} --policy {policy} --checkpoint {checkpoint}", "{empty}: "),
        ("--data {shards} --policy {typo} --checkpoint {checkpoint}", "typo.yaml:28: unknown key 'gatez'"),
        ("--data {shards} --policy {absent} --checkpoint {checkpoint}", "no such configuration file"),
        ("--data {shards} --policy {policy} --checkpoint {absent}", "a checkpoint folder holds"),
        ("--data {shards} --policy {policy} --checkpoint {flair}", "trained on channels flair; found t1"),
        ("--data {shards} --policy {policy} --recipe {absent}", "no such configuration file"),
        ("--data {empty} --policy {policy} --layout dukee", "did you mean 'duke'"),
        ("--data {empty} --policy {policy} --set echo_time=3", "did you mean 'echo_time_ms'"),
        ("--data {empty} --policy {policy} --size 3", "--size: "),
        ("--policy {policy} --subjects 0", "--subjects: "),
    ],
)
def test_mistakes_are_one_line(ray_session: None, files: dict[str, str], args: str, says: str) -> None:
    code, errors = invoke(*args.format(**files).split(), "--out", files["out"])
    assert code == 2, errors
    assert says.format(**files) in errors
    assert errors.startswith("error: ")
    assert errors.strip().count("\n") == 0


def test_a_relative_output_is_refused_in_a_ray_job(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    code, errors = invoke("--out", "runs/here")
    assert code == 2
    assert "must be an absolute path or a URI" in errors
    assert Path(output_uri(None, "x")).is_absolute()
    assert output_uri("s3://bucket/run", "x") == "s3://bucket/run"
    with pytest.raises(RunError, match="two slashes"):
        output_uri("s3:/bucket/run", "x")


def test_brats_without_data_lists_every_edit(capsys: pytest.CaptureFixture[str]) -> None:
    augment_brats(flags=JobFlags())
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in EDITS)
