"""In a Ray job's log no error of an ingest names a file of the source; on a user's own terminal it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from identifiers import FILE, FOLDER, found_in, plant_nifti
from mri_files import write_nifti
from typer.testing import CliRunner

from augengine.cli import app
from augengine.errors import ConfigError, DataError, RunError
from augengine.io.dataset import dataset_files
from augengine.io.shards import iter_samples
from augengine.io.store import Store
from augengine.pipeline.nameless import nameless

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def ingested(*arguments: str, code: int) -> str:
    done = CliRunner().invoke(app, ["ingest", *arguments, "--inline"])
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.parametrize("json", [(), ("--json",)])
def test_masks_without_labels_are_refused_without_the_file_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, json: tuple[str, ...]
) -> None:
    plant_nifti(tmp_path / "source")
    command = [str(tmp_path / "source"), "--out", str(tmp_path / "out"), *json]
    assert FILE in ingested(*command, code=2)
    monkeypatch.setenv(JOB, "{}")
    text = ingested(*command, code=2)
    assert "the meaning of their codes must be stated" in text
    assert "give --labels name=code,..." in text
    for word in (FILE, FOLDER, "quxanna"):
        assert word.lower() not in text.lower()


def test_the_hint_on_time_points_holds_no_pattern_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(2):
        for scan in "ab":
            write_nifti(tmp_path / f"in/{FOLDER}_{n}/{FILE}_{scan}_t1.nii.gz", np.full((8, 8, 4), 5 + n, np.int16))
    command = [str(tmp_path / "in"), "--channels", "t1=*_t1.nii.gz", "--size", "8"]
    text = " ".join(ingested(*command, "--out", str(tmp_path / "a"), code=0).split())
    assert "patients with several scans each" in text
    assert "--subject 'ZQFOLDER" in text
    monkeypatch.setenv(JOB, "{}")
    text = " ".join(ingested(*command, "--out", str(tmp_path / "b"), code=0).split())
    assert "patients with several scans each" in text
    assert "state --subject REGEX" in text
    assert "--subject '.+'" in text
    assert "zqf" not in text.lower()


def test_words_flags_and_the_root_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root/masks").mkdir(parents=True)
    (tmp_path / "root/masks/Smith_19431127.nii.gz").write_bytes(b"")
    monkeypatch.setenv(JOB, "{}")
    with pytest.raises(ConfigError) as caught, nameless(tmp_path / "root"):
        raise ConfigError(
            "masks or labels are stated",
            where="--mask",
            found="masks/Smith_19431127.nii.gz, Smith and 3 others",
            next_step="try --mask 'Smith_*'",
        )
    assert str(caught.value) == "--mask: masks or labels are stated; found …, … and 3 others; try --mask '…'"
    with pytest.raises(RunError) as other, nameless(tmp_path / "root"):
        raise RunError("no space left", where=str(tmp_path / "out"), found=7)
    assert str(other.value) == f"{tmp_path / 'out'}: no space left; found 7"


def test_an_absolute_path_below_the_root_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "root/Smith/t1.nii.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    error = DataError("this file is damaged", where=str(path))
    with pytest.raises(DataError) as caught, nameless(tmp_path / "root"):
        raise error
    assert caught.value is error, "not in a job"
    monkeypatch.setenv(JOB, "{}")
    with pytest.raises(DataError) as hidden, nameless(tmp_path / "root"):
        raise error
    assert "Smith" not in str(hidden.value)
    assert "this file is damaged" in str(hidden.value)


def test_labels_of_bids_names_are_no_part_of_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is often named by its date."""
    source = tmp_path / "source"
    for session in ("20030319", "20040320", "2"):
        for run in (1, 2):
            name = f"sub-ZQID77310/ses-{session}/anat/sub-ZQID77310_ses-{session}_acq-Zqprotocol_run-{run}_T1w.nii.gz"
            write_nifti(source / name, np.random.default_rng(run).integers(1, 900, (8, 8, 4)).astype(np.int16))
    monkeypatch.setenv(JOB, "{}")
    text = ingested(str(source), "--out", str(tmp_path / "out"), "--size", "8", code=0)
    assert not [word for word in ("20030319", "zqprotocol", "zqid") if word in text.lower()]
    assert found_in(tmp_path / "out", ("20030319", "20040320", "zqprotocol", "zqid7731")) == {}
    store = Store(str(tmp_path / "out"))
    volumes = {sample.volume_id for sample in iter_samples(store, dataset_files(store))}
    assert len(volumes) == 6
    assert len({volume.split("_")[0] for volume in volumes}) == 1
    assert sum("_ses-2_" in volume for volume in volumes) == 2
    assert sum(volume.endswith("_run-1_T1w") for volume in volumes) == 3


def test_public_ids_keep_the_labels(tmp_path: Path) -> None:
    name = "sub-a/ses-20030319/anat/sub-a_ses-20030319_T1w.nii.gz"
    write_nifti(tmp_path / "in" / name, np.random.default_rng(1).integers(1, 900, (8, 8, 4)).astype(np.int16))
    ingested(str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--public-ids", code=0)
    store = Store(str(tmp_path / "out"))
    assert {s.volume_id for s in iter_samples(store, dataset_files(store))} == {"sub-a_ses-20030319_T1w"}
