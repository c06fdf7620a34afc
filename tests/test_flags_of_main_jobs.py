"""Flags that a main job would not obey: refused before any work, whatever the data are."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import slice_sample, write_checkpoint, write_samples
from typer.testing import CliRunner

from augengine.cli import app
from augengine.commands.augment import JobFlags, augment_brats


def refused(*words: str) -> str:
    """The one line that the command ends in."""
    found = CliRunner().invoke(app, ["augment", *words])
    assert found.exit_code == 2, found.output
    return " ".join(found.output.split())


def test_phantoms_are_read_from_no_images(tmp_path: Path) -> None:
    told = refused("--labels", "brats2021", "--size", "96", "--out", str(tmp_path / "out"))
    assert "without it the job makes phantoms; found --labels, --size" in told
    assert not (tmp_path / "out").exists()


def test_shards_are_not_read_as_images(tmp_path: Path) -> None:
    data = write_samples(tmp_path / "data", [slice_sample(1)])
    told = refused("--data", data, "--set", "echo_time_ms=2", "--out", str(tmp_path / "out"))
    assert "flags that say how images are read change no shards" in told
    assert "found --set" in told
    assert not (tmp_path / "out").exists()


def test_scans_have_no_phantom_subjects(tmp_path: Path) -> None:
    assert "--subjects counts phantoms" in refused("--data", str(tmp_path), "--subjects", "8")


def test_a_list_of_edits_takes_no_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        augment_brats(flags=JobFlags(out="somewhere", actors=2))
    assert "found --out, --actors" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "shipped"),
    [(["--data", "a", "--data", "b"], True), (["--data", "nowhere"], False), (["--set", "echo_time=3"], True)],
)
def test_only_a_path_may_be_missing_in_a_ray_job(
    monkeypatch: pytest.MonkeyPatch, words: list[str], shipped: bool
) -> None:
    monkeypatch.setattr("augengine.pipeline.cluster.in_ray_job", lambda: True)
    assert ("is not in it: give an absolute path" in refused(*words)) != shipped


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--out", ""], "--out: a value that is given is not empty"), (["--data", ""], "--data: a value that is given")],
)
def test_an_empty_value_is_not_the_working_directory(words: list[str], told: str) -> None:
    """A variable of the shell that is not set gives one."""
    assert told in refused(*words)


@pytest.mark.parametrize(
    "words",
    [
        "train pcf_unet_small --data {a} --data {a} --dry-run",
        "report {a} {a}/",
        "report {a} --figures {a} --figures {a}",
        "plan duke_acquisition {a} {a}",
        "advise {a} {b} {b}",
        "advise {a} {a}",
        "measure {a} {b} again={b}",
        "evaluate --data {a} --data {a}",
        "evaluate --data {a} --augmented {b} --augmented {b}",
        "evaluate --data {a} --augmented x={b} --augmented x={b}",
    ],
)
def test_a_folder_that_is_given_twice_is_not_counted_twice(tmp_path: Path, words: str) -> None:
    text = words.format(a=tmp_path / "a", b=tmp_path / "b")
    found = CliRunner().invoke(app, [*text.split()])
    assert (found.exit_code, "a folder is given twice" in found.output) == (2, True), found.output


def test_flags_of_a_training_are_refused_where_nothing_is_trained(tmp_path: Path) -> None:
    """Every role has a checkpoint, or the policy has none to train; with one that is missing, the flags are obeyed."""
    model, data = write_checkpoint(tmp_path / "model"), write_samples(tmp_path / "data", [slice_sample(1)])
    given = ["--data", data, "--out", str(tmp_path / "out"), "--workers", "2", "--recipe", "cddgm"]
    told = refused(*given, "--checkpoint", model)
    assert "these flags are of a training, and no model is to be trained; found --recipe, --workers; leave them" in told
    told = refused(*given[:-1], str(tmp_path / "none.yaml"))
    assert "none.yaml: no such configuration file" in told


@pytest.mark.parametrize("words", ["plan duke_acquisition x", "evaluate --data x"])
def test_a_column_needs_its_table(words: str) -> None:
    found = CliRunner().invoke(app, [*words.split(), "--site-column", "hospital"])
    assert found.exit_code == 2
    assert "--site-column is a column of --participants; found hospital" in " ".join(found.output.split())
