"""The whole of an export: what is written, what is refused, and that a folder is whole or goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from builders import write_checkpoint
from export_cohorts import LABELS, OBLIQUE, augmented, cohort, exported, slice_cohort, slices, volume, volume_cohort

from augengine.diffusion.checkpoint import read_spec, save_model, subject_hash, untrained
from augengine.errors import AugengineError, DataError, RunError
from augengine.export.monai import Monai
from augengine.export.run import STATE
from augengine.io.sealed import sealed
from augengine.io.store import Store
from augengine.leakage import LeakageError
from augengine.selection import Labels

SHEAR = np.eye(4)
SHEAR[0, 1] = 0.01


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "export.json").read_text())


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_case_leads_back_to_its_row_and_every_file_is_listed(tmp_path: Path) -> None:
    stores = slice_cohort(tmp_path)
    summary = exported(Monai(), stores, tmp_path / "out", licence="CC BY 4.0")
    about, files = record(tmp_path / "out"), files_of(tmp_path / "out")
    assert summary.counts == {"test real": 5, "train augmented": 15, "train real": 15, "val real": 5}
    assert len(about["cases"]) == 40
    assert about["licence"] == "CC BY 4.0"
    assert set(files) == {*about["files"], "export.json"}
    for name, values in about["files"].items():
        assert hashlib.sha256(files[name]).hexdigest() == values["sha256"]
    real = about["cases"]["S001-0002"]
    assert (real["sample_id"], real["split"], real["synthetic"]) == ("S001#0002", "train", False)
    made = [case for case in about["cases"].values() if case["synthetic"]]
    assert {case["split"] for case in made} == {"train"}
    assert {case["policy_digest"] for case in made} == {"d" * 32}
    assert sorted(case["parent"] for case in made) == sorted(f"S00{n}#000{k}" for n in range(3) for k in range(5))
    assert {file for case in about["cases"].values() for file in case["files"]} == set(about["files"]) - {
        "datalist.json"
    }


def test_values_and_labels_are_the_rows_own(tmp_path: Path) -> None:
    stores = volume_cohort(tmp_path)
    exported(Monai(), stores, tmp_path / "out", clear=False)
    sample = volume(1)
    flair = nib.load(tmp_path / "out/images/S001_flair.nii.gz")
    assert (np.asarray(flair.dataobj) == sample.image[1]).all()
    assert flair.get_data_dtype() == np.uint16  # whole numbers stay small
    label = np.asarray(nib.load(tmp_path / "out/labels/S001.nii.gz").dataobj)
    assert sample.label is not None
    for n, name in enumerate(LABELS, 1):
        assert ((label == n) == (sample.label == LABELS[name])).all()
    made = augmented(sample)
    (name,) = [n for n, c in record(tmp_path / "out")["cases"].items() if c["sample_id"] == made.sample_id]
    written = nib.load(tmp_path / f"out/images/{name}_t1.nii.gz")
    assert (np.asarray(written.dataobj) == made.image[0]).all()
    assert written.header["descrip"].item() == b"synthetic, augengine"
    assert flair.header["descrip"].item() == b"augengine"


def test_air_is_zero_where_the_source_has_zero(tmp_path: Path) -> None:
    """nnU-Net and others crop and normalise by what is not 0: synthetic air of 1 would set its case apart."""
    sample = volume(0)
    grown = augmented(sample)
    assert grown.label is not None
    label = grown.label.copy()
    label[0, 0, 0] = 2  # a lesion that was painted into the air stays
    grown = grown.replace(label=label)
    stores = cohort(tmp_path, [sample, volume(3), volume(4)], [grown])
    summary = exported(Monai(), stores, tmp_path / "out")
    name = f"syn-{grown.sample_id}"
    image = np.stack([nib.load(tmp_path / f"out/images/{name}_{c}.nii.gz").get_fdata() for c in ("t1", "flair")])
    air = (sample.image == 0).all(0) & (label == 0)
    assert air.sum() > 100
    assert (image[:, air] == 0).all()
    assert (image[:, ~air] == grown.image[:, ~air]).all()
    assert image[0, 0, 0, 0] == 400
    assert summary.cleared == record(tmp_path / "out")["cases"][name]["cleared_voxels"] == int(air.sum())


def test_the_same_command_again_writes_nothing(tmp_path: Path) -> None:
    stores = volume_cohort(tmp_path)
    first = exported(Monai(), stores, tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    again = exported(Monai(), stores, tmp_path / "out")
    assert (again.made, again.files, again.cleared) == (0, first.files, first.cleared)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == times
    assert not (tmp_path / "out" / STATE).exists()


def test_a_folder_with_anything_else_is_refused(tmp_path: Path) -> None:
    stores = volume_cohort(tmp_path)
    exported(Monai(), stores, tmp_path / "out")
    with pytest.raises(RunError, match="another export"):
        exported(Monai(), stores, tmp_path / "out", clear=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(RunError, match="folder of its own"):
        exported(Monai(), stores, tmp_path / "mine")


def test_what_is_not_committed_is_not_exported(tmp_path: Path) -> None:
    stores = volume_cohort(tmp_path)
    files = sorted((tmp_path / "run" / "accepted").iterdir())
    (tmp_path / "run" / "accepted" / "part-orphan-0123456789ab.parquet").write_bytes(files[0].read_bytes())
    assert exported(Monai(), stores, tmp_path / "out").counts["train augmented"] == 3
    (tmp_path / "run" / "_SUCCESS.json").unlink()
    with pytest.raises(AugengineError):
        exported(Monai(), stores, tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"channels": ("t1", "t2")}, "same channels"),
        ({"labels": {"necrosis": 1, "oedema": 2, "core": 4}}, "same labels"),
        ({"affine": OBLIQUE @ SHEAR}, "right angles"),
    ],
)
def test_rows_that_do_not_go_together_are_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], rule: str
) -> None:
    stores = cohort(tmp_path, [volume(0), volume(3), volume(1, **changes)])
    with pytest.raises(DataError, match=rule):
        exported(Monai(), stores, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    image = volume(1).image.copy()
    image[1, 3, 3, 3] = value
    stores = cohort(tmp_path, [volume(0), volume(3), volume(1, image=image)])
    with pytest.raises(RunError, match="finite numbers; found 1 voxels"):
        exported(Monai(), stores, tmp_path / "out")
    assert not (tmp_path / "out" / "export.json").exists()


def test_slices_and_volumes_do_not_mix(tmp_path: Path) -> None:
    stores = cohort(tmp_path, [volume(0), *slices(volume(3))])
    with pytest.raises(DataError, match="slices and volumes"):
        exported(Monai(), stores, tmp_path / "out")


def test_labels_are_chosen_and_joined_by_name(tmp_path: Path) -> None:
    stores = volume_cohort(tmp_path)
    exported(Monai(), stores, tmp_path / "out", labels=Labels.of({"lesion": ["necrosis", "enhancing"]}))
    label = np.asarray(nib.load(tmp_path / "out/labels/S001.nii.gz").dataobj)
    assert (label == np.isin(volume(1).label, (1, 4))).all()
    assert record(tmp_path / "out")["labels"] == ["lesion"]


class TestLeakage:
    """Nothing of a validation or test subject is in an augmented case."""

    def test_augmented_rows_of_other_splits_are_left_out(self, tmp_path: Path) -> None:
        rows = [volume(n) for n in range(5)]
        stores = cohort(tmp_path, rows, [augmented(row) for row in rows])
        summary = exported(Monai(), stores, tmp_path / "out")
        assert summary.counts["train augmented"] == 3
        assert summary.left_out["split"] == 2

    def test_a_held_out_subject_under_another_split_is_refused(self, tmp_path: Path) -> None:
        stores = cohort(tmp_path, [volume(n) for n in range(5)], [augmented(volume(4), split="train")])
        with pytest.raises(LeakageError, match="S004"):
            exported(Monai(), stores, tmp_path / "out")

    def test_a_source_of_a_held_out_subject_is_refused_whatever_the_row_says(self, tmp_path: Path) -> None:
        made = augmented(volume(3), split="train", subject_id="S000")
        stores = cohort(tmp_path, [volume(n) for n in range(5)], [made])
        for splits in (("train", "val", "test"), ("train",)):
            with pytest.raises(LeakageError, match="S003 is the subject of its source S003"):
                exported(Monai(), stores, tmp_path / "out", splits=splits)
        assert not (tmp_path / "out").exists()

    def test_a_donor_in_validation_is_refused(self, tmp_path: Path) -> None:
        stores = cohort(tmp_path, [volume(n) for n in range(5)], [augmented(volume(0), donors=["S003"])])
        with pytest.raises(LeakageError, match="S003 is a donor"):
            exported(Monai(), stores, tmp_path / "out")

    def test_a_generator_that_saw_a_test_subject_is_refused(self, tmp_path: Path) -> None:
        uri = write_checkpoint(tmp_path / "model", channels=("t1", "flair"))
        spec = read_spec(uri)
        for subject, refused in (("S002", False), ("S004", True)):
            hashed = spec.model_copy(update={"subject_hashes": (subject_hash(subject),), "untrained_seed": None})
            folder = tmp_path / f"model-{subject}"
            save_model(Store(str(folder)), hashed, untrained(hashed, 0).network.state_dict())
            sha256 = read_spec(str(folder)).sha256
            made = [augmented(volume(0), models={"generator": sha256})]
            stores = cohort(tmp_path / subject, [volume(n) for n in range(5)], made)
            options = {"checkpoints": (Store(str(folder)),)}
            if refused:
                with pytest.raises(LeakageError, match="S004 trained model"):
                    exported(Monai(), stores, tmp_path / subject / "out", **options)
            else:
                assert exported(Monai(), stores, tmp_path / subject / "out", **options).counts["train augmented"] == 1
        with pytest.raises(LeakageError, match="must be known"):
            exported(Monai(), stores, tmp_path / "unknown")

    def test_the_source_must_be_in_the_data(self, tmp_path: Path) -> None:
        stores = cohort(tmp_path, [volume(0), volume(3)], [augmented(volume(1))])
        with pytest.raises(DataError, match="source of every augmented row"):
            exported(Monai(), stores, tmp_path / "out")


class TestLicence:
    """The licence is the source's own."""

    def stated(self, folder: Path, licence: str) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(sealed({**manifest, "licence": licence})))

    def test_it_is_taken_from_the_manifest(self, tmp_path: Path) -> None:
        stores = volume_cohort(tmp_path)
        self.stated(tmp_path / "data", "CC BY-NC 4.0")
        exported(Monai(), stores, tmp_path / "out")
        assert record(tmp_path / "out")["licence"] == "CC BY-NC 4.0"
        assert json.loads((tmp_path / "out/datalist.json").read_text())["licence"] == "CC BY-NC 4.0"

    def test_a_flag_does_not_overrule_it(self, tmp_path: Path) -> None:
        stores = volume_cohort(tmp_path)
        self.stated(tmp_path / "data", "CC BY-NC 4.0")
        with pytest.raises(DataError, match="contradict"):
            exported(Monai(), stores, tmp_path / "out", licence="CC0")
